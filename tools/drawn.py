"""Images that need no download: the photographs inside the scikit-image wheel, and ten classes of 32x32 images that
the program draws itself, for where CIFAR-10 is absent.

Five shapes, each striped or dotted, over crops of photographs. The pattern repeats every 3 to 5 pixels, so that
downsampling to 16x16 weakens it and does not erase it. `datasets.DrawnDataset` is the data set made of them.
"""
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
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
SHAPES = ("disc", "square", "triangle", "star", "heart")
TEXTURES = ("striped", "dotted")
PHOTO_SCALES = (2, 3, 4, 6)
IMAGE_SIZE = 32


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


def draw_set(train: bool, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` images, uint8 (N, 32, 32, 3), and their labels, int64: the same everywhere."""
    photos = [_photograph(file).permute(1, 2, 0).numpy() for file in BACKGROUNDS["train" if train else "test"]]
    rng = np.random.default_rng([0, int(train)])
    labels = rng.permutation(np.arange(size) % 10)
    return draw_images(labels, photos, rng), labels.astype(np.int64)


def shape_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a shape's outline: negative inside, 1 = the shape's radius. y points down.

    The star and the heart follow Inigo Quilez, "2D distance functions" (iquilezles.org).
    """
    if shape == "disc":
        return np.sqrt(x * x + y * y) - 0.92
    x = np.abs(x)
    if shape == "square":
        return np.maximum(x, np.abs(y)) - 0.82
    if shape == "triangle":
        return np.maximum(0.866 * x - 0.5 * (y - 0.25), y - 0.25) - 0.58
    if shape == "star":
        y = -y
        for normal_x, normal_y in ((0.809, -0.588), (-0.809, -0.588)):
            fold = 2 * np.maximum(normal_x * x + normal_y * y, 0)
            x, y = x - fold * normal_x, y - fold * normal_y
        x, y = np.abs(x), y - 1.15
        edge_x, edge_y = 0.5 * 0.588, 0.5 * 0.809 - 1
        along = np.clip((x * edge_x + y * edge_y) / (edge_x**2 + edge_y**2), 0, 1.15)
        inside = np.sign(y * edge_x - x * edge_y)
        return np.sqrt((x - edge_x * along) ** 2 + (y - edge_y * along) ** 2) * inside
    x, y = x / 1.7, 0.58 - y / 1.7
    diagonal = 0.5 * np.maximum(x + y, 0)
    tip = np.minimum(x * x + (y - 1) ** 2, (x - diagonal) ** 2 + (y - diagonal) ** 2)
    lobe = np.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2) - 0.3536
    return 1.7 * np.where(x + y > 1, lobe, np.sqrt(tip) * np.sign(x - y))


def photo_crops(photos: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Random 32x32 crops, (count, 32, 32, 3) in [0, 1], of photographs (H, W, 3) uint8, downsampled 2 to 6 times."""
    crops = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32)
    source = rng.integers(len(photos) * len(PHOTO_SCALES), size=count)
    place = rng.random((2, count))
    for i, photo in enumerate(photos):
        for j, k in enumerate(PHOTO_SCALES):
            height, width = photo.shape[0] // k, photo.shape[1] // k
            blocks = photo[: height * k, : width * k].reshape(height, k, width, k, 3)
            small = (blocks.mean((1, 3)) / 255).astype(np.float32)
            windows = np.lib.stride_tricks.sliding_window_view(small, (IMAGE_SIZE, IMAGE_SIZE), (0, 1))
            chosen = np.flatnonzero(source == i * len(PHOTO_SCALES) + j)
            top, left = (place[:, chosen] * np.array(windows.shape[:2])[:, None]).astype(int)
            crops[chosen] = windows[top, left].transpose(0, 2, 3, 1)
    return crops


def draw_images(labels: np.ndarray, photos: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws one image for each label, uint8 (N, 32, 32, 3): a textured shape over a photograph.

    Label = 2 * shape + texture. Both textures cover half the shape with each of its two colors, so only
    the fine pattern tells them apart. Pixels see +, -, *, / and sqrt alone, which round the same everywhere.
    """
    count = len(labels)

    def between(low: float, high: float, *shape: int) -> np.ndarray:
        values = low + (high - low) * rng.random((count, *shape))
        return values.astype(np.float32).reshape(count, *(shape or (1, 1)))

    def turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cosine, sine = (f(angle.astype(np.float64)).astype(np.float32) for f in (np.cos, np.sin))
        return cosine * x + sine * y, cosine * y - sine * x

    def coverage(signed_distance: np.ndarray) -> np.ndarray:
        return np.clip(0.5 - signed_distance, 0, 1)[..., None]

    grid = np.arange(IMAGE_SIZE, dtype=np.float32) - (IMAGE_SIZE - 1) / 2
    x, y = grid[None, None, :] - between(-4, 4), grid[None, :, None] - between(-4, 4)
    radius = between(9, 13)
    x, y = turned(x, y, between(-0.3, 0.3))

    outline = np.empty_like(x)
    for i, shape in enumerate(SHAPES):
        rows = labels // 2 == i
        outline[rows] = radius[rows] * shape_distance(shape, x[rows] / radius[rows], y[rows] / radius[rows])

    # Nearly upright: patterns at any angle are not learnt in the few steps of the quick profile.
    period = between(3, 5)  # in pixels
    u, v = (w / period + between(0, 1) for w in turned(x, y, between(-0.3, 0.3)))
    u, v = (period * np.abs(w - np.floor(w) - 0.5) for w in (u, v))  # pixels from the nearest line
    striped = (labels % 2 == 0)[:, None, None]
    ink = coverage(np.where(striped, u - period / 4, np.sqrt(u * u + v * v) - 0.4 * period))

    background = photo_crops(photos, count, rng)
    surroundings = background.mean((1, 2), keepdims=True)
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    paints = between(0, 1, 2, 1, 1, 3)
    paints = 0.8 * (paints - (paints * luma).sum(-1, keepdims=True)) + 0.15 * surroundings[:, None]
    level, contrast = between(0.25, 0.65, 1, 1, 1), between(0.02, 0.36, 1, 1, 1)
    paper_color, ink_color = paints[:, 0] + level - contrast, paints[:, 1] + level + contrast
    light = 1 + (between(-0.2, 0.2) * x / radius - between(0, 0.2) * y / radius)[..., None]
    figure = np.clip((paper_color + ink * (ink_color - paper_color)) * light, 0, 1)

    shadow = 0.45 * np.clip(0.6 - outline / 4, 0, 1)[..., None]
    img = background * (1 - shadow)
    img += coverage(outline) * (figure - img)
    # In most images a twig crosses in front.
    _, across = turned(x, y, between(-1.57, 1.57))
    twig = coverage(np.abs(across + between(-9, 9)) - between(-1, 2.5))
    img += twig * (between(0, 0.8, 1, 1, 3) - img)
    noise = rng.random(img.shape, np.float32) - rng.random(img.shape, np.float32)
    img += between(0, 0.06, 1, 1, 1) * noise
    return (np.clip(img, 0, 1) * 255 + 0.5).astype(np.uint8)
