"""Stock layers that compute our way, for the time of a block."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from collections.abc import Iterator

import torch
from torch import nn

from cifarzoo.compute.cpu.attention import replace_attention, restore_attention
from cifarzoo.compute.cpu.conv import Conv2d
from cifarzoo.compute.cpu.lookup import GELU, SiLU
from cifarzoo.compute.cpu.norm import BatchNorm1d, BatchNorm2d
from cifarzoo.compute.cpu.pool import MaxPool2d
from cifarzoo.compute.cpu.standin import StandIn
from cifarzoo.names import check_kind

__all__ = ["cpu_kernels"]

_OURS: dict[type[nn.Module], type[nn.Module]] = {
    ours.stock: ours for ours in (Conv2d, BatchNorm1d, BatchNorm2d, MaxPool2d, GELU, SiLU)
}
_lock = threading.Lock()
_users: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def cpu_kernels(model: nn.Module, *, enabled: bool = True) -> Iterator[None]:
    """Make layers of ``model`` faster on a CPU, within a ``with`` block.

    Layers that are exactly ``nn.Conv2d``, ``nn.BatchNorm1d``, ``nn.BatchNorm2d``, ``nn.MaxPool2d``,
    ``nn.GELU`` or ``nn.SiLU`` then compute the same in another way where that is faster, and so
    does ``torch.nn.functional.scaled_dot_product_attention``. Outputs and gradients are equal
    except for rounding. In training, a batch of one value per channel is normalized by the running
    statistics, where torch raises an error. Also in training, a normalization may return a tensor
    of a special class. Its numbers are computed when they are used, in the same pass as an
    activation behind it. It can be used like any other tensor, with two exceptions that raise an
    error: a hook on it must be registered before an activation or addition uses it, and a map that
    was added to it must stay as it is until the sum is used. Some layers are left alone:
    subclasses, layers with hooks, layers that stand in several places of the network, and layers on
    other devices.

    Blocks may be nested and overlap, also from several threads. The last one that ends puts the
    stock layers back. A copy or a pickle of the network that is made inside has stock layers.

    Args:
        model: Any module.
        enabled: Whether to change anything; False leaves all layers as they are.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> with cpu_kernels(model):
        ...     inside = type(model[0]) is nn.Conv2d
        >>> inside, type(model[0]) is nn.Conv2d
        (False, True)
    """
    check_kind("model", model, nn.Module, "create_model(name) builds one")
    layers = _plain_layers(model) if enabled else []
    may_wait = enabled and not any(_is_compiled(module) for module in model.modules())
    waits_for = "depthwise" if any(_is_depthwise(layer) for layer in layers) else "activation"
    with _lock:
        if layers and not _users:
            replace_attention()
        for layer in layers:
            _users[layer] = _users.get(layer, 0) + 1
            if type(layer) in _OURS:
                layer.__class__ = _OURS[type(layer)]
                if may_wait:
                    layer.__dict__["waits_for"] = waits_for
    try:
        yield
    finally:
        with _lock:
            for layer in layers:
                _users[layer] -= 1
                if not _users[layer]:
                    del _users[layer]
                    layer.__dict__.pop("waits_for", None)
                    if isinstance(layer, StandIn):
                        layer.__class__ = layer.stock  # type: ignore[assignment]  # as it was
            if layers and not _users:
                restore_attention()


def _plain_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that may compute another way, each once."""
    places = Counter(id(layer) for _, layer in model.named_modules(remove_duplicate=False))
    return [
        layer
        for layer in model.modules()
        if (type(layer) in _OURS or isinstance(layer, StandIn))
        and places[id(layer)] == 1
        and not _has_hooks(layer)
        and "forward" not in layer.__dict__
        and all(parameter.device.type == "cpu" for parameter in layer.parameters())
    ]


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def _is_compiled(module: nn.Module) -> bool:
    """Whether a compiler made it, whose code takes ordinary tensors only."""
    if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
        return True
    return getattr(module, "_compiled_call_impl", None) is not None


def _has_hooks(layer: nn.Module) -> bool:
    return any(value for name, value in [*layer.__dict__.items()] if name.endswith("_hooks"))
