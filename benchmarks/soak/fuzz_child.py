"""The child of benchmarks/fuzz.py: reads what libFuzzer makes of real files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import struct
import sys
import tempfile
import traceback
import warnings
import zipfile
from pathlib import Path

import atheris
import torch
import torch._weights_only_unpickler
from mutations import change_tree
from torch import nn

with atheris.instrument_imports(include=["cifarzoo"]):
    import cifarzoo
    import cifarzoo.training.checkpoint
    import cifarzoo.training.trainer
    import cifarzoo.zoo.weights
    from cifarzoo.errors import CifarZooError
    from cifarzoo.zoo.weights import facts_sha256

_reader = torch._weights_only_unpickler.Unpickler
_reader.load = atheris.instrument_func(_reader.load)
CORPUS = Path(sys.argv[-1])
FOLDER = tempfile.TemporaryDirectory()
PATH = Path(FOLDER.name, "file")
MODEL: list[nn.Module] = []


def small(*, num_classes: int = 10) -> nn.Module:
    """The network whose files are read."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Linear(2, num_classes))


def write_corpus() -> None:
    """Real files: weights, files of torch.save old and new, a checkpoint."""
    model = cifarzoo.create_model("small", seed=0)
    content = {"model": model.state_dict(), "epoch": 3, "note": [1, "a", (2.5, None)]}
    torch.save(content, CORPUS / "new.pt")
    torch.save(content, CORPUS / "old.pt", _use_new_zipfile_serialization=False)
    pixels = torch.zeros(8, 3, 2, 2, dtype=torch.uint8)
    images = cifarzoo.ImageSet(pixels, torch.arange(8), cifarzoo.CIFAR10_CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        plain = cifarzoo.Augmentation()
        recipe = cifarzoo.Recipe(epochs=1, batch_size=4, optimizer="adam", augmentation=plain)
        place = {"device": "cpu", "precision": "float32", "kernels": False}
        cifarzoo.Trainer(model, recipe, output=folder, **place).fit(images)
        for name in ("checkpoint.pt", "weights.safetensors"):
            (CORPUS / name).write_bytes(Path(folder, name).read_bytes())


def mutate(content: bytes, size: int, seed: int) -> bytes:
    """Change a file: its bytes, or what lies inside of it."""
    draw = random.Random(seed)
    try:
        if draw.random() < 0.7 and content[:2] == b"PK":
            return _mutate_archive(content, size, draw)
        if draw.random() < 0.7 and content[8:9] == b"{":
            return _mutate_header(content, size, draw)
    except Exception:  # it is no such file any more
        return atheris.Mutate(content, size)
    return atheris.Mutate(content, size)


def _mutate_archive(content: bytes, size: int, draw: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(each for each in parts if each.endswith("data.pkl"))
    if draw.random() < 0.05:
        name = draw.choice([*parts])
    parts[name] = atheris.Mutate(parts[name], max(len(parts[name]) + 200, 200))
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for each, part in parts.items():
            archive.writestr(each, part)
    return written.getvalue()[:size]


def _mutate_header(content: bytes, size: int, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    if draw.random() < 0.5:
        header = atheris.Mutate(header, len(header) + 200)
    else:
        tree = json.loads(header)
        texts = tree["__metadata__"]
        name = draw.choice([*texts])
        if draw.random() < 0.5:
            texts[name] = atheris.Mutate(texts[name].encode(), 5000).decode()
        else:
            facts = {key: json.loads(text) for key, text in texts.items()}
            change_tree(facts, draw, tensors=False)
            texts = {str(key): json.dumps(value) for key, value in facts.items()}
        texts.pop("facts_sha256", None)
        tree["__metadata__"] = {**texts, "facts_sha256": json.dumps(facts_sha256(texts))}
        header = json.dumps(tree).encode()
    return (struct.pack("<Q", len(header)) + header + content[8 + length :])[:size]


def read(content: bytes) -> None:
    """Give a file to all three; only errors of ours may come of it."""
    PATH.write_bytes(content)
    model = MODEL[0]
    for name, call in (
        ("read_metadata", lambda: cifarzoo.read_metadata(PATH)),
        ("load_weights", lambda: cifarzoo.load_weights(model, PATH)),
        ("read_checkpoint", lambda: cifarzoo.training.checkpoint.read_checkpoint(PATH)),
    ):
        before = [tensor.clone() for tensor in model.state_dict().values()]
        try:
            call()
        except CifarZooError as error:
            str(error).encode()
            after = model.state_dict().values()
            if not all(a.equal(b) or a.isnan().any() for a, b in zip(before, after, strict=True)):
                _keep(content, f"wrong: {name} refused a file, and the model was changed")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            _keep(content, f"foreign: {name}, {type(error).__name__} at {where}")


def _keep(content: bytes, line: str) -> None:
    """Say what was found, and leave the file behind, once for each kind."""
    path = CORPUS.parent / "found" / hashlib.sha256(line.encode()).hexdigest()[:12]
    if not path.exists():
        path.write_bytes(content)
    os.write(2, f"\n{line}\n".encode(errors="backslashreplace"))


def main() -> None:
    """Hand over to libFuzzer."""
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    about = {"description": "Small.", "source": "here", "parameters": 1, "macs": 1}
    cifarzoo.register_model(name="small", **about)(small)
    MODEL.append(cifarzoo.create_model("small", seed=0))
    write_corpus()
    atheris.Setup(sys.argv, read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
