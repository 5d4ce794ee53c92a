"""Data frames of pandas; needs the ``pandas`` extra."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cifarzoo.errors import MissingExtraError

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["data_frame"]


def data_frame(
    rows: Iterable[Mapping[str, Any]], columns: Iterable[str] | None = None
) -> DataFrame:
    """A frame with a row for each mapping.

    Args:
        rows: Names of columns and values.
        columns: Those names in order, for frames that may have no rows.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError(
            "a data frame needs pandas: pip install 'cifarzoo[pandas]'"
        ) from error
    return pandas.DataFrame([*rows], columns=None if columns is None else [*columns])
