"""What the server of children has at hand, so that each of them starts within milliseconds.

A child shares the server's memory until one of the two writes there. Python's collector writes into
every object that it looks at, so it must not look at those that are there before the fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib

_NAMES = (
    "cifarzoo.cli",
    "cifarzoo.evaluation",
    "cifarzoo.models",
    "cifarzoo.training.trainer",
    # what others import late
    "PIL.Image",
    "PIL.WebPImagePlugin",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "numpy.ctypeslib",
    "pydantic.type_adapter",
    "rich.markdown",
    "rich.progress",
    "rich.table",
    "safetensors.torch",
    "timm",
    "tomli_w",
    "torch._dynamo",  # with the first step of an optimizer
    "torchinfo",
    "torchvision",
    "typer.rich_utils",
)

for _name in _NAMES:
    with contextlib.suppress(ImportError):  # plots are an extra
        importlib.import_module(_name)
gc.collect()
gc.freeze()
