"""A stem for small images: networks for 224 pixels lose nearly all of an image of 32."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import ArgumentError
from cifarzoo.names import check_count
from cifarzoo.zoo.card import check_model

__all__ = ["adapt_stem"]

_LEAST = 4  # pixels of the last map
_PROBES = (256, 224, 288, 320)  # image sizes: a network may ask for one
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_NO_STEPS = (nn.Linear, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclasses.dataclass(frozen=True)
class _Pass:
    """What was applied to a map, and the sides of the map before and after it.

    Args:
        name: The layer's name; of what is no layer, the function's.
        layer: The layer; a function has none.
        before: Side of the map in pixels.
        after: Likewise.
    """

    name: str
    layer: nn.Module | None
    before: int
    after: int


def adapt_stem(model: nn.Module, *, size: int = 32) -> nn.Module:
    """Lower the first strides of a network until its last map has at least 4x4 pixels.

    Most networks are made for images of 224 pixels, and their last map is 32 times smaller. Of an
    image of 32 pixels one pixel is left, and the accuracy falls by ten points and more. The
    parameters stay as they are, so weights that were trained on large images still load.

    Args:
        model: A network for images (B, 3, H, W), which is changed in place. Strides of convolutions
            become 1, and poolings are left out.
        size: Height and width of the images in pixels.

    Returns:
        The same network.

    Raises:
        ArgumentError: ``model`` is no network, ``size`` is below 1, the network cuts images into
            patches, or its maps are made smaller by what is neither a convolution nor a pooling
            layer, by a layer that stands in several places, or by one whose stride is another down
            than across. The network is left as it was.

    Example:
        >>> import torchvision
        >>> model = adapt_stem(torchvision.models.resnet18(num_classes=10))
        >>> model.conv1.stride, model.maxpool
        ((1, 1), Identity())
    """
    check_model(model)
    size = check_count("size", size, advice="the height and width of the images in pixels")
    _refuse_uneven_strides(model)
    passes = _trace(model)
    if any(isinstance(p.layer, nn.Linear) for p in passes):  # on tokens, whose sides are not seen
        _refuse_patches(model)
    passes = [p for p in passes if not isinstance(p.layer, nn.Linear)]
    problems: list[tuple[str, Exception | None]] = []
    for least in range(_LEAST, 2 * _LEAST + 1):  # maps without padding end smaller than planned
        try:
            changes = _plan(model, passes, size, least)
        except ArgumentError:
            if not problems:
                raise
            break
        layers = {name: model.get_submodule(name) for name in changes}
        before = {name: _stride(layer) for name, layer in layers.items()}
        for name, stride in changes.items():
            _replace(model, name, layers[name], (stride, stride))
        try:
            last = _last_side(_passes(model, _images(model, size)))
        except Exception as error:
            told = f"with other strides it answers {type(error).__name__}: {error}"
            problems.append((told, error))
        else:
            if last >= _LEAST:
                return model
            problems.append((f"its last map has {last}x{last} pixels", None))
        for name, old in before.items():
            _replace(model, name, layers[name], old)
    problem, cause = problems[0]
    raise ArgumentError(
        f"{_named(model)} cannot be adapted to {size}x{size} images: {problem}"
    ) from cause


def _plan(model: nn.Module, passes: list[_Pass], size: int, least: int) -> dict[str, int]:
    """What each layer's stride is to be, that the last map has ``least`` pixels a side."""
    changes: dict[str, int] = {}
    first, last = passes[0].before, _last_side(passes)
    for side in sorted({p.before for p in passes if 1 < p.after < p.before}, reverse=True):
        if size * last >= least * first:
            break
        step = [p for p in passes if p.before == side and 1 < p.after < side]
        whole = max(round(side / p.after) for p in step)
        wanted = max(1, whole * size * last // (least * first))
        for each in step:
            changes[each.name] = _checked(model, each, wanted)
            if sum(p.name == each.name for p in passes) > 1:
                raise ArgumentError(
                    f"{_named(model)} cannot be adapted: it applies {each.name!r} in several "
                    "places, and another stride would be that of all; give each a layer of its own"
                )
        last = last * whole // wanted
    if size * last < least * first:
        raise ArgumentError(
            f"{_named(model)} cannot be adapted to {size}x{size} images: even without its strides "
            f"its last map would be smaller than {_LEAST}x{_LEAST} pixels"
        )
    return changes


def _trace(model: nn.Module) -> list[_Pass]:
    """Convolutions and other layers without parts in the order in which they see an image."""
    reasons = []
    for side in _PROBES:
        try:
            passes = _passes(model, _images(model, side))
        except Exception as error:  # a network for other images
            reasons.append(f"{side}x{side} pixels: {error}")
            continue
        if passes:
            return passes
    _refuse_patches(model)
    raise ArgumentError(
        f"{_named(model)} takes no images of 224 to 320 pixels, which are needed to find its stem"
        + "".join(f"\n  {reason}" for reason in reasons)
    )


def _images(model: nn.Module, side: int) -> Tensor:
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is None:
        raise ArgumentError(f"{_named(model)} has no parameters, and so no stem to adapt")
    return torch.zeros(1, 3, side, side, dtype=first.dtype, device=first.device)


def _passes(model: nn.Module, images: Tensor) -> list[_Pass]:
    found: list[_Pass] = []
    functions = _Functions(found)

    def begin(*_: Any) -> None:
        functions.layers += 1

    def note(name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        functions.layers -= 1
        before = inputs[0] if inputs else None
        sides = [_side(x) for x in (before, output)]
        on_tokens = isinstance(layer, nn.Linear) and isinstance(before, Tensor) and before.ndim > 2
        if on_tokens or (0 not in sides and not isinstance(layer, _NO_STEPS)):
            found.append(_Pass(name, model.get_submodule(name), *sides))

    with evaluating(model) as network, torch.no_grad():
        hooks = []
        for name, part in network.named_modules():
            if any(True for _ in part.children()):
                continue
            hooks.append(part.register_forward_pre_hook(begin))
            hooks.append(part.register_forward_hook(functools.partial(note, name)))
        try:
            with functions:
                network(images)
        finally:
            for hook in hooks:
                hook.remove()
    return found


class _Functions(TorchFunctionMode):
    """Notes the functions outside of layers that make maps smaller, such as ``F.max_pool2d``."""

    def __init__(self, found: list[_Pass]) -> None:
        super().__init__()
        self.layers = 0  # how many are at work
        self._found = found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        before, after = (_side(x) for x in (args[0] if args else None, output))
        if not self.layers and after and before >= 2 * after:
            self._found.append(_Pass(func.__name__, None, before, after))
        return output


def _side(x: object) -> int:
    """Of a square map; 0 for what is none, as tokens, or channels that stand last."""
    is_map = isinstance(x, Tensor) and x.ndim == 4 and x.shape[2] == x.shape[3]
    return int(x.shape[3]) if is_map else 0  # type: ignore[attr-defined]  # a tensor then


def _last_side(passes: list[_Pass]) -> int:
    """Of the last map that is one: global means, and what squeezes, have a single pixel."""
    return min((p.after for p in passes if p.after > 1), default=1)


def _checked(model: nn.Module, step: _Pass, stride: int) -> int:
    layer = step.layer
    if layer is None:
        raise ArgumentError(
            f"{_named(model)} cannot be adapted: {step.name!r} makes its maps smaller, which is no "
            "layer whose stride can be changed; write it as one, such as nn.MaxPool2d"
        )
    if isinstance(layer, nn.Conv2d):
        if layer.kernel_size == layer.stride and layer.kernel_size != (1, 1):
            _refuse_patches(model)
        return stride
    if isinstance(layer, _POOLS) and stride == 1:
        return stride
    raise ArgumentError(
        f"{_named(model)} cannot be adapted: its maps become smaller in {step.name!r}, whose "
        f"stride is not known ({type(layer).__name__})"
    )


def _refuse_patches(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1):
            continue
        if layer.kernel_size == layer.stride:
            side = layer.kernel_size[0]
            raise ArgumentError(
                f"{_named(model)} cannot be adapted: {name!r} cuts images into patches of "
                f"{side}x{side} pixels, and with another stride they would overlap; build the "
                "network with smaller patches"
            )


def _refuse_uneven_strides(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.stride[0] != layer.stride[1]:
            raise ArgumentError(
                f"{_named(model)} cannot be adapted: {name!r} has the stride {layer.stride}, and "
                "only maps that stay square are known; change its strides by hand"
            )


def _stride(layer: nn.Module) -> tuple[int, ...]:
    """Of a convolution; that of a pooling layer stays its own, as it is taken out."""
    return layer.stride if isinstance(layer, nn.Conv2d) else ()


def _replace(model: nn.Module, name: str, layer: nn.Module, stride: tuple[int, ...]) -> None:
    """Give the convolution its stride; have the pooling layer, or nothing for stride 1."""
    if isinstance(layer, nn.Conv2d):
        layer.stride = stride
        return
    parent, _, child = name.rpartition(".")
    own = nn.Identity() if stride == (1, 1) else layer
    setattr(model.get_submodule(parent), child, own)


def _named(model: nn.Module) -> str:
    return f"this {type(model).__name__}"
