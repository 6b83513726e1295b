"""Images that need no download: the photographs inside the scikit-image wheel, and ten classes of 32x32 images that
the program draws itself, for where CIFAR-10 is absent.

Five shapes, each striped or dotted, over crops of photographs. The pattern repeats every 3 to 5 pixels, so that
downsampling to 16x16 weakens it and does not erase it. `datasets.DrawnDataset` is the data set made of them.
"""
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.images import read_image

PHOTOGRAPHS_NAME = "photographs inside scikit-image"
PHOTOGRAPHS = {  # split by image
    "train": ("astronaut.png", "hubble_deep_field.jpg", "retina.jpg", "motorcycle_left.png", "moon.png", "brick.png",
              "grass.png", "gravel.png"),
    "valid": ("rocket.jpg", "camera.png"), "test": ("chelsea.png", "coffee.png"),
}  # fmt: skip
# The test images stand before photographs that neither SRNet nor the classifier learns from.
BACKGROUNDS = {"train": ("astronaut.png", "motorcycle_left.png"), "test": ("chelsea.png", "coffee.png")}
TEXTURES = ("striped", "dotted")
SHAPES = {  # (x, y), y down -> signed distance to the outline, negative inside; the radius is 1
    "disc": lambda x, y: np.sqrt(x * x + y * y) - 0.92,
    "ring": lambda x, y: np.abs(np.sqrt(x * x + y * y) - 0.7) - 0.3,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.82,
    "triangle": lambda x, y: np.maximum(0.866 * np.abs(x) - 0.5 * (y - 0.25), y - 0.25) - 0.58,
    "cross": lambda x, y: np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.35, np.maximum(np.abs(x), np.abs(y)) - 0.95),
}


def embedded_photographs(part: str) -> tuple[list[Tensor], list[str]]:
    """(uint8 images (3, H, W), names) of "train", "valid" or "test", from scikit-image's wheel, never the network."""
    return [_photograph(file) for file in PHOTOGRAPHS[part]], [Path(file).stem for file in PHOTOGRAPHS[part]]


def embedded(part: str) -> dict[str, object]:
    """The same, as `DIV2KDataset` and `SRTestSet` take them."""
    images, names = embedded_photographs(part)
    return {"images": images, "names": names, "name": PHOTOGRAPHS_NAME}


def _photograph(file: str) -> Tensor:
    with resources.as_file(resources.files("skimage.data") / file) as path:
        return read_image(path)


def _photo_crops(files: tuple[str, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """Random crops (count, 3, 32, 32) in [0, 1] of photographs downsampled 2 to 6 times."""
    photos = [F.avg_pool2d(_photograph(file).float(), k).numpy() / 255 for file in files for k in (2, 3, 4, 6)]
    crops = []
    for photo in rng.integers(len(photos), size=count):
        top, left = rng.integers(np.array(photos[photo].shape[1:]) - 31)
        crops.append(photos[photo][:, top : top + 32, left : left + 32])
    return np.stack(crops)


def draw_set(train: bool, size: int) -> tuple[Tensor, Tensor]:
    """`size` images, uint8 (N, 3, 32, 32), and their labels, int64: the same everywhere.

    Label = 2 * shape + texture. Both textures cover half the shape with each of its two colors, so only
    the fine pattern tells them apart. Pixels see +, -, *, / and sqrt alone, which round the same everywhere.
    """
    rng = np.random.default_rng([0, int(train)])
    labels = rng.permutation(np.arange(size) % 10)

    def between(low: float, high: float, channels: int = 1) -> np.ndarray:
        return rng.uniform(low, high, (size, channels, 1, 1)).astype(np.float32)

    def coverage(signed_distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - signed_distance, 0, 1)

    grid = np.arange(32, dtype=np.float32) - 15.5
    x, y = np.broadcast_arrays(grid - between(-4, 4), grid[:, None] - between(-4, 4))
    radius, outline = between(9, 13), np.empty_like(x)
    for i, distance in enumerate(SHAPES.values()):
        rows = labels // 2 == i
        outline[rows] = radius[rows] * distance(x[rows] / radius[rows], y[rows] / radius[rows])

    # Upright: patterns at any angle are not learned in the few steps of the quick profile.
    period = between(3, 5)  # in pixels
    u, v = (w / period + between(0, 1) for w in (x, y))
    u, v = (period * np.abs(w - np.floor(w) - 0.5) for w in (u, v))  # pixels from the nearest line
    striped = (labels % 2 == 0)[:, None, None, None]
    ink = coverage(np.where(striped, u - period / 4, np.sqrt(u * u + v * v) - 0.4 * period))

    level, contrast = between(0.25, 0.65), between(0.02, 0.36)
    paper_color, ink_color = (level + sign * contrast + between(-0.2, 0.2, 3) for sign in (-1, 1))
    img = _photo_crops(BACKGROUNDS["train" if train else "test"], size, rng)
    img += coverage(outline) * (paper_color + ink * (ink_color - paper_color) - img)
    img += between(0, 0.06) * rng.uniform(-1, 1, img.shape).astype(np.float32)
    img = (np.clip(img, 0, 1) * 255 + 0.5).astype(np.uint8)
    return torch.from_numpy(img), torch.from_numpy(labels.astype(np.int64))
