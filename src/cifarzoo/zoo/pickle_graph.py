"""What a pickle would build, followed without building it.

A pickle of a hundred bytes can describe a tuple of two tuples of two tuples, and so on: forty
levels are a trillion parts, though each level is stored once. Python's own `hash` and `repr` visit
every part, and `hash` goes down without a limit, until the process dies. So the operations are
followed here first, and what is too large or too deep is refused before anything is built.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from typing import IO, Any

__all__ = ["check_pickles"]

_DEPTH = 256  # levels; a tensor in a state dict takes about ten
_SHARED = 2_000_000  # parts more than there are bytes
_TEXT = 16  # characters that count as a part
_TOO_DEEP = f"it is nested more than {_DEPTH} times, or holds itself"
_FILL = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS"}
_CALL = {"REDUCE", "NEWOBJ", "NEWOBJ_EX"}
_MARK: Any = pickletools.markobject
_SLICE: Any = pickletools.stackslice


class _Part:
    """A value that holds others: its own weight, and what it holds."""

    __slots__ = ("depth", "held", "weight")

    def __init__(self, weight: int = 1, held: Iterable[_Part] = ()) -> None:
        self.weight, self.held = weight, [*held]
        # what fills it later may add to it
        self.depth: int = 1 + max((each.depth for each in self.held), default=0)
        if self.depth > _DEPTH:  # a hundred thousand levels would take seconds to follow
            raise ValueError(_TOO_DEEP)


_NUMBER, _NAME = _Part(), _Part()  # all numbers and short texts, and all functions


def check_pickles(file: IO[bytes], size: int, *, count: int = 1) -> None:
    """Follow pickles that stand one after the other.

    Args:
        file: An open file, at the first of them.
        size: Its bytes. A value that is not shared has no more parts than the file has bytes.
        count: How many pickles there are.

    Raises:
        ValueError: One builds something too large or too deep, or breaks off.

    Example:
        >>> import io, pickle
        >>> level = ()
        >>> for _ in range(40):
        ...     level = (level, level)
        >>> content = pickle.dumps({"a": level}, protocol=2)
        >>> check_pickles(io.BytesIO(content), size=200)
        Traceback (most recent call last):
            ...
        ValueError: it holds more than 2,000,200 parts, the same ones again and again
    """
    for _ in range(count):
        _check_parts(_follow(file), size + _SHARED)


def _follow(file: IO[bytes]) -> list[_Part]:
    """Every value of the next pickle that holds others."""
    stack: list[_Part | None] = []  # None is a mark
    memo: dict[Any, _Part] = {}
    parts: list[_Part] = []
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name == "MARK":
            stack.append(None)
        elif "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = _top(stack)
        elif "GET" in name:
            if argument not in memo:
                raise ValueError("it uses a value that it has not stored")
            stack.append(memo[argument])
        elif name == "DUP":
            stack.append(_top(stack))
        elif name not in ("STOP", "PROTO", "FRAME"):
            taken = _take(stack, operation.stack_before)
            if name in _FILL:
                if taken[0] in (_NUMBER, _NAME):  # which stand for those of all later pickles too
                    raise ValueError("it fills something that can hold nothing")
                taken[0].held += taken[1:]
                stack.append(taken[0])
                continue
            if name in _CALL and taken[0] is not _NAME:
                raise ValueError("it calls something that is no function")
            if operation.stack_after:
                part = _new_part(name, argument, taken)
                stack.append(part)
                if part.held or part.weight > 1 or name.startswith("EMPTY"):
                    parts.append(part)
    return parts


def _new_part(name: str, argument: Any, taken: list[_Part]) -> _Part:
    """What the operation ``name`` puts on the stack."""
    if name in ("GLOBAL", "STACK_GLOBAL", "PERSID", "BINPERSID"):  # the last are found by names
        return _NAME
    length = len(argument) if isinstance(argument, str | bytes | bytearray) else 0
    if taken or length >= _TEXT or name.startswith("EMPTY") or name in ("LIST", "DICT"):
        return _Part(1 + length // _TEXT, taken)
    return _NUMBER


def _top(stack: list[_Part | None]) -> _Part:
    if not stack or stack[-1] is None:
        raise ValueError("it uses a value that is not there")
    return stack[-1]


def _take(stack: list[_Part | None], before: list[Any]) -> list[_Part]:
    """Remove what an operation takes from the stack; returns it in the order it was put there."""
    taken: list[_Part] = []
    for kind in reversed(before):
        if kind is _SLICE:
            while stack and stack[-1] is not None:
                taken.append(_top(stack))
                stack.pop()
        elif kind is _MARK:
            if not stack or stack.pop() is not None:
                raise ValueError("it ends a list that it has not begun")
        else:
            taken.append(_top(stack))
            stack.pop()
    return taken[::-1]


def _check_parts(parts: list[_Part], most: int) -> None:
    """Refuse values whose parts, counted wherever they appear, are too many or too deep."""
    sizes: dict[int, tuple[int, int]] = {}  # of a part: how much it holds, in how many levels
    for first in parts:
        waiting = [first] if id(first) not in sizes else []
        open_parts: set[int] = set()
        while waiting:
            part = waiting[-1]
            if id(part) in sizes:
                waiting.pop()
            elif id(part) in open_parts:  # all that it holds is known
                known = [sizes[id(each)] for each in part.held]
                size = part.weight + sum(each for each, _ in known)
                depth = 1 + max((levels for _, levels in known), default=0)
                if depth > _DEPTH:
                    raise ValueError(_TOO_DEEP)
                if size > most:
                    raise ValueError(
                        f"it holds more than {most:,} parts, the same ones again and again"
                    )
                sizes[id(part)] = size, depth
                open_parts.discard(id(waiting.pop()))
            else:
                open_parts.add(id(part))
                if any(id(each) in open_parts for each in part.held):
                    raise ValueError(_TOO_DEEP)
                waiting += (each for each in part.held if id(each) not in sizes)
