"""What a network needs beside its parameters: name, options, preprocessing, classes.

The card rides on the module as a plain attribute and in every weights file, so a network can
never meet images prepared for another one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cifarzoo.compute.place import dtype_of
from cifarzoo.compute.wrappers import wrapped
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.frozen import FrozenDict, freeze_fields, thaw
from cifarzoo.names import check_count, check_kind, real_number, texts, whole_number
from cifarzoo.plain import problem_of, shorten

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_PREPROCESSING",
    "ModelCard",
    "Preprocessing",
    "attach_card",
    "check_classes",
    "check_model",
    "check_numbers",
    "check_trainable",
    "get_card",
    "names_of_outputs",
    "unwrap",
    "write_card",
]

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


_BLACK = 4  # of 255: floats below it are in 0..1, or normalized
_MOST_CLASSES = 100_000  # a last layer of some 200 MB; a slip of the finger asks for terabytes


def check_classes(num_classes: Any) -> int:
    """``num_classes`` as an int, or ArgumentError if it is no number of outputs."""
    advice = "for a network without its last layer, embeddings() gives what that layer sees"
    return check_count("num_classes", num_classes, most=_MOST_CLASSES, advice=advice)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Holds the normalization of each channel, for images in 0..255.

    Args:
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel over all pixels, in 0..1.

    Example:
        >>> CIFAR10_PREPROCESSING.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))[0, :, 0, 0]
        tensor([-1.9895, -1.9803, -1.7068])
    """

    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, float, float] = (0.2470, 0.2435, 0.2616)

    def __post_init__(self) -> None:
        # lists arrive from JSON; the value itself stays hashable
        given = self.mean, self.std
        for name, values in zip(("mean", "std"), given, strict=True):
            numbers: list[Any] = []
            if isinstance(values, Iterable):
                numbers = [real_number(x) for x in values]
            # written so that NaN fails too
            if len(numbers) != 3 or not all(
                x is not None and 0 <= x <= 1 and (x > 0 or name == "mean") for x in numbers
            ):
                raise ArgumentError(
                    "preprocessing needs three means and three positive standard deviations in "
                    f"0..1; got mean={shorten(given[0])}, std={shorten(given[1])}"
                )
            object.__setattr__(self, name, tuple(map(float, numbers)))

    def scale_and_bias(self) -> tuple[Tensor, Tensor]:
        """Compute float32 (3,) each: ``pixel * scale + bias`` normalizes a pixel in 0..255."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 1 / (255 * std), -mean / std

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize uint8 (B, 3, H, W) in 0..255 to float32 of the same shape and layout.

        Floats in 0..255 are taken too, such as those of images that were resized.

        Raises:
            InputError: Floats lie in 0..1, or are normalized already.
        """
        if images.is_floating_point() and images.numel():
            largest = float(images.abs().max())
            if 0 < largest < _BLACK:
                raise InputError(
                    "normalize() takes images in 0..255, best uint8; the largest of these floats "
                    f"is {largest:.3g}: multiply those in 0..1 by 255, and leave normalized ones "
                    "as they are"
                )
        scale, bias = (x.to(images.device).view(3, 1, 1) for x in self.scale_and_bias())
        return torch.addcmul(bias, images, scale)


CIFAR10_PREPROCESSING = Preprocessing()
"""Mean and per-pixel standard deviation of the 50,000 training images."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Holds what is needed to build a network again and to prepare its images.

    Nothing in a card can be changed; ``dataclasses.replace`` makes a changed copy.

    Args:
        name: Registered name, or the name of the class for a module that the zoo did not build.
        num_classes: Number of outputs.
        options: Options of the builder that differ from the defaults.
        preprocessing: Normalization that the parameters were trained with.
        classes: Names of the classes, in the order of the labels; None if they are not known.

    Raises:
        ArgumentError: A field has a wrong type or value.
    """

    name: str
    num_classes: int = 10
    options: Mapping[str, Any] = FrozenDict()
    preprocessing: Preprocessing = CIFAR10_PREPROCESSING
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ArgumentError(f"the name on a card must be a text; got {shorten(self.name)}")
        whole = whole_number(self.num_classes)
        if whole is None or whole < 1:
            raise ArgumentError(
                "num_classes on a card must be a whole number of at least 1; got "
                f"{shorten(self.num_classes)}"
            )
        check_kind("options", self.options, Mapping)
        check_kind("preprocessing", self.preprocessing, Preprocessing)
        freeze_fields(self)
        if self.classes is not None:
            names = texts(self.classes)
            if names is None:
                raise ArgumentError(
                    f"classes on a card must be names in order; got {shorten(self.classes)}"
                )
            object.__setattr__(self, "classes", names)

    def to_dict(self) -> dict[str, Any]:
        """Return a copy as plain data for JSON; `from_dict` reads it back."""
        data: dict[str, Any] = thaw(dataclasses.asdict(self))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, is_intact: bool = False) -> ModelCard:
        """Read what `to_dict` wrote.

        Args:
            data: Plain data.
            is_intact: Whether the data comes from a file whose checksum was already compared.

        Raises:
            ArgumentError: A field is missing or wrong; the message names it.
        """
        if not is_intact:
            from cifarzoo.zoo.facts import CardData

            if problem := problem_of(data, CardData):
                raise ArgumentError(f"this is no card of a model: {problem}")
        return cls(
            name=data["name"],
            num_classes=data["num_classes"],
            options=data["options"],
            preprocessing=Preprocessing(*(data["preprocessing"][name] for name in ("mean", "std"))),
            classes=data.get("classes") or None,
        )


