"""Images: the sets, their files, and batches of them."""

from cifarzoo.data.cifar import load_cifar10, load_cifar100
from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.loader import Loader
from cifarzoo.data.sample import load_sample

__all__ = ["ImageSet", "Loader", "load_cifar10", "load_cifar100", "load_sample"]
