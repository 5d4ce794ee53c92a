"""Where and how precisely a computation runs, resolved once."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from cifarzoo.compute.machine import computes_bfloat16
from cifarzoo.errors import ArgumentError
from cifarzoo.plain import shorten

__all__ = ["Device", "Place", "Precision", "compile_pays", "dtype_of"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_STEPS_WORTH_COMPILING = 3000


@dataclasses.dataclass(frozen=True)
class Place:
    """A device, and the dtype that networks compute in there.

    Args:
        device: Device that tensors lie on.
        precision: Dtype that networks compute in; parameters stay float32.
        kernels: Whether an evaluation at this place uses `cpu_kernels`.
        is_mixed: False for networks that hold ``precision`` themselves.
    """

    device: torch.device
    precision: torch.dtype = torch.float32
    kernels: bool = True
    is_mixed: bool = True

    @classmethod
    def find(
        cls,
        device: Device = "auto",
        precision: Precision = "auto",
        *,
        model: nn.Module | None = None,
    ) -> Place:
        """Find the place that a user names.

        Args:
            device: Device to compute on. "auto" takes the first of CUDA, MPS and CPU that is
                present, and None takes the device that ``model`` is on. For a `Place`,
                ``precision`` is ignored.
            precision: "auto" takes bfloat16 where the device computes it natively, else float32;
                float32 too for quantized networks, whose layers take nothing else.
            model: The network that will compute. One that does not hold float32 computes in what
                it holds.

        Raises:
            ArgumentError: The device does not exist on this machine, or the precision is unknown.
        """
        if isinstance(device, Place):
            return device._suiting(model)
        if device is None:
            # whoever uses it says that something else is no model
            first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
            device = first.device if first is not None else "cpu"
        found = _find_device(device)
        if precision == "auto":
            is_mixed = computes_bfloat16(found) and not _is_quantized(model)
            usual = torch.bfloat16 if is_mixed else torch.float32
            return cls(found, usual)._suiting(model)
        if not isinstance(precision, str) or precision not in _DTYPES:
            names = ", ".join(map(repr, _DTYPES))
            raise ArgumentError(
                f"precision must be 'auto' or one of {names}; got {shorten(precision)}"
            )
        return cls(found, _DTYPES[precision])._suiting(model)

    def _suiting(self, model: nn.Module | None) -> Place:
        dtype = dtype_of(model)
        if dtype == torch.float32:
            return self
        return dataclasses.replace(self, precision=dtype, kernels=False, is_mixed=False)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Compute in mixed precision within a ``with`` block; float32 is float32 everywhere."""
        mixed = self.is_mixed and self.precision != torch.float32
        with torch.autocast(
            self.device.type, dtype=self.precision if mixed else None, enabled=mixed
        ):
            try:
                yield
            finally:  # within another autocast torch would keep its copies of what is now changed
                torch.clear_autocast_cache()

    @property
    def precision_name(self) -> str:
        """Name of the precision, such as "bfloat16"."""
        return str(self.precision).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.device} in {self.precision_name}"


Device = str | torch.device | Place | None
"""What ``device=`` takes: "auto", any torch device, None for where the model is, or a `Place`."""


def dtype_of(model: Any) -> torch.dtype:
    """The dtype of a network's parameters; float32 where it has none, or is no network."""
    if not isinstance(model, nn.Module):  # whoever uses it says so
        return torch.float32
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _is_quantized(model: nn.Module | None) -> bool:
    parts = model.modules() if isinstance(model, nn.Module) else ()
    places = [type(part).__module__ for part in parts]  # also torch.ao.nn.intrinsic.quantized
    return any(each.startswith("torch.ao.nn.") and "quantized" in each for each in places)


def compile_pays(device: torch.device, steps: int) -> bool:
    """Whether torch.compile wins back its own time within ``steps`` training steps.

    On a GPU the threshold is a cautious guess, not yet measured. On CPUs the fused kernels were
    slower than the plain ones (benchmarks/throughput.py --only compile).
    """
    return device.type == "cuda" and steps >= _STEPS_WORTH_COMPILING


def _find_device(device: str | torch.device) -> torch.device:
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            device = "cuda"
        else:
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found == torch.device("cuda"):  # without a number
            # torchrun gives each process of a machine its own number, hence its own GPU
            local = os.environ.get("LOCAL_RANK")
            found = torch.device("cuda", int(local) if local else torch.cuda.current_device())
        torch.empty(0, device=found)
        if found.type == "meta":
            raise ValueError("tensors there have shapes and no values")
    except (RuntimeError, AssertionError, ImportError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]  # each backend raises its own
        if device == "gpu":
            reason = "torch calls NVIDIA's 'cuda', and Apple's 'mps'"
        raise ArgumentError(
            f"device {str(device)!r} cannot be used here ({reason}); try 'auto' or 'cpu'"
        ) from error
    return found
