"""What users write by hand: names and options that do not exist, numbers of any library."""

from __future__ import annotations

import difflib
import inspect
import numbers
import operator
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeVar

from cifarzoo.errors import ArgumentError, DuplicateNameError, UnknownNameError
from cifarzoo.plain import shorten

__all__ = [
    "SHORT_NAMES",
    "TIMM_PREFIX",
    "check_choice",
    "check_count",
    "check_factory",
    "check_kind",
    "check_name",
    "check_options",
    "first_difference",
    "keyword_options",
    "near_names",
    "one_line",
    "printable",
    "real_number",
    "registering",
    "split_tag",
    "texts",
    "unknown_name",
    "whole_number",
    "whole_numbers",
]

TIMM_PREFIX = "cifarzoo_"
"""What stands before a model's name in timm's registry."""

_Item = TypeVar("_Item")
SHORT_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "opt": "optimizer",
    "sched": "scheduler",
    "smoothing": "label_smoothing",
}
"""What other libraries call fields of a recipe."""

_LIKE = 0.75  # by the ratio of difflib: "densenet121" is 0.7 like "resnet110"
_FEW, _SOME = 12, 6  # names that an error lists; of more, so many are examples
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def unknown_name(kind: str, name: str, known: Iterable[str], *, hint: str = "") -> UnknownNameError:
    """Build the error for an unknown ``name``; the caller raises it.

    Example:
        >>> str(unknown_name("model", "deepbn", ["deep_bn", "simple"], hint="See list_models()."))
        "unknown model 'deepbn'; did you mean 'deep_bn'? See list_models()."
    """
    known = sorted(known)
    near = near_names(str(name), known)
    if near:
        suggestion = f"did you mean {_either(near)}?"
    elif len(known) <= _FEW:
        suggestion = f"known: {', '.join(known)}."
    else:
        some = known[:: -(-len(known) // _SOME)]  # from all over the alphabet
        suggestion = f"none of the {len(known)} known names is like it; some are {', '.join(some)}."
    return UnknownNameError(f"unknown {kind} {name!r}; {suggestion} {hint}".rstrip())


def near_names(name: str, known: Iterable[str], *, least: float = _LIKE) -> list[str]:
    """The names that ``name`` may be a slip of: the likest, and those that are nearly as like.

    Args:
        name: What somebody wrote.
        known: All names.
        least: How like a name must be, by the ratio of difflib, 0..1; a beginning is 0.9 like.

    Example:
        >>> near_names("wrn28", ["wrn16_2", "wrn28_10", "wrn28_2"])
        ['wrn28_2', 'wrn28_10']
        >>> near_names("densenet121", ["resnet110"])
        []
    """
    text = name.lower()
    found = {}
    for other in known:
        like = difflib.SequenceMatcher(None, text, other.lower()).ratio()
        if len(text) > 2 and text in other.lower():  # however much is missing
            like = max(like, 0.9 if other.lower().startswith(text) else _LIKE)
        if sorted(text) == sorted(other.lower()):  # two letters that have changed places
            like = max(like, 0.9)
        found[other] = like
    likest = max(found.values(), default=0.0)
    near = [other for other in found if found[other] >= max(least, likest - 0.05)]
    return sorted(near, key=lambda other: (-found[other], len(other), other))[:3]


def _either(names: Iterable[str]) -> str:
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of ``function``: the options a user may set by name."""
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def check_options(kind: str, options: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raise ArgumentError when ``options`` holds a name outside ``allowed``."""
    allowed = sorted(allowed)
    for name in options:
        if name not in allowed:
            names = ", ".join(allowed) if allowed else "none"
            meant = SHORT_NAMES.get(name)
            near = [meant] if meant in allowed else near_names(name, allowed)
            hint = f"did you mean {_either(near)}? " if near else ""
            raise ArgumentError(f"unknown option {name!r} of {kind}; {hint}allowed: {names}")


def registering(
    table: dict[str, Any], kind: str, name: str, *, is_free: bool = True
) -> Callable[[_Item], _Item]:
    """A decorator that puts what it decorates into ``table`` under ``name``, unchanged.

    Args:
        table: Of all that is registered.
        kind: What such things are called, for the message.
        name: Must be new.
        is_free: Whether nothing outside ``table`` has the name.

    Raises:
        ArgumentError: The name is no text.
        DuplicateNameError: The name is taken; when the decorator is applied.
    """
    check_name(kind, name)

    def register(item: _Item) -> _Item:
        if name in table or not is_free:
            raise DuplicateNameError(f"{kind} {name!r} is already registered; choose another")
        table[name] = item
        return item

    return register


def check_factory(kind: str, factory: Any, parameters: str, arguments: str) -> None:
    """Raise ArgumentError when ``factory`` cannot be called as a factory, or is a class.

    A class can be called, but means something else by its arguments.

    Args:
        kind: What it makes, with its article.
        factory: What was given instead of a name.
        parameters: What a factory is given.
        arguments: What a class is given, in the lambda that is proposed.
    """
    if isinstance(factory, type) or not callable(factory):
        made = factory if isinstance(factory, type) else type(factory)
        raise ArgumentError(
            f"{kind} is a name or a factory, not {factory!r}; write "
            f"lambda {parameters}: {made.__name__}({arguments})"
        )


def check_name(kind: str, name: Any) -> None:
    """Raise ArgumentError when nothing can be called ``name``."""
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"the {kind}'s name must be a text; got {shorten(name)}")


def check_kind(name: str, value: Any, kind: type, advice: str = "") -> None:
    """Raise ArgumentError unless the argument ``name`` is of a class; ``advice`` tells how."""
    if not isinstance(value, kind):
        what = "text" if kind is str else kind.__name__
        article = "an" if what[0] in "AEIOU" else "a"
        hint = f": {advice}" if advice else ""
        raise ArgumentError(f"{name} must be {article} {what}; got {shorten(value)}{hint}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ArgumentError unless the argument ``name`` is one of some words."""
    allowed = [*choices]
    if value not in allowed:
        *some, last = map(repr, allowed)
        raise ArgumentError(f"{name} must be {', '.join(some)} or {last}; got {shorten(value)}")


def check_count(name: str, value: Any, *, most: int | None = None, advice: str = "") -> int:
    """The argument ``name`` as Python's int; raises ArgumentError unless it is 1..``most``.

    Example:
        >>> check_count("image_size", 0, advice="networks of the zoo take 32")
        Traceback (most recent call last):
            ...
        cifarzoo.errors.ArgumentError: image_size must be a whole number of at least 1; got 0: \
networks of the zoo take 32
    """
    number = whole_number(value)
    if number is None or number < 1 or (most is not None and number > most):
        limit = "" if most is None else f" and at most {most:,}"
        hint = f": {advice}" if advice else ""
        raise ArgumentError(
            f"{name} must be a whole number of at least 1{limit}; got {shorten(value)}{hint}"
        )
    return number


def printable(text: str) -> str:
    r"""``text`` with escapes for what a terminal would act on: names may come from anybody's file.

    Example:
        >>> print(printable("cat\x1b[2J"))
        cat\x1b[2J
    """
    return "".join(c if c in "\n\t" or not _acts(c) else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """``text`` as `printable` writes it, for a table: every white space is one blank."""
    return printable(" ".join(text.split()))


def _acts(character: str) -> bool:
    """Whether it is a control, half of a surrogate pair, or turns the direction of writing."""
    turns = unicodedata.bidirectional(character) in _TURNING
    return turns or unicodedata.category(character) in ("Cc", "Cs")


def whole_number(value: Any) -> int | None:
    """``value`` as Python's int, or None when it is no whole number.

    Integers of numpy and torch are whole numbers; booleans and 2.0 are none.

    Example:
        >>> import numpy
        >>> whole_number(numpy.int64(10)), whole_number(True), whole_number(2.0)
        (10, None, None)
    """
    value = _unpacked(value)
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole_numbers(values: Any) -> list[int] | None:
    """``values`` as Python's ints, or None when they are no whole numbers in an order.

    Example:
        >>> whole_numbers((64, 256)), whole_numbers(64), whole_numbers([0.5])
        ([64, 256], None, None)
    """
    if isinstance(values, (Set, Mapping)):
        return None
    try:
        found = [whole_number(value) for value in values]
    except TypeError:
        return None
    known = [value for value in found if value is not None]
    return known if len(known) == len(found) else None


def texts(values: Any) -> tuple[str, ...] | None:
    """``values`` as Python's texts, or None when they are no texts in an order; one text is none.

    Example:
        >>> texts(["cat", "dog"]), texts("cat"), texts({"cat", "dog"}), texts([1])
        (('cat', 'dog'), None, None, None)
    """
    if isinstance(values, (str, Set, Mapping)):
        return None
    try:
        found = tuple(values)
    except TypeError:
        return None
    return tuple(map(str, found)) if all(isinstance(value, str) for value in found) else None


def split_tag(text: str, known: Iterable[str]) -> tuple[str, str]:
    """``MODEL.TAG`` as both, or ``MODEL`` and an empty tag; a ``known`` name may hold dots itself.

    Example:
        >>> split_tag("simple.original", ["simple"]), split_tag("net1.5.best", ["net1.5", "net1"])
        (('simple', 'original'), ('net1.5', 'best'))
    """
    fitting = [name for name in known if f"{text}.".startswith(f"{name}.")]
    name = max(fitting, key=len) if fitting else text.partition(".")[0]
    return name, text[len(name) + 1 :]


def first_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Where two lists of class names that are not the same begin to differ.

    Example:
        >>> first_difference(["cat", "dog"], ["cat", "frog", "ship"])
        "class 1 is 'dog' in one and 'frog' in the other"
        >>> first_difference(["cat", "dog"], ["cat"])
        'one has 2 and the other 1'
    """
    for i, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            return f"class {i} is {shorten(one)} in one and {shorten(other)} in the other"
    return f"one has {len(ours)} and the other {len(theirs)}"


def real_number(value: Any) -> int | float | None:
    """``value`` as Python's int or float, or None when it is no number; booleans are none."""
    value = _unpacked(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    except OverflowError:  # a fraction of numbers beyond those of a float
        return None


def _unpacked(value: Any) -> Any:
    """What a scalar of numpy, or an array or tensor without dimensions, holds."""
    return value.item() if getattr(value, "ndim", None) == 0 else value
