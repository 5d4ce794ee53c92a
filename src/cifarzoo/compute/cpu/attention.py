"""Attention as it is computed within `cpu_kernels`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.compute.cpu import native
from cifarzoo.compute.cpu.twice import gradients_to_differentiate

__all__ = ["attend", "replace_attention", "restore_attention"]

_stock: Callable[..., Tensor] = F.scaled_dot_product_attention
_LONGEST = 256  # tokens; of more, torch's blocks take less time
_AT_ONCE = 2**18  # weights: of one image with 256 tokens and 4 heads
_DRAWN = 2**16  # values that a draw may have


def replace_attention() -> None:
    """Let torch's function be `attend`, for whoever takes it from ``torch.nn.functional``."""
    F.scaled_dot_product_attention = attend


def restore_attention() -> None:
    """Let torch's function be torch's again."""
    F.scaled_dot_product_attention = _stock


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Torch's attention, where two ways of torch's are slow computed in another way.

    In bfloat16, the gradient of few tokens is computed by large products: torch goes through the
    tokens of each image and head in small blocks, which takes up to thirty times as long as the
    forward pass. With dropout, four weights are drawn at once: torch draws each by itself, on one
    core.

    Args:
        query: (B, heads, tokens, width), as the next two; the other arguments are torch's too.
        key: Of as many tokens as ``value``.
        value: What is averaged.
        attn_mask: As torch's.
        dropout_p: As torch's, to 1/65536.
        is_causal: As torch's.
        scale: As torch's.
        enable_gqa: As torch's.
    """
    is_plain = attn_mask is None and not (is_causal or enable_gqa)
    if is_plain and _takes(query, key, value, dropout_p):
        lost = round(_DRAWN * float(dropout_p))
        kept = _draw((*query.shape[:3], key.shape[2]), lost) if lost else None
        enlarged = _DRAWN / (_DRAWN - lost)  # so that the mean stays the same
        result: Tensor = _Attention.apply(query, key, value, scale, kept, enlarged)
        return result
    return _stock(
        query,
        key,
        value,
        attn_mask,
        dropout_p,
        is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
    )


def _takes(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    every = (query, key, value)
    return (
        native.is_eager()
        and all(type(x) is Tensor and not x.is_nested and x.ndim == 4 for x in every)
        and all(x.dtype == query.dtype and x.device.type == "cpu" for x in every)
        and _is_slow(query, key, value, dropout)
        and all(x.shape[:2] == query.shape[:2] for x in every)
        and query.shape[3] == key.shape[3] > 0
        and key.shape[2] == value.shape[2]
    )


def _is_slow(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != query.dtype:
        return False  # torch would convert them first
    if dropout:  # with a gradient or without: a checkpoint draws in both ways, from one seed
        is_fine = 0.01 <= dropout <= 0.99  # of what is drawn
        return is_fine and query.dtype in (torch.float32, torch.bfloat16)
    is_short = max(query.shape[2], key.shape[2]) <= _LONGEST
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    return learns and is_short and query.dtype == torch.bfloat16


def _draw(shape: tuple[int, ...], lost: int) -> Tensor:
    """Which weights are kept: each with the same probability, without ``lost`` of `_DRAWN`."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.int16)[:count] >= lost - _DRAWN // 2).view(shape)


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """What each token takes of each other one: float32 (B, heads, tokens, tokens)."""
    return ((query.float() * scale) @ key.float().mT).softmax(-1)


def _parts(query: Tensor, key: Tensor) -> Iterator[slice]:
    """As many images at once as have weights that stay in the cache."""
    images, heads, tokens, _ = query.shape
    count = max(1, _AT_ONCE // max(1, heads * tokens * key.shape[2]))
    return (slice(start, start + count) for start in range(0, max(1, images), count))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        kept: Tensor | None,
        enlarged: float,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, kept)
        ctx.scale = query.shape[3] ** -0.5 if scale is None else scale
        ctx.enlarged = enlarged
        if kept is None:
            return _stock(query, key, value, scale=scale)
        with torch.autocast("cpu", enabled=False):
            images, heads, tokens, _ = query.shape  # heads side by side, as the next layer wants
            width = value.shape[3]
            size = (images, heads, tokens, width)
            # no view of another: autograd would let nobody change it in place
            steps = (tokens * heads * width, width, heads * width, 1)
            result = query.new_empty_strided(size, steps)
            for part in _parts(query, key):
                weights = _weights(query[part], key[part], ctx.scale)
                weights.mul_(kept[part].float().mul_(enlarged))
                result[part] = weights.to(value.dtype) @ value[part]
            return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():  # the gradient is itself to be differentiated
                factors = 1.0 if kept is None else kept * ctx.enlarged

                def same(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
                    weights = _weights(query, key, ctx.scale) * factors
                    return (weights @ value.float()).to(grad.dtype)

                every = (query, key, value)
                found = gradients_to_differentiate(same, every, ctx.needs_input_grad, grad)
                return (*found, None, None, None)
            gradients: list[tuple[Tensor, ...]] = []
            for part in _parts(query, key):
                weights = _weights(query[part], key[part], ctx.scale)
                # float32 where differences are taken, and before an exponential
                to_weights = grad[part].float() @ value[part].float().mT
                dropped = weights
                if kept is not None:
                    factors = kept[part].float().mul_(ctx.enlarged)
                    dropped, to_weights = weights * factors, to_weights.mul_(factors)
                to_value = dropped.to(grad.dtype).mT @ grad[part]
                to_products = torch.ops.aten._softmax_backward_data(
                    to_weights, weights, -1, torch.float32
                )
                to_products = to_products.mul_(ctx.scale).to(grad.dtype)
                gradients.append((to_products @ key[part], to_products.mT @ query[part], to_value))
            # put together, not written into one: many gradients at once are to pass as well
            return (*map(torch.cat, zip(*gradients, strict=True)), None, None, None)
