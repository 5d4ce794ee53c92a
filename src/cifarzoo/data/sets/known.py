"""The image sets that come with the library, by name."""

from __future__ import annotations

from pathlib import Path

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.sets.cifar import load_cifar10, load_cifar100, official_md5
from cifarzoo.data.sets.registry import register_dataset
from cifarzoo.data.sets.sample import load_sample
from cifarzoo.data.sets.shifted import load_cifar10_1
from cifarzoo.data.sets.splits import Split
from cifarzoo.zoo.card import CIFAR10_CLASSES, Preprocessing

__all__ = ["CIFAR100_CLASSES", "CIFAR100_PREPROCESSING"]

CIFAR100_PREPROCESSING = Preprocessing(mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
"""Of the training pixels of CIFAR-100, as in 0..1."""

_FINE = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_FINE.split())
"""Names of the 100 fine classes of CIFAR-100, in the order of the labels."""


@register_dataset(
    "cifar10",
    description="CIFAR-10.",
    md5=official_md5("cifar10"),
    classes=CIFAR10_CLASSES,
)
def _cifar10(split: Split, *, root: str | Path | None = None, download: bool = True) -> ImageSet:
    return load_cifar10(split, root=root, download=download)


@register_dataset(
    "cifar100",
    preprocessing=CIFAR100_PREPROCESSING,
    description="CIFAR-100, its 100 fine labels.",
    md5=official_md5("cifar100"),
    classes=CIFAR100_CLASSES,
)
def _cifar100(split: Split, *, root: str | Path | None = None, download: bool = True) -> ImageSet:
    return load_cifar100(split, root=root, download=download)


@register_dataset(
    "sample",
    description="3,000 images of CIFAR-10, in the package.",
    set_name="cifar10 sample",
    classes=CIFAR10_CLASSES,
)
def _sample(split: Split, *, root: str | Path | None = None, download: bool = True) -> ImageSet:
    return load_sample(split)


@register_dataset(
    "cifar10.1",
    splits=("test",),
    description="New test images for CIFAR-10's classes, version 6.",
    set_name="cifar10.1 v6",
    classes=CIFAR10_CLASSES,
)
def _cifar10_1(split: Split, *, root: str | Path | None = None, download: bool = True) -> ImageSet:
    return load_cifar10_1(root=root)
