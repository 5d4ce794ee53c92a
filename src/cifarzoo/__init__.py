"""cifarzoo: the CIFAR-10 model zoo.

Example:
    >>> import cifarzoo
    >>> model = cifarzoo.create_model("simple", seed=0)
    >>> report = cifarzoo.evaluate(model, cifarzoo.load_sample("test"))
    >>> 0 <= report.accuracy <= 1
    True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cifarzoo.lazy import lazy_names
from cifarzoo.version import __version__

if TYPE_CHECKING:  # each of these is imported when it is first asked for, see _HOMES
    from cifarzoo.compute.cpu import cpu_kernels
    from cifarzoo.compute.place import Place
    from cifarzoo.data import (
        DatasetInfo,
        ImageSet,
        Loader,
        get_dataset_info,
        list_datasets,
        load_cifar10,
        load_cifar10_1,
        load_cifar10c,
        load_cifar10h,
        load_cifar100,
        load_dataset,
        load_folder,
        load_sample,
        register_dataset,
    )
    from cifarzoo.errors import CifarZooError
    from cifarzoo.evaluation import (
        Calibration,
        Comparison,
        EvaluationReport,
        Prediction,
        calibrate,
        compare,
        embeddings,
        list_metrics,
        plot_confusion_matrix,
        plot_history,
        probabilities,
        register_metric,
    )
    from cifarzoo.evaluation.evaluate import evaluate
    from cifarzoo.evaluation.predict import predict
    from cifarzoo.export import export_onnx, export_program
    from cifarzoo.factory import create_model, load_model
    from cifarzoo.hub import from_pretrained, push_to_hub, save_pretrained
    from cifarzoo.models.ensemble import ensemble
    from cifarzoo.models.stem import adapt_stem
    from cifarzoo.recipe import Augmentation, Recipe
    from cifarzoo.recipe.augmentation import list_augmentations, register_augmentation
    from cifarzoo.recipe.optimizers import list_optimizers, register_optimizer
    from cifarzoo.recipe.schedulers import list_schedulers, register_scheduler
    from cifarzoo.training import (
        ConsoleLogger,
        CSVLogger,
        EarlyStopping,
        EpochRecord,
        History,
        JSONLinesLogger,
        Logger,
        MLflowLogger,
        TensorBoardLogger,
        Trainer,
        WandbLogger,
    )
    from cifarzoo.verification import Verification, verify_weights
    from cifarzoo.zoo.card import (
        CIFAR10_CLASSES,
        CIFAR10_PREPROCESSING,
        ModelCard,
        Preprocessing,
        attach_card,
        get_card,
    )
    from cifarzoo.zoo.classifier import get_classifier, reset_classifier
    from cifarzoo.zoo.registry import (
        ModelSpec,
        WeightsInfo,
        get_model_info,
        list_models,
        register_model,
    )
    from cifarzoo.zoo.saving import save_weights
    from cifarzoo.zoo.summary import summary
    from cifarzoo.zoo.weights import load_weights, read_metadata

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_PREPROCESSING",
    "Augmentation",
    "CSVLogger",
    "Calibration",
    "CifarZooError",
    "Comparison",
    "ConsoleLogger",
    "DatasetInfo",
    "EarlyStopping",
    "EpochRecord",
    "EvaluationReport",
    "History",
    "ImageSet",
    "JSONLinesLogger",
    "Loader",
    "Logger",
    "MLflowLogger",
    "ModelCard",
    "ModelSpec",
    "Place",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "TensorBoardLogger",
    "Trainer",
    "Verification",
    "WandbLogger",
    "WeightsInfo",
    "__version__",
    "adapt_stem",
    "attach_card",
    "calibrate",
    "compare",
    "cpu_kernels",
    "create_model",
    "embeddings",
    "ensemble",
    "evaluate",
    "export_onnx",
    "export_program",
    "from_pretrained",
    "get_card",
    "get_classifier",
    "get_dataset_info",
    "get_model_info",
    "list_augmentations",
    "list_datasets",
    "list_metrics",
    "list_models",
    "list_optimizers",
    "list_schedulers",
    "load_cifar10",
    "load_cifar10_1",
    "load_cifar10c",
    "load_cifar10h",
    "load_cifar100",
    "load_dataset",
    "load_folder",
    "load_model",
    "load_sample",
    "load_weights",
    "plot_confusion_matrix",
    "plot_history",
    "predict",
    "probabilities",
    "push_to_hub",
    "read_metadata",
    "register_augmentation",
    "register_dataset",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_scheduler",
    "reset_classifier",
    "save_pretrained",
    "save_weights",
    "summary",
    "verify_weights",
]

# where each public name is defined: torch and what else a name needs is imported with it, so that
# `cifarzoo --help` answers at once
_HOMES = {
    "zoo.card": (
        "CIFAR10_CLASSES",
        "CIFAR10_PREPROCESSING",
        "ModelCard",
        "Preprocessing",
        "attach_card",
        "get_card",
    ),
    "zoo.classifier": ("get_classifier", "reset_classifier"),
    "compute.cpu": ("cpu_kernels",),
    "compute.place": ("Place",),
    "data": (
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
    ),
    "errors": ("CifarZooError",),
    "evaluation": (
        "Calibration",
        "Comparison",
        "EvaluationReport",
        "Prediction",
        "calibrate",
        "compare",
        "embeddings",
        "evaluate",
        "list_metrics",
        "plot_confusion_matrix",
        "plot_history",
        "predict",
        "probabilities",
        "register_metric",
    ),
    "export": ("export_onnx", "export_program"),
    "factory": ("create_model", "load_model"),
    "hub": ("from_pretrained", "push_to_hub", "save_pretrained"),
    "models.ensemble": ("ensemble",),
    "models.stem": ("adapt_stem",),
    "recipe.optimizers": ("list_optimizers", "register_optimizer"),
    "recipe": ("Augmentation", "Recipe"),
    "recipe.augmentation": ("list_augmentations", "register_augmentation"),
    "zoo.registry": (
        "ModelSpec",
        "WeightsInfo",
        "get_model_info",
        "list_models",
        "register_model",
    ),
    "recipe.schedulers": ("list_schedulers", "register_scheduler"),
    "training": (
        "ConsoleLogger",
        "CSVLogger",
        "EarlyStopping",
        "EpochRecord",
        "History",
        "JSONLinesLogger",
        "Logger",
        "MLflowLogger",
        "TensorBoardLogger",
        "Trainer",
        "WandbLogger",
    ),
    "verification": ("Verification", "verify_weights"),
    "zoo.saving": ("save_weights",),
    "zoo.summary": ("summary",),
    "zoo.weights": ("load_weights", "read_metadata"),
}

if not TYPE_CHECKING:  # a type checker would take every name for one of ours
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
