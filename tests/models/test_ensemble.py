"""Several networks answer as one, with the mean of their probabilities."""

from __future__ import annotations

import pytest
import torch
import torchvision

import cifarzoo
from cifarzoo import ModelCard, Preprocessing, ensemble
from cifarzoo.errors import ArgumentError

HALF = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CPU = {"device": "cpu", "precision": "float32"}


def test_probabilities_are_the_mean_of_those_of_the_members() -> None:
    members = [
        cifarzoo.create_model("simple", pretrained=True),
        cifarzoo.create_model("resnet20", seed=1, preprocessing=HALF),
    ]
    images = cifarzoo.load_sample("test").subset(range(20))
    alone = [cifarzoo.probabilities(member, images, **CPU) for member in members]
    together = cifarzoo.probabilities(ensemble(members), images, **CPU)
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2, rtol=1e-4, atol=1e-5)


def test_one_network_alone_answers_as_before() -> None:
    model = cifarzoo.create_model("simple", pretrained=True)
    images = cifarzoo.load_sample("test").subset(range(50))
    alone = cifarzoo.evaluate(model, images, **CPU)
    assert cifarzoo.evaluate(ensemble([model]), images, **CPU).accuracy == alone.accuracy


def test_it_has_a_report_and_a_prediction_like_any_network() -> None:
    members = [cifarzoo.create_model(name, pretrained=True) for name in ("simple", "deep_bn")]
    images = cifarzoo.load_sample("test").subset(range(200))
    report = cifarzoo.evaluate(ensemble(members), images, tta="flip", **CPU)
    accuracies = [cifarzoo.evaluate(m, images, tta="flip", **CPU).accuracy for m in members]
    assert report.accuracy > min(accuracies)
    assert tuple(score.name for score in report.classes) == cifarzoo.CIFAR10_CLASSES
    label = cifarzoo.predict(ensemble(members), images.images[0]).label
    assert label in cifarzoo.CIFAR10_CLASSES


def test_networks_of_others_have_as_many_classes_as_outputs() -> None:
    members = [torchvision.models.resnet18(num_classes=30).eval() for _ in range(2)]
    assert cifarzoo.get_card(ensemble(members)).num_classes == 30
    with pytest.raises(
        ArgumentError, match="ResNet has 30 classes without names, and simple has 10 c"
    ):
        ensemble([members[0], cifarzoo.create_model("simple")])


def test_members_must_tell_the_same_classes_apart() -> None:
    ten = cifarzoo.create_model("simple")
    with pytest.raises(ArgumentError, match=r"same classes.* has 10 classes.* has 7 classes"):
        ensemble([ten, cifarzoo.create_model("simple", num_classes=7)])
    turned = cifarzoo.create_model("simple")
    cifarzoo.attach_card(turned, ModelCard("simple", classes=cifarzoo.CIFAR10_CLASSES[::-1]))
    with pytest.raises(ArgumentError, match=r"order: class 0 is 'airplane' in one and 'truck' in"):
        ensemble([ten, turned])
    with pytest.raises(ArgumentError, match="at least one network"):
        ensemble([])
    with pytest.raises(ArgumentError, match="made of networks; got a str"):
        ensemble(["simple"])  # type: ignore[list-item]
