"""The three files that a network is on the hub: written, read, fetched and sent."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from cifarzoo.errors import (
    ArgumentError,
    DownloadError,
    OutputError,
    WeightsError,
)
from cifarzoo.evaluation.report import EvaluationReport
from cifarzoo.factory import create_model, load_model
from cifarzoo.files.paths import home_path
from cifarzoo.files.writing import digest, file_digest, make_directory, write_bytes, write_text
from cifarzoo.hub.page import write_page
from cifarzoo.names import TIMM_PREFIX, check_kind
from cifarzoo.version import __version__
from cifarzoo.zoo.addresses import hub_client, said_by_hub
from cifarzoo.zoo.builds import describe
from cifarzoo.zoo.card import ModelCard, get_card
from cifarzoo.zoo.locate import find_any
from cifarzoo.zoo.registry import get_model_info, list_models
from cifarzoo.zoo.saving import save_weights
from cifarzoo.zoo.torch_files import kind_of_file
from cifarzoo.zoo.weights import read_metadata

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "TIMM_PREFIX",
    "fetch_weights",
    "from_pretrained",
    "push_to_hub",
    "save_pretrained",
    "weights_in_folder",
]

_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_PAGE = "README.md"


def save_pretrained(
    model: nn.Module | str | PathLike[str],
    folder: str | PathLike[str],
    *,
    report: EvaluationReport | None = None,
    metadata: Mapping[str, Any] | None = None,
    license: str | None = None,  # noqa: A002  (the hub's word)
    repo_id: str | None = None,
) -> Path:
    """Write a network as a folder that `from_pretrained` reads and the Hugging Face hub shows.

    The folder has three files: ``model.safetensors``, which `load_model` reads too;
    ``config.json``, by which timm can load it; and ``README.md``, the page about it ("model card")
    with its accuracy, normalization, recipe and citation. This needs the extra ``hub``.

    Args:
        model: A network; or the path of a weights file, the folder of a run, or ``MODEL`` or
            ``MODEL.TAG`` for weights of the zoo, whose recipe and accuracy then stand on the page.
        folder: Folder for the three files. Each is written as a whole; other files there stay, and
            so does a page that somebody has changed, or wrote.
        report: What `evaluate` found, for the page.
        metadata: Facts for the weights file and the page, as `save_weights` takes them: "recipe",
            "data", "test_accuracy". Unless given, they are those of the weights file.
        license: Short name of the licence for the page, such as "mit". Weights of the zoo have the
            licence of this library unless another is given.
        repo_id: ``owner/name`` that the page tells readers to load; the folder's name unless given.

    Returns:
        The folder.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ArgumentError: An argument is of another kind, or the report is of another network.
        WeightsError: There is no such file, or it does not say which network it belongs to.
        OutputError: The folder cannot be written, or holds weights or settings of another library.
    """
    hub_client()  # or the error that there is none, before any work is done
    for name, value, kind in (
        ("report", report, EvaluationReport),
        ("metadata", metadata, Mapping),
        ("license", license, str),
        ("repo_id", repo_id, str),
    ):
        if value is not None:
            check_kind(name, value, kind)
    folder, source, facts = home_path(folder), None, dict(metadata or {})
    before = _settings_in(folder)
    taken = [name for name in (_WEIGHTS, _CONFIG) if (folder / name).exists()]
    if taken and not before and not _is_half_written(folder, taken):
        raise OutputError(
            f"{folder} holds {' and '.join(taken)}, which save_pretrained did not write; choose "
            "another folder"
        )
    if isinstance(model, nn.Module):
        network = model
    else:
        source = find_any(model)
        if source.model:  # by its name: the package knows the checksum of the whole file
            network = create_model(source.model, pretrained=source.tag)
        else:
            network = load_model(source.path)
        if metadata is None:
            facts = read_metadata(source.path)["metadata"]
    if report is not None:
        _check_report(report, get_card(network))
    page = write_page(
        network,
        facts=facts,
        report=report,
        license=license or ("mit" if source and source.model else None),
        source=repo_id or folder.as_posix(),
        name=(repo_id or folder.resolve().name).rpartition("/")[2],
    )
    make_directory(folder)
    if source and metadata is None and kind_of_file(source.path) == "safetensors":
        write_bytes(folder / _WEIGHTS, source.path.read_bytes())  # in the dtype it has
    else:
        save_weights(network, folder / _WEIGHTS, metadata=facts)
    config = _describe(describe(network), read_metadata(folder / _WEIGHTS)["sha256"])
    config["page_sha256"] = digest(page.encode())
    old = folder / _PAGE
    if old.exists() and file_digest(old) not in (before.get("page_sha256"), config["page_sha256"]):
        logging.getLogger("cifarzoo").warning(
            "%s stays: save_pretrained did not write it, or somebody has changed it; remove it to "
            "get a new one",
            old,
        )
    else:
        write_text(old, page)
    write_text(folder / _CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def _is_half_written(folder: Path, taken: list[str]) -> bool:
    """Whether `save_pretrained` was stopped here after the weights, which came first."""
    if taken != [_WEIGHTS]:
        return False
    try:
        return "card" in read_metadata(folder / _WEIGHTS)
    except WeightsError:
        return False


def from_pretrained(
    source: str | PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    api: HfApi | None = None,
) -> nn.Module:
    """Load a network from a folder of `save_pretrained`, or from the Hugging Face hub.

    Only weights and settings are fetched, and no code of other people is run. The files are kept in
    the hub's own cache, and read there when there is no connection.

    Args:
        source: A folder, or ``owner/name`` on the hub, which needs the extra ``hub``. If there is a
            folder of this name, it is read.
        revision: A branch, tag or commit on the hub; the newest unless given.
        cache_dir: Folder that fetched files are kept in; ``$HF_HOME`` decides unless given.
        api: A client with an address or a token of its own; that of ``hf auth login`` unless given.

    Returns:
        The network in training mode on the CPU, with its card.

    Raises:
        WeightsError: The files do not belong together, or are damaged.
        UnknownNameError: Its model is not registered; import the module that registers it.
        DownloadError: There is neither such a folder nor such a repository, or no connection.
        ArgumentError: A revision of a folder was asked for.
    """
    folder = home_path(source)
    if not folder.is_dir():
        name = str(source)
        return load_model(fetch_weights(name, revision=revision, cache_dir=cache_dir, api=api))
    if revision is not None:
        raise ArgumentError(
            f"{folder} is a folder here, and has no revision {revision!r}; leave it out, or rename "
            "the folder if you mean a repository of the hub"
        )
    return load_model(weights_in_folder(folder))


def fetch_weights(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | PathLike[str] | None = None,
    api: HfApi | None = None,
) -> Path:
    """The weights file of a repository on the hub; arguments and errors as of `from_pretrained`."""
    client = hub_client(api)
    try:
        found = client.snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=None if cache_dir is None else str(home_path(cache_dir)),
            allow_patterns=[_WEIGHTS, _CONFIG],
        )
    except Exception as error:  # of the hub, of its connection, or about the name
        at = f" at {revision!r}" if revision else ""
        raise DownloadError(
            f"there is no folder {repo_id!r} here, and the hub gives no such repository{at}: "
            f"{said_by_hub(error)}; check name, revision and connection, and run hf auth login "
            "if it is private"
        ) from error
    return weights_in_folder(Path(str(found)))


def weights_in_folder(folder: Path) -> Path:
    """The weights file in a folder, if its settings are those of this very file.

    Raises:
        WeightsError: They are not, or something is missing.
    """
    path, config = folder / _WEIGHTS, _settings_in(folder)
    if not config or not path.is_file():
        raise WeightsError(
            f"{folder} was not written by save_pretrained: it needs {_WEIGHTS}, and {_CONFIG} with "
            "the library name cifarzoo; create_model(name, pretrained=path) loads weights of others"
        )
    if read_metadata(path).get("sha256") != config["sha256"]:
        raise WeightsError(
            f"{_CONFIG} and {_WEIGHTS} in {folder} do not belong together; save or fetch both again"
        )
    return path


def _settings_in(folder: Path) -> dict[str, Any]:
    """What config.json in a folder of `save_pretrained` says; empty for any other folder."""
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        is_ours = config.get("library_name") == "cifarzoo" and "sha256" in config
    except (OSError, ValueError, AttributeError):
        return {}
    return dict(config) if is_ours else {}


def _check_report(report: EvaluationReport, card: ModelCard) -> None:
    """Raise ArgumentError when a report is of another network, by its name or its classes."""
    if report.model != card.name:
        raise ArgumentError(
            f"the report is of {report.model!r}, and the network is {card.name!r}; pass the report "
            "of this one"
        )
    names = tuple(score.name for score in report.classes)
    if len(names) != card.num_classes or (card.classes and names != card.classes):
        raise ArgumentError(
            f"the report of {report.model!r} has {len(names)} classes ({', '.join(names[:3])}, "
            f"...), which are not those of the network {card.name!r}; pass the report of this one"
        )


def push_to_hub(
    model: nn.Module | str | PathLike[str],
    repo_id: str,
    *,
    report: EvaluationReport | None = None,
    metadata: Mapping[str, Any] | None = None,
    license: str | None = None,  # noqa: A002  (the hub's word)
    private: bool | None = None,
    revision: str | None = None,
    message: str = "Upload with cifarzoo",
    api: HfApi | None = None,
) -> str:
    """Send a network to the Hugging Face hub, as `save_pretrained` writes it, in one commit.

    The repository is created if there is none. Run ``hf auth login`` once before.

    Args:
        model: The network, as `save_pretrained` takes it; or the folder that `save_pretrained`
            wrote, whose three files are sent as they are.
        repo_id: Name of the repository, ``owner/name``.
        report: What `evaluate` found, for the page.
        metadata: Facts for the weights file and the page, as `save_pretrained` takes them.
        license: Short name of the licence, as `save_pretrained` takes it.
        private: Whether only its owner sees a new repository; the owner's own setting unless given.
        revision: Branch to write to; the main one unless given.
        message: Message of the commit.
        api: A client with an address or a token of its own.

    Returns:
        The address of the commit.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: There is no such file, or it does not say which network it belongs to.
        ArgumentError: There are facts for the page of a folder, which has its page.
        OutputError: The hub refused, or there is no connection.
    """
    client = hub_client(api)
    facts: dict[str, Any] = {"report": report, "metadata": metadata, "license": license}
    ready = None
    if not isinstance(model, nn.Module) and _settings_in(home_path(model)):
        ready = weights_in_folder(home_path(model)).parent
        if given := [name for name, value in facts.items() if value is not None]:
            raise ArgumentError(
                f"the page in {ready} is sent as it is, so {given[0]} has no place; give it to "
                "save_pretrained"
            )
    with tempfile.TemporaryDirectory() as made:
        folder = ready or save_pretrained(model, made, **facts, repo_id=repo_id)
        try:
            client.create_repo(repo_id, private=private, exist_ok=True)
            commit = client.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=message,
                allow_patterns=[_WEIGHTS, _CONFIG, _PAGE],
            )
        except Exception as error:  # of the hub, of its connection, or about the name
            raise OutputError(
                f"cannot push to {repo_id!r}: {said_by_hub(error)}; check the name and the "
                "connection, and run hf auth login"
            ) from error
    return str(commit.commit_url)


def _describe(card: ModelCard, sha256: str) -> dict[str, Any]:
    """What config.json says: for us, for people, and for timm if it can know the network."""
    config: dict[str, Any] = {
        "library_name": "cifarzoo",
        "library_version": __version__,
        "card": card.to_dict(),
        "sha256": sha256,
    }
    if card.name not in list_models():
        return config
    size = get_model_info(card.name).image_size or 32
    about = {
        "input_size": (3, size, size),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": card.preprocessing.mean,
        "std": card.preprocessing.std,
        "num_classes": card.num_classes,
    }
    names = {} if card.classes is None else {"label_names": card.classes}
    return {
        **config,
        "architecture": f"{TIMM_PREFIX}{card.name}",
        "num_classes": card.num_classes,
        **names,
        "model_args": card.to_dict()["options"],
        "pretrained_cfg": about,
    }
