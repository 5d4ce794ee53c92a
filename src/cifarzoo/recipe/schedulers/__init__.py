"""Learning-rate schedules: the library's own, timm's, and those that anybody registers."""

from cifarzoo.recipe.schedulers import ours as ours  # registers them
from cifarzoo.recipe.schedulers.registry import (
    SchedulerFactory,
    build_scheduler,
    check_scheduler,
    list_schedulers,
    register_scheduler,
)

__all__ = [
    "SchedulerFactory",
    "build_scheduler",
    "check_scheduler",
    "list_schedulers",
    "register_scheduler",
]
