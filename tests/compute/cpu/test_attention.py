"""Attention within `cpu_kernels`: torch's, with a faster gradient for few tokens in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import cifarzoo
from cifarzoo.compute.cpu import attention, cpu_kernels

STOCK = F.scaled_dot_product_attention
CONV = nn.Conv2d(3, 8, 3)  # any layer that computes otherwise in the block


def drawn(tokens: int, others: int, spread: float = 1.0) -> tuple[Tensor, ...]:
    """Query, key, value and gradient: 3 images, 2 heads of 16 numbers, as views of one tensor."""
    generator = torch.Generator().manual_seed(tokens)

    def numbers(count: int, size: float) -> Tensor:
        x = torch.randn(3, count, 2, 16, generator=generator).mul(size).bfloat16()
        return x.transpose(1, 2)

    return numbers(tokens, spread), numbers(others, spread), numbers(others, 1), numbers(tokens, 1)


def learn(
    attend: Callable[..., Tensor], inputs: tuple[Tensor, ...], **options: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The result, and the gradients of query, key and value."""
    *every, grad = (x.detach() for x in inputs)
    every = [x.requires_grad_() for x in every]
    y = attend(*every, **options)
    return y, torch.autograd.grad(y, every, grad, retain_graph=True)


@pytest.mark.parametrize(("tokens", "others"), [(65, 65), (1, 1), (7, 128), (256, 7)])
@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_gradients_are_as_exact_as_torchs(
    tokens: int, others: int, spread: float, scale: float | None
) -> None:
    inputs = drawn(tokens, others, spread)
    _, to_exact = learn(STOCK, tuple(x.double() for x in inputs), scale=scale)
    theirs, to_theirs = learn(STOCK, inputs, scale=scale)
    with cpu_kernels(CONV):
        ours, to_ours = learn(F.scaled_dot_product_attention, inputs, scale=scale)
    assert ours.grad_fn is not None
    assert ours.grad_fn.name() == "_AttentionBackward"
    assert torch.equal(ours, theirs)
    for found, other, true, value in zip(to_ours, to_theirs, to_exact, inputs, strict=False):
        assert found.dtype == torch.bfloat16
        assert found.shape == value.shape
        # of one token alone, query and key have no gradient but for rounding
        assert (found - true).norm() <= 1.02 * (other - true).norm() + 1e-2 * (others == 1)


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True},
        {"attn_mask": torch.ones(9, 9, dtype=torch.bool).tril()},
        {"attn_mask": torch.ones(9, 9, dtype=torch.bool).tril(), "dropout_p": 0.5},
        {"dropout_p": 0.001},  # too little for what is drawn
        {"dropout_p": 1.0},
    ],
)
def test_other_kinds_are_torchs(options: dict[str, Any]) -> None:
    inputs = drawn(9, 9)
    torch.manual_seed(0)
    expected = learn(STOCK, inputs, **options)
    torch.manual_seed(0)
    with cpu_kernels(CONV):
        found = learn(F.scaled_dot_product_attention, inputs, **options)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], expected[1], strict=True))
    assert found[0].grad_fn is not None
    assert found[0].grad_fn.name() != "_AttentionBackward"


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.bfloat16, 1e-2), (torch.float32, 3e-5)], ids=str
)
@pytest.mark.parametrize("dropout", [0.1, 0.75])
def test_dropout_is_that_of_the_weights_it_has_drawn(
    dtype: torch.dtype, error: float, dropout: float
) -> None:
    inputs = tuple(x.to(dtype) for x in drawn(200, 90))
    torch.manual_seed(0)
    with cpu_kernels(CONV):
        found, to_found = learn(F.scaled_dot_product_attention, inputs, dropout_p=dropout)
    node: Any = found.grad_fn
    assert node.name() == "_AttentionBackward"
    *_, kept = node.saved_tensors
    assert kept.shape == (3, 2, 200, 90)
    assert float(kept.double().mean()) == pytest.approx(1 - dropout, abs=0.004)
    assert float(kept.double().mean((0, 1)).std()) == pytest.approx(
        (dropout * (1 - dropout) / 6) ** 0.5, rel=0.05
    )  # as of draws that know nothing of each other

    def exactly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = (query @ key.mT / 16**0.5).softmax(-1)
        return (weights * kept / (1 - dropout)) @ value

    expected, to_expected = learn(exactly, tuple(x.double() for x in inputs))
    for ours, true in zip((found, *to_found), (expected, *to_expected), strict=True):
        assert ours.dtype == dtype
        assert (ours - true).norm() < error * true.norm()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_images_may_be_computed_in_parts(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tuple(x.float() if dropout else x for x in drawn(20, 30))
    found = []
    for at_once in (1, 2 * 20 * 30 * 2, 2**18):  # one image, two and one, all three
        monkeypatch.setattr(attention, "_AT_ONCE", at_once)
        torch.manual_seed(0)
        with cpu_kernels(CONV):
            result, gradients = learn(F.scaled_dot_product_attention, inputs, dropout_p=dropout)
        found.append((result, *gradients))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(
                one, other, rtol=1e-2 if one.dtype != torch.float32 else 1e-5, atol=1e-5
            )


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("tokens", "others"), [(0, 5), (5, 0)])
def test_there_may_be_no_tokens(tokens: int, others: int, dropout: float) -> None:
    inputs = drawn(tokens, others)
    with cpu_kernels(CONV):
        result, gradients = learn(F.scaled_dot_product_attention, inputs, dropout_p=dropout)
    assert result.shape == inputs[0].shape
    assert not result.any()
    assert not any(gradient.any() for gradient in gradients)


