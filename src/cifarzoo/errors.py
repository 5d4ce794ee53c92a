"""Every error the library raises on purpose.

Each class also derives from the builtin a caller would expect, so ``except ValueError`` works
without knowing this module::

    CifarZooError
    ├── ArgumentError(ValueError)            an option outside its range, or one that does not exist
    │   ├── UnknownNameError                 a name nobody registered; suggests the nearest
    │   └── DuplicateNameError               a name registered twice
    ├── InputError(ValueError)               a tensor or image of the wrong shape, dtype or range
    ├── DataError(RuntimeError)              data files that are altered, truncated or unreadable
    │   ├── DataNotFoundError(FileNotFoundError)
    │   └── DownloadError(OSError)           every address failed, or was interrupted
    ├── WeightsError(RuntimeError)           a weights file that does not fit or cannot be trusted
    ├── CheckpointError(RuntimeError)        a checkpoint that does not belong to this run
    ├── OutputError(OSError)                 a place that cannot be written
    ├── PeerError(RuntimeError)              another process of the run ended or does not answer
    ├── NonFiniteLossError(ArithmeticError)  the loss became NaN or infinite
    └── MissingExtraError(ImportError)       an optional dependency that is not installed
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "CifarZooError",
    "DataError",
    "DataNotFoundError",
    "DownloadError",
    "DuplicateNameError",
    "InputError",
    "MissingExtraError",
    "NonFiniteLossError",
    "OutputError",
    "PeerError",
    "UnknownNameError",
    "WeightsError",
]


class CifarZooError(Exception):
    """Base of all errors raised by cifarzoo."""


class ArgumentError(CifarZooError, ValueError):
    """An argument or option is outside its range, or does not exist."""


class UnknownNameError(ArgumentError):
    """A model, scheduler, optimizer or recipe name that is not registered."""


class DuplicateNameError(ArgumentError):
    """A name is registered a second time."""


class InputError(CifarZooError, ValueError):
    """A tensor, array or image has the wrong shape, dtype or value range."""


class DataError(CifarZooError, RuntimeError):
    """Data files are altered, truncated or unreadable."""


class DataNotFoundError(DataError, FileNotFoundError):
    """Data files are not where they were looked for."""


class DownloadError(DataError, OSError):
    """No address delivered the file with the expected checksum."""


class WeightsError(CifarZooError, RuntimeError):
    """A weights file does not fit the model, is damaged, or cannot be trusted."""


class CheckpointError(CifarZooError, RuntimeError):
    """A checkpoint is damaged or belongs to another model, recipe or run."""


class OutputError(CifarZooError, OSError):
    """A file or folder cannot be written."""


class PeerError(CifarZooError, RuntimeError):
    """Another process of a distributed run has ended, or does not answer in time."""


class NonFiniteLossError(CifarZooError, ArithmeticError):
    """The training loss became NaN or infinite."""


class MissingExtraError(CifarZooError, ImportError):
    """An optional dependency is not installed."""
