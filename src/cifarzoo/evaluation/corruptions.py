"""The fifteen corruptions of CIFAR-10-C, computed from clean images in batches.

Source: Hendrycks & Dietterich 2019, arXiv:1903.12261, section 3, with the settings the authors used
for 32x32 images. Draws come from a generator, so they are not the draws of the published files; and
three are not theirs in kind:

- frost overlays a made-up texture of ice instead of the authors' six photographs;
- motion blur and snow follow ImageMagick's kernel without calling ImageMagick;
- defocus and elastic transform interpolate as torch does, not as OpenCV and SciPy.

Numbers published for the official files are therefore not to be compared with these.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifarzoo.compute.seeding import as_seed
from cifarzoo.errors import ArgumentError, InputError
from cifarzoo.names import check_kind, unknown_name, whole_number

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)
_CHUNK = 2500

_Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
CORRUPTIONS: dict[str, _Corruption] = {}
"""Functions of float images (B, 3, H, W) in 0..1, a severity from 0, and a generator."""


def corrupt(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """Corrupt images as those of CIFAR-10-C are (Hendrycks & Dietterich 2019, arXiv:1903.12261).

    Args:
        images: uint8 (N, 3, H, W) in 0..255.
        name: One of ``CORRUPTIONS``.
        severity: Strength of the corruption, from 1 (slight) to 5.
        seed: Seed of all random numbers, which differ from image to image.

    Returns:
        uint8 (N, 3, H, W) in 0..255.

    Raises:
        UnknownNameError: No corruption has this name.
        ArgumentError: The severity is outside 1..5, or ``seed`` is no seed.
        InputError: The images are of another kind.

    Example:
        >>> from cifarzoo import load_sample
        >>> from cifarzoo.evaluation import corrupt
        >>> images = load_sample("test").images[:10]
        >>> corrupt(images, "fog", 3).shape
        torch.Size([10, 3, 32, 32])
    """
    if not isinstance(name, str) or name not in CORRUPTIONS:
        raise unknown_name("corruption", name, CORRUPTIONS)
    level = whole_number(severity)
    if level is None or level not in SEVERITIES:
        raise ArgumentError(f"severity must be 1, 2, 3, 4 or 5; got {severity!r}")
    generator = torch.Generator().manual_seed(as_seed(seed))
    check_kind("images", images, Tensor, "an ImageSet has them as .images")
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, 32, 32):
        raise InputError(
            f"corruptions are defined for uint8 images (N, 3, 32, 32); got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    parts = []
    for part in torch.split(images.cpu(), _CHUNK):
        changed = CORRUPTIONS[name](part.float() / 255, level - 1, generator)
        # published images were cut off, not rounded; the little more undoes float32's own cut
        parts.append((changed.clamp(0, 1) * 255 + 1e-3).to(torch.uint8))
    return torch.cat(parts)


def _register(function: _Corruption) -> _Corruption:
    CORRUPTIONS[function.__name__.lstrip("_")] = function
    return function


@_register
def _gaussian_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return x + (0.04, 0.06, 0.08, 0.09, 0.10)[severity] * _normal(x.shape, generator)


@_register
def _shot_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    photons = (500, 250, 100, 75, 50)[severity]
    return torch.poisson(x * photons, generator) / photons


@_register
def _impulse_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity]
    hit = _uniform(x.shape, generator) < amount
    salt = (_uniform(x.shape, generator) > 0.5).float()
    return torch.where(hit, salt, x)


@_register
def _defocus_blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[severity]
    axis = _axis(-3, 3)
    disk = (axis[:, None] ** 2 + axis**2 <= radius**2).float()
    kernel = _gaussian(_axis(-1, 1), alias)
    smooth = F.conv2d((disk / disk.sum())[None, None], kernel[None, None, :, None], padding=(1, 0))
    smooth = F.conv2d(smooth, kernel[None, None, None], padding=(0, 1))
    return _filter(x, smooth[0, 0], mode="reflect")


@_register
def _glass_blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    sigma, rounds = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity]
    x = (_gaussian_blur(x, sigma) * 255).floor() / 255
    count, _, height, width = x.shape
    image = torch.arange(count)[:, None, None]
    rows, columns = torch.arange(2, height)[:, None], torch.arange(2, width)
    for _ in range(rounds):
        # The authors' loop means to exchange pixels with a neighbour above or to the left. Their
        # arrays are views, so it copies from there instead; going backwards, always what was there.
        up, left = torch.randint(-1, 1, (2, count, height - 2, width - 2), generator=generator)
        shaken = x.permute(0, 2, 3, 1)[image, rows + up, columns + left]
        x = x.clone()
        x[:, :, 2:, 2:] = shaken.permute(0, 3, 1, 2)
    return _gaussian_blur(x, sigma)


@_register
def _motion_blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity]
    angle = _uniform((len(x),), generator) * 90 - 45
    return _blur_along(x, radius, sigma, angle)


@_register
def _zoom_blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    end = (1.06, 1.11, 1.16, 1.21, 1.26)[severity]
    # the authors' own factors: by its rounding, arange passes the end at the first two severities
    zoomed = [_zoom(x, float(factor)) for factor in np.arange(1, end, 0.01)]
    return (x + torch.stack(zoomed).sum(0)) / (len(zoomed) + 1)


@_register
def _snow(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    mean, spread, zoom, threshold, radius, sigma, share = (
        (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity]
    flakes = mean + spread * _normal((len(x), 1, *x.shape[2:]), generator)
    flakes = _zoom(flakes, zoom)
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp(0, 1)
    angle = _uniform((len(x),), generator) * 90 - 135
    flakes = _blur_along(flakes, radius, sigma, angle)
    grey = (x * x.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    pale = share * x + (1 - share) * torch.maximum(x, grey * 1.5 + 0.5)
    return pale + flakes + flakes.rot90(2, (2, 3))


@_register
def _frost(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    image, ice = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity]
    texture = _plasma(len(x), x.shape[2], 1.6, generator)[:, None]
    needles = (texture - _gaussian_blur(texture, 2.0)).abs() * 4
    tint = x.new_tensor([0.85, 0.95, 1.0]).view(3, 1, 1)
    return image * x + ice * tint * (0.35 + 0.45 * texture + needles).clamp(0, 1)


@_register
def _fog(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    amount, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[severity]
    brightest = x.amax((1, 2, 3), keepdim=True)
    clouds = _plasma(len(x), x.shape[2], decay, generator)[:, None]
    return (x + amount * clouds) * brightest / (brightest + amount)


@_register
def _brightness(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    value = x.amax(1, keepdim=True)
    more = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[severity]).clamp(max=1)
    # hue and saturation stay: all channels grow alike; black becomes grey
    return torch.where(value > 0, x * (more / value.clamp(min=1e-12)), more)


@_register
def _contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * (0.75, 0.5, 0.4, 0.3, 0.15)[severity] + mean


@_register
def _elastic_transform(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    size = x.shape[2]
    strength, sigma, shear = (
        size * factor
        for factor in (
            (0.0, 0.0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        )[severity]
    )
    centre, side = size // 2, size // 3
    corners = x.new_tensor([[side, side], [side, -side], [-side, -side]]) + centre
    moved = corners + (2 * _uniform((len(x), 3, 2), generator) - 1) * shear
    homogeneous = F.pad(moved, (0, 1), value=1.0)
    # where each place of the new image lies in the old one
    matrix = torch.linalg.solve(homogeneous, corners.expand(len(x), 3, 2))
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    places = torch.stack((column, row, torch.ones_like(row)), -1).float()
    x = _sample(x, torch.einsum("hwi,bij->bhwj", places, matrix))
    if strength:
        noise = 2 * _uniform((len(x), 2, size, size), generator) - 1
        shift = _gaussian_blur(noise, sigma, truncate=3, mode="reflect") * strength
        x = _sample(x, places[..., :2] + shift.permute(0, 2, 3, 1))
    return x


@_register
def _pixelate(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    from PIL import Image

    size = x.shape[2]
    small = int(size * (0.95, 0.9, 0.85, 0.75, 0.65)[severity])

    def change(image: Image.Image) -> Image.Image:
        box = Image.Resampling.BOX
        return image.resize((small, small), box).resize((size, size), box)

    return _each(x, change)


@_register
def _jpeg_compression(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    from PIL import Image

    quality = (80, 65, 58, 50, 40)[severity]

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(x, change)


# --- what they share ------------------------------------------------------------------------------


# float32 whatever torch's default is, so that the images are the same


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float32)


def _axis(first: int, last: int) -> Tensor:
    return torch.arange(first, last + 1, dtype=torch.float32)


def _gaussian(distance: Tensor, sigma: float) -> Tensor:
    weights = torch.exp(-0.5 * (distance / sigma) ** 2)
    return weights / weights.sum()


def _filter(x: Tensor, kernel: Tensor, mode: str) -> Tensor:
    """Each channel filtered by ``kernel`` (odd height, odd width)."""
    count, channels, height, width = x.shape
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    flat = F.pad(x.reshape(-1, 1, height, width), (right, right, down, down), mode=mode)
    return F.conv2d(flat, kernel[None, None]).view(count, channels, height, width)


def _gaussian_blur(
    x: Tensor, sigma: float, *, truncate: float = 4, mode: str = "replicate"
) -> Tensor:
    reach = int(truncate * sigma + 0.5)
    if reach == 0:
        return x
    kernel = _gaussian(_axis(-reach, reach), sigma)
    return _filter(_filter(x, kernel[None], mode), kernel[:, None], mode)


def _blur_along(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """One-sided blur along a direction for each image, edges repeated, as ImageMagick's."""
    width = 2 * radius + 1
    weights = _gaussian(_axis(0, width - 1), sigma)
    angle = degrees * (math.pi / 180)
    rows, columns = torch.arange(x.shape[2]), torch.arange(x.shape[3])
    image = torch.arange(len(x))[:, None, None]
    result = torch.zeros_like(x.permute(0, 2, 3, 1))
    for step, weight in enumerate(weights.tolist()):
        down = torch.ceil(step * torch.sin(angle) - 0.5).long()[:, None]
        right = torch.ceil(step * torch.cos(angle) - 0.5).long()[:, None]
        row = (rows + down).clamp(0, x.shape[2] - 1)[:, :, None]
        column = (columns + right).clamp(0, x.shape[3] - 1)[:, None, :]
        result += weight * x[image, :, row, column]
    return result.permute(0, 3, 1, 2)


