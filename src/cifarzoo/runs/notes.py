"""What is noted about a run, in its folder and in its weights: checked when it is read."""

from __future__ import annotations

from typing import Any

from cifarzoo.errors import CifarZooError

__all__ = ["check_facts"]

# what the command line acts on; all else is anybody's
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "data": (str,),
    "data_name": (str,),
    "data_sha256": (str,),
    "val_name": (str,),
    "val_sha256": (str,),
    "val_size": (int,),
    "val_images": (int,),
    "watch_test": (bool,),
    "tensorboard": (bool,),
    "compile": (bool, str),
    "precision": (str,),
    "teacher_sha256": (str,),
    "command": (str,),
    "resuming": (dict,),
}
_RESUMING: dict[str, tuple[type, ...]] = {
    "card": (dict,),
    "network_sha256": (str,),
    "only_in_python": (list,),
}
_WORDS = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def check_facts(facts: Any, source: str, error: type[CifarZooError]) -> dict[str, Any]:
    """``facts`` as they are, if each that is known is of its kind or null.

    Args:
        facts: What JSON held.
        source: The file, for the message.
        error: What to raise.
    """
    if not isinstance(facts, dict):
        raise error(f"{source} is damaged: it holds {facts!r:.100}, not the facts about a run")
    resuming = facts.get("resuming")
    for known, kinds in ((facts, _KINDS), (resuming, _RESUMING)):
        if isinstance(known, dict):
            _check_kinds(known, kinds, source, error)
    return facts


def _check_kinds(
    facts: dict[str, Any],
    kinds: dict[str, tuple[type, ...]],
    source: str,
    error: type[CifarZooError],
) -> None:
    for name, allowed in kinds.items():
        value = facts.get(name)
        if value is not None and type(value) not in allowed:  # true is an int to isinstance
            words = " or ".join(_WORDS[kind] for kind in allowed)
            raise error(f"{source} is damaged: its {name!r} must be {words}; got {value!r:.100}")
