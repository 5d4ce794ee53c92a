"""Values that cannot be changed: mappings and lists for the fields of frozen classes.

A frozen dataclass with a dict in it is no value: it has no hash, and whoever changes the dict
changes it for everybody. ``types.MappingProxyType`` has no hash either, cannot be pickled or copied
deeply, and ``json`` does not know it. The two types here are a dict and a tuple as far as reading
goes: they are equal to plain dicts and lists, and JSON, TOML and ``dataclasses.asdict`` take them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

__all__ = ["FrozenDict", "FrozenList", "LazyDict", "freeze", "freeze_fields", "thaw"]

_PLAIN = (int, float, str, bool, type(None))


class FrozenDict(dict[Any, Any]):
    """A dict that cannot be changed, with a hash; its values are frozen as it is made.

    Example:
        >>> options = FrozenDict({"milestones": [4]})
        >>> options == {"milestones": [4]}, hash(options) == hash(FrozenDict(options))
        (True, True)
        >>> options["gamma"] = 0.1
        Traceback (most recent call last):
            ...
        TypeError: this mapping belongs to a value and cannot be changed; change a copy: dict(...)
    """

    __slots__ = ()

    def __new__(cls, content: Any = ()) -> FrozenDict:
        """Fill it here, for ``__init__`` could be called again."""
        self = super().__new__(cls)
        dict.update(self, ((key, freeze(value)) for key, value in dict(content).items()))
        return self

    def __init__(self, content: Any = ()) -> None:
        pass

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none, for it can change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:  # pickle and copy would fill an empty one
        return FrozenDict, (dict(self),)

    def _refuse(self, *arguments: Any, **more: Any) -> NoReturn:
        raise TypeError(
            "this mapping belongs to a value and cannot be changed; change a copy: dict(...)"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


class FrozenList(tuple[Any, ...]):
    """A tuple that stands for a list, and is equal to one with the same items.

    Example:
        >>> FrozenList([4, 8]) == [4, 8], FrozenList([4, 8]) == (4, 8)
        (True, True)
    """

    __slots__ = ()

    def __new__(cls, content: Any = ()) -> FrozenList:
        """Freeze the items."""
        return super().__new__(cls, map(freeze, content))

    def __eq__(self, other: object) -> bool:
        return tuple.__eq__(self, tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class LazyDict(Mapping[str, Any]):
    """A mapping that cannot be changed, made when somebody looks into it.

    Args:
        make: Returns the content; called once, at the first look.
        first: Items of it that are there already.

    Example:
        >>> options = LazyDict(lambda: {"gamma": 0.1, "step": 30}, first={"step": 30})
        >>> options["step"], options == {"gamma": 0.1, "step": 30}
        (30, True)
    """

    def __init__(
        self, make: Callable[[], Mapping[str, Any]], first: Mapping[str, Any] | None = None
    ) -> None:
        self._make = make
        self._first = FrozenDict(first or {})

    @functools.cached_property
    def _content(self) -> FrozenDict:
        return FrozenDict(self._make())

    def __getitem__(self, key: str) -> Any:
        return self._first[key] if key in self._first else self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        return repr(self._content)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)

    __setitem__ = __delitem__ = FrozenDict._refuse


def freeze(value: Any) -> Any:
    """A copy of nested data that cannot be changed: mappings, lists, sets, arrays.

    Numbers and arrays of numpy and torch become Python's; everything else is taken as it is.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, FrozenDict | FrozenList | LazyDict):
        return value
    if isinstance(value, Mapping):
        return FrozenDict(value)
    if isinstance(value, list):
        return FrozenList(value)
    if type(value) is tuple:
        return tuple(map(freeze, value))
    if isinstance(value, set):
        return frozenset(value)
    if hasattr(value, "tolist") and not isinstance(value, type):
        return freeze(value.tolist())
    return value


def freeze_fields(value: Any) -> None:
    """Freeze every field of a frozen dataclass; for its ``__post_init__``."""
    for field in dataclasses.fields(value):
        object.__setattr__(value, field.name, freeze(getattr(value, field.name)))


def thaw(value: Any) -> Any:
    """A copy of nested data as plain dicts and lists, which may be changed and saved.

    Example:
        >>> thaw(FrozenDict({"milestones": [4], "betas": (0.9, 0.99)}))
        {'milestones': [4], 'betas': [0.9, 0.99]}
    """
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value
