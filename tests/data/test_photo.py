"""Files and PIL images of every kind, against what their pixels were made from."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin
from torch import Tensor

from cifarzoo import ImageSet
from cifarzoo.errors import InputError

Pixels = np.ndarray[Any, Any]
SIDE = 32


def read(image: Any) -> Pixels:
    """What the library sees: (H, W, 3) in 0..255, as floats to compare with."""
    found: Tensor = ImageSet.from_dataset([(image, 0)], classes=("any",)).images[0]
    return found.permute(1, 2, 0).numpy().astype(float)


def reopened(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def colours() -> Pixels:
    """A smooth picture with another colour in every corner."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x * 8, y * 8, 252 - (x + y) * 4], 2).astype(np.uint8)


RGB = colours()
GRAY = np.repeat(RGB[:, :, :1], 3, 2)
COVER = np.where(np.arange(SIDE) < 16, 255, 64).astype(np.uint8) + np.zeros((SIDE, 1), np.uint8)
PALETTE = Image.fromarray(RGB).quantize(64)
INDEX = np.asarray(PALETTE)
FLAT = np.asarray(PALETTE.convert("RGB"))


def on_white(pixels: Pixels, cover: Pixels) -> Pixels:
    share = cover[:, :, None] / 255
    return np.asarray(pixels * share + 255 * (1 - share))


def with_alpha(mode: str) -> Image.Image:
    base = {"RGBA": Image.fromarray(RGB), "LA": Image.fromarray(RGB[:, :, 0]), "PA": PALETTE}[mode]
    image = base.convert(mode)
    image.putalpha(Image.fromarray(COVER))
    return image


def sixteen_bits(mode: str) -> Image.Image:
    values = RGB[:, :, 0].astype(">u2" if mode == "I;16B" else "<u2") * 257
    return Image.frombytes(mode, (SIDE, SIDE), values.tobytes())


def marked(image: Image.Image, key: Any) -> Image.Image:
    image.info["transparency"] = key
    return image


EDGE = RGB[:, :, 0] > 100
ONE = Image.fromarray(EDGE)
# made anew for each test, and what its pixels are, to within the steps of its mode
MODES: dict[str, tuple[Callable[[], Image.Image], Pixels, float]] = {
    "1": (lambda: ONE.copy(), np.repeat(255.0 * EDGE[:, :, None], 3, 2), 0),
    "L": (lambda: Image.fromarray(RGB[:, :, 0]), GRAY, 0),
    "LA": (lambda: with_alpha("LA"), on_white(GRAY, COVER), 1),
    "La": (lambda: with_alpha("LA").convert("La"), on_white(GRAY, COVER), 1),
    "P": (lambda: PALETTE.copy(), FLAT, 0),
    "PA": (lambda: with_alpha("PA"), on_white(FLAT, COVER), 1),
    "RGB": (lambda: Image.fromarray(RGB), RGB, 0),
    "RGBA": (lambda: with_alpha("RGBA"), on_white(RGB, COVER), 1),
    "RGBa": (lambda: with_alpha("RGBA").convert("RGBa"), on_white(RGB, COVER), 1),
    "RGBX": (lambda: Image.fromarray(RGB).convert("RGBX"), RGB, 0),
    "CMYK": (lambda: Image.fromarray(RGB).convert("CMYK"), RGB, 0),
    "YCbCr": (lambda: Image.fromarray(RGB).convert("YCbCr"), RGB, 3),
    "HSV": (lambda: Image.fromarray(RGB).convert("HSV"), RGB, 6),
    "I;16": (lambda: sixteen_bits("I;16"), GRAY, 0),
    "I;16L": (lambda: sixteen_bits("I;16L"), GRAY, 0),
    "I;16B": (lambda: sixteen_bits("I;16B"), GRAY, 0),
    "I;16N": (lambda: sixteen_bits("I;16N"), GRAY, 0),
    "F": (lambda: Image.fromarray((RGB[:, :, 0] / 255).astype(np.float32)), GRAY, 0),
    "one colour of RGB is clear": (
        lambda: marked(Image.fromarray(RGB), tuple(map(int, RGB[3, 4]))),
        on_white(RGB, np.where((RGB[3, 4] == RGB).all(2), 0, 255)),
        0,
    ),
    "one gray is clear": (
        lambda: marked(Image.fromarray(RGB[:, :, 0]), int(RGB[3, 4, 0])),
        on_white(GRAY, np.where(GRAY[:, :, 0] == GRAY[3, 4, 0], 0, 255)),
        0,
    ),
    "one gray of 16 bits is clear": (
        lambda: marked(sixteen_bits("I;16"), int(RGB[3, 4, 0]) * 257),
        on_white(GRAY, np.where(GRAY[:, :, 0] == GRAY[3, 4, 0], 0, 255)),
        0,
    ),
    "one entry of the palette is clear": (
        lambda: marked(PALETTE.copy(), 5),
        on_white(FLAT, np.where(INDEX == 5, 0, 255)),
        0,
    ),
    "a palette with an alpha each": (
        lambda: marked(PALETTE.copy(), bytes(range(0, 256, 4))),
        on_white(FLAT, INDEX * 4),
        1,
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_pil_images_of_every_mode_give_the_pixels_they_were_made_from(mode: str) -> None:
    make, expected, steps = MODES[mode]
    np.testing.assert_allclose(read(make()), expected, atol=steps + 0.5)


def test_lab_images_are_converted_by_their_colours() -> None:
    image = Image.fromarray(RGB).convert("LAB")  # which does not hold every colour of RGB
    assert np.abs(read(image) - RGB).mean() < 2


# every format that keeps these modes as they are
LOSSLESS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"),
    "TIFF": (
        *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"),
        *("I;16", "I;16L", "I;16B", "F"),
    ),
    "WEBP": ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("1", "L", "P"),
    "ICO": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"),
    "PCX": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I;16", "F"),
    "SGI": ("L", "RGB", "RGBA"),
    "TGA": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "DDS": ("L", "LA", "RGB", "RGBA"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16", "I;16B"),
    "QOI": ("RGB", "RGBA"),
    "MSP": ("1",),
}
PLAIN = {"WEBP": {"lossless": True, "exact": True}}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes]
)
def test_files_of_every_format_give_the_pixels_they_were_made_from(kind: str, mode: str) -> None:
    make, expected, steps = MODES[mode]
    try:
        image = reopened(make(), kind, **PLAIN.get(kind, {}))
        image.copy()  # which reads it
    except (OSError, KeyError, ValueError) as error:
        pytest.skip(f"this Pillow does not write, or not read, {kind} of mode {mode}: {error}")
    np.testing.assert_allclose(read(image), expected, atol=steps + 1.5)


