"""Layers in C, and what they take.

``kernels.c`` holds what torch's operations cannot say in one pass, with ``norm.h``,
``depthwise.h``, ``pool.h`` and ``windows.h`` for each type of number, ``winograd.h`` and
``pixels.h`` for float32, ``lookup.h`` for bfloat16, and ``tiles.h`` for the matrix unit. `library`
compiles it on the machine. Where that has no compiler, layers compute as they do without it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cifarzoo.compute.cpu import library

__all__ = [
    "ACTIVATIONS",
    "NAMES",
    "Activation",
    "Statistics",
    "call",
    "channel_sums",
    "conv_weight",
    "filled",
    "has_tiles",
    "in_order",
    "is_eager",
    "is_row",
    "new_map",
    "norm_add_backward",
    "norm_apply",
    "norm_backward",
    "norm_gradient",
    "norm_plan",
    "norm_statistics",
    "pixels_apply",
    "pixels_takes",
    "reads",
    "rows",
    "takes",
    "winograd_apply",
    "winograd_takes",
    "winograd_weight",
]

Activation = Literal["none", "relu", "relu6"]
ACTIVATIONS = get_args(Activation)  # in the order of kernels.c

_C_TYPES: dict[type, Any] = {int: ctypes.c_int64, float: ctypes.c_double}  # others are tensors
NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def reads(x: Tensor) -> bool:
    """Whether the compiled layers are there, and read the numbers of ``x`` from memory."""
    return (
        library.find() is not None
        and x.dtype in NAMES
        and x.device.type == "cpu"
        and type(x) in (Tensor, nn.Parameter)  # others have ways of their own to hold numbers
    )


def takes(x: Tensor) -> bool:
    """Whether they take ``x`` as a map: channels_last (B, C, H, W) with at least one number."""
    last = torch.channels_last
    return reads(x) and x.ndim == 4 and x.numel() > 0 and x.is_contiguous(memory_format=last)


def is_row(x: Tensor, size: int) -> bool:
    """Whether ``x`` has a float32 for each of so many channels, one behind the other."""
    return x.dtype == torch.float32 and x.shape == (size,) and x.is_contiguous()


def is_eager() -> bool:
    """Whether operations are carried out as they are called, by no compiler or transformation."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What normalizes each of C channels; float32 (C,)."""

    mean: Tensor
    inverse_deviation: Tensor
    scale: Tensor
    shift: Tensor
    eps: float


def has_tiles() -> bool:
    """Whether the processor has a matrix unit, and the compiled layers may use it."""
    compiled = library.find()
    return compiled is not None and _may_use_tiles(compiled)


@functools.cache
def _may_use_tiles(compiled: ctypes.CDLL) -> bool:
    """What the system answers, which every layer would otherwise ask in every step."""
    return bool(compiled.has_tiles())


def channel_sums(x: Tensor) -> Tensor:
    """Sums of (B, C, H, W) over all but its channels, float32 (C,); torch's where it must be."""
    if torch.is_grad_enabled() or not takes(x):
        return x.sum((0, 2, 3), dtype=torch.float32)  # of bfloat16 it makes a copy in float32 first
    sums = torch.empty(x.shape[1])
    call("channel_sums", x, x, sums, *rows(x))
    return sums


def norm_statistics(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running: tuple[Tensor, Tensor],
    momentum: float,
    eps: float,
) -> Statistics:
    """The statistics of (B, C, H, W) over all but its channels; the running ones follow."""
    mean, deviation, scale, shift = fields = torch.empty(4, x.shape[1]).unbind()
    settings = (*rows(x), float(momentum), float(eps))
    call("norm_statistics", x, x, weight, bias, *fields, *running, *settings)
    torch.autograd.graph.increment_version(running)
    return Statistics(mean, deviation, scale, shift, eps)


def norm_apply(
    x: Tensor, of: Statistics, kind: Activation = "none", plus: Tensor | None = None
) -> Tensor:
    """Normalize (B, C, H, W), add another map and apply an activation, in one pass."""
    y = torch.empty_like(x)
    call("norm_apply", x, x, plus, y, of.scale, of.shift, *rows(x), ACTIVATIONS.index(kind))
    return y


