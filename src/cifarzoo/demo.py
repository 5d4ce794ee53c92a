"""A page in the browser: drop an image, see what a network makes of it (extra ``demo``)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cifarzoo.compute.twin import evaluating
from cifarzoo.data.pictures import prepare
from cifarzoo.data.sets.registry import load_dataset
from cifarzoo.errors import ArgumentError, CifarZooError, MissingExtraError
from cifarzoo.evaluation.inference import probabilities
from cifarzoo.factory import create_model, load_model
from cifarzoo.files.paths import home_path
from cifarzoo.models.ensemble import Ensemble
from cifarzoo.zoo.about import mean_accuracy, trained_on
from cifarzoo.zoo.card import get_card, names_of_outputs, unwrap
from cifarzoo.zoo.locate import find_any
from cifarzoo.zoo.registry import get_model_info, list_models
from cifarzoo.zoo.weights import read_metadata

__all__ = ["build_demo", "grad_cam", "launch_demo"]

_SCALE = 10  # a pixel of the network's image is a square of so many on the page
_HEAT = torch.tensor([255.0, 40.0, 0.0]).view(3, 1, 1)


def launch_demo(
    model: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C; nothing leaves the machine.

    Args:
        model: As for `build_demo`.
        host: Address to listen on.
        port: Its port; a free one from 7860 on unless given.
        browser: Whether the browser opens it.

    Raises:
        ArgumentError: The port is taken.
    """
    page = build_demo(model)
    gradio = _gradio()
    fonts = ["system-ui", "sans-serif"]  # the usual ones are fetched from elsewhere
    try:
        page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size="20mb",
            theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
        )
    except OSError as error:
        raise ArgumentError(
            f"no page can be served on {host}:{port or 'a port from 7860'}; pass another port=, "
            f"or end what is there ({error})"
        ) from error


def build_demo(model: str | None = None) -> Any:
    """The page, as an application of gradio.

    Args:
        model: What is chosen at first: a pretrained model, a weights file or a run folder; the
            most accurate of the zoo unless given.

    Raises:
        MissingExtraError: gradio is not installed.
        WeightsError: There is no such file, or it cannot be loaded.
        UnknownNameError: It is of a network that is not registered.
    """
    gradio = _gradio()
    if model is not None:
        _load(model)
    choices = _choices(model)
    names = [choice.name for choice in choices]
    known = {choice.name: choice for choice in choices}
    with gradio.Blocks(title="cifarzoo", analytics_enabled=False) as page:
        gradio.Markdown("# cifarzoo\nDrop an image, paste it, or take a photo.")
        with gradio.Row():
            with gradio.Column():
                chosen = gradio.Dropdown(
                    [(choice.label, choice.name) for choice in choices],
                    value=names[0],
                    label="Network",
                )
                about = gradio.Markdown(known[names[0]].about)
                photo = gradio.Image(
                    type="filepath",
                    image_mode=None,  # 16 bits and transparent parts are for `prepare`
                    sources=["upload", "webcam", "clipboard"],
                    label="Image",
                    height=320,
                )
            with gradio.Column():
                answer = gradio.Label(label="Probabilities", num_top_classes=5)
                heat = gradio.Image(
                    label="Where it looked (Grad-CAM)",
                    height=320,
                    elem_classes="heat",
                    buttons=["download", "fullscreen"],  # and none that sends it elsewhere
                )
                note = gradio.Markdown()
        gradio.Examples(_examples(), photo, label="Images of the test set")
        chosen.change(lambda name: known[name].about, chosen, about)
        gradio.on(
            [photo.change, chosen.change],
            functools.partial(_answer, gradio.Error),
            [chosen, photo],
            [answer, heat, note],
            api_name="predict",
            show_progress="minimal",
        )
    return page


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        raise MissingExtraError("the demo needs gradio: pip install 'cifarzoo[demo]'") from error
    return gradio


def grad_cam(model: nn.Module, image: Tensor, label: int) -> Tensor | None:
    """Where the last maps of a network speak for a class (Selvaraju et al. 2017, section 3).

    Args:
        model: A network; it is left as it is.
        image: uint8 (3, H, W).
        label: Number of the class.

    Returns:
        Float32 (H, W) in 0..1; None for a network without maps, such as one of tokens.

    Raises:
        ArgumentError: The network is an ensemble, whose members have maps of their own.
    """
    if isinstance(unwrap(model), Ensemble):
        raise ArgumentError(
            "each member of an ensemble has maps of its own: call grad_cam(member, ...)"
        )
    with evaluating(model) as network, torch.enable_grad():
        device = next(network.parameters()).device
        batch = get_card(model).preprocessing.normalize(image[None].to(device))
        layer = _last_map(network, batch)
        if layer is None:
            return None
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            logits = network(batch.requires_grad_())
        finally:
            hook.remove()
        (slopes,) = torch.autograd.grad(logits[0, label], seen)
        slopes, found = map(_channels_first, (slopes, seen[0]))
        maps = (slopes.mean((2, 3), keepdim=True) * found).sum(1, keepdim=True).relu()
    size = (image.shape[1], image.shape[2])
    found = F.interpolate(maps.detach().float().cpu(), size, mode="bilinear")[0, 0]
    found = found - found.min()
    return found / found.max().clamp_min(1e-7)


