"""What every registered model must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kinds import (
    KINDS,
    create_short,
    each_kind,
    each_kind_slowly,
    each_model,
    each_model_slowly,
    hollow,
)
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import cifarzoo
from cifarzoo import ModelCard
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.models.listing import plain_listing
from cifarzoo.models.patches import SelfAttention
from cifarzoo.models.shakeshake import ShakeBlock

GOLDEN = Path(__file__).parents[1] / "golden"


def noise(count: int, *, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def halved(images: Tensor, name: str) -> Tensor:
    """Images of 16 pixels for networks that take them: a quarter of the work."""
    spec = cifarzoo.get_model_info(name)
    return F.avg_pool2d(images, 2) if spec.image_size is None and spec.family != "vgg" else images


def describe(model: nn.Module) -> str:
    """Layer listing, then for each layer its output shape, parameters and MACs."""
    statistics = cifarzoo.summary(model)
    rows = [
        f"{'  ' * layer.depth}{layer.var_name}: {tuple(layer.output_size)}, "
        f"{layer.num_params:,} parameters, {layer.macs:,} MACs"
        for layer in statistics.summary_list
    ]
    total = f"total: {statistics.total_params:,} parameters, {statistics.total_mult_adds:,} MACs"
    return "\n".join([plain_listing(model), "", *rows, "", total]) + "\n"


@each_model
def test_listing_shapes_and_counts_match_the_golden_file(
    name: str, request: pytest.FixtureRequest
) -> None:
    path = GOLDEN / f"{name}.txt"
    model = hollow(name)
    found = describe(model)
    if request.config.getoption("--update-golden"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
    spec = cifarzoo.get_model_info(name)
    assert sum(p.numel() for p in model.parameters()) == spec.parameters
    assert found.endswith(f"total: {spec.parameters:,} parameters, {spec.macs:,} MACs\n")


@pytest.mark.parametrize("name", ["simple", "deep_bn"])
def test_listing_is_the_reports_line_for_line(name: str) -> None:
    stated = (GOLDEN / f"report_{name}.txt").read_text(encoding="utf-8").splitlines()
    found = str(cifarzoo.create_model(name)).splitlines()
    assert found[1:] == stated[1:]


@given(
    name=st.sampled_from(KINDS),
    batch=st.integers(1, 5),
    num_classes=st.integers(1, 101),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    memory_format=st.sampled_from([torch.contiguous_format, torch.channels_last]),
    training=st.booleans(),
)
def test_output_is_one_row_of_finite_logits_for_each_image(
    name: str,
    batch: int,
    num_classes: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    training: bool,
) -> None:
    model = cifarzoo.create_model(name, num_classes=num_classes, seed=0).to(dtype).train(training)
    generator = torch.Generator().manual_seed(batch)
    batch += training  # a batch normalization of vectors cannot learn from a single one
    images = torch.randn(batch, 3, 32, 32, generator=generator).to(dtype)
    output = model(images.to(memory_format=memory_format))
    assert output.shape == (batch, num_classes)
    assert output.dtype == dtype
    assert output.isfinite().all()


@each_model_slowly
def test_every_parameter_gets_a_gradient_and_a_step_along_it_lowers_the_loss(name: str) -> None:
    model = cifarzoo.create_model(name, seed=0)
    without_chance(model)
    images, labels = halved(noise(4), name), torch.arange(4)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    square = sum(float(g.square().sum()) for g in gradients)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                # as far as lowers the loss by a hundredth of it, were it a plane
                parameter -= 0.01 * float(loss) / square * parameter.grad
        assert F.cross_entropy(model(images), labels) < loss


def without_chance(model: nn.Module) -> None:
    """Leave out what draws random numbers in training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
        elif isinstance(module, SelfAttention):
            module.dropout = 0.0
        elif isinstance(module, ShakeBlock):
            module.training = False  # alone: its normalizations go on as they are


@each_kind_slowly
def test_it_learns_64_images_by_heart(name: str) -> None:
    model = create_short(name)
    without_chance(model)
    data = cifarzoo.load_sample("train")
    images = cifarzoo.CIFAR10_PREPROCESSING.normalize(data.images[:64])
    images, labels = halved(images, name), data.labels[:64]
    rate = 3e-3 if cifarzoo.get_model_info(name).family in ("cct", "vit") else 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(200):
        logits = model(images)
        if (logits.argmax(1) == labels).float().mean() > 0.95:
            return
        optimizer.zero_grad()
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
    pytest.fail("it does not learn them")