CLEAR = [mode for mode in MODES if "clear" in mode or "each" in mode]


@pytest.mark.parametrize(
    ("kind", "mode"),
    [*(("PNG", mode) for mode in CLEAR), ("GIF", "one entry of the palette is clear")],
)
def test_transparency_in_a_file_shows_white(kind: str, mode: str) -> None:
    make, expected, steps = MODES[mode]
    image = make()
    file = reopened(image, kind, transparency=image.info["transparency"])
    np.testing.assert_allclose(read(file), expected, atol=steps + 1)


def png_of_16_bits(pixels: Pixels, clear: tuple[int, int, int] | None = None) -> bytes:
    """A PNG file of 16-bit colours (H, W, 3), which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + (chunk(b"tRNS", struct.pack(">HHH", *clear)) if clear else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_png_colours_of_16_bits_are_scaled() -> None:
    file = png_of_16_bits(RGB.astype(np.uint16) * 257)
    np.testing.assert_allclose(read(Image.open(io.BytesIO(file))), RGB, atol=1)


@pytest.mark.parametrize("factor", [1, 16])
def test_16_bit_colours_that_are_meant_for_fewer_are_refused(factor: int) -> None:
    values = RGB.astype(np.uint16) * factor
    with pytest.raises(InputError, match="below 4096 of 65535, so it is black or nearly"):
        read(Image.open(io.BytesIO(png_of_16_bits(values))))
    with pytest.raises(InputError, match="of 65535, so it is "):
        read(Image.fromarray(values[:, :, 0]))


def test_a_clear_colour_of_16_bits_is_white_and_no_other_is() -> None:
    red, green, blue = (int(x) * 257 for x in RGB[3, 4])
    file = png_of_16_bits(RGB.astype(np.uint16) * 257, (red, green, blue))
    expected = on_white(RGB, np.where((RGB[3, 4] == RGB).all(2), 0, 255))
    np.testing.assert_allclose(read(Image.open(io.BytesIO(file))), expected, atol=1)


def test_tiff_with_few_bits_or_white_at_zero_is_read_as_it_says() -> None:
    values = RGB[:, :, 0].astype(np.uint16) * 257
    inverted = reopened(Image.fromarray(65535 - values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_allclose(read(inverted), GRAY, atol=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((4, 4), 200, np.int32)), r"mode I .* here 200\.\.200, so its whi"),
        (Image.fromarray(np.full((4, 4), 200, np.float32)), r"float in 0..1, .* in 200\.\.200"),
        (Image.fromarray(np.full((4, 4), -1, np.float32)), r"float in 0..1, .* in -1\.\.-1"),
        (Image.fromarray(np.full((4, 4), 200, np.uint16)), r"16-bit image is 200 of"),
        (Image.new("L", (4, 4), 200).convert("I;16"), r"16-bit image is 200 of"),
        (Image.new("RGB", (0, 4)), "needs pixels; this one is 0x4"),
    ],
)
def test_ranges_without_one_meaning_are_refused_and_not_clipped(
    image: Image.Image, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(image)


def arrow() -> Image.Image:
    """A picture that looks different however it is turned or mirrored."""
    image = Image.new("RGB", (40, 24), "navy")
    ImageDraw.Draw(image).polygon([(2, 2), (30, 2), (2, 20)], fill="orange")
    return image


# what a camera has done when it writes this number: the inverse of what shows the picture
TURNS = {
    1: lambda image: image,
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.rotate(180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.rotate(-90, expand=True),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "MPO"])
def test_the_orientation_of_a_photo_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    image = reopened(TURNS[orientation](arrow()), kind, exif=exif, **options)
    found = read(image)
    assert found.shape == (24, 40, 3)
    assert np.abs(found - np.asarray(arrow())).mean() < 2


def test_the_orientation_of_gray_photos_of_16_bits_is_applied() -> None:
    exif = Image.Exif()
    exif[274] = 6
    values = np.asarray(arrow().convert("L")).astype(np.uint16) * 257
    image = reopened(Image.fromarray(np.rot90(values).copy()), "PNG", exif=exif)
    assert np.array_equal(read(image)[:, :, 0], values // 257)


def test_damaged_notes_of_a_camera_do_not_hide_the_photo() -> None:
    image = reopened(arrow(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05broken")
    assert np.array_equal(read(image), np.asarray(arrow()))


def test_pictures_stay_what_they_were() -> None:
    exif = Image.Exif()
    exif[274] = 6
    for image in (reopened(arrow(), "JPEG", exif=exif), MODES["a palette with an alpha each"][0]()):
        image.load()
        before = (
            image.size,
            image.mode,
            image.tobytes(),
            dict(image.info),
            image.getpalette("RGB"),
        )
        first = read(image)
        after = (image.size, image.mode, image.tobytes(), dict(image.info), image.getpalette("RGB"))
        assert before == after
        assert image.palette is None or image.palette.mode == "RGB"
        assert np.array_equal(read(image), first)


def frames(kind: str) -> bytes:
    file = io.BytesIO()
    pictures = [Image.fromarray(RGB), Image.new("RGB", (SIDE, SIDE), "red")]
    pictures[0].save(file, format=kind, save_all=True, append_images=pictures[1:])
    return file.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    found = read(frames(kind))
    assert np.abs(found - RGB).mean() < 8  # GIF has 256 colours


def test_files_are_read_from_paths_bytes_and_open_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    with path.open("rb") as file:
        forms = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), file]
        stored = [{"bytes": path.read_bytes(), "path": "a.png"}, {"bytes": None, "path": str(path)}]
        for form in (*forms, *stored):
            assert np.array_equal(read(form), RGB)
        assert not file.closed


def bomb() -> bytes:
    """The head of a PNG file of 60,000 x 60,000 pixels."""
    return png_of_16_bits(np.zeros((1, 1, 3))).replace(
        struct.pack(">II", 1, 1), struct.pack(">II", 60_000, 60_000)
    )


def head_with_checksum(file: bytes) -> bytes:
    body = file[12:29]
    return file[:29] + struct.pack(">I", zlib.crc32(body)) + file[33:]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


BROKEN: dict[str, tuple[bytes, str]] = {
    "too large": (head_with_checksum(bomb()), "too many pixels .*make it smaller"),
    "truncated": (png(Image.effect_noise((64, 64), 90))[:2000], "truncated"),
    "empty": (b"", "it is empty"),
    "text": (b"no image", "none of the image formats that Pillow knows"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
    "a drawing": (b'<?xml version="1.0"?><svg width="1"/>', "it is SVG, .*export it as PNG"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, .*convert it to JPEG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", ""),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("form", ["path", "bytes", "file"])
def test_files_that_hold_no_image_are_an_error_with_the_reason(
    kind: str, form: str, tmp_path: Path
) -> None:
    content, reason = BROKEN[kind]
    path = tmp_path / "a.img"
    path.write_bytes(content)
    item = {"path": path, "bytes": content, "file": io.BytesIO(content)}[form]
    name = "a.img" if form == "path" else f"{len(content):,} bytes" if form == "bytes" else "Bytes"
    with pytest.raises(InputError, match=f"cannot (read|use) .*{name}.*: .*{reason}"):
        read(item)


def test_a_photo_that_only_may_be_too_large_is_an_error_where_warnings_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    file = png(Image.fromarray(RGB))  # 1,024 pixels: below twice the limit
    with pytest.raises(InputError, match="too many pixels"):
        read(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(read(file), RGB)


def test_missing_files_and_folders_are_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lost\.png: there is no such file"):
        read(tmp_path / "lost.png")
    with pytest.raises(InputError, match="it is a folder"):
        read(tmp_path)


def test_an_image_that_was_opened_and_is_truncated_is_an_error() -> None:
    image = Image.open(io.BytesIO(png(Image.effect_noise((64, 64), 90))[:2000]))
    with pytest.raises(InputError, match=r"cannot decode the image: .*truncated"):
        read(image)


def test_the_orientation_may_stand_in_the_notes_of_adobe() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    turned = reopened(arrow().rotate(180), "PNG", pnginfo=info)
    assert torch.equal(torch.from_numpy(read(turned)), torch.from_numpy(np.asarray(arrow()) * 1.0))