def _channels_first(maps: Tensor) -> Tensor:
    """Maps (1, C, H, W) of what may be (1, H, W, C): an image is square, and so are its maps."""
    _, first, second, last = maps.shape
    return maps.permute(0, 3, 1, 2) if first == second != last else maps


def _last_map(network: nn.Module, batch: Tensor) -> nn.Module | None:
    """The last part whose output still has places, of those that are used once for an image.

    None where tokens follow, for then the maps are only what the tokens are cut from.
    """
    outputs: dict[nn.Module, list[Any]] = {}  # in the order of the computation
    hooks = [
        part.register_forward_hook(lambda part, _, out: outputs.setdefault(part, []).append(out))
        for part in network.modules()
    ]
    try:
        with torch.no_grad():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    last = None
    for part, found in outputs.items():
        shape = getattr(found[0], "shape", ())
        if len(shape) == 4 and min(_channels_first(found[0]).shape[2:]) > 1 and len(found) == 1:
            last = part
        elif len(shape) == 3:
            last = None
    return last


@dataclasses.dataclass(frozen=True)
class _Choice:
    """A network that can be chosen on the page."""

    name: str
    accuracy: float | None
    data: str = ""  # what it was trained on

    @property
    def label(self) -> str:
        return self.name if self.accuracy is None else f"{self.name} ({self.accuracy:.1%})"

    @property
    def about(self) -> str:
        if self.accuracy is None:
            return "Its accuracy is not known: its file does not state one."
        of = f" of {self.data}" if self.data else ""
        return f"It is right about {self.accuracy:.2%} of the test images{of}."


def _choices(first: str | None) -> Sequence[_Choice]:
    """Those whose weights are here, the most accurate first; before them the one asked for."""
    zoo = [
        _Choice(f"{name}.{tag}", mean_accuracy(info), trained_on(info))
        for name in list_models(pretrained=True)
        for tag, info in get_model_info(name).weights.items()
        if info.path.is_file() and "seed_of" not in info.facts
    ]
    zoo.sort(key=lambda choice: -(choice.accuracy or 0))
    if first is None:
        return zoo
    found = find_any(first)
    name = f"{found.model}.{found.tag}" if found.model else first
    asked = next((choice for choice in zoo if choice.name == name), None)
    if asked is None:
        facts = read_metadata(found.path).get("metadata", {})
        asked = _Choice(name, _accuracy(facts), str(facts.get("data") or ""))
    return [asked, *(choice for choice in zoo if choice.name != name)]


def _accuracy(facts: Mapping[str, Any]) -> float | None:
    found = facts.get("test_accuracy")
    accuracy = found.get("none") if isinstance(found, Mapping) else None
    return float(accuracy) if isinstance(accuracy, int | float) else None


def _load(name: str) -> nn.Module:
    """The network of this name, or of a file or folder, which may change meanwhile."""
    path = home_path(name)
    return _load_once(name, path.stat().st_mtime_ns if path.exists() else 0)


@functools.lru_cache(maxsize=8)
def _load_once(name: str, _written: int) -> nn.Module:
    found = find_any(name)
    network = (
        create_model(found.model, pretrained=found.tag) if found.model else load_model(found.path)
    )
    return network.eval()


def _examples() -> list[list[Any]]:
    from PIL import Image

    images = load_dataset("sample", "test").images[:8]
    return [[Image.fromarray(image.permute(1, 2, 0).numpy())] for image in images]


def _answer(refuse: type[Exception], name: str, photo: Any) -> tuple[Any, Any, str]:
    """Probabilities, the picture with the heat map, and a note, for what is on the page."""
    if photo is None:
        return None, None, ""
    try:
        image = prepare(photo)
        network = _load(name)
        shares = probabilities(network, image.pixels[None])[0]
    except CifarZooError as error:
        raise refuse(str(error)) from error
    outputs = len(shares)
    classes = names_of_outputs(get_card(network).classes, outputs) or [*map(str, range(outputs))]
    places = grad_cam(network, image.pixels, int(shares.argmax()))
    note = f"The image: {image.note}." if image.note else ""
    if places is None:
        note += " This network works on tokens, not on maps: there is no heat map."
    answer = dict(zip(classes, shares.tolist(), strict=True))
    return answer, _heated(image.pixels, places), note.strip()


def _heated(pixels: Tensor, places: Tensor | None) -> Any:
    """What the network saw, large, and red where ``places`` is high: uint8 (H, W, 3)."""
    large = pixels.float().repeat_interleave(_SCALE, 1).repeat_interleave(_SCALE, 2)
    if places is not None:
        size = (large.shape[1], large.shape[2])
        fine = F.interpolate(places[None, None], size, mode="bilinear")[0]
        large = large + 0.65 * fine * (_HEAT - large)
    return large.round().byte().permute(1, 2, 0).numpy()