@each_kind
def test_evaluation_of_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model = cifarzoo.create_model(name, seed=0).eval()
    images = noise(3, seed=1)
    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    scale = together.abs().max()
    torch.testing.assert_close(together / scale, alone / scale, rtol=1e-4, atol=1e-4)


@each_kind_slowly
def test_state_dict_survives_a_weights_file(name: str, tmp_path: Path) -> None:
    model = cifarzoo.create_model(name, seed=1)
    cifarzoo.save_weights(model, tmp_path / "w.safetensors")
    again = cifarzoo.create_model(name, pretrained=tmp_path / "w.safetensors")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


@each_kind_slowly
def test_exports_with_any_batch_size(name: str) -> None:
    model = create_short(name).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(
        model, (torch.zeros(3, 3, 32, 32),), dynamic_shapes=({0: batch},)
    )
    images = noise(5, seed=2)
    expected = model(images)
    scale = expected.abs().max()
    torch.testing.assert_close(exported.module()(images) / scale, expected / scale)


@each_kind_slowly
def test_seed_decides_the_parameters_and_leaves_the_global_generator(name: str) -> None:
    state = torch.get_rng_state()
    first, same, other = (cifarzoo.create_model(name, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    values = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, same, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


@each_kind
def test_images_of_a_wrong_shape_are_refused(name: str) -> None:
    model = hollow(name)
    for shape in ((3, 32, 32), (2, 1, 32, 32), (2, 32, 32, 3)):
        with pytest.raises(InputError, match=r"\(batch, 3, height, width\)"):
            model(torch.zeros(shape))


@each_kind
def test_images_of_a_wrong_dtype_are_refused(name: str) -> None:
    model, images = create_short(name), torch.zeros(2, 3, 32, 32)
    with pytest.raises(InputError, match="normalize them first"):
        model(images.byte())
    with pytest.raises(InputError, match="float64"):
        model(images.double())


@each_kind
def test_other_sizes_work_or_are_refused_with_the_size(name: str) -> None:
    model, images = hollow(name).eval(), torch.zeros(2, 3, 48, 48)
    size = cifarzoo.get_model_info(name).image_size
    if size is None:
        assert model(images).shape == (2, 10)
    else:
        with pytest.raises(InputError, match=f"needs {size}x{size} images; got 48x48"):
            model(images)


@each_kind
def test_it_takes_every_size_that_its_recipes_train_at(name: str) -> None:
    model, images = hollow(name).eval(), torch.zeros(2, 3, 32, 32)
    for recipe in cifarzoo.get_model_info(name).recipes.values():
        for size in {int(size) for _, size in recipe.image_sizes}:
            assert model(images[..., :size, :size].contiguous()).shape == (2, 10)


@each_kind
def test_has_a_card_that_names_it(name: str) -> None:
    card = cifarzoo.get_card(hollow(name, num_classes=7))
    assert card == ModelCard(name, num_classes=7)


@each_model
@pytest.mark.parametrize("num_classes", [0, -1, 1.5, True])
def test_num_classes_must_be_a_positive_whole_number(name: str, num_classes: int) -> None:
    with pytest.raises(
        ArgumentError, match=r"num_classes must be a whole number of.*embeddings\(\)"
    ):
        cifarzoo.create_model(name, num_classes=num_classes)


@each_kind
@pytest.mark.parametrize("value", ["x", {"a": 1}, {1}, [None], [0.5], -1, float("nan"), 10**20])
def test_an_option_of_another_kind_is_refused(name: str, value: object) -> None:
    for option in cifarzoo.get_model_info(name).options:
        with pytest.raises(ArgumentError, match=rf"{option} must be"):
            cifarzoo.create_model(name, **{option: value})


@each_model
def test_has_the_recipes_and_texts_that_the_zoo_shows(name: str) -> None:
    spec = cifarzoo.get_model_info(name)
    assert spec.recipe.epochs > 0
    assert spec.description.endswith(".")
    assert spec.source
    if "report" in spec.source:
        assert spec.recipes["original"].epochs == 8