def test_the_seed_decides_what_is_dropped() -> None:
    inputs = drawn(9, 9)
    with cpu_kernels(CONV):
        results = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            results.append(learn(F.scaled_dot_product_attention, inputs, dropout_p=0.3)[0])
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            within = learn(F.scaled_dot_product_attention, inputs, dropout_p=0.3)[0]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert torch.equal(results[0], within)


def test_float32_within_an_autocast_is_left_to_torch() -> None:
    inputs = tuple(x.float() for x in drawn(9, 9))
    with cpu_kernels(CONV), torch.autocast("cpu", torch.bfloat16):
        found, _ = learn(F.scaled_dot_product_attention, inputs, dropout_p=0.3)
    assert found.grad_fn is not None
    assert found.grad_fn.name() != "_AttentionBackward"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.float(),
        lambda x: x.repeat(1, 1, 40, 1),  # 360 tokens
        lambda x: x[0],  # without a batch
    ],
)
def test_other_tensors_are_torchs(change: Callable[[Tensor], Tensor]) -> None:
    inputs = tuple(change(x) for x in drawn(9, 9))
    with cpu_kernels(CONV):
        found, _ = learn(F.scaled_dot_product_attention, inputs)
    assert found.grad_fn is not None
    assert found.grad_fn.name() != "_AttentionBackward"


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_can_be_differentiated(dropout: float) -> None:
    *every, _ = drawn(5, 5)
    every = [x.detach().requires_grad_() for x in every]
    seconds = []
    kept: Any = 1.0

    def exactly(query: Tensor, key: Tensor, value: Tensor, dropout_p: float) -> Tensor:
        weights = (query @ key.mT / 16**0.5).softmax(-1)
        return (weights * kept / (1 - dropout_p)) @ value

    # torch's own has no second derivative where it computes in blocks
    for convert in (Tensor.bfloat16, Tensor.double):
        with cpu_kernels(CONV):
            ours = convert is Tensor.bfloat16
            attend = F.scaled_dot_product_attention if ours else exactly
            y = attend(*(convert(x) for x in every), dropout_p=dropout)
            if ours and dropout:
                node: Any = y.grad_fn
                *_, kept = node.saved_tensors
            firsts = torch.autograd.grad(y.float().square().sum(), every, create_graph=True)
            seconds.append(torch.autograd.grad(sum(x.square().sum() for x in firsts), every))
    for found, true in zip(seconds[0], seconds[1], strict=True):
        assert (found - true).norm() < 0.05 * true.norm()


def test_torchs_function_comes_back_when_the_last_block_ends() -> None:
    other = nn.Conv2d(3, 8, 3)
    with cpu_kernels(CONV):
        with cpu_kernels(other), cpu_kernels(CONV):
            assert F.scaled_dot_product_attention is not STOCK
        assert F.scaled_dot_product_attention is not STOCK
    assert F.scaled_dot_product_attention is STOCK
    with cpu_kernels(nn.Linear(2, 2)), cpu_kernels(CONV, enabled=False):
        assert F.scaled_dot_product_attention is STOCK


def test_a_network_of_timm_learns_as_without() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 32, 32, generator=generator)
    model = cifarzoo.create_model("vit_tiny_patch4", seed=0)
    assert isinstance(model, timm.models.VisionTransformer)
    grads = []
    for enabled in (True, False):
        model.zero_grad()
        with cpu_kernels(model, enabled=enabled), torch.autocast("cpu", torch.bfloat16):
            loss = model(images).float().square().mean()
            loss.backward()
        grads.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert not torch.equal(*grads)
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0.03 * float(grads[1].abs().max()))


def test_its_products_are_counted_inside_as_outside() -> None:
    model = cifarzoo.create_model("vit_tiny_patch4")
    outside = cifarzoo.summary(model).total_mult_adds
    with cpu_kernels(model):
        assert cifarzoo.summary(model).total_mult_adds == outside


