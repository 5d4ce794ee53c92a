"""The memory format that each layer computes fastest in, for the time of a block."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from cifarzoo.compute.twin import evaluating

__all__ = ["fast_layout"]

_WIDE = 512  # channels of output
_FEW_PIXELS = 16  # of output


@contextlib.contextmanager
def fast_layout(
    model: nn.Module, image_size: int | None = None, *, enabled: bool = True
) -> Iterator[None]:
    """Within the block, parameters lie in the memory format their layer computes fastest in.

    That is channels_last. On a CPU it is the contiguous one for wide convolutions on maps of a few
    pixels, where oneDNN's kernels for its own blocked layout are up to 1.7 times as fast. Those
    take their input in that format within `cpu_kernels`. Afterwards every tensor lies as before.

    The state of a fused optimizer lies as its parameters did when it was made, and torch does not
    look. So such an optimizer is made within the block, and makes all its steps there.

    Args:
        model: Any module.
        image_size: Height and width of the images it will see; None for unknown.
        enabled: False does nothing.
    """
    if not enabled:
        yield
        return
    narrow = _few_pixel_layers(model, image_size) if image_size is not None else []
    # of tensors with other dimensions there is no such format, and Module.to fails at those with 5
    maps = [each for each in (*model.parameters(), *model.buffers()) if each.ndim == 4]
    strides = {tensor: tensor.stride() for tensor in maps}
    for tensor in _with_gradients(maps):
        _, channels, height, width = tensor.shape
        # contiguous() would leave the strides of 1x1 filters, by which torch chooses its layout
        last = (channels * height * width, 1, channels * width, channels)
        tensor.data = _with_strides(tensor.data, last)
    for layer in narrow:
        layer.to(memory_format=torch.contiguous_format)
        layer.__dict__["keeps_contiguous"] = True
    try:
        yield
    finally:
        for layer in narrow:
            layer.__dict__.pop("keeps_contiguous", None)
        for tensor, stride in strides.items():
            for each in _with_gradients([tensor]):
                each.data = _with_strides(each.data, stride)


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


def _few_pixel_layers(model: nn.Module, image_size: int) -> list[nn.Conv2d]:
    """The wide convolutions of a network on the CPU whose output has a few pixels."""
    parameter = next(model.parameters(), None)
    if parameter is None or parameter.device.type != "cpu":
        return []
    named = dict(model.named_modules())
    found: list[nn.Conv2d] = []
    wide = [
        name
        for name, layer in named.items()
        if isinstance(layer, nn.Conv2d)
        and layer.out_channels >= _WIDE
        and layer.groups == 1
        and layer.kernel_size != (1, 1)
    ]
    if not wide:
        return found
    images = torch.zeros(1, 3, image_size, image_size, dtype=parameter.dtype)
    with contextlib.ExitStack() as stack:
        parts = dict(stack.enter_context(evaluating(model)).named_modules())
        for name in wide:
            look = functools.partial(_note_few_pixels, found, named[name])
            stack.callback(parts[name].register_forward_hook(look).remove)
        with torch.no_grad(), contextlib.suppress(RuntimeError, ValueError):  # another size, say
            parts[""](images)
    return found


def _note_few_pixels(
    found: list[nn.Conv2d], layer: nn.Conv2d, _: nn.Module, args: tuple[Tensor], output: Tensor
) -> None:
    if output.shape[2] * output.shape[3] <= _FEW_PIXELS:
        found.append(layer)
