"""The command ``cifarzoo``."""

from cifarzoo.cli.application import app

from cifarzoo.cli.zoo import data, info, models, summary  # isort: skip  (the order of the help)
from cifarzoo.cli.train import train  # isort: skip
from cifarzoo.cli.evaluate import calibrate, evaluate, report  # isort: skip
from cifarzoo.cli.predict import predict  # isort: skip
from cifarzoo.cli.verify import verify  # isort: skip

__all__ = [
    "app",
    "calibrate",
    "data",
    "evaluate",
    "info",
    "main",
    "models",
    "predict",
    "report",
    "summary",
    "train",
    "verify",
]


def main() -> None:
    """Run the command line."""
    app()
