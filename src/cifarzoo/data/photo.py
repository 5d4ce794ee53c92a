"""Photos: files and PIL images of every kind, as 8 bits of red, green and blue."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cifarzoo.data.depth import SIXTEEN_BITS, TWELVE_BITS, on_white, reduce_depth
from cifarzoo.errors import InputError
from cifarzoo.files.paths import home_path

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

__all__ = ["from_pil", "is_file", "read_photo"]

_TURNED = range(2, 9)  # values of the EXIF field "orientation" that ask for a turn or a mirror
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # which Pillow opens as 32-bit integers, some or all of them
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_TIFF_BITS, _TIFF_MEANING = 258, 262  # numbers of two fields
_TIFF_WHITE_IS_ZERO = 0
# by how much Pillow multiplies the gray values of PNG files with few bits, not their transparency
_FEW_BITS = {"1": 255, "L;2": 85, "L;4": 17}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")


def is_file(item: Any) -> bool:
    """Whether `read_photo` reads it: a path, bytes, or an open file."""
    return isinstance(item, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(
        item, "read"
    )


def read_photo(item: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Read an image file.

    Args:
        item: Path, bytes of a file, or binary file open for reading.

    Returns:
        uint8 (3, H, W) in 0..255, and what was done to the image, as `from_pil` says.

    Raises:
        InputError: It is missing, no image, damaged, too large, or of a kind that has no one
            reading as colours.
    """
    from PIL import Image

    file: Any
    if isinstance(item, str | os.PathLike):
        name, file = os.fspath(item), home_path(item)
        if not name:  # a path would make it the current folder
            raise InputError("cannot read an image from '': there is no such file")
        if os.path.isdir(file):
            locked = "" if os.access(file, os.R_OK | os.X_OK) else " that may not be opened"
            raise InputError(f"cannot read an image from {name}: it is a folder{locked}")
    elif isinstance(item, bytes | bytearray | memoryview):
        name, file = f"{len(item):,} bytes", io.BytesIO(item)
    else:
        name, file = str(getattr(item, "name", type(item).__name__)), item
    try:
        with Image.open(file) as image:
            return from_pil(image)
    except InputError as error:
        raise InputError(f"cannot use {name}: {error}") from error
    except Exception as error:  # what a decoder meets in a damaged file, it raises
        reason = _reason(error, file)
        raise InputError(f"cannot read an image from {name}: {reason}") from error


def from_pil(image: PILImage) -> tuple[Tensor, tuple[str, ...]]:
    """Convert a PIL image of any mode.

    It is turned as its EXIF orientation says. 16 bits are scaled to 8. What is transparent is put
    on white. Of several frames the current one is taken, in a file the first.

    Returns:
        uint8 (3, H, W) in 0..255, and what was done to the image, in words.

    Raises:
        InputError: It has no pixels, cannot be decoded, or holds numbers (modes I and F) whose
            black and white are unknown.
    """
    try:
        return _convert(image)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot decode the image: {_text(error)}") from error


def _convert(image: PILImage) -> tuple[Tensor, tuple[str, ...]]:
    from PIL import ImageOps

    notes = []
    if getattr(image, "is_animated", False) and image.format != "PSD":  # whose frames are layers
        notes.append("first of several frames" if image.tell() == 0 else "one of several frames")
    packing, is_deep = _packing(image), _is_deep(image)
    orientation = _orientation(image)
    image.load()
    if _orientation(image) in _TURNED:  # else Pillow has turned it, as it does with TIFF
        image = ImageOps.exif_transpose(image)
    if 0 in image.size:
        raise InputError(f"an image needs pixels; this one is {image.width}x{image.height}")
    pixels, more = _to_rgb(image, packing)
    if is_deep:
        _check_deep(pixels)
        notes.append(SIXTEEN_BITS)
    if orientation in _TURNED:
        notes.append(f"turned upright (EXIF orientation {orientation})")
    return pixels, (*notes, *more)


