"""Augmentations by name, and any function of uint8 batches.

An augmentation is a function ``(images, generator) -> images`` on uint8 batches (B, 3, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from cifarzoo.compute.seeding import own_generator
from cifarzoo.errors import ArgumentError, CifarZooError, InputError
from cifarzoo.names import check_options, keyword_options, registering, unknown_name
from cifarzoo.recipe.augmentation.operations import check_images

__all__ = [
    "BatchAugmentation",
    "adapt_transform",
    "build_augmentation",
    "check_augmentation",
    "list_augmentations",
    "register_augmentation",
]

BatchAugmentation = Callable[[Tensor, torch.Generator], Tensor]
"""``(uint8 images (B, 3, H, W), generator) -> uint8 images (B, 3, H, W)``."""

_Factory = TypeVar("_Factory", bound=Callable[..., BatchAugmentation])
_FACTORIES: dict[str, Callable[..., BatchAugmentation]] = {}


def register_augmentation(name: str) -> Callable[[_Factory], _Factory]:
    """Make an augmentation available by ``name``.

    Args:
        name: Name of the augmentation; must be new.

    Returns:
        A decorator that returns the factory unchanged. The factory returns a function
        ``(images, generator) -> images`` on uint8 batches (B, 3, H, W). The factory's
        keyword-only parameters are the options: numbers, strings and lists.

    Raises:
        DuplicateNameError: The name is taken.

    Example:
        >>> @register_augmentation("darken")
        ... def darken(*, share=0.5):
        ...     def augment(images, generator):
        ...         dark = torch.rand(len(images), 1, 1, 1, generator=generator) < share
        ...         return torch.where(dark.to(images.device), images // 2, images)
        ...     return augment
        >>> augment = build_augmentation("darken", share=1.0)
        >>> augment(torch.full((1, 3, 1, 1), 8, dtype=torch.uint8), torch.Generator()).unique()
        tensor([4], dtype=torch.uint8)
    """
    return registering(_FACTORIES, "augmentation", name)


def list_augmentations() -> list[str]:
    """List the names of all augmentations, sorted."""
    return sorted(_FACTORIES)


def check_augmentation(name: str, options: Mapping[str, Any]) -> None:
    """Raise when ``name`` is unknown or takes no such ``options``, before any work is done."""
    if name not in _FACTORIES:
        raise unknown_name("augmentation", name, _FACTORIES, hint="See list_augmentations().")
    check_options(f"augmentation {name!r}", options, keyword_options(_FACTORIES[name]))


def build_augmentation(name: str, **options: Any) -> BatchAugmentation:
    """Build the augmentation called ``name``.

    Args:
        name: A name of `list_augmentations`.
        options: Keyword options of its factory.

    Returns:
        A function of uint8 images (B, 3, H, W), on any device, and a generator, which may be on
        the CPU. It returns new images of the same shape.

    Raises:
        UnknownNameError: No augmentation has this name.
        ArgumentError: An option does not exist, or has a value outside its range.

    Example:
        >>> from cifarzoo import load_sample
        >>> images = load_sample("train").images[:128]
        >>> augment = build_augmentation("trivial_augment", fill=128)
        >>> augment(images, torch.Generator().manual_seed(0)).shape
        torch.Size([128, 3, 32, 32])
    """
    check_augmentation(name, options)
    try:
        augment = _FACTORIES[name](**options)
    except CifarZooError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"augmentation {name!r} cannot be built: {error}") from error
    return _checked(f"augmentation {name!r}", augment)


def adapt_transform(transform: Callable[[Tensor], Tensor]) -> BatchAugmentation:
    """Use any function of uint8 batches, such as a torchvision v2 transform, as an augmentation.

    torchvision's transforms make one random choice for a whole batch: ``v2.TrivialAugmentWide()``
    does the same to all images of a batch, while "trivial_augment" changes each in its own way.
    Transforms draw from torch's global generator. Here their random numbers follow from the
    generator that the augmentation gets, and the global one stays as it was. Random numbers of
    NumPy and of Python's ``random`` do not follow from it.

    Args:
        transform: Function from uint8 (B, 3, H, W) to uint8 of the same shape.

    Returns:
        The same function, with a generator as its second argument.

    Raises:
        ArgumentError: ``transform`` cannot be called.

    Example:
        >>> from torchvision.transforms import v2
        >>> augment = adapt_transform(v2.RandomHorizontalFlip(p=1.0))
        >>> augment(torch.eye(3, dtype=torch.uint8).repeat(1, 3, 1, 1), torch.Generator())[0, 0]
        tensor([[0, 0, 1],
                [0, 1, 0],
                [1, 0, 0]], dtype=torch.uint8)
    """
    if isinstance(transform, type) or not callable(transform):
        raise ArgumentError(
            f"a transform is a function of uint8 batches, not {transform!r}; pass a function, or "
            "an object such as torchvision's v2.RandAugment()"
        )

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        with own_generator(seed):
            return transform(images)

    return _checked(f"transform {type(transform).__name__}", augment)


def _checked(what: str, augment: BatchAugmentation) -> BatchAugmentation:
    """Refuse images that are normalized already, and results that are no such batch."""
    if not callable(augment):
        raise ArgumentError(
            f"{what} must be built as a function of images and a generator; got {augment!r}"
        )

    def checked(images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        changed: Any = augment(images, generator)
        is_tensor = isinstance(changed, Tensor)
        if not is_tensor or changed.dtype != torch.uint8 or changed.shape != images.shape:
            kind = (
                f"{changed.dtype} {tuple(changed.shape)}" if is_tensor else type(changed).__name__
            )
            raise InputError(f"{what} must return uint8 {tuple(images.shape)}; it returned {kind}")
        return changed  # type: ignore[no-any-return]  # checked

    return checked
