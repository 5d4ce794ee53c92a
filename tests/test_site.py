"""The built documentation: every page can be read on a phone, and no link leads nowhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from browser import faults, miss, open_browser

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs/_build/html"
STAMP = ROOT / "docs/_build/built"  # `make site` touches it
SOURCES = ("docs", "src", "examples/quickstart.py", "benchmarks/results", "research/results")


@pytest.fixture(scope="module")
def site() -> list[Path]:
    """Every page that `make site` built, of the files as they are now."""
    if not STAMP.exists():
        miss("the documentation (`make site` builds it)")
    files = [
        file
        for source in SOURCES
        for file in [ROOT / source, *(ROOT / source).rglob("*.*")]
        if file.is_file() and not {"_build", "generated", "__pycache__"} & {*file.parts}
    ]
    newest = max(files, key=lambda file: file.stat().st_mtime)
    if newest.stat().st_mtime > STAMP.stat().st_mtime:
        miss(f"documentation that is newer than {newest.relative_to(ROOT)} (`make site`)")
    return sorted(SITE.rglob("*.html"))


@pytest.mark.slow
@pytest.mark.browser
def test_every_page_can_be_read_on_a_phone(site: list[Path]) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        found = {path.relative_to(SITE): faults(page, path.as_uri()) for path in site}
    assert len(found) > 50
    assert not {path: said for path, said in found.items() if said}


FRAME = "<style>.scrolls { overflow-x: auto; %s } table { width: 900px; height: 90px }</style>"
SIGN = "background: linear-gradient(to left, #fff, #fff) local right / 9px 100% no-repeat, #000"
BAD_PAGES = {
    "1200 pixels wide": "<p style='width: 1200px'>x</p>",
    "ends at 1100": "<main style='overflow-x: auto'><article><p style='width: 1100px'>x</p>",
    "is 1300 pixels wide": "<main style='overflow-x: auto'><article><p style='white-space: nowrap'>"
    "<span style='padding-right: 1300px'></span>",
    "ends at 900": "<main style='overflow: hidden'><p style='width: 900px'>x</p></main>",
    "breaks the word weights": "<table style='width: 20px; table-layout: fixed; "
    "overflow-wrap: anywhere'><tr><td>weights</td></tr></table>",
    "hardly a word in a line": "<table style='width: 50px'><tr><td>a few of them, all in one",
    "no sign that this scrolls": f"{FRAME % ''}<div class=scrolls><table><tr><td>x</table></div>",
    "pixels high": "<p>word</p>" * 9 + "<style>@media (max-width: 500px) { p { height: 900px } }"
    "</style>",
    "text that is 5.0 pixels high": "<img src=small.svg width=300>",
    "cuts off 'a long text'": "<img src=small.svg width=300>",
    "text that is 4.8 pixels high": "<img src=small.png width=300>",
}


@pytest.mark.slow
@pytest.mark.browser
def test_what_cannot_be_read_is_found(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (700, 100)).save(tmp_path / "small.png", dpi=(100, 100))
    (tmp_path / "small.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 99" width="600" height="99">'
        '<text x="580" y="20" font-size="10">a long text</text></svg>'
    )
    good = f"{FRAME % SIGN}<div class=scrolls><table><tr><td>x</td></tr></table></div><p>fine</p>"
    path = tmp_path / "page.html"
    with open_browser() as browser:
        page = browser.new_page()
        for expected, body in {**BAD_PAGES, "": good}.items():
            path.write_text(f"<!doctype html><body style='margin: 0'>{body}", encoding="utf-8")
            found = faults(page, path.as_uri())
            assert bool(found) == bool(expected), found
            assert any(expected in each for each in found) or not expected, found


class Links(HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.targets.append(value)
            elif name == "id" or (tag, name) == ("a", "name"):
                self.places.add(value or "")


def lost(pages: dict[str, Links], site: Path) -> list[str]:
    """Links to a file or a place that does not exist, and addresses that cannot be right."""
    found = []
    for page, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                host = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+(:\d+)?", parts.netloc.lower())
                good = parts.scheme in ("mailto", "data") or (
                    parts.scheme in ("http", "https") and host and not re.search(r"\s", target)
                )
            else:
                file = unquote(urljoin(page, parts.path)) if parts.path else page
                good = (site / file).is_file()
                if good and file in pages:
                    good = unquote(parts.fragment) in pages[file].places
            if not good:
                found.append(f"{page}: {target}")
    return found


@pytest.mark.slow
def test_every_link_leads_somewhere(site: list[Path]) -> None:
    pages = {
        path.relative_to(SITE).as_posix(): Links(path.read_text(encoding="utf-8")) for path in site
    }
    assert not lost(pages, SITE)
    assert sum(len(links.targets) for links in pages.values()) > 5000


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    text = "<a id=here href='b.html#there'><a href='#here'><img src='x%20y.png'><a href='https://a.b/c'>"
    pages = {"a.html": Links(text), "b.html": Links("<a name=there href=a.html>")}
    for name in (*pages, "x y.png"):
        (tmp_path / name).touch()
    assert lost(pages, tmp_path) == []
    bad = ("c.html", "b.html#here", "#there", "https://nowhere", "htps://a.b", "https://a.b/c d")
    for target in bad:
        pages["a.html"] = Links(f"<a href='{target}'>")
        assert lost(pages, tmp_path) == [f"a.html: {target}"]
