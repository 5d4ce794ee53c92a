"""The zoo for torch.hub: ``torch.hub.load("cifarzoo/cifarzoo", "resnet20", pretrained=True)``.

Each model of the zoo has its name here, and takes the arguments of ``cifarzoo.create_model``.
"""

import functools as _functools
import sys as _sys
from pathlib import Path as _Path

dependencies = [
    *("torch", "torchvision", "timm", "numpy", "safetensors", "pydantic"),
    *("platformdirs", "filelock"),
]

# torch.hub installs nothing: the package is the one that lies beside this file
_source = str(_Path(__file__).parent / "src")
_sys.path.insert(0, _source)
try:
    import cifarzoo as _cifarzoo
finally:
    _sys.path.remove(_source)


def _entry(name):
    create = _functools.partial(_cifarzoo.create_model, name)
    create.__doc__ = (
        f"{_cifarzoo.get_model_info(name).description}\n\n{_cifarzoo.create_model.__doc__}"
    )
    return create


for _name in _cifarzoo.list_models():
    globals()[_name] = _entry(_name)
