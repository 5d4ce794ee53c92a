"""Muon for filters, SGD for the rest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cifarzoo.recipe.muon import MuonSGD, orthogonalize


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(rows=st.integers(1, 12), columns=st.integers(1, 30), seed=st.integers(0, 99))
def test_singular_values_move_towards_one_and_vectors_stay(
    rows: int, columns: int, seed: int
) -> None:
    matrix = drawn(rows, columns, seed=seed)
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix[None], steps=5)[0]
    inside = u.T @ found @ vh.T  # diagonal when the vectors have stayed
    torch.testing.assert_close(inside, inside.diagonal().diag(), rtol=0, atol=0.05)
    large = inside.diagonal()[values > values[0] / 10]
    assert large.numel()
    assert (large > 0.6).all()
    assert (large < 1.3).all()


@pytest.mark.parametrize("shape", [(2, 16, 144), (1, 64, 27), (1, 9, 14), (2, 4, 6), (1, 1, 3)])
@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_wide_matrices_end_where_the_iterations_lead(
    shape: tuple[int, ...], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bfloat16 takes no shorter way, and its rounding grows where values are small
    monkeypatch.setattr("cifarzoo.recipe.muon.computes_bfloat16", lambda device: False)
    u, values, vh = torch.linalg.svd(drawn(*shape).double(), full_matrices=False)
    values = values * torch.logspace(0, -5, values.shape[1])  # as of gradients: most are small
    matrices = (u * values[:, None]) @ vh
    x = matrices / torch.linalg.matrix_norm(matrices, keepdim=True)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    found = orthogonalize(matrices.float(), steps)
    torch.testing.assert_close(found, x.float(), rtol=0, atol=2e-4)


def test_the_scale_of_a_gradient_means_nothing() -> None:
    matrices = drawn(3, 4, 9)
    torch.testing.assert_close(
        orthogonalize(1000 * matrices, 3), orthogonalize(matrices, 3), rtol=0.02, atol=0.02
    )


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert orthogonalize(torch.zeros(2, 4, 9), 3).abs().max() == 0


def test_filters_that_begin_at_zero_take_a_step() -> None:
    filters = nn.Parameter(torch.zeros(5, 4, 3, 3))
    filters.grad = drawn(5, 4, 3, 3)
    MuonSGD([filters], lr=0.1).step()
    assert filters.isfinite().all()
    assert filters.norm() > 0


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_the_published_one(memory_format: torch.memory_format) -> None:
    weight, first, second = drawn(5, 4, 3, 3), drawn(5, 4, 3, 3, seed=1), drawn(5, 4, 3, 3, seed=2)
    filters = nn.Parameter(weight.clone().to(memory_format=memory_format))
    optimizer = MuonSGD([filters], lr=0.1, momentum=0.6)
    expected, buffer = weight.clone(), torch.zeros_like(weight)
    for gradient in (first, second):
        filters.grad = gradient.clone().to(memory_format=memory_format)
        optimizer.step()
        buffer = 0.6 * buffer + gradient
        moved = (gradient + 0.6 * buffer).flatten(1)
        expected = expected * 5**0.5 / expected.norm()
        expected -= 0.1 * orthogonalize(moved[None], 3)[0].view_as(weight)
    torch.testing.assert_close(filters.detach(), expected, rtol=0.02, atol=0.005)


def test_filters_of_one_shape_do_not_mix() -> None:
    together = [nn.Parameter(drawn(4, 3, 3, 3, seed=s)) for s in (0, 1)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    for pair in (together, alone):
        for seed, p in enumerate(pair):
            p.grad = drawn(4, 3, 3, 3, seed=10 + seed)
    MuonSGD(together).step()
    for p in alone:
        MuonSGD([p]).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.005)


@pytest.mark.parametrize("momentum", [0.0, 0.85])
def test_everything_else_moves_by_sgd(momentum: float) -> None:
    ours, theirs = (nn.Parameter(drawn(7, 3)) for _ in range(2))
    optimizers = (
        MuonSGD([ours], lr=0.1, momentum=momentum, weight_decay=0.01),
        torch.optim.SGD(
            [theirs], lr=0.1, momentum=momentum, weight_decay=0.01, nesterov=momentum > 0
        ),
    )
    for seed in (1, 2, 3):
        for p, optimizer in zip((ours, theirs), optimizers, strict=True):
            p.grad = drawn(7, 3, seed=seed)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_parameters_without_a_gradient_stay() -> None:
    parameters = [nn.Parameter(drawn(4, 3, 3, 3)), nn.Parameter(drawn(4))]
    before = [p.detach().clone() for p in parameters]
    MuonSGD(parameters).step()
    assert all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))


def test_a_closure_is_called() -> None:
    parameter = nn.Parameter(torch.ones(1))

    def closure() -> float:
        loss = (parameter**2).sum()
        loss.backward()
        return float(loss.detach())

    assert MuonSGD([parameter], lr=0.1, momentum=0.0).step(closure) == 1.0
    assert float(parameter.detach()) == pytest.approx(0.8)


def test_dense_layers_may_move_like_filters_and_the_classifier_does_not() -> None:
    hidden, classifier, bias = drawn(6, 8), drawn(3, 6, seed=1), drawn(3, seed=2)
    gradients = [drawn(6, 8, seed=3), drawn(3, 6, seed=4), drawn(3, seed=5)]
    moved = {}
    for dense in (False, True):
        parameters = [nn.Parameter(p.clone()) for p in (hidden, classifier, bias)]
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient.clone()
        # the classifier is the last matrix of all groups together
        groups = [{"params": parameters[:1]}, {"params": parameters[1:]}]
        MuonSGD(groups, lr=0.1, momentum=0.6, dense=dense).step()
        moved[dense] = [p.detach() for p in parameters]
    torch.testing.assert_close(moved[True][1:], moved[False][1:])
    torch.testing.assert_close(moved[False][0], hidden - 0.1 * 1.6 * gradients[0])
    step = orthogonalize(1.6 * gradients[0][None], 3)[0]
    expected = hidden * 6**0.5 / hidden.norm() - 0.1 * step
    torch.testing.assert_close(moved[True][0], expected, rtol=0.02, atol=0.005)