def norm_backward(
    grad: Tensor, x: Tensor, of: Statistics, kind: Activation = "none"
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the map, weight and bias, from that behind the activation."""
    to_x = torch.empty_like(x)
    _, to_weight, to_bias = _norm_backward(grad, x, of, kind, to_x=to_x)
    return to_x, to_weight, to_bias


def norm_add_backward(
    grad: Tensor, x: Tensor, y: Tensor, of: Statistics
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the map, of what was added, of weight and bias, from that behind ReLU."""
    to_x, to_other = torch.empty_like(x), torch.empty_like(x)
    maps = {"y": y, "to_x": to_x, "to_other": to_other}
    _, to_weight, to_bias = _norm_backward(grad, x, of, "relu", **maps)
    return to_x, to_other, to_weight, to_bias


def norm_plan(
    grad: Tensor, x: Tensor, of: Statistics, kind: Activation = "none"
) -> tuple[Tensor, Tensor, Tensor]:
    """What `norm_gradient` computes the gradient of the map by, and those of weight and bias."""
    return _norm_backward(grad, x, of, kind)


def norm_gradient(
    grad: Tensor, x: Tensor, of: Statistics, plan: Tensor, kind: Activation, more: Tensor | None
) -> Tensor:
    """The gradient of the map, of 16 channels on; with ``more``, whose pixels may lie apart."""
    to_x = torch.empty_like(x)
    apart = 0 if more is None else more.stride(3)
    settings = (*rows(x), apart, ACTIVATIONS.index(kind))
    call("norm_gradient", x, grad, x, more, to_x, plan, of.scale, of.shift, *settings)
    return to_x


def _norm_backward(
    grad: Tensor,
    x: Tensor,
    of: Statistics,
    kind: Activation,
    *,
    y: Tensor | None = None,
    to_x: Tensor | None = None,
    to_other: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = torch.empty(2, x.shape[1])
    to_weight, to_bias = sums = torch.empty(2, x.shape[1]).unbind()
    known = (of.mean, of.inverse_deviation, of.scale, of.shift)
    settings = (*rows(x), ACTIVATIONS.index(kind))
    call("norm_backward", x, grad, x, y, to_x, to_other, plan, *known, *sums, *settings)
    return plan, to_weight, to_bias


def conv_weight(grad: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """Weight gradient (CO, CI, K, K), float32, of a convolution of bfloat16 maps; for `has_tiles`.

    The padding is K / 2.
    """
    batch, inputs, height, width = x.shape
    outputs, *sizes = grad.shape[1:]
    found = torch.empty(outputs, kernel, kernel, inputs)
    of_x = (batch, height, width, inputs)
    call("conv_weight", x, grad, x, found, *of_x, *sizes, outputs, kernel, stride)
    return found.permute(0, 3, 1, 2)


def winograd_takes(x: Tensor) -> bool:
    """Whether `winograd_apply` and `winograd_weight` compute a convolution of the map ``x``."""
    return x.dtype == torch.float32 and takes(x)


def winograd_apply(
    x: Tensor, filters: Tensor, bias: Tensor | None, outputs: int, padding: int
) -> Tensor:
    """Convolve float32 (B, C, H, W), 3x3, by the parts (36, C, K filled) of filters."""
    batch, channels, height, width = x.shape
    size = height + 2 * padding - 2, width + 2 * padding - 2
    y = new_map(x, batch, outputs, *size)
    of_x = (batch, height, width, channels)
    call("winograd_apply", x, x, filters, in_order(bias), y, *of_x, *size, outputs, padding)
    return y


def winograd_weight(grad: Tensor, x: Tensor, padding: int) -> Tensor:
    """The parts of the weight gradient of the same, (36, C, K)."""
    batch, channels, height, width = x.shape
    outputs, *size = grad.shape[1:]
    found = torch.empty(36, filled(channels), filled(outputs))
    of_x = (batch, height, width, channels)
    call("winograd_weight", x, grad, x, found, *of_x, *size, outputs, padding)
    return found[:, :channels, :outputs]


def winograd_parts(
    x: Tensor, size: tuple[int, int], padding: int, tiles: range, *, of_gradient: bool = False
) -> Tensor:
    """The parts (36, tiles, C) of some tiles of float32 (B, C, H, W), whose C fills registers.

    Args:
        x: What is convolved, or the gradient of the convolution's output.
        size: Height and width of the output.
        padding: Of the map; 0 for the gradient.
        tiles: Which of all tiles of the batch.
        of_gradient: Whether a tile is 4x4 pixels of a gradient, and not a window of 6x6 of a map.
    """
    _, channels, height, width = x.shape
    parts = torch.empty(36, len(tiles), channels)
    settings = (height, width, channels, *size, padding, tiles.start, len(tiles))
    call("winograd_parts", x, x, parts, *settings, 4 if of_gradient else 6)
    return parts


def winograd_pixels(parts: Tensor, bias: Tensor | None, y: Tensor, tiles: range) -> None:
    """Write the pixels of some tiles of ``y`` (B, K, H, W) from their parts (36, tiles, K)."""
    _, channels, height, width = y.shape
    sizes = (height, width, channels, tiles.start, len(tiles))
    call("winograd_pixels", y, parts, in_order(bias), y, *sizes)


def pixels_takes(x: Tensor, outputs: int) -> bool:
    """Whether `pixels_apply` computes a convolution of the map ``x`` to so many channels."""
    return x.dtype == torch.float32 and takes(x) and outputs >= filled(1)


def pixels_apply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply the pixels of float32 (B, C, H, W) by weight (C, K), and add a bias (K,)."""
    inputs, outputs = weight.shape
    y = new_map(x, len(x), outputs, *x.shape[2:])
    offset = torch.zeros(outputs) if bias is None else bias.contiguous()
    call("pixels_apply", x, x, weight.contiguous(), offset, y, rows(x)[0], inputs, outputs)
    return y


def in_order(x: Tensor | None) -> Tensor | None:
    """``x`` with its numbers one behind the other, as the layers in C read them."""
    return x if x is None else x.contiguous()


def filled(channels: int) -> int:
    """How many channels fill whole registers."""
    lanes = _lanes(library.find())
    return -(-channels // lanes) * lanes


@functools.cache
def _lanes(compiled: ctypes.CDLL) -> int:
    return int(compiled.lanes())


def new_map(like: Tensor, *size: int) -> Tensor:
    """An empty map (B, C, H, W) in channels_last, not a view, which an autograd.Function returns.

    What comes next may change it in place; torch forbids that for a view.
    """
    return torch.empty(
        size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def rows(x: Tensor) -> tuple[int, int]:
    """Rows and columns of a map as a matrix: its pixels, and its channels."""
    return x.numel() // x.shape[1], x.shape[1]


def call(name: str, kind: Tensor, *arguments: Any) -> None:
    """Call the function for the dtype of ``kind``: tensors by address, sizes as they are."""
    function = getattr(library.find(), f"{name}_{NAMES[kind.dtype]}")
    if function.argtypes is None:
        function.argtypes = [_C_TYPES.get(type(value), ctypes.c_void_p) for value in arguments]
    function(*[x.data_ptr() if isinstance(x, Tensor) else x for x in arguments])
