"""Networks in evaluation mode that leave the original as it is: twins that share every tensor.

A module's mode is one flag that all its holders share. Whoever switches it for a moment changes
the answers of other threads, and their forward passes in training mode then move its running
statistics. A twin is a copy of the module tree with the same parameters, buffers and hooks, whose
modules are in evaluation mode from the beginning. The original is never touched.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cifarzoo.compute.modes import Modes, has_own_mode
from cifarzoo.compute.parts import KNOWN_PACKAGES, function_of, globals_of, parts_of
from cifarzoo.compute.wrappers import HOOKS, Passing, has_own_forward, wrapped
from cifarzoo.errors import InputError

__all__ = ["evaluating"]

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device})
_EMPTY = frozenset({dict, OrderedDict, set, tuple, list})
_CONTAINERS = (list, tuple, dict, set, frozenset, deque)
_BARE = frozenset({"torch", "logging"})  # objects of their classes hold no part of a network
_MOST_VALUES = 100_000  # more than a network has: it holds a data set, say
# a module's own tables: parameters, buffers, children, hooks
_TABLES = frozenset(name for name, value in nn.Module().__dict__.items() if value == {})
_switching = threading.RLock()


@contextlib.contextmanager
def evaluating(model: nn.Module, device: torch.device | None = None) -> Iterator[nn.Module]:
    """Yield a network that answers as ``model`` does in evaluation mode; any thread may ask.

    It is a twin of ``model``: no module of ``model`` changes its mode, and no other thread sees
    this one. Compiled and distributed wrappers are looked through, so it runs eagerly in this
    process alone; their hooks are called. Modules in lists, dicts, closures and bound methods are
    part of the twin, also those that ``model.eval()`` would not reach.

    Where no faithful twin is possible (a class that has its own ``train`` or ``eval``, an object
    that holds modules and is none, a function that uses a module by a global name), it is ``model``
    itself: threads then take turns, and the modes are switched and restored, unless all of its
    modules are in evaluation mode already.

    Args:
        model: Any module.
        device: Where the twin computes, with copies of the tensors that are elsewhere; where the
            model is unless given.

    Raises:
        InputError: A distributed wrapper has a ``forward`` of its own.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        >>> with evaluating(model) as network:
        ...     network.training, network[0].weight is model[0].weight, model.training
        (False, True, True)
    """
    try:
        twin = _Copier(device).copy_module(model)
    except _NoTwinError:
        with _taking_turns(model, device):
            yield model
    else:
        yield twin


class _NoTwinError(Exception):
    """A part of the network cannot be copied faithfully."""


class _Copier:
    """Copies modules and whatever leads to them; everything else is shared.

    Each method returns its argument itself where nothing in it had to be copied.

    Args:
        device: Where tensors are copied to; None shares them.
        finds_only: Go on where a copy would not be faithful: only ``originals`` are wanted.
    """

    def __init__(self, device: torch.device | None = None, *, finds_only: bool = False) -> None:
        self.originals: list[nn.Module] = []
        self._device = device
        self._tensors: dict[int, Tensor] = {}  # by the original's id: tied ones stay tied
        self._finds_only = finds_only
        self._seen = 0
        self._copies: dict[int, nn.Module] = {}  # by the original's id: shared modules stay shared
        self._open: set[int] = set()  # what is being copied right now
        self._cyclic: set[int] = set()  # what was met again within itself
        self._same: set[types.FunctionType] = set()  # functions that need no copy

    def copy_module(self, module: nn.Module) -> nn.Module:
        """The twin of ``module``."""
        if id(module) in self._copies:
            return self._copies[id(module)]
        if isinstance(module, torch.jit.ScriptModule):
            self._copies[id(module)] = _copy_script(module, self._device)
            return self._copies[id(module)]
        inner = wrapped(module)
        if inner is not None and not has_own_forward(module):
            self._copies[id(module)] = self._copy_wrapper(module, inner)
            return self._copies[id(module)]
        if isinstance(module, nn.parallel.DistributedDataParallel):
            raise InputError(
                f"{type(module).__name__}.forward may wait for other processes, and in an "
                "evaluation each process computes for itself; give the network without that "
                "wrapper: model.module"
            )
        self.originals.append(module)
        twin: nn.Module = object.__new__(type(module))
        self._copies[id(module)] = twin  # before its parts, which may lead back
        self._check_class(module)
        fields = module.__dict__.copy()
        graph = fields.pop("_graph", None) if isinstance(module, torch.fx.GraphModule) else None
        for name, value in fields.items():
            if type(value) not in _PLAIN and (type(value) not in _EMPTY or value):
                fields[name] = self.copy_value(value)
            if name in _TABLES and fields[name] is value:
                fields[name] = value.copy()  # a hook of the twin is none of the original
        twin.__dict__.update(fields)
        if graph is not None:  # names its owner, and is not run
            twin.__dict__["_graph"] = graph
        twin.__dict__["training"] = False
        twin.__dict__["_compiled_call_impl"] = None  # compiled for the original
        return twin

    def _copy_wrapper(self, wrapper: nn.Module, inner: nn.Module) -> nn.Module:
        """What the wrapper does in one process: the network inside alone, where that is enough."""
        hooks = {name: vars(wrapper).get(name, {}) for name in HOOKS}
        if not self._copies and not any(hooks.values()):
            return self.copy_module(inner)
        name = next(name for name, part in wrapper._modules.items() if part is inner)
        twin = Passing(name).eval()
        self._copies[id(wrapper)] = twin
        for table, held in hooks.items():
            copied = self.copy_value(held)
            twin.__dict__[table] = held.copy() if copied is held else copied
        twin.add_module(name, self.copy_module(inner))
        return twin

    def copy_value(self, value: Any) -> Any:
        """``value`` with twins in the place of modules."""
        kind = type(value)
        if kind in weakref.ProxyTypes:  # to isinstance it is what it stands for
            return self._copy_proxy(value)
        if kind in _PLAIN or isinstance(value, type | types.ModuleType):
            return value
        if isinstance(value, Tensor):
            return self._copy_tensor(value)
        if isinstance(value, nn.Module):
            return self.copy_module(value)
        if isinstance(value, _CONTAINERS) and not value:
            return value
        self._seen += 1
        if self._seen > _MOST_VALUES:
            self._refuse()
            return value
        if id(value) in self._open:
            self._cyclic.add(id(value))
            return value
        self._open.add(id(value))
        try:
            copied = self._copy_object(value)
        finally:
            self._open.discard(id(value))
        if copied is not value and id(value) in self._cyclic:
            self._refuse()
        return copied

    def _copy_tensor(self, tensor: Tensor) -> Tensor:
        if self._device is None or tensor.device == self._device:
            return tensor
        if id(tensor) not in self._tensors:
            moved = tensor.detach().to(self._device)
            if isinstance(tensor, nn.Parameter):
                moved = nn.Parameter(moved, requires_grad=tensor.requires_grad)
            self._tensors[id(tensor)] = moved
        return self._tensors[id(tensor)]

    def _copy_proxy(self, value: Any) -> Any:
        try:
            target = value.__repr__.__self__
        except ReferenceError:  # what it stood for is gone
            return value
        copied = self.copy_value(target)
        return value if copied is target else weakref.proxy(copied)

    def _copy_object(self, value: Any) -> Any:
        if isinstance(value, _CONTAINERS):
            return self._copy_container(value)
        if isinstance(value, types.FunctionType):
            return self._copy_function(value)
        if isinstance(value, types.MethodType):
            owner, function = self.copy_value(value.__self__), self.copy_value(value.__func__)
            is_same = owner is value.__self__ and function is value.__func__
            return value if is_same else types.MethodType(function, owner)
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            copied = [self.copy_value(part) for part in parts]
            if all(new is old for new, old in zip(copied, parts, strict=True)):
                return value
            return functools.partial(copied[0], *copied[1], **copied[2])
        if isinstance(value, weakref.ref):
            target = value()
            copied = self.copy_value(target)
            return value if copied is target else weakref.ref(copied)
        if type(value).__module__.partition(".")[0] not in _BARE:
            for part in parts_of(value):
                if self.copy_value(part) is not part:  # may change itself: no copy of it is right
                    self._refuse()
        return value

    def _copy_container(self, value: Any) -> Any:
        if isinstance(value, dict):
            pairs = [
                (self.copy_value(key), self.copy_value(item)) for key, item in [*value.items()]
            ]
            if all(k is old and v is value[old] for (k, v), old in zip(pairs, value, strict=True)):
                return value
            if type(value) is defaultdict:
                return defaultdict(value.default_factory, pairs)
            if type(value) in (dict, OrderedDict):
                return type(value)(pairs)
            self._refuse()
            return value
        items = list(value)
        copied = [self.copy_value(item) for item in items]
        if all(new is old for new, old in zip(copied, items, strict=True)):
            return value
        if type(value) is deque:
            return deque(copied, value.maxlen)
        if type(value) in (list, tuple, set, frozenset):
            return type(value)(copied)
        if isinstance(value, tuple) and hasattr(value, "_make"):
            return value._make(copied)
        self._refuse()
        return value

    def _copy_function(self, function: types.FunctionType) -> Any:
        original = getattr(function, "_torchdynamo_orig_callable", None)
        if original is not None:  # torch.compile of a function or method
            copied = self.copy_value(original)
            return function if copied is original else copied
        if function in self._same:
            return function
        for found in globals_of(function):
            if self.copy_value(found) is not found:
                self._refuse()  # a global variable is one for all
        cells = function.__closure__ or ()
        copied_cells = tuple(self._copy_cell(cell) for cell in cells)
        defaults = self.copy_value(function.__defaults__)
        keywords = self.copy_value(function.__kwdefaults__)
        is_same = all(new is old for new, old in zip(copied_cells, cells, strict=True))
        if is_same and defaults is function.__defaults__ and keywords is function.__kwdefaults__:
            self._same.add(function)
            return function
        twin = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, defaults, copied_cells
        )
        twin.__kwdefaults__ = keywords
        twin.__dict__.update(function.__dict__)
        return twin

    def _copy_cell(self, cell: types.CellType) -> types.CellType:
        try:
            content = cell.cell_contents
        except ValueError:  # not assigned yet
            return cell
        copied = self.copy_value(content)
        return cell if copied is content else types.CellType(copied)

    def _check_class(self, module: nn.Module) -> None:
        """Refuse a module when a copy of its fields would not do as it does."""
        kind = type(module)
        if has_own_mode(kind):
            self._refuse()  # its mode is more than a flag
        if any(p is not None and is_lazy(p) for p in module._parameters.values()):
            self._refuse()  # the first pass makes another class of it
        for parent in kind.__mro__:
            package = parent.__module__.partition(".")[0]
            if package == "torch" and ".fsdp" in parent.__module__:
                self._refuse()
            if parent is object or package in KNOWN_PACKAGES:
                continue
            if vars(parent).get("__slots__"):
                self._refuse()
            for part in map(function_of, vars(parent).values()):
                if self.copy_value(part) is not part:  # one for all networks of the class
                    self._refuse()

    def _refuse(self) -> None:
        if not self._finds_only:
            raise _NoTwinError


@contextlib.contextmanager
def _taking_turns(model: nn.Module, device: torch.device | None) -> Iterator[None]:
    """Evaluation mode within the block, for one thread at a time; afterwards all is as before."""
    finder = _Copier(finds_only=True)
    finder.copy_module(model)
    with contextlib.ExitStack() as turn:
        turn.enter_context(_switching)
        modules = {id(module): module for module in (*model.modules(), *finder.originals)}
        modes = Modes(modules.values())
        elsewhere = device is not None and any(t.device != device for t in _tensors(model))
        if not elsewhere and modes.are_evaluating:
            turn.close()  # nothing to switch, so nobody has to wait
            yield
            return
        if elsewhere:
            turn.enter_context(_moved(model, device))
        model.eval()
        for module in finder.originals:  # the model's own eval() does not know of all
            if module.training:
                module.eval()
        try:
            yield
        finally:
            modes.restore()


@contextlib.contextmanager
def _moved(model: nn.Module, device: torch.device | None) -> Iterator[None]:
    """Every tensor on ``device`` within the block; afterwards the same objects where they were."""
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    tables = [t for module in model.modules() for t in (module._parameters, module._buffers)]
    held = [dict(table) for table in tables]
    model.to(device)
    try:
        yield
    finally:
        for table, before in zip(tables, held, strict=True):
            table.update(before)  # type: ignore[arg-type]  # each its own kind
        for parameter, data in parameters:
            if parameter.data is not data:
                parameter.data = data


def _copy_script(module: torch.jit.ScriptModule, device: torch.device | None) -> nn.Module:
    """A ScriptModule's fields lie in C++, where only a copy of the tensors too is to be had."""
    elsewhere = device is not None and any(t.device != device for t in _tensors(module))
    if not elsewhere and not any(part.training for part in module.modules()):
        return module
    twin = copy.deepcopy(module)
    if elsewhere:
        return twin.to(device).eval()
    for own, shared in zip(_tensors(twin), _tensors(module), strict=True):
        own.data = shared.data
    return twin.eval()


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
