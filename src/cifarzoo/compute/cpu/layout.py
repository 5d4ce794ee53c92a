"""The memory format that each layer computes fastest in, for the time of a block."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.cpu.depthwise import computed_dtype, has_torchs_fault
from cifarzoo.compute.cpu.standin import StandIn
from cifarzoo.compute.twin import evaluating
from cifarzoo.compute.unchanged import unchanged

__all__ = ["fast_layout", "needs_contiguous"]

_WIDE = 512  # channels of output
_FEW_PIXELS = 16  # of output
_USUAL_SIZE = 32  # pixels


@contextlib.contextmanager
def fast_layout(
    model: nn.Module, image_size: int | None = None, *, enabled: bool = True
) -> Iterator[None]:
    """Within the block, parameters lie in the memory format their layer computes fastest in.

    That is channels_last. On a CPU it is the contiguous one for wide convolutions on maps of a few
    pixels, where oneDNN's kernels for its own blocked layout are up to 1.7 times as fast. Those
    take their input in that format within `cpu_kernels`. Afterwards every tensor lies as before.

    A network that calls ``x.view(len(x), -1)`` on a map works with contiguous maps only. It keeps
    its parameters as they are, and images of any format become contiguous before they reach it.

    The state of a fused optimizer lies as its parameters did when it was made, and torch does not
    look. So such an optimizer is made within the block, and makes all its steps there.

    Args:
        model: Any module.
        image_size: Height and width of the images it will see; None for unknown.
        enabled: False leaves the parameters as they are.
    """
    strides = {tensor: tensor.stride() for tensor in _maps(model)} if enabled else {}
    for tensor in _with_gradients(strides):
        _, channels, height, width = tensor.shape
        # contiguous() would leave the strides of 1x1 filters, by which torch chooses its layout
        last = (channels * height * width, 1, channels * width, channels)
        tensor.data = _with_strides(tensor.data, last)
    narrow: list[nn.Conv2d] = []
    hooks = [
        layer.register_forward_pre_hook(_avoid_torchs_fault)
        for layer in model.modules()
        if has_torchs_fault(layer) and not isinstance(layer, StandIn)  # which avoids it
    ]
    if not _takes_channels_last(model, image_size, narrow):
        _put_back(strides)
        strides = {}
        hooks.append(model.register_forward_pre_hook(_make_contiguous))
    elif enabled:
        for layer in narrow:
            layer.to(memory_format=torch.contiguous_format)
            layer.__dict__["keeps_contiguous"] = True
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in narrow:
            layer.__dict__.pop("keeps_contiguous", None)
        _put_back(strides)


def needs_contiguous(error: RuntimeError) -> bool:
    """Whether it is what torch says of ``x.view(len(x), -1)`` for maps in channels_last."""
    return "view size is not compatible" in str(error)


def _make_contiguous(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.contiguous() if isinstance(each, Tensor) else each for each in args)


def _avoid_torchs_fault(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    maps = [x for x in args if isinstance(x, Tensor) and x.device.type == "cpu"]
    is_met = any(computed_dtype(x) == torch.bfloat16 for x in maps)
    return _make_contiguous(layer, args) if is_met else None


def _maps(model: nn.Module) -> list[Tensor]:
    """The tensors that have such a format, and their memory to themselves."""
    tensors = [*model.parameters(), *model.buffers()]
    shared = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors)
    faulty = [layer for layer in model.modules() if has_torchs_fault(layer)]
    stay = {id(parameter) for layer in faulty for parameter in layer.parameters()}
    # Module.to fails at tensors with 5 dimensions
    maps = [t for t in tensors if t.ndim == 4 and id(t) not in stay]
    return [t for t in maps if shared[t.untyped_storage().data_ptr()] == 1]


def _with_strides(data: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The same numbers; in the same memory, where only dimensions of one number differ."""
    pairs = zip(data.shape, data.stride(), stride, strict=True)
    if all(size == 1 or now == then for size, now, then in pairs):
        return data.as_strided(data.shape, stride)
    return torch.empty_strided(data.shape, stride, dtype=data.dtype, device=data.device).copy_(data)


def _with_gradients(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    for tensor in tensors:
        yield tensor
        if tensor.is_leaf and tensor.grad is not None:
            yield tensor.grad


def _put_back(strides: Mapping[Tensor, tuple[int, ...]]) -> None:
    for tensor, stride in strides.items():
        for each in _with_gradients([tensor]):
            each.data = _with_strides(each.data, stride)


def _takes_channels_last(model: nn.Module, image_size: int | None, narrow: list[nn.Conv2d]) -> bool:
    """Whether a network answers to images in channels_last; unknown counts as yes.

    Args:
        model: The network, with its parameters in this format.
        image_size: Height and width of the images; None for unknown.
        narrow: Receives the wide convolutions, on the CPU, whose output has a few pixels.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None:
        return True
    on_cpu = parameter.device.type == "cpu"
    side = image_size or _USUAL_SIZE
    images = torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(unchanged(model))
        parts = dict(stack.enter_context(evaluating(model)).named_modules())
        for name, layer in model.named_modules():
            if on_cpu and image_size is not None and _is_wide(layer):
                look = functools.partial(_note_few_pixels, narrow, layer)
                stack.callback(parts[name].register_forward_hook(look).remove)
        try:
            with torch.no_grad():
                parts[""](images.contiguous(memory_format=torch.channels_last))
        except RuntimeError as error:
            return not needs_contiguous(error)
        except Exception:  # another size, say
            return True
    return True


def _is_wide(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.out_channels >= _WIDE
        and layer.groups == 1
        and layer.kernel_size != (1, 1)
    )


def _note_few_pixels(
    found: list[nn.Conv2d], layer: nn.Module, _: nn.Module, args: tuple[Tensor], output: Tensor
) -> None:
    assert isinstance(layer, nn.Conv2d)
    if output.shape[2] * output.shape[3] <= _FEW_PIXELS:
        found.append(layer)
