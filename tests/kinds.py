"""The networks of the zoo, and of each kind the one with the least arithmetic.

Networks of a family that are made of the same classes differ by their sizes only: what takes long
is tested on one of them.
"""

from __future__ import annotations

import cifarzoo
from cifarzoo.zoo.builds import plan

__all__ = ["KINDS", "MODELS"]

MODELS = cifarzoo.list_models()


def _kind(name: str) -> tuple[str | None, frozenset[str]]:
    spec = cifarzoo.get_model_info(name)
    planned = plan(spec.builder, {})
    assert planned is not None
    return spec.family, frozenset(type(module).__name__ for module in planned.model.modules())


def _cheapest() -> list[str]:
    found: dict[tuple[str | None, frozenset[str]], str] = {}
    for name in sorted(MODELS, key=lambda name: cifarzoo.get_model_info(name).macs):
        found.setdefault(_kind(name), name)
    return sorted(found.values())


KINDS = _cheapest()