def _to_rgb(image: PILImage, packing: str) -> tuple[Tensor, tuple[str, ...]]:
    """uint8 (3, H, W), and what was done about the depth and the transparency."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in _SIXTEEN_BIT_FORMATS
    ):
        values = _sixteen_bits(image)
        gray, notes = reduce_depth(torch.from_numpy(values.astype(np.int32)), 16)
        pixels = gray.expand(3, -1, -1)
        if key is None:
            return pixels.contiguous(), notes
        alpha = torch.from_numpy(np.uint8(255) * (values != key))
        pixels, more = on_white(pixels, alpha)
        return pixels, (*notes, *more)
    if image.mode == "F":
        gray, notes = reduce_depth(torch.from_numpy(np.array(image)))
        return gray.repeat(3, 1, 1), notes
    if image.mode == "I":
        low, high = image.getextrema()
        raise InputError(
            f"an image of mode I holds whole numbers of any size, here {low}..{high}, so its "
            "white is unknown; save it with 8 or 16 bits: "
            "Image.fromarray(np.asarray(image).astype(np.uint16)) when white is 65535"
        )
    if image.mode in ("1", "L", "RGB") and key is not None:
        colours = np.array(image.convert("RGB"))
        clear = (colours == _key_colour(key, image.mode, packing)).all(2)
        alpha = torch.from_numpy(np.uint8(255) * ~clear)
        return on_white(_channels_first(colours), alpha)
    if image.mode in _WITH_ALPHA or key is not None or _has_clear_palette(image):
        # Pillow knows no other way from La, and changes the palette of what it converts
        image = image.convert("LA") if image.mode == "La" else image.copy()
        full = _channels_first(np.array(image.convert("RGBA")))
        return on_white(full[:3], full[3])
    return _channels_first(np.array(image.convert("RGB"))), ()


def _sixteen_bits(image: PILImage) -> np.ndarray[Any, Any]:
    """Gray values (H, W) in 0..65535."""
    values = np.asarray(image).astype(np.int64)
    fields = getattr(image, "tag_v2", {})  # of a TIFF file
    if fields.get(_TIFF_BITS) == (12,):
        values = (values * 65535 + 2047) // 4095
    if fields.get(_TIFF_MEANING) == _TIFF_WHITE_IS_ZERO:
        values = 65535 - values
    return values


def _key_colour(key: Any, mode: str, packing: str) -> tuple[int, int, int]:
    """The colour in 0..255 that is transparent, of an image without alpha channel."""
    if isinstance(key, tuple):
        red, green, blue = (part >> 8 if packing.startswith("RGB;16") else part for part in key)
        return red, green, blue
    scale = _FEW_BITS.get("1" if mode == "1" else packing, 1)
    return (min(key * scale, 255),) * 3


def _packing(image: PILImage) -> str:
    """How a PNG file that is not loaded yet packs its pixels, in Pillow's words; else empty."""
    tile = getattr(image, "tile", None)
    return str(tile[0][3]) if tile and image.format == "PNG" else ""


def _is_deep(image: PILImage) -> bool:
    """Whether a file that is not loaded yet has colours of 16 bits, of which Pillow takes 8."""
    tile = getattr(image, "tile", None)
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in (str(tile[0][3]) if tile else "")


def _check_deep(pixels: Tensor) -> None:
    """Raise InputError where Pillow's 8 of 16 bits leave a black or nearly black image."""
    if int(pixels.max()) <= TWELVE_BITS >> 8:
        raise InputError(
            "the largest value of this 16-bit image is below 4096 of 65535, so it is black or "
            "nearly: save it with 8 bits if its values are meant for 8, multiply values of 12 "
            "bits by 16, or brighten it"
        )


def _has_clear_palette(image: PILImage) -> bool:
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _orientation(image: PILImage) -> int:
    from PIL import ExifTags

    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the camera's notes are damaged; the image may not be
        return 1
    return found if isinstance(found, int) else 1


def _channels_first(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _reason(error: Exception, file: Any) -> str:
    """Why ``file`` could not be opened, and what to do."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return (
            f"it has too many pixels ({error}); make it smaller, or, in Python, raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if not isinstance(error, UnidentifiedImageError):
        return _text(error)
    head = _head(file)
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "it is HEIC, which Pillow cannot read; convert it to JPEG, or install pillow-heif"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return "it is SVG, a drawing without pixels; export it as PNG"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    return "it is none of the image formats that Pillow knows"


def _head(file: Any) -> bytes:
    try:
        if isinstance(file, str | os.PathLike):
            with Path(file).open("rb") as opened:
                return opened.read(1000)
        file.seek(0)
        return bytes(file.read(1000))
    except (OSError, TypeError, ValueError, AttributeError):
        return b"?"


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
