"""Layer-by-layer summaries, through torchinfo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifarzoo.errors import InputError

if TYPE_CHECKING:
    from torch import nn
    from torchinfo import ModelStatistics

__all__ = ["summary"]


def summary(model: nn.Module, *, batch_size: int = 1, image_size: int = 32) -> ModelStatistics:
    """Shapes, parameters and multiply-accumulates of every layer.

    Args:
        model: Any module that takes images (batch, 3, height, width).
        batch_size: Images in the pass that is measured.
        image_size: Height and width in pixels.

    Returns:
        torchinfo's ``ModelStatistics``: ``print`` it, or read ``total_params`` and
        ``total_mult_adds``. The model itself is left alone.

    Example:
        >>> from cifarzoo import create_model
        >>> summary(create_model("simple")).total_params
        80090
    """
    import torch
    import torchinfo

    from cifarzoo.compute.twin import evaluating

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model) as network:  # it gets hooks, which would be in other threads' way
            return torchinfo.summary(
                network,
                input_size=(batch_size, 3, image_size, image_size),
                device=device,
                mode="eval",
                depth=8,
                col_names=("kernel_size", "output_size", "num_params", "mult_adds"),
                row_settings=("var_names", "depth"),
                verbose=0,
            )
    except RuntimeError as error:  # torchinfo's, around the model's own
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise
