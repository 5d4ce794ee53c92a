"""Layer-by-layer summaries, through torchinfo."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cifarzoo.errors import InputError
from cifarzoo.names import check_count
from cifarzoo.zoo.card import check_model

if TYPE_CHECKING:
    from torchinfo import ModelStatistics

__all__ = ["summary"]


def summary(model: nn.Module, *, batch_size: int = 1, image_size: int = 32) -> ModelStatistics:
    """Measure shapes, parameters and multiply-accumulates of every layer.

    torchinfo counts the multiply-accumulates of a dense layer once for an image, and leaves out
    those of attention. Here dense layers are counted for every token, and attention is in the
    total.

    Args:
        model: Any module that takes images (batch, 3, height, width).
        batch_size: Number of images in the pass that is measured.
        image_size: Height and width in pixels.

    Returns:
        torchinfo's ``ModelStatistics``. ``print`` shows them, at most 100 columns wide, and
        ``total_params`` and ``total_mult_adds`` are the sums. The model itself is not changed.

    Raises:
        ArgumentError: ``model`` is no network, or a size is no whole number of at least 1.
        InputError: The network takes no images of this size.

    Example:
        >>> from cifarzoo import create_model
        >>> summary(create_model("simple")).total_params
        80090
    """
    check_model(model)
    count = check_count("batch_size", batch_size)
    side = check_count("image_size", image_size, advice="height and width in pixels")
    import torchinfo

    from cifarzoo.compute.twin import evaluating
    from cifarzoo.zoo.layer_table import LayerTable

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(count, 3, side, side, dtype=like.dtype)  # torchinfo would draw some
    try:
        # the twin gets hooks, which would be in other threads' way
        with evaluating(model) as network, _AttentionProducts() as attention:
            found = torchinfo.summary(
                network,
                input_data=[images],
                device=device,
                mode="eval",
                depth=8,
                col_names=("kernel_size", "output_size", "num_params", "mult_adds"),
                row_settings=("var_names", "depth"),
                verbose=0,
            )
    except (RuntimeError, TypeError) as error:  # torchinfo's, around the model's own
        reason = error.__cause__ or error
        if isinstance(reason, InputError):
            raise reason from None
        raise InputError(
            f"{type(model).__name__} cannot be measured with images of {side}x{side} pixels, on "
            f"which it answers {type(reason).__name__}: {reason}; pass image_size=, the height and "
            "width that it is made for"
        ) from error
    statistics = LayerTable(
        found.summary_list, found.input_size, found.total_input, found.formatting
    )
    _count_tokens(statistics)
    statistics.total_mult_adds += attention.macs
    return statistics


class _AttentionProducts(TorchFunctionMode):
    """Counts what no layer does: the products of tokens with tokens."""

    macs = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # of tokens (tokens, batch, width)
            query, key = args[:2]
            self.macs += 2 * query.numel() * key.shape[0]
            # its dense layers are no modules that are called
            weights = [w for w in (args[5], args[11]) if w is not None]
            self.macs += query[..., 0].numel() * sum(w.numel() for w in weights)
        elif getattr(func, "__name__", "") == "scaled_dot_product_attention":  # F's may be ours
            query, key, value = _first(3, args, kwargs)
            self.macs += query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
        elif func in (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__):
            product = func(*args, **kwargs)
            self.macs += product.numel() * _first(1, args, kwargs)[0].shape[-1]
            return product
        return func(*args, **kwargs)


def _first(count: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The first arguments of a function of tensors, also where they came by their names."""
    names = ("query", "key", "value") if count == 3 else ("input",)
    return [*args[:count], *(kwargs[name] for name in names[len(args) :])]


def _count_tokens(statistics: ModelStatistics) -> None:
    """Count a dense layer as often as it is applied."""
    for layer in statistics.summary_list:
        if isinstance(layer.module, nn.Linear) and len(layer.output_size) > 2:
            macs = math.prod(layer.output_size[:-1]) * layer.num_params
            statistics.total_mult_adds += macs - layer.macs
            layer.macs = macs
