"""Networks for other runtimes: ONNX, with the normalization inside; needs the ``export`` extra."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import MissingExtraError
from cifarzoo.files.writing import write_bytes
from cifarzoo.zoo.card import Preprocessing, get_card

__all__ = ["export_onnx"]


def export_onnx(model: nn.Module, path: str | Path, *, image_size: int = 32) -> Path:
    """Write ``model`` as an ONNX file that takes images as they are.

    The graph has one input, ``images``: uint8 (batch, 3, image_size, image_size) in 0..255, any
    batch size; and one output, ``logits``: float32 (batch, classes). Normalization is part of it.
    The model's card is stored as metadata under "card".

    Args:
        model: A network on the CPU; its modes stay as they are.
        path: Where the file goes, atomically.
        image_size: Height and width in pixels.

    Returns:
        The path.

    Raises:
        InputError: The network takes images of another size.
        MissingExtraError: The export packages are not installed.
        OutputError: The file cannot be written.
    """
    try:
        import onnxscript  # noqa: F401  (torch's exporter needs it and would fail later)
    except ImportError as error:
        raise MissingExtraError("ONNX export needs: pip install 'cifarzoo[export]'") from error
    card = get_card(model)
    example = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    with evaluating(_WithNormalization(model, card.preprocessing)) as whole:
        with torch.no_grad():
            whole(example)  # its own error says which images it takes; the exporter's does not
        program = torch.onnx.export(
            whole,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    proto.metadata_props.add(key="card", value=json.dumps(card.to_dict()))
    return write_bytes(path, proto.SerializeToString())


class _WithNormalization(nn.Module):
    """A network in front of which pixels in 0..255 are normalized."""

    scale: Tensor
    bias: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        scale, bias = (x.view(3, 1, 1) for x in preprocessing.scale_and_bias())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.float() * self.scale + self.bias)
        return logits
