"""Networks for other runtimes, normalization inside: ONNX, and programs of torch.export."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarzoo.compute.place import dtype_of
from cifarzoo.compute.twin import evaluating
from cifarzoo.errors import ArgumentError, MissingExtraError
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import write_bytes
from cifarzoo.names import check_count, whole_number
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import ModelCard, Preprocessing, check_numbers, write_card

__all__ = ["export_onnx", "export_program"]

_MOST_PIXELS = 8192  # of a side
_LOWEST_OPSET = 18  # torch writes no lower one, and goes back from it only now and then


def export_onnx(
    model: nn.Module, path: str | Path, *, image_size: int = 32, opset: int | None = None
) -> Path:
    """Write ``model`` as an ONNX file that takes images as they are.

    The graph has one input, ``images``: uint8 (batch, 3, image_size, image_size) in 0..255, of any
    batch size. It has one output, ``logits``: float32 (batch, classes). The normalization is part
    of the graph. The model's card is stored as metadata under "card". The function needs the extra
    ``export``.

    Args:
        model: A network on the CPU; its mode stays as it is.
        path: The file; it is written as a whole or not at all.
        image_size: Height and width in pixels.
        opset: Version of ONNX's operators, 18 or higher, for a runtime that does not know the
            newest; None takes the one that torch recommends.

    Returns:
        The path.

    Raises:
        InputError: The network takes images of another size.
        MissingExtraError: The export packages are not installed.
        ArgumentError: The file cannot be written for this ``opset``, or an option of the network
            is no plain data.
        OutputError: The file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it and would fail later)
    except ImportError as error:
        raise MissingExtraError("ONNX export needs: pip install 'cifarzoo[export]'") from error
    wanted = _check_opset(opset, onnx.defs.onnx_opset_version())
    card, text = _describe(model)
    with evaluating(_WithNormalization(model, card.preprocessing)) as whole:
        program = torch.onnx.export(
            whole,
            _example(whole, image_size),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=_any_batch(),
            opset_version=wanted,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    found = {entry.domain: entry.version for entry in proto.opset_import}[""]
    if wanted is not None and found != wanted:  # torch says so in its log only
        raise ArgumentError(
            f"torch cannot write this network for opset {wanted}, only for {found}; pass "
            f"opset={found}, or leave it out"
        )
    proto.metadata_props.add(key="card", value=text)
    return write_bytes(path, proto.SerializeToString())


def export_program(model: nn.Module, path: str | Path, *, image_size: int = 32) -> Path:
    """Write ``model`` as a program of ``torch.export`` that takes images as they are.

    Such a file holds the graph and the parameters, and needs neither this library nor the
    network's Python code: ``torch.export.load(path).module()`` is the network. It takes
    ``images``, uint8 (batch, 3, image_size, image_size) in 0..255, any batch size, and returns
    logits, float32 (batch, classes). Normalization is part of it. The model's card is stored in
    the file, under "card".

    Args:
        model: A network on the CPU; its mode stays as it is.
        path: The file, whose name must end in ``.pt2``; it is written as a whole or not at all.
        image_size: Height and width in pixels.

    Returns:
        The path.

    Raises:
        InputError: The network takes images of another size.
        ArgumentError: The name does not end in ``.pt2``, by which torch knows such files, or an
            option of the network is no plain data.
        OutputError: The file cannot be written.

    Example:
        >>> from cifarzoo import create_model, export_program, load_sample
        >>> path = export_program(create_model("simple", pretrained=True), "simple.pt2")
        >>> network = torch.export.load(path).module()
        >>> network(load_sample("test").images[:5]).shape
        torch.Size([5, 10])
    """
    if home_path(path).suffix != ".pt2":
        raise ArgumentError(
            f"the name of a program of torch.export ends in .pt2; got {str(path)!r}"
        )
    card, text = _describe(model)
    with evaluating(_WithNormalization(model, card.preprocessing)) as whole:
        program = torch.export.export(
            whole, _example(whole, image_size), dynamic_shapes=_any_batch(), strict=False
        )
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"card": text})
    return write_bytes(path, content.getvalue())


def _describe(model: nn.Module) -> tuple[ModelCard, str]:
    """What the network is now, and as it is stored; its last layer may have been replaced."""
    card = describe(model)
    check_numbers(model.parameters())
    return card, write_card(card)


def _example(network: nn.Module, image_size: int) -> tuple[Tensor]:
    side = check_count("image_size", image_size, most=_MOST_PIXELS)
    images = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with torch.no_grad():
        network(images)  # its own error says which images it takes; an exporter's does not
    return (images,)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch")},)


def _check_opset(opset: Any, highest: int) -> int | None:
    """``opset`` as an int, or None; raises ArgumentError when torch or onnx does not know it."""
    if opset is None:
        return None
    number = whole_number(opset)
    if number is None or not _LOWEST_OPSET <= number <= highest:
        raise ArgumentError(
            f"opset must be a whole number from {_LOWEST_OPSET} to {highest}, the highest that the "
            f"installed onnx knows; got {opset!r}"
        )
    return number


class _WithNormalization(nn.Module):
    """A network in front of which pixels in 0..255 are normalized."""

    scale: Tensor
    bias: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype_of(model)
        scale, bias = (x.view(3, 1, 1) for x in preprocessing.scale_and_bias())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model((images.float() * self.scale + self.bias).to(self.dtype))
        return logits if self.dtype == torch.float32 else logits.float()
