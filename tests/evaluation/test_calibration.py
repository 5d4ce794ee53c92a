"""Temperature scaling."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import cifarzoo
from cifarzoo import ImageSet
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.evaluation import compare_with_humans
from cifarzoo.evaluation.calibration import fit_temperature


@given(seed=st.integers(0, 500), scale=st.floats(0.2, 20))
def test_the_temperature_is_the_one_of_the_least_loss(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(300, 5, generator=generator, dtype=torch.float64)
    # labels drawn from the model's own probabilities at another temperature
    labels = (logits / 2).softmax(1).multinomial(1, generator=generator).squeeze(1)
    found = fit_temperature(logits, labels)

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    best = scipy.optimize.minimize_scalar(
        loss, bounds=(math.log(0.01), math.log(100)), method="bounded", options={"xatol": 1e-8}
    )
    assert loss(math.log(found)) <= best.fun + 1e-9


def test_a_network_that_is_always_right_may_be_as_sure_as_can_be() -> None:
    logits = 2 * F.one_hot(torch.arange(4)).double()
    assert fit_temperature(logits, torch.arange(4)) == pytest.approx(0.01)


def test_a_network_that_is_always_wrong_should_not_be_sure() -> None:
    logits = 2 * F.one_hot(torch.arange(4)).double()
    assert fit_temperature(logits, (torch.arange(4) + 1) % 4) == pytest.approx(100)


def test_calibrating_changes_confidence_and_nothing_else(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    with torch.no_grad():
        model.get_parameter("fc3.weight").mul_(100)  # far too sure
    found = cifarzoo.calibrate(model, few)
    assert found.temperature > 2
    assert found.num_images == 200
    assert found.loss[1] < found.loss[0]
    assert found.expected_calibration_error[1] < found.expected_calibration_error[0]
    plain = cifarzoo.evaluate(model, few)
    cooled = cifarzoo.evaluate(model, few, temperature=found.temperature)
    assert plain.predicted == cooled.predicted
    assert cooled.loss == pytest.approx(found.loss[1])
    assert cooled.expected_calibration_error == pytest.approx(found.expected_calibration_error[1])
    assert cooled.temperature == found.temperature


@pytest.mark.parametrize(
    "temperature", [0, -1, math.inf, math.nan, 1e-39, 1e39, 10**400, None, "a", [1.0], True]
)
def test_temperatures_that_are_none_are_refused(temperature: Any, few: ImageSet) -> None:
    with pytest.raises(ArgumentError, match="temperature must be a positive number"):
        cifarzoo.evaluate(cifarzoo.create_model("simple"), few, temperature=temperature)
    with pytest.raises(ArgumentError, match="temperature must be a positive number"):
        cifarzoo.predict(cifarzoo.create_model("simple"), few.images[0], temperature=temperature)
    shares = F.one_hot(few.labels, 10)
    with pytest.raises(ArgumentError, match="temperature must be a positive number"):
        compare_with_humans(cifarzoo.create_model("simple"), few, shares, temperature=temperature)


@pytest.mark.parametrize("temperature", [1.2e-38, 3.4e38, np.float32(2), torch.tensor(2.0)])
def test_any_other_temperature_gives_probabilities(temperature: Any, few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", seed=0)
    with torch.no_grad():
        model.get_parameter("fc3.weight").mul_(100)  # what is divided is above float32's numbers
    rows = cifarzoo.probabilities(model, few.images, temperature=temperature)
    torch.testing.assert_close(rows.sum(1), torch.ones(len(few)))
    report = cifarzoo.evaluate(model, few, temperature=temperature)
    json.dumps(report.to_dict(), allow_nan=False)
    torch.testing.assert_close(rows.amax(1), torch.tensor(report.confidence))


def test_images_that_are_all_recognized_tell_no_temperature(few: ImageSet) -> None:
    model = cifarzoo.create_model("simple", pretrained=True)
    report = cifarzoo.evaluate(model, few)
    pairs = zip(report.labels, report.predicted, strict=True)
    right = few.subset([i for i, (label, found) in enumerate(pairs) if label == found])
    with pytest.raises(InputError, match=r"recognizes all .* images, so the smaller the temp"):
        cifarzoo.calibrate(model, right)


def test_labels_without_an_output_are_refused(few: ImageSet) -> None:
    with pytest.raises(InputError, match=r"labels must be in 0\.\.2"):
        cifarzoo.calibrate(cifarzoo.create_model("simple", num_classes=3), few)
