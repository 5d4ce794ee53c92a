"""The modes of modules, kept while somebody else switches them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["Modes", "has_own_mode"]


class Modes:
    """Which of some modules are in training mode, to be set back later.

    For a class with a ``train`` or ``eval`` of its own the mode is more than a flag, so `restore`
    calls them. Flags are set last: such a method may set those of its parts otherwise.

    Args:
        modules: Each as often as it likes.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modes = {module: module.training for module in modules}

    @property
    def are_evaluating(self) -> bool:
        """Whether no module is in training mode."""
        return not any(self._modes.values())

    def restore(self) -> None:
        """Set every module to the mode that it had."""
        for module, mode in self._modes.items():
            if has_own_mode(type(module)):
                module.train(True) if mode else module.eval()
        for module, mode in self._modes.items():
            module.training = mode


def has_own_mode(kind: type[nn.Module]) -> bool:
    """Whether switching modules of a class does more than to set a flag."""
    return kind.train is not nn.Module.train or kind.eval is not nn.Module.eval
