"""Attention as it is computed within `cpu_kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.compute.cpu import native

__all__ = ["attend", "replace_attention", "restore_attention"]

_stock: Callable[..., Tensor] = F.scaled_dot_product_attention
_LONGEST = 128  # tokens; of more, the products of each pair of tokens no longer stay in the cache


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
    """Torch's attention; in bfloat16, the gradient of few tokens is computed by large products.

    torch goes through the tokens of each image and head in small blocks, whose products in bfloat16
    take up to thirty times as long as the forward pass.

    Args:
        query: (B, heads, tokens, width), as the next two; the other arguments are torch's too.
        key: Of as many tokens as ``value``.
        value: What is averaged.
        attn_mask: As torch's.
        dropout_p: As torch's.
        is_causal: As torch's.
        scale: As torch's.
        enable_gqa: As torch's.
    """
    is_plain = attn_mask is None and not (dropout_p or is_causal or enable_gqa)
    if is_plain and _takes(query, key, value):
        result: Tensor = _Attention.apply(query, key, value, scale)
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


def _takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    every = (query, key, value)
    return (
        native.is_eager()
        and all(type(x) is Tensor and x.dtype == torch.bfloat16 and x.ndim == 4 for x in every)
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in every)
        and all(x.device.type == "cpu" and x.shape[:2] == query.shape[:2] for x in every)
        and query.shape[3] == key.shape[3]
        and key.shape[2] == value.shape[2]
        and max(query.shape[2], key.shape[2]) <= _LONGEST
    )


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """What each token takes of each other one: float32 (B, heads, tokens, tokens)."""
    return ((query.float() * scale) @ key.float().mT).softmax(-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.scale = query.shape[3] ** -0.5 if scale is None else scale
        return _stock(query, key, value, scale=scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():  # the gradient is itself to be differentiated
                result = (_weights(query, key, ctx.scale) @ value.float()).to(grad.dtype)
                wanted = [x for x in (query, key, value) if x.requires_grad]
                found = iter(torch.autograd.grad(result, wanted, grad, create_graph=True))
                every = (query, key, value)
                return (*(next(found) if x.requires_grad else None for x in every), None)
            weights = _weights(query, key, ctx.scale)
            # float32 where differences are taken, and before an exponential
            to_weights = grad.float() @ value.float().mT
            to_value = weights.to(grad.dtype).mT @ grad
            to_products = torch.ops.aten._softmax_backward_data(
                to_weights, weights, -1, torch.float32
            )
            to_products = to_products.mul_(ctx.scale).to(grad.dtype)
            return to_products @ key, to_products.mT @ query, to_value, None