def some(count: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Tensors (2, 2, 9, 16) of float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 2, 9, 16, generator=generator).unbind()


def dropping(*every: Any, dropout_p: float = 0.3) -> Tensor:
    return F.scaled_dot_product_attention(*every, dropout_p=dropout_p)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_drops_the_same_weights_again(use_reentrant: bool) -> None:
    """The first pass of a reentrant one takes no gradient, and draws nevertheless as the second."""
    query, key, value, grad = (x.requires_grad_() for x in some(4))
    torch.manual_seed(0)
    with cpu_kernels(CONV):
        y = checkpoint(dropping, query, key, value, use_reentrant=use_reentrant)
        y.backward(grad)
    assert value.grad is not None
    # the result is linear in the values
    torch.testing.assert_close((y * grad).sum(), (value.grad * value).sum())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("twice", [False, True])
def test_one_tensor_may_be_query_key_and_value(dropout: float, twice: bool) -> None:
    """Its gradient is the sum of the three, also where it is to be differentiated once more."""
    x, grad = (x.bfloat16() for x in some(2))
    three = [x.clone().requires_grad_() for _ in range(3)]
    one = x.clone().requires_grad_()
    with cpu_kernels(CONV):
        torch.manual_seed(0)
        y = dropping(*three, dropout_p=dropout)
        expected = sum(torch.autograd.grad(y, three, grad, create_graph=twice))
        torch.manual_seed(0)
        y = dropping(one, one, one, dropout_p=dropout)
        (found,) = torch.autograd.grad(y, one, grad, create_graph=twice)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected)


def test_what_comes_out_may_be_changed_in_place() -> None:
    query, key, value, grad = some(4)
    query.requires_grad_()
    with cpu_kernels(CONV):
        torch.manual_seed(0)
        (expected,) = torch.autograd.grad(2 * dropping(query, key, value), query, grad)
        torch.manual_seed(0)
        y = dropping(query, key, value)
        assert y.transpose(1, 2).is_contiguous()  # heads side by side, as the next layer wants
        side_by_side = y.transpose(1, 2).flatten(2)
        side_by_side *= 2
        (found,) = torch.autograd.grad(y, query, grad)
    torch.testing.assert_close(found, expected)


def test_masks_are_freed_with_the_gradient() -> None:
    query, key, value, grad = some(4)
    with cpu_kernels(CONV):
        y = dropping(query.requires_grad_(), key, value)
        node: Any = y.grad_fn
        assert not any(isinstance(each, Tensor) for each in vars(node).values())
        *_, kept = node.saved_tensors
        assert kept.shape == (2, 2, 9, 9)
        y.backward(grad)
    with pytest.raises(RuntimeError, match="already been freed"):
        _ = node.saved_tensors


def test_many_gradients_are_taken_at_once() -> None:
    query, key, value, *grads = some(5)
    query.requires_grad_()
    with cpu_kernels(CONV):
        y = dropping(query, key, value)
        one_by_one = [torch.autograd.grad(y, query, g, retain_graph=True)[0] for g in grads]
        (found,) = torch.autograd.grad(y, query, torch.stack(grads), is_grads_batched=True)
    torch.testing.assert_close(found, torch.stack(one_by_one))


def test_images_may_be_none() -> None:
    query, key, value = (x[:0].requires_grad_() for x in some(3))
    with cpu_kernels(CONV):
        y = dropping(query, key, value)
        y.sum().backward()
    assert y.shape == query.shape
    assert all(x.grad is not None and x.grad.shape == x.shape for x in (query, key, value))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_tensors_of_several_lengths_are_torchs(layout: torch.layout) -> None:
    parts = [torch.randn(2, 4, 8), torch.randn(2, 6, 8)]
    if layout == torch.jagged:
        parts = [part.transpose(0, 1) for part in parts]
    x = torch.nested.nested_tensor(parts, layout=layout)
    x = x.transpose(1, 2) if layout == torch.jagged else x
    with cpu_kernels(CONV):
        found = F.scaled_dot_product_attention(x, x, x)
    expected = STOCK(x, x, x)
    for ours, theirs in zip(found.unbind(), expected.unbind(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_an_autocast_converts_is_left_to_torch(dropout: float) -> None:
    inputs = drawn(9, 9)
    with cpu_kernels(CONV), torch.autocast("cpu", torch.float16):
        y = F.scaled_dot_product_attention(
            *(x.detach().requires_grad_() for x in inputs[:3]), dropout_p=dropout
        )
        y.float().sum().backward()
    assert y.dtype == torch.float16


def test_a_probability_may_be_a_tensor() -> None:
    query, key, value = some(3)
    with cpu_kernels(CONV):
        y = F.scaled_dot_product_attention(
            query.requires_grad_(), key, value, dropout_p=torch.tensor(0.3)
        )
    assert y.shape == query.shape