def write_card(card: ModelCard) -> str:
    """The card as JSON; raises ArgumentError when another card would be read from it."""
    data = card.to_dict()
    try:
        text = json.dumps(data)
    except (TypeError, ValueError) as error:
        problem = str(error)
    else:
        if json.loads(text) == data:
            return text
        problem = f"it would change {shorten(data['options'])}"
    raise ArgumentError(
        f"the options of {card.name!r} must be plain data, as JSON holds it, to be stored: "
        f"{problem}; it knows texts, numbers, lists, and tables whose keys are texts"
    )


def attach_card(model: nn.Module, card: ModelCard) -> None:
    """Put ``card`` on ``model``; it stays out of ``state_dict()`` and ``print(model)``."""
    check_kind("card", card, ModelCard, "get_card(model) returns one")
    unwrap(model).__dict__["card"] = card


def get_card(model: nn.Module) -> ModelCard:
    """Return the card of ``model``; one that the zoo did not build has CIFAR-10's normalization."""
    inner = unwrap(model)
    card = inner.__dict__.get("card")
    return card if isinstance(card, ModelCard) else ModelCard(name=type(inner).__name__)


def check_model(model: Any) -> None:
    """Raise ArgumentError when ``model`` is no network, such as the name of one."""
    if not isinstance(model, nn.Module):
        is_name = isinstance(model, str) and model.isidentifier()
        name = repr(model) if is_name else "name"
        raise ArgumentError(
            f"a model must be a torch module; got {shorten(model)}: create_model({name}) builds one"
        )


def names_of_outputs(names: Sequence[str] | None, outputs: int) -> tuple[str, ...] | None:
    """The class names on a model's card, unless the model has another number of outputs.

    A card that was made before its last layer was replaced names classes that are no longer there.
    """
    return tuple(names) if names and len(names) == outputs else None


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside the wrappers that `wrapped` knows.

    Raises:
        ArgumentError: ``model`` is no module.
    """
    check_model(model)
    while (inner := wrapped(model)) is not None:
        model = inner
    return model


def check_numbers(tensors: Iterable[Any], hint: str = "") -> None:
    """Raise ArgumentError if some of a network's ``tensors`` have shapes and no numbers."""
    if any(isinstance(tensor, Tensor) and tensor.is_meta for tensor in tensors):
        raise ArgumentError(f'this network is on the device "meta", which holds no numbers{hint}')


def check_trainable(model: nn.Module) -> None:
    """Raise ArgumentError for a network that cannot be trained, whatever the images are."""
    check_model(model)
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise ArgumentError(
            "a lazy module of this network has no parameters yet: pass it a batch of images once, "
            "as model(torch.zeros(1, 3, 32, 32)), before it is trained"
        )
    check_numbers(tensors)
    if any(tensor.is_inference() for tensor in tensors):
        raise ArgumentError(
            "this network was made under torch.inference_mode(), and cannot be trained; make it, "
            "or a copy.deepcopy of it, outside"
        )
    if (dtype := dtype_of(model)) != torch.float32:
        raise ArgumentError(
            f"this network holds {str(dtype).removeprefix('torch.')}, and networks are trained in "
            "float32, perhaps with precision='bfloat16': model.float() makes it float32"
        )
