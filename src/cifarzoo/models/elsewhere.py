"""Networks of timm and torchvision, by their names there, with a stem for 32 pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from torch import nn

from cifarzoo.compute.seeding import own_generator
from cifarzoo.models.stem import adapt_stem
from cifarzoo.names import TIMM_PREFIX
from cifarzoo.zoo.known import read_recipe
from cifarzoo.zoo.registry import ModelSpec, register_source

__all__: list[str] = []

_WITH_FURTHER_LOGITS = ("googlenet", "inception_v3")


def _timm_names() -> list[str]:
    import timm

    # those of this zoo are timm's too, once cifarzoo.timm is imported
    return [name for name in timm.list_models() if not name.startswith(TIMM_PREFIX)]


def _timm(name: str) -> Callable[..., nn.Module]:
    def build(*, num_classes: int = 10) -> nn.Module:
        import timm

        return adapt_stem(timm.create_model(name, num_classes=num_classes))

    return build


def _torchvision_names() -> list[str]:
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _torchvision(name: str) -> Callable[..., nn.Module]:
    def build(*, num_classes: int = 10) -> nn.Module:
        import torchvision

        # the further logits that two of them have in training are no use here
        more = {"aux_logits": False} if name in _WITH_FURTHER_LOGITS else {}
        with warnings.catch_warnings():  # two of them will be initialized in another way one day
            warnings.filterwarnings("ignore", message="The default weight initialization")
            model = torchvision.models.get_model(name, num_classes=num_classes, **more)
        return adapt_stem(model)

    return build


def _spec(package: str, name: str, builder: Callable[..., nn.Module]) -> ModelSpec:
    from cifarzoo.zoo.summary import summary

    with own_generator(0):  # it is thrown away, and the caller's random numbers stay as they are
        counted = summary(builder())
    return ModelSpec(
        name=f"{package}:{name}",
        builder=builder,
        description=f"{package}'s {name}, with a stem for 32 pixels.",
        source=f"{package}, {name}",
        parameters=counted.total_params,
        macs=counted.total_mult_adds,
        image_size=None,
        stated_accuracy=None,
        recipes={"default": read_recipe("resnet18")},
        weights={},
        family=package,
    )


register_source("timm", _timm_names, lambda name: _spec("timm", name, _timm(name)))
register_source(
    "torchvision",
    _torchvision_names,
    lambda name: _spec("torchvision", name, _torchvision(name)),
)
