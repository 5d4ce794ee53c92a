"""Values as HTML, for the page of a report and for notebooks: templates that escape all they show.

``page.html`` is a whole page. The others are parts of one, which a notebook puts into its own: they
take their colours from the text around them, so that they can be read in a dark theme too.
"""

from __future__ import annotations

import base64
import functools
import io
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["picture", "render"]


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; what is no ``Markup`` is escaped.

    Args:
        template: Name of the file.
        **values: What it names; one that is missing is an error.
    """
    text = _environment().get_template(template).render(**values)
    return text.encode(errors="backslashreplace").decode()  # half a surrogate pair in a name


def picture(image: Tensor, *, side: int | None = None) -> str:
    """An image as a PNG within the page: an address for ``src``.

    Args:
        image: uint8 (3, H, W) in 0..255.
        side: Height and width it is made smaller to, if it is larger; its shape is kept.
    """
    from PIL import Image

    drawn = Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy())
    if side is not None and max(drawn.size) > side:
        drawn.thumbnail((side, side))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("cifarzoo.display"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
