"""cifarzoo: the CIFAR-10 model zoo.

Example:
    >>> import cifarzoo
    >>> model = cifarzoo.create_model("simple", seed=0)
    >>> report = cifarzoo.evaluate(model, cifarzoo.load_sample("test"))
    >>> 0 <= report.accuracy <= 1
    True
"""

from cifarzoo.card import (
    CIFAR10_CLASSES,
    CIFAR10_PREPROCESSING,
    ModelCard,
    Preprocessing,
    attach_card,
    get_card,
)
from cifarzoo.data import (
    ImageSet,
    Loader,
    load_cifar10,
    load_cifar10_1,
    load_cifar10c,
    load_cifar10h,
    load_cifar100,
    load_sample,
)
from cifarzoo.errors import CifarZooError
from cifarzoo.evaluation import (
    Calibration,
    Comparison,
    EvaluationReport,
    Prediction,
    calibrate,
    compare,
    evaluate,
    plot_confusion_matrix,
    plot_history,
    predict,
)
from cifarzoo.export import export_onnx
from cifarzoo.factory import create_model, load_model
from cifarzoo.optimizers import list_optimizers
from cifarzoo.recipe import Augmentation, Recipe
from cifarzoo.registry import ModelSpec, WeightsInfo, get_model_info, list_models, register_model
from cifarzoo.schedulers import list_schedulers, register_scheduler
from cifarzoo.summary import summary
from cifarzoo.training import (
    ConsoleLogger,
    CSVLogger,
    EpochRecord,
    History,
    JSONLinesLogger,
    Logger,
    TensorBoardLogger,
    Trainer,
)
from cifarzoo.verification import Verification, verify_weights
from cifarzoo.version import __version__
from cifarzoo.weights import load_weights, read_metadata, save_weights

__all__ = [
    "CIFAR10_CLASSES",
    "CIFAR10_PREPROCESSING",
    "Augmentation",
    "CSVLogger",
    "Calibration",
    "CifarZooError",
    "Comparison",
    "ConsoleLogger",
    "EpochRecord",
    "EvaluationReport",
    "History",
    "ImageSet",
    "JSONLinesLogger",
    "Loader",
    "Logger",
    "ModelCard",
    "ModelSpec",
    "Prediction",
    "Preprocessing",
    "Recipe",
    "TensorBoardLogger",
    "Trainer",
    "Verification",
    "WeightsInfo",
    "__version__",
    "attach_card",
    "calibrate",
    "compare",
    "create_model",
    "evaluate",
    "export_onnx",
    "get_card",
    "get_model_info",
    "list_models",
    "list_optimizers",
    "list_schedulers",
    "load_cifar10",
    "load_cifar10_1",
    "load_cifar10c",
    "load_cifar10h",
    "load_cifar100",
    "load_model",
    "load_sample",
    "load_weights",
    "plot_confusion_matrix",
    "plot_history",
    "predict",
    "read_metadata",
    "register_model",
    "register_scheduler",
    "save_weights",
    "summary",
    "verify_weights",
]
