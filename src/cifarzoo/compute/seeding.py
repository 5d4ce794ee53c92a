"""Random numbers that belong to one task: other threads draw theirs as if it did not exist."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cifarzoo.errors import ArgumentError
from cifarzoo.names import whole_number
from cifarzoo.plain import shorten

__all__ = ["as_seed", "own_generator", "seeded"]

_borrowing = threading.Lock()


def as_seed(seed: Any) -> int:
    """``seed`` as Python's int; raises ArgumentError when torch's generators take no such seed.

    Example:
        >>> as_seed(7)
        7
    """
    number = whole_number(seed)
    if number is None or not -(2**63) <= number < 2**64:
        raise ArgumentError(
            f"seed must be a whole number from -2**63 to 2**64 - 1; got {shorten(seed)}"
        )
    return number


@contextlib.contextmanager
def own_generator(seed: int | None) -> Iterator[None]:
    """Within the block, what this thread draws comes from generators of its own.

    The numbers are those that torch's global generators give after ``torch.manual_seed(seed)``.
    The global ones are neither read nor moved, on no device, so any number of threads may do this
    at once, beside others that draw from the global ones. Each operation costs some microseconds
    more: this is for building a network, not for training it.

    Args:
        seed: The seed; with None nothing changes.

    Example:
        >>> with own_generator(7):
        ...     first = torch.rand(2)
        >>> torch.equal(first, torch.rand(2, generator=torch.Generator().manual_seed(7)))
        True
    """
    with contextlib.nullcontext() if seed is None else _OwnGenerators(seed):
        yield


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators of the CPU and of ``device``, seeded; afterwards as before.

    All threads share them: only one at a time may do this.
    """
    with contextlib.ExitStack() as restored:
        for get, put, sow in _global_generators(device):
            restored.callback(put, get())
            sow(seed)
        yield


def _global_generators(
    device: torch.device,
) -> Iterator[tuple[Callable[[], Tensor], Callable[[Tensor], object], Callable[[int], object]]]:
    """How to read, set and seed each of the two."""
    cpu = torch.default_generator
    yield cpu.get_state, cpu.set_state, cpu.manual_seed
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        gpu = torch.cuda.default_generators[device.index or 0]
        yield gpu.get_state, gpu.set_state, gpu.manual_seed
    elif device.type == "mps":
        yield torch.mps.get_rng_state, torch.mps.set_rng_state, torch.mps.manual_seed


class _OwnGenerators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # as here
    """Hands its own generator, one for each device, to every operation that draws."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # and here
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, for more than a second

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator"):
            return func(*args, **kwargs)
        like = next((each for each in args if isinstance(each, Tensor)), None)
        device = torch.device(kwargs.get("device") or "cpu") if like is None else like.device
        if device.type == "meta":
            return func(*args, **kwargs)
        taking = _with_generator(func)
        if taking is not None:
            return taking(*args, **{**kwargs, "generator": self._generator(device)})
        # dropout and attention know only the global generators, and rarely draw while one builds
        seed = int(torch.randint(2**62, (), generator=self._generator(torch.device("cpu"))))
        with _borrowing, seeded(seed, device):
            return func(*args, **kwargs)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def _with_generator(func: Any) -> Any:
    """The overload of ``func`` that takes a generator; None where there is none."""
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return func
    overload = func._overloadname
    name = "generator" if overload == "default" else f"{overload}_generator"
    return getattr(func.overloadpacket, name, None)
