"""Switches of torch's backends are put back."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

from cifarzoo.compute.backend import arithmetic, many_shapes
from cifarzoo.compute.place import Place


@pytest.mark.parametrize(("precision", "rounded"), [(torch.float32, False), (torch.bfloat16, True)])
def test_float32_on_a_gpu_is_float32(precision: torch.dtype, rounded: bool) -> None:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    with arithmetic(Place(torch.device("cuda", 0), precision)):
        assert [backend.allow_tf32 for backend in backends] == [rounded, rounded]
    assert [backend.allow_tf32 for backend in backends] == before
    with arithmetic(Place(torch.device("cpu"), precision)):
        assert [backend.allow_tf32 for backend in backends] == before


def test_the_compiler_takes_as_many_shapes_as_a_recipe_has() -> None:
    usual = torch._dynamo.config.cache_size_limit
    with many_shapes(12):
        assert torch._dynamo.config.cache_size_limit >= 36
    assert torch._dynamo.config.cache_size_limit == usual


@pytest.mark.slow
def test_ten_image_sizes_are_all_compiled() -> None:
    """Counted by a backend that compiles nothing: without more room, two would run eagerly."""
    made: list[int] = []

    def count(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        made.append(1)
        return module

    def run(limit: int) -> int:
        torch._dynamo.reset()
        made.clear()
        network = torch.compile(torch.nn.Conv2d(3, 4, 3), backend=count, dynamic=False)
        with many_shapes(limit):
            for size in range(8, 18):
                network(torch.zeros(1, 3, size, size))
        torch._dynamo.reset()
        return len(made)

    assert run(10) == 10
