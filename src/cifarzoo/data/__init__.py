"""Images: the sets, their files, and batches of them."""

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.loader import Loader
from cifarzoo.data.sets.cifar import load_cifar10, load_cifar100
from cifarzoo.data.sets.sample import load_sample
from cifarzoo.data.sets.shifted import load_cifar10_1, load_cifar10c, load_cifar10h

__all__ = [
    "ImageSet",
    "Loader",
    "load_cifar10",
    "load_cifar10_1",
    "load_cifar10c",
    "load_cifar10h",
    "load_cifar100",
    "load_sample",
]
