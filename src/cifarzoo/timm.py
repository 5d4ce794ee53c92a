"""The zoo in timm's registry: ``import cifarzoo.timm`` adds each model as ``cifarzoo_NAME``.

Example:
    >>> import timm
    >>> import cifarzoo.timm
    >>> model = timm.create_model("cifarzoo_resnet20", pretrained=True)
    >>> model.pretrained_cfg["mean"]
    (0.4914, 0.4822, 0.4465)
"""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from typing import Any

from timm.models import DefaultCfg, PretrainedCfg, resolve_pretrained_cfg
from timm.models import register_model as _add
from torch import nn

from cifarzoo.data import get_dataset_info, list_datasets
from cifarzoo.errors import ArgumentError
from cifarzoo.factory import create_model
from cifarzoo.files.paths import home_path
from cifarzoo.hub import TIMM_PREFIX, fetch_weights, weights_in_folder
from cifarzoo.zoo.about import trained_on
from cifarzoo.zoo.card import CIFAR10_CLASSES, CIFAR10_PREPROCESSING, Preprocessing, get_card
from cifarzoo.zoo.classifier import find_classifier
from cifarzoo.zoo.registry import ModelSpec, WeightsInfo, get_model_info, list_models

__all__ = ["register"]

default_cfgs: dict[str, DefaultCfg] = {}
"""Where timm looks for what is known of a model."""

_registered: dict[str, ModelSpec] = {}
# what timm's programs pass to every model: those of the zoo are so in any case
_NEUTRAL = {"in_chans": 3, "drop_rate": 0.0, "drop_path_rate": 0.0}


def register(name: str) -> None:
    """Put a model that you registered into timm's registry; the zoo's models are in it already.

    The model's name in timm is ``cifarzoo_NAME``. ``timm.create_model`` then takes the options of
    its builder and ``num_classes``. It loads weights with ``pretrained=True``, by tag
    (``cifarzoo_deep_bn.original``), from a folder (``local-dir:``) or from the hub (``hf-hub:``),
    as `save_pretrained` and `push_to_hub` write them.

    Raises:
        UnknownNameError: There is no model of this name.
    """
    spec = get_model_info(name)

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> nn.Module:
        found = resolve_pretrained_cfg(entry.__name__, pretrained_cfg, pretrained_cfg_overlay)
        options.pop("pretrained_model_args", None)  # of a config.json, which timm has merged in
        given = {key: x for key, x in options.items() if _NEUTRAL.get(key, ...) != x}
        weights = _weights(spec, found, cache_dir) if pretrained else False
        if not pretrained:  # as timm's own, a network for what the settings say
            normalized = Preprocessing(tuple(found.mean), tuple(found.std))
            given = {"num_classes": found.num_classes, "preprocessing": normalized, **given}
        model = create_model(name, pretrained=weights, **given)
        _describe_to_timm(model, found)
        return model

    if _registered.get(name) is spec:
        return  # timm would warn that it is replaced
    _registered[name] = spec
    entry.__name__ = entry.__qualname__ = f"{TIMM_PREFIX}{name}"
    entry.__doc__ = spec.description
    default_cfgs[entry.__name__] = _known(spec)
    globals()[entry.__name__] = _add(entry)  # timm lists it in __all__


def _known(spec: ModelSpec) -> DefaultCfg:
    """What timm is told of a model and its weights; those called "default" come first, or none."""
    paper = re.search(r"arXiv:[\w./-]*\d", spec.source)
    facts = PretrainedCfg(
        input_size=(3, spec.image_size or 32, spec.image_size or 32),
        fixed_input_size=spec.image_size is not None,
        interpolation="bilinear",
        crop_pct=1.0,
        mean=CIFAR10_PREPROCESSING.mean,
        std=CIFAR10_PREPROCESSING.std,
        num_classes=10,
        label_names=CIFAR10_CLASSES,
        license="mit",
        description=spec.description,
        paper_name=spec.source,
        paper_ids=paper[0] if paper else None,
    )
    cfgs = {
        tag: dataclasses.replace(facts, tag=tag, **_trained(info), **_place(info))
        for tag, info in spec.weights.items()
    }
    if "default" not in cfgs:
        cfgs[""] = facts
    tags = deque(sorted(cfgs, key=lambda tag: tag not in ("", "default")))
    return DefaultCfg(tags=tags, cfgs=cfgs, is_pretrained=bool(spec.weights))


def _trained(info: WeightsInfo) -> dict[str, Any]:
    """What differs in weights of another set than CIFAR-10."""
    data = trained_on(info)
    if data not in list_datasets():
        return {}
    known = get_dataset_info(data)
    normalized = known.preprocessing
    facts = (
        {"label_names": known.classes, "num_classes": len(known.classes)} if known.classes else {}
    )
    return {"mean": normalized.mean, "std": normalized.std, **facts}


def _place(info: WeightsInfo) -> dict[str, str]:
    return {"url": info.url} if info.url else {"file": str(info.path)}


def _weights(spec: ModelSpec, found: PretrainedCfg, cache_dir: str | None) -> Any:
    """What timm was asked for, as `create_model` takes it for ``pretrained``."""
    known = spec.weights.get(found.tag or "")
    if known is not None and _place(known).items() <= vars(found).items():
        return found.tag
    if found.state_dict:
        return found.state_dict
    if found.file:
        path = home_path(found.file)
        return weights_in_folder(path) if path.is_dir() else path
    if found.url:
        raise ArgumentError(
            f"weights of {spec.name!r} from {found.url} cannot be fetched by timm's settings; "
            'fetch the file, and pass pretrained_cfg_overlay={"file": path}'
        )
    if found.hf_hub_id:
        repository, _, revision = found.hf_hub_id.partition("@")
        return fetch_weights(repository, revision=revision or None, cache_dir=cache_dir)
    return True  # says which weights there are


def _describe_to_timm(model: nn.Module, found: PretrainedCfg) -> None:
    """Put on the network what timm's programs look for."""
    card, head = get_card(model), find_classifier(model)
    facts = dataclasses.replace(
        found,
        mean=card.preprocessing.mean,
        std=card.preprocessing.std,
        num_classes=card.num_classes,
        label_names=card.classes,
        classifier=head,
        first_conv=next(
            (n for n, part in model.named_modules() if isinstance(part, nn.Conv2d)), None
        ),
    ).to_dict()
    layer = model.get_submodule(head)
    about = {
        "pretrained_cfg": facts,
        "default_cfg": facts,
        "num_classes": card.num_classes,
        "num_features": getattr(layer, "in_features", getattr(layer, "in_channels", None)),
    }
    model.__dict__.update(about)


for _name in list_models():
    register(_name)
