"""Images: the sets, their files, and batches of them."""

from cifarzoo.data.imageset import ImageSet
from cifarzoo.data.loader import Loader
from cifarzoo.data.sets import known as known  # registers them
from cifarzoo.data.sets.cifar import load_cifar10, load_cifar100
from cifarzoo.data.sets.folder import load_folder
from cifarzoo.data.sets.registry import (
    DatasetInfo,
    get_dataset_info,
    list_datasets,
    load_dataset,
    register_dataset,
)
from cifarzoo.data.sets.sample import load_sample
from cifarzoo.data.sets.shifted import load_cifar10_1, load_cifar10c, load_cifar10h

__all__ = [
    "DatasetInfo",
    "ImageSet",
    "Loader",
    "get_dataset_info",
    "list_datasets",
    "load_cifar10",
    "load_cifar10_1",
    "load_cifar10c",
    "load_cifar10h",
    "load_cifar100",
    "load_dataset",
    "load_folder",
    "load_sample",
    "register_dataset",
]