def _zoom(x: Tensor, factor: float) -> Tensor:
    """The middle of each image, enlarged to the image's own size."""
    size = x.shape[2]
    inner = math.ceil(size / factor)
    top = (size - inner) // 2
    middle = x[:, :, top : top + inner, top : top + inner]
    large = F.interpolate(middle, size=round(inner * factor), mode="bilinear", align_corners=True)
    trim = (large.shape[2] - size) // 2
    return large[:, :, trim : trim + size, trim : trim + size]


def _plasma(count: int, size: int, decay: float, generator: torch.Generator) -> Tensor:
    """Clouds (count, size, size) in 0..1 by the diamond-square method; size a power of two."""
    field = torch.zeros(count, size, size, dtype=torch.float32)
    step, wibble = size, 100.0

    def settle(total: Tensor) -> Tensor:
        noise = (2 * _uniform(total.shape, generator) - 1) * wibble
        return total / 4 + wibble * noise

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        square = corners + corners.roll(-1, 1)
        square = square + square.roll(-1, 2)
        field[:, half::step, half::step] = settle(square)
        middle = field[:, half::step, half::step]
        corners = field[:, ::step, ::step]
        across = middle + middle.roll(1, 1) + corners + corners.roll(-1, 2)
        field[:, ::step, half::step] = settle(across)
        along = middle + middle.roll(1, 2) + corners + corners.roll(-1, 1)
        field[:, half::step, ::step] = settle(along)
        step, wibble = half, wibble / decay
    field = field - field.amin((1, 2), keepdim=True)
    return field / field.amax((1, 2), keepdim=True)


def _sample(x: Tensor, places: Tensor) -> Tensor:
    """Bilinear values at ``places`` (B, H, W, 2), columns then rows; edges reflected."""
    grid = places * (2 / (x.shape[2] - 1)) - 1
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=True)


def _each(x: Tensor, change: Callable[..., object]) -> Tensor:
    """One image after the other, through PIL."""
    from PIL import Image

    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels])
    return torch.from_numpy(changed).permute(0, 3, 1, 2).float() / 255
