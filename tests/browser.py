"""Chromium without a window, for tests of what people look at."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["PHONE", "faults", "find_chromium", "miss", "open_browser"]

PHONE = 390  # CSS pixels
_TALL = 2.1  # times as high as on a desk, at most
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SCRIPT = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")
_FRAMES = ".table-wrapper, .scrolls"


def miss(what: str) -> NoReturn:
    """Skip a test that needs ``what``; under ``CI=true``, where all is installed, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needs {what}, and CI=true is set, where nothing may be missing")
    pytest.skip(f"needs {what}")


def find_chromium() -> str:
    """The program; a test that needs it ends here where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    return found or miss("Chromium (Debian: apt-get install chromium)")


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser that ends with the block; inside, asyncio cannot be used."""
    program = find_chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        miss("playwright (`make test-all` installs it)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def faults(page: Page, address: str) -> list[str]:
    """What somebody with a phone could not read at ``address``; nothing where all is well.

    The page is wider than the screen or much higher than on a desk, or something sticks out; a
    table breaks words, has hardly a word in a line, or scrolls without a sign; a picture has small
    text or cuts it off.
    """
    page.set_viewport_size({"width": PHONE, "height": 844})
    page.goto(address)
    measured: dict[str, Any] = page.evaluate(f"{_SCRIPT}; measurePage()")
    found: list[str] = measured["faults"]
    found += _unsigned_frames(page)
    found += _unreadable_pictures(page, measured["pictures"])
    page.set_viewport_size({"width": 1280, "height": 844})
    desk: int = page.evaluate("document.documentElement.scrollHeight")
    if measured["height"] > _TALL * desk:
        found.append(f"{measured['height']} pixels high, {desk} on a desk")
    return found


def _unsigned_frames(page: Page) -> list[str]:
    """Frames that scroll but look the same at their edge whether or not more is to come."""
    page.add_style_tag(content=f":is({_FRAMES}) * {{ color: transparent !important }}")
    found = []
    for frame in page.locator(_FRAMES).all():
        if frame.evaluate("e => e.scrollWidth <= e.clientWidth + 12"):  # what is hidden is a margin
            continue
        looks = []
        for place in ("0", "e.scrollWidth"):
            frame.evaluate(f"e => e.scrollLeft = {place}")
            looks.append(_light_of_edge(frame.screenshot()))
        if abs(looks[0] - looks[1]) < 8:
            found.append(f"no sign that this scrolls: {frame.inner_text()[:60]!r}")
    return found


def _light_of_edge(screenshot: bytes) -> float:
    """Mean lightness, 0..255, of the last pixels to the right."""
    from PIL import Image, ImageStat

    picture = Image.open(io.BytesIO(screenshot)).convert("L")
    edge = picture.crop((picture.width - 7, 0, picture.width - 1, picture.height))
    return float(ImageStat.Stat(edge).mean[0])


def _unreadable_pictures(page: Page, pictures: list[dict[str, Any]]) -> list[str]:
    """Those whose text is smaller than 8 CSS pixels, or is cut off."""
    found = []
    for address, width in sorted({(each["address"], each["width"]) for each in pictures}):
        name = address.rpartition("/")[2]
        path = Path(url2pathname(urlsplit(address).path))
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            drawn = page.evaluate(f"{_SCRIPT}; measurePicture", [text, width])
            size = drawn["smallest"]
            found += [f"{name} cuts off {text!r}" for text in drawn["cut"]]
        elif path.suffix == ".png":
            size = 8 * width / _points_across(path)
        else:
            continue
        if size < 7.95:
            found.append(f"{name} has text that is {size:.1f} pixels high")
    return found


def _points_across(path: Path) -> float:
    """Width of a PNG in points, where its smallest text is taken to be of 8 points."""
    from PIL import Image

    with Image.open(path) as picture:
        return float(72 * picture.width / picture.info.get("dpi", (100, 100))[0])
