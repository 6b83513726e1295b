"""Every data set, and the images that need no download; with what images.py does to images.

`python datasets.py` lists what is present in DS/ and what is missing; `python datasets.py download NAME`
fetches a set. An image is RGB uint8 (3, H, W) at rest and float32 in [0, 1] everywhere else.
"""

import argparse
import hashlib
import math
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools import drawn
from tools.download import ARCHIVES, DATA_ROOT, download

# isort: off
from tools.images import announced_sides, as_floats, as_given, blur, check_images, grey, imresize, jpeg  # noqa: F401
from tools.images import list_images, read_image, to_float, to_uint8  # noqa: F401 - some for whoever imports this module
# isort: on

# --- degradations ----------------------------------------------------------------------------------------------------


class Degradation:
    """What is done to images before a network sees them: uint8 (N, 3, H, W) or (3, H, W) -> uint8 of H/s and W/s.

    `name` labels figures; `scale_factor` is HR side / LR side, 1 where the size stays; `margin` is how many HR pixels
    beyond its own an output pixel depends on, a multiple of scale_factor. Chance is drawn on the CPU from `generator`;
    without one it is always the same. One of your own: a class derived from this one with a `__call__`, and those of
    the three that differ. It is known by its class's code and its attributes, which therefore never change.
    """

    label, scale_factor, margin = "", 1, 0  # label: what the name is made of, as in "blur σ {0.sigma:g}"

    @property
    def name(self) -> str:
        return vars(self).get("name") or self.label.format(self) or type(self).__name__

    @name.setter
    def name(self, name: str) -> None:
        vars(self)["name"] = name

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} needs a method __call__(self, images, generator=None)")


def _or_fixed(generator: torch.Generator | None) -> torch.Generator:
    return generator or torch.Generator().manual_seed(0)


def fork(generator: torch.Generator | None) -> torch.Generator:
    """A generator for a degradation, seeded by this one (or by torch's global one), which does not move."""
    copy = torch.Generator()
    copy.set_state((generator or torch.default_generator).get_state())
    return copy.manual_seed(int(torch.randint(2**62, (), generator=copy)))


def whole_scale(scale_factor: int) -> int:
    if int(scale_factor) != scale_factor or scale_factor < 1:
        raise ValueError(f"scale_factor must be a whole number of at least 1, found {scale_factor}")
    return int(scale_factor)


@dataclass(frozen=True)
class _Downsampling(Degradation):
    """Divides the sides by `scale_factor`; ValueError where they are no multiples of it."""

    scale_factor: int = 2
    reach = 0  # LR pixels to either side that an output depends on

    def __post_init__(self):
        vars(self)["scale_factor"] = whole_scale(self.scale_factor)

    @property
    def margin(self) -> int:
        return self.reach * self.scale_factor

    def small_size(self, images: Tensor) -> tuple[int, int]:
        check_images(images)
        scale, (height, width) = self.scale_factor, images.shape[-2:]
        if height % scale or width % scale:
            found = f"takes sides that are multiples of {scale}, found {height}x{width}"
            raise ValueError(f"{type(self).__name__} {found}: crop the image")
        return height // scale, width // scale


class Fuzz(_Downsampling):
    """MATLAB's bicubic downsampling, the course document's "fuzz": uint8 -> MATLAB's bytes, floats -> floats in [0, 1].
    The course document's resizers, PIL and torch, differ at the border and in the last bit.
    """

    label, reach = "bicubic ×{0.scale_factor}", 2  # the widened cubic reaches two LR pixels to either side

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = self.small_size(images)
        lr_img = imresize(images, 1 / self.scale_factor)[..., :height, :width]  # 525 * (1 / 75) is a little above 7
        return lr_img if images.dtype == torch.uint8 else lr_img.clamp(0, 1)


class _Interpolated(_Downsampling):
    mode = ""

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        size = self.small_size(images)
        lr_img = F.interpolate(as_floats(images).reshape(-1, *images.shape[-3:]), size=size, mode=self.mode)
        return as_given(images, lr_img).reshape(*images.shape[:-2], *size)


class Area(_Interpolated):
    """The mean of each square of pixels."""

    label, mode = "area ×{0.scale_factor}", "area"


class Nearest(_Interpolated):
    """The first pixel of each square of pixels."""

    label, mode = "nearest ×{0.scale_factor}", "nearest"


class BicubicPlain(_Interpolated):
    """torch's bicubic interpolation (a = -0.75), which does not blur before it takes fewer pixels."""

    label, mode, reach = "bicubic ×{0.scale_factor}, no antialias", "bicubic", 1


@dataclass(frozen=True)
class Rescaled(Degradation):
    """MATLAB's bicubic by `shrink` and back up, so that in the end the sides are divided by `scale_factor`."""

    shrink: int
    scale_factor: int = 2
    label = "bicubic ×{0.shrink}"

    @property
    def margin(self) -> int:  # two pixels of the smallest image on the way down, two on the way up
        return math.lcm(4 * self.shrink, self.scale_factor)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = (side // self.scale_factor for side in images.shape[-2:])
        return imresize(imresize(images, 1 / self.shrink), self.shrink / self.scale_factor)[..., :height, :width]


@dataclass(frozen=True)
class Blur(Degradation):
    """Gaussian blur of standard deviation `sigma` pixels."""

    sigma: float = 1.0
    label = "blur σ {0.sigma:g}"

    @property
    def margin(self) -> int:
        return math.ceil(3 * self.sigma)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return blur(images, self.sigma)


@dataclass(frozen=True)
class Noise(Degradation):
    """Gaussian noise of standard deviation `sigma` in units of [0, 1]; floats stay floats, clamped."""

    sigma: float = 0.1
    label = "noise σ {0.sigma:g}"

    def __post_init__(self):
        if self.sigma < 0:
            raise ValueError(f"sigma must be at least 0, found {self.sigma}")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(images.shape, generator=_or_fixed(generator)).to(images.device)
        return as_given(images, as_floats(images) + self.sigma * noise)


GaussianNoise = Noise


@dataclass(frozen=True)
class Occlusion(Degradation):
    """A black square of `size` pixels a side at a random place inside each image; floats stay floats."""

    size: int = 8
    label = "mask {0.size}×{0.size}"

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_images(images)
        if not 1 <= self.size <= min(images.shape[-2:]):
            raise ValueError(f"a square of {self.size} pixels does not fit into {images.shape[-2]}x{images.shape[-1]}")
        batch = images if images.dim() == 4 else images[None]
        return batch.masked_fill(_squares(batch, self.size, _or_fixed(generator)), 0).reshape(images.shape)


@dataclass(frozen=True)
class Jpeg(Degradation):
    """Through JPEG and back, quality 1 to 95. A crop is compressed by itself: its blocks begin at its corner."""

    quality: int = 50
    label, margin = "JPEG {0.quality}", 16  # a block of chroma: those that are filled up lie outside the crop

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return jpeg(images.reshape(-1, *images.shape[-3:]), self.quality).reshape(images.shape)


@dataclass(frozen=True, init=False)
class Chain(Degradation):
    """One degradation after the other: Chain(Blur(1), Fuzz(2), Noise(0.05))."""

    parts: tuple[Degradation, ...]

    def __init__(self, *parts: Degradation):
        name, margin = ", ".join(part.name.removeprefix("bicubic ") for part in parts), 0
        scale_factor = math.prod(part.scale_factor for part in parts)
        for part in reversed(parts):
            margin = margin * part.scale_factor + part.margin
        margin = -(-margin // scale_factor) * scale_factor
        vars(self).update(parts=parts, name=name, scale_factor=scale_factor, margin=margin)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        generator = _or_fixed(generator)
        for part in self.parts:
            images = part(images, generator)
        return images


@dataclass(frozen=True, init=False)
class Choice(Degradation):
    """One of several degradations at random for each image, each as likely; they share one scale_factor."""

    parts: tuple[Degradation, ...]

    def __init__(self, *parts: Degradation):
        scales = {part.name: part.scale_factor for part in parts}
        if len(set(scales.values())) != 1:
            raise ValueError(f"Choice takes degradations that share one scale_factor, found {scales}")
        margin = max(part.margin for part in parts)
        vars(self).update(parts=parts, name=" or ".join(scales), scale_factor=parts[0].scale_factor, margin=margin)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        generator, batch = _or_fixed(generator), images.reshape(-1, *images.shape[-3:])
        chosen, degraded = torch.randint(len(self.parts), (len(batch),), generator=generator), [None] * len(batch)
        for number, part in enumerate(self.parts):
            if index := [i for i, choice in enumerate(chosen.tolist()) if choice == number]:
                for i, img in zip(index, part(batch[index], generator), strict=True):
                    degraded[i] = img
        degraded = torch.stack(degraded)
        return degraded.reshape(*images.shape[:-3], *degraded.shape[1:])


def degradations() -> dict[str, Degradation]:
    """Nine ways to downsample by 2, by name, the study's first."""
    half = Fuzz(2)
    ways = [half, Rescaled(3), Rescaled(4), Area(2), Nearest(2), BicubicPlain(2), Chain(Blur(1.0), half),
            Chain(half, Noise(0.05)), Chain(half, Jpeg(50))]  # fmt: skip
    return {way.name: way for way in ways}


@dataclass(frozen=True)
class Damage:
    """(img (N, 3, H, W), kind) -> the damaged images, and 0 in their mask, 1 elsewhere. "clean" leaves them.

    "low_res" is downsampled by 2 and brought back by bicubic; `kinds` has it on request. Without a generator the damage
    is always the same.
    """

    sigma: float = 0.1
    mask_size: int = 8
    kinds: tuple[str, ...] = ("noise", "mask", "both")

    def __call__(self, img: Tensor, kind: str, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        if kind not in ("clean", "noise", "mask", "both", "low_res"):
            raise ValueError(f"kind must be clean, noise, mask, both or low_res, found {kind!r}")
        generator, visible = _or_fixed(generator), torch.ones_like(img)
        if kind == "low_res":
            img = as_given(img, imresize(as_floats(Fuzz(2)(img)), 2))
        if kind in ("noise", "both"):
            img = Noise(self.sigma)(img, generator)
        if kind in ("mask", "both"):
            visible = Occlusion(self.mask_size)(visible, generator)
        return img * visible, visible


# --- random changes for training -------------------------------------------------------------------------------------


def draw_integers(count: Tensor, generator: torch.Generator | None) -> Tensor:
    """One whole number in [0, count) for each entry of `count`, drawn on the CPU."""
    draw = torch.rand(count.shape, generator=generator, dtype=torch.float64) * count
    return torch.minimum(draw.long(), count - 1)


def _squares(batch: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """True in one random square of `size` per image: (N, C, H, W) -> bool (N, 1, H, W) on the same device."""
    num, _, *sides = batch.shape
    corner = draw_integers(torch.tensor(sides)[:, None].expand(2, num) - size + 1, generator).to(batch.device)
    row, col = (torch.arange(side, device=batch.device) - corner[i, :, None] for i, side in enumerate(sides))
    row, col = ((x >= 0) & (x < size) for x in (row, col))
    return row[:, None, :, None] & col[:, None, None, :]


def augment(
    images: Tensor, flip: bool = True, shift: int = 4, cutout: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Random flip, shift and cutout of each image, a whole batch at once: uint8 (N, C, H, W) -> the same.

    Half of the images are mirrored; each is moved by up to `shift` pixels, the uncovered border reflected (edge not
    repeated); a random square of `cutout` pixels gets the image's mean colour. Numbers are drawn on the CPU.
    """
    num, _, *sides = images.shape
    if not 0 <= shift < min(sides) or not 0 <= cutout <= min(sides):
        raise ValueError(f"shift {shift} or cutout {cutout} does not fit images of {sides[0]}x{sides[1]}")
    device = images.device
    move = torch.randint(-shift, shift + 1, (2, num, 1), generator=generator).to(device)
    row, col = ((torch.arange(side, device=device) + move[i]).abs() for i, side in enumerate(sides))
    row, col = (torch.minimum(x, 2 * (side - 1) - x) for x, side in zip((row, col), sides, strict=True))
    if flip:
        mirrored = torch.rand(num, 1, generator=generator) < 0.5
        col = torch.where(mirrored.to(device), col.flip(1), col)
    place = (row[:, :, None] * sides[1] + col[:, None, :]).view(num, 1, -1)
    images = images.flatten(2).gather(2, place.expand(-1, images.shape[1], -1)).view(images.shape)
    if cutout:
        mean = (images.float().mean((2, 3), keepdim=True) + 0.5).to(images.dtype)
        images = torch.where(_squares(images, cutout, generator), mean, images)
    return images


# --- super-resolution: training crops and test images ----------------------------------------------------------------


def _fingerprint(tensors: Iterator[Tensor] | Sequence[Tensor]) -> str:
    """The first 16 hex characters of the SHA-256 of dtypes, shapes and bytes: which data a run has seen."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def _folder_name(folder: Path) -> str:
    folder = Path(os.path.abspath(folder))  # not resolved: a link to a set is called as the set is here
    if part := re.fullmatch("DIV2K_(train|valid)_HR", folder.name):
        return f"DIV2K/{part[1]}"
    return f"{folder.parent.name}/{folder.name}" if folder.name in ("train", "valid", "test") else folder.name


def _pixels(source: Path | Tensor) -> Tensor:
    return source if isinstance(source, Tensor) else read_image(source)


def _sources(
    root: str | Path | None, images: Sequence[Tensor] | None, names: Sequence[str] | None, name: str | None, scale: int
) -> tuple[list[Path] | list[Tensor], list[Path] | None, list[str], str]:
    """HR images of a folder or in memory, their LR files if there are any, the images' names, the set's name."""
    if (root is None) == (images is None):
        raise ValueError("give either root (a folder of images) or images (uint8 tensors)")
    if images is None:
        root = Path(root)
        folders = (root / "HR", root / f"image_SRF_{scale}", *sorted(root.glob("image_SRF_*")))
        folder = next((folder for folder in folders if folder.is_dir()), root)
        hr_files, lr_files = _hr_and_lr(list_images(folder), scale)
        if (root / "LR_bicubic" / f"X{scale}").is_dir():
            lr_files = {f.stem.removesuffix(f"x{scale}"): f for f in list_images(root / "LR_bicubic" / f"X{scale}")}
        if lr_files and (missing := [stem for stem in hr_files if stem not in lr_files]):
            advice = "add what is missing, or remove all LR files, and LR is made from HR"
            raise FileNotFoundError(f"{root} lacks the LR file of {', '.join(missing[:3])}: {advice}")
        lr = [lr_files[stem] for stem in hr_files] if lr_files else None
        return list(hr_files.values()), lr, list(hr_files), name or _folder_name(root)
    names = [str(i) for i in range(len(images))] if names is None else list(names)
    if not len(images) == len(names) > 0:
        raise ValueError(f"found {len(images)} images and {len(names)} names: expected as many, and some")
    for image_name, img in zip(names, images, strict=True):
        if img.dim() != 3 or len(img) != 3 or img.dtype != torch.uint8:
            raise ValueError(f"image {image_name} is {img.dtype} {tuple(img.shape)}: expected uint8 (3, H, W)")
    return list(images), None, names, name or "images in memory"


def _hr_and_lr(files: list[Path], scale: int) -> tuple[dict[str, Path], dict[str, Path]]:
    """The HR files of one folder and the LR files among them, by image name; ValueError where HR is not clear.

    A folder may hold pairs a_HR.png and a_LR.png, or a_SRF_2_HR.png and a_SRF_2_LR.png, an LR file of scale 2 alone.
    """
    folder, advice = files[0].parent, "put HR into HR/ and LR into LR_bicubic/X2/, see DS/README.md, or rename one"
    matches = {f: re.fullmatch(r"(.+?)(?:_SRF_(\d+))?_(HR|LR)", f.stem) for f in files}
    hr = {f: m for f, m in matches.items() if m and m[3] == "HR"}
    if not hr:
        stems = {f.stem: f for f in files}
        for stem in stems:
            lr = re.fullmatch(r"(.+?)(_LR|_?x[2348]|_SRF_\d+(_LR)?)", stem)
            if lr and lr[1] in stems:
                raise ValueError(f"{folder} holds {lr[1]} and {stem}, which seem to be HR and LR: {advice}")
        return stems, {}
    scales = sorted(m[2] or "" for m in hr.values())
    chosen = str(scale) if str(scale) in scales else scales[0]  # HR of another scale serves, its LR does not
    hr_files = {m[1]: f for f, m in hr.items() if (m[2] or "") == chosen}
    for f, m in matches.items():
        if not m and not any(f.stem.startswith(f"{name}_") for name in hr_files):
            raise ValueError(f"{folder} holds {f.name} among files named _HR: {advice}")
    return hr_files, {m[1]: f for f, m in matches.items() if m and m[3] == "LR" and m[2] in (None, str(scale))}


class DIV2KDataset(torch.utils.data.Dataset):
    """Random (lr_img, hr_img) crops of a folder of photographs (DIV2K, Agustsson and Timofte 2017, or any).

    All images are decoded into one flat uint8 buffer, so a batch of crops is a single gather on the device. An image
    is drawn in proportion to its area, then a corner, uniformly; with `augment` one of the 8 flips and rotations
    follows. LR pixels equal the same place of the whole image downsampled by `imresize`, byte for byte.

    Give `root` (a folder) or `images` (uint8 (3, H, W) tensors, with `names`). `max_images` takes the first ones by
    name. Raises ValueError on an image smaller than the crop, or when the pixels exceed `max_gigabytes`.
    """

    def __init__(
        self, root: str | Path | None = None, crop_size: int = 128, scale_factor: int = 2, augment: bool = True, *,
        images: Sequence[Tensor] | None = None, names: Sequence[str] | None = None, name: str | None = None,
        max_images: int | None = None, max_gigabytes: float = 12,
    ):  # fmt: skip
        self.crop_size, self.scale_factor, self.augment = crop_size, whole_scale(scale_factor), augment
        if crop_size < 1 or crop_size % scale_factor:
            raise ValueError(f"crop_size {crop_size} is no multiple of scale_factor {scale_factor}")
        sources, _, self.names, self.name = _sources(root, images, names, name, self.scale_factor)
        if max_images is not None and max_images < len(sources):
            sources, self.names = sources[:max_images], self.names[:max_images]
            self.name = f"{self.name}, first {max_images} images"

        sides = [sorted(s.shape[-2:]) if isinstance(s, Tensor) else announced_sides(s) for s in sources]
        for image_name, (shorter, longer) in zip(self.names, sides, strict=True):
            if shorter // self.scale_factor * self.scale_factor < crop_size:
                found = f"image {image_name} has sides of {shorter} and {longer}, smaller than a crop of {crop_size}"
                raise ValueError(f"{root or self.name}: {found}: remove it or choose a smaller crop_size")
        counts = torch.tensor([3 * shorter * longer for shorter, longer in sides])
        ends = counts.cumsum(0)
        self.offsets = ends - counts
        if ends[-1] > max_gigabytes * 1e9:
            found = f"{len(sides)} images decode to {ends[-1] / 1e9:.1f} GB, more than max_gigabytes={max_gigabytes}"
            raise ValueError(f"{self.name}: {found}: raise it if the memory is there, or choose max_images")
        self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8)

        def store(i: int) -> torch.Size:
            img = _pixels(sources[i])
            self.pixels[int(self.offsets[i]) : int(ends[i])] = img.flatten()
            return img.shape[-2:]

        with ThreadPoolExecutor() as pool:
            self.heights, self.widths = torch.tensor(list(pool.map(store, range(len(sides))))).unbind(1)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """The whole image number `index`, uint8 (3, H, W)."""
        height, width = int(self.heights[index]), int(self.widths[index])
        return self.pixels[int(self.offsets[index]) :][: 3 * height * width].view(3, height, width)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A random crop pair of one image: floats (3, c/s, c/s) and (3, c, c), by torch's global generator."""
        lr_img, hr_img = self._crop(torch.tensor([range(len(self))[index]]), None)  # IndexError where it ends
        return to_float(lr_img[0]), to_float(hr_img[0])

    def batch(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random crop pairs, uint8 (N, 3, c/s, c/s) and (N, 3, c, c), on the pixels' device, drawn on the CPU."""
        area = (self.heights * self.widths).double()
        return self._crop(torch.multinomial(area, batch_size, replacement=True, generator=generator), generator)

    def batches(self, batch_size: int, num_steps: int) -> Callable[[torch.Generator], Iterator[dict[str, Tensor]]]:
        """What `training.fit` draws an epoch from: generator -> `num_steps` dicts of lr_img and hr_img, in [0, 1]."""

        def epoch(generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
            for _ in range(num_steps):
                lr_img, hr_img = map(to_float, self.batch(batch_size, generator))
                yield {"lr_img": lr_img, "hr_img": hr_img}

        return epoch

    def _crop(self, index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        crop, scale, device = self.crop_size, self.scale_factor, self.pixels.device
        # The widened cubic reaches 2 LR pixels to either side: crop that much more, downsample, cut it off again.
        margin = 2 * scale
        size = torch.stack([self.heights[index], self.widths[index]]) // scale * scale
        corner = (draw_integers((size - crop) // scale + 1, generator) * scale).to(device)
        turn = torch.randint(8, index.shape, generator=generator).to(device)
        size = size.to(device)[:, :, None]
        place = (corner[:, :, None] + torch.arange(-margin, crop + margin, device=device)) % (2 * size)
        row, col = torch.minimum(place, 2 * size - 1 - place)  # beyond the edge the mirror, as in imresize
        start, height, width = (x[index].to(device) for x in (self.offsets, self.heights, self.widths))
        channel = start[:, None] + torch.arange(3, device=device) * (height * width)[:, None]
        flat = channel[:, :, None, None] + (row * width[:, None])[:, None, :, None] + col[:, None, None, :]
        hr_img = self.pixels.index_select(0, flat.view(-1)).view(flat.shape)
        lr_img = imresize(hr_img, 1 / scale)[..., 2:-2, 2:-2]
        hr_img = hr_img[..., margin:-margin, margin:-margin]
        return (_turn(lr_img, turn), _turn(hr_img, turn)) if self.augment else (lr_img, hr_img)

    def to(self, device: str | torch.device) -> "DIV2KDataset":
        self.pixels = self.pixels.to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.heights, self.widths, self.pixels])


def _turn(img: Tensor, turn: Tensor) -> Tensor:
    """The dihedral move 0..7 of each square image: (N, C, S, S), (N,) -> (N, C, S, S); 0 leaves it."""
    bits = turn[:, None, None, None]
    img = torch.where(bits & 1 > 0, img.flip(-1), img)
    img = torch.where(bits & 2 > 0, img.flip(-2), img)
    return torch.where(bits & 4 > 0, img.transpose(-1, -2), img)


class SRTestSet(torch.utils.data.Dataset):
    """Whole test images: item -> (lr_img (3, h, w), hr_img (3, s*h, s*w), name), floats in [0, 1].

    `root` holds images, or HR/ and, if there, LR_bicubic/X{s} with img_001x{s}.png for HR/img_001.png, or pairs
    (`_hr_and_lr`), also in image_SRF_{s}/; or give `images`. Without LR files LR is made by `imresize`. HR is cropped
    at the bottom and right to a multiple of the scale. FileNotFoundError on an HR file without its LR file,
    ValueError on an LR of another size.
    """

    def __init__(
        self, root: str | Path | None = None, scale_factor: int = 2, *, images: Sequence[Tensor] | None = None,
        names: Sequence[str] | None = None, name: str | None = None,
    ):  # fmt: skip
        self.scale_factor = whole_scale(scale_factor)
        self.hr, self.lr, self.names, self.name = _sources(root, images, names, name, self.scale_factor)

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """(lr_img, hr_img) of image `index` as uint8."""
        hr_img = _pixels(self.hr[index])
        height, width = (side // self.scale_factor for side in hr_img.shape[-2:])
        hr_img = hr_img[:, : height * self.scale_factor, : width * self.scale_factor]
        if self.lr is None:
            return imresize(hr_img, 1 / self.scale_factor), hr_img
        lr_img = read_image(self.lr[index])
        if lr_img.shape[-2:] != (height, width):
            found, expected = "x".join(map(str, lr_img.shape[-2:])), f"{self.hr[index].name} makes {height}x{width}"
            raise ValueError(f"{self.lr[index]} is {found}, but at scale {self.scale_factor} {expected}")
        return lr_img, hr_img

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        lr_img, hr_img = self.pair(index)
        return to_float(lr_img), to_float(hr_img), self.names[index]

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint(img for i in range(len(self)) for img in self.pair(i))


# --- photographs inside the scikit-image wheel: no download ----------------------------------------------------------

PHOTOGRAPHS_NAME = "photographs inside scikit-image"
PHOTOGRAPHS = {  # split by image
    "train": ("astronaut.png", "hubble_deep_field.jpg", "retina.jpg", "motorcycle_left.png", "moon.png", "brick.png",
              "grass.png", "gravel.png"),
    "valid": ("rocket.jpg", "camera.png"), "test": ("chelsea.png", "coffee.png"),
}  # fmt: skip


def embedded_photographs(part: str) -> tuple[list[Tensor], list[str]]:
    """(uint8 images (3, H, W), names) of "train", "valid" or "test", from scikit-image's wheel, never the network."""
    return [_photograph(file) for file in PHOTOGRAPHS[part]], [Path(file).stem for file in PHOTOGRAPHS[part]]


def _photograph(file: str) -> Tensor:
    with resources.as_file(resources.files("skimage.data") / file) as path:
        return read_image(path)


def _embedded(part: str) -> dict[str, object]:
    images, names = embedded_photographs(part)
    return {"images": images, "names": names, "name": PHOTOGRAPHS_NAME}


# --- images with labels: CIFAR-10, folders of one's own, drawn -------------------------------------------------------

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_BATCH = 10_000  # images a file
_CIFAR10_HELP = "delete it and run `python datasets.py download cifar10`"


class LabelledImages(torch.utils.data.Dataset):
    """`images` uint8 (N, 3, H, W) and `labels` int64 (N,) in memory; item -> (float image, int label)."""

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str], name: str):
        self.images, self.labels, self.classes, self.name = images, labels, tuple(classes), name

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.images[index]), int(self.labels[index])

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.images, self.labels])


def labelled_folder(root: str | Path) -> LabelledImages:
    """A folder of images for each class: of each image the middle square, resized to 32x32 by `imresize`."""
    folders = [folder for folder in _entries(Path(root)) if folder.is_dir()]
    if not folders:
        raise FileNotFoundError(f"{root} holds no folders: put the images of each class into a folder of its own there")
    files = [(file, label) for label, folder in enumerate(folders) for file in list_images(folder)]

    def read(file: Path) -> Tensor:
        img = read_image(file)
        side = min(img.shape[-2:])
        top, left = ((length - side) // 2 for length in img.shape[-2:])
        img = img[:, top : top + side, left : left + side]
        return img if side == 32 else imresize(img, 32 / side)[:, :32, :32]

    with ThreadPoolExecutor() as pool:
        images = torch.stack(list(pool.map(read, (file for file, _ in files))))
    labels = torch.tensor([label for _, label in files])
    return LabelledImages(images, labels, [folder.name for folder in folders], _folder_name(Path(root)))


class CIFAR10Dataset(LabelledImages):
    """CIFAR-10 in memory (Krizhevsky 2009): `images` uint8 (N, 3, 32, 32), `labels` int64 (N,) in 0..9.

    From cifar-10-batches-bin, cifar-10-batches-py, or train/ and test/ with a folder of image files for each class, in
    `root`, in `root`/CIFAR10, or `root` itself. Always in the order of each record's SHA-256 (label byte, then pixels).
    FileNotFoundError where it is missing or half-extracted, ValueError where a file is broken or would run code.
    """

    def __init__(self, root: str | Path = DATA_ROOT, train: bool = True):
        folder = _cifar10_folder(Path(root))
        if folder is None:
            raise FileNotFoundError(f"no CIFAR-10 in {root}: run `python datasets.py download cifar10`")
        records = _read_cifar10(folder, train)
        hashes = [hashlib.sha256(record).digest() for record in records]
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        images = torch.from_numpy(records[:, 1:][order]).view(-1, 3, 32, 32)
        expected = CIFAR10_BATCH * (5 if train else 1)
        name = "CIFAR-10" if len(images) == expected else f"CIFAR-10, {len(images):,} of {expected:,} images"
        super().__init__(images, torch.from_numpy(records[order, 0].astype(np.int64)), CLASSES, name)


def _cifar10_folder(root: Path) -> Path | None:
    """Where the batches or the class folders lie, or None where there is no CIFAR-10."""
    for base in (root, root / "CIFAR10"):
        for folder in (base / "cifar-10-batches-bin", base / "cifar-10-batches-py"):
            if folder.is_dir():
                return folder
        batches = any(base.glob("data_batch_*")) or any(base.glob("test_batch*"))
        if batches or {f.name for part in ("train", "test") for f in _entries(base / part)} & set(CLASSES):
            return base
    for found in _entries(root / "CIFAR10"):
        hint = "is not unpacked: unpack it there" if _is_archive(found) else "is no part of CIFAR-10: see DS/README.md"
        raise FileNotFoundError(f"{found} {hint}, or {_CIFAR10_HELP}")
    return None


def _read_cifar10(folder: Path, train: bool) -> np.ndarray:
    """uint8 (N, 3073): a label byte, then R, G, B, each 32x32."""
    part = "train" if train else "test"
    if (folder / part).is_dir():
        data = labelled_folder(folder / part)
        if data.classes != CLASSES:
            raise ValueError(f"{folder / part} holds {', '.join(data.classes)} instead of {', '.join(CLASSES)}")
        return torch.cat([data.labels[:, None].to(torch.uint8), data.images.flatten(1)], 1).numpy()
    suffix = ".bin" if any(folder.glob("*.bin")) else ""
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    files = [folder / (name + suffix) for name in names]
    if missing := [f.name for f in files if not f.is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, half-extracted: {_CIFAR10_HELP}")
    records = np.empty((len(files), CIFAR10_BATCH, 3073), np.uint8)
    for i, file in enumerate(files):
        batch = np.fromfile(file, np.uint8) if suffix else _read_python_batch(file)
        if batch.size != records[i].size:
            raise ValueError(f"{file} has {batch.size:,} bytes instead of {records[i].size:,}: {_CIFAR10_HELP}")
        records[i] = batch.reshape(-1, 3073)
        if records[i, :, 0].max() > 9:
            raise ValueError(f"{file} has labels outside 0..9: {_CIFAR10_HELP}")
    return records.reshape(-1, 3073)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, bytes and numpy arrays; refuses every other name, since a pickle can run code."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")  # the only one that numpy's pickles use
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise ValueError(f"it would run code ({module}.{name})")


def _read_python_batch(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a broken pickle raises all sorts of errors
        raise ValueError(f"{path} was not read ({error}): {_CIFAR10_HELP}") from error
    if data.dtype != np.uint8 or data.shape != (CIFAR10_BATCH, 3072) or labels.shape != (CIFAR10_BATCH,):
        raise ValueError(f"{path} holds {data.dtype} {data.shape} and {labels.shape} labels: {_CIFAR10_HELP}")
    return np.concatenate([labels.clip(-1, 10)[:, None].astype(np.uint8), data], 1)  # -1 becomes 255: out of range


# The test images stand before photographs that neither SRNet nor the classifier learns from.
DRAWN_BACKGROUNDS = {"train": ("astronaut.png", "motorcycle_left.png"), "test": ("chelsea.png", "coffee.png")}


class DrawnDataset(LabelledImages):
    """Ten balanced classes of 32x32 images drawn in seconds by drawn.py, the same everywhere, where CIFAR-10 is absent.

    Training and test images have different photographs behind them. `size`: a multiple of ten; 4,000 or 1,000 if None.
    """

    def __init__(self, train: bool = True, size: int | None = None):
        size = (4_000 if train else 1_000) if size is None else size
        if size < 1 or size % 10:
            raise ValueError(f"size must be a positive multiple of 10 (ten balanced classes), found {size}")
        files = DRAWN_BACKGROUNDS["train" if train else "test"]
        photos = [_photograph(file).permute(1, 2, 0).numpy() for file in files]
        rng = np.random.default_rng([0, int(train)])
        labels = rng.permutation(np.arange(size) % 10)
        images = torch.from_numpy(drawn.draw_images(labels, photos, rng)).permute(0, 3, 1, 2).contiguous()
        classes = [f"{texture} {shape}" for shape in drawn.SHAPES for texture in drawn.TEXTURES]
        super().__init__(images, torch.from_numpy(labels.astype(np.int64)), classes, "drawn shapes (not CIFAR-10)")


def sample(num: int, batch_size: int, num_steps: int, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Yields `num_steps` index tensors (batch_size,) into `num` images: one random order after another, end to end."""
    if not 0 < batch_size <= num:
        raise ValueError(f"a batch takes 1 to {num} of the {num} images; found batch_size {batch_size}")
    orders = -(-num_steps * batch_size // num)
    index = torch.cat([torch.randperm(num, generator=generator) for _ in range(orders)])
    yield from index[: num_steps * batch_size].split(batch_size)


def split_indices(num: int, num_val: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A fixed split of range(num) into (train_idx, val_idx), both sorted."""
    if not 0 <= num_val <= num:
        raise ValueError(f"num_val must lie in 0..{num}, found {num_val}")
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    return order[num_val:].sort().values, order[:num_val].sort().values


def centre_crops(test_set: "SRTestSet", size: int) -> tuple[Tensor, Tensor]:
    """The middle of each image, to score epochs by: floats (N, 3, size / s, size / s) and (N, 3, size, size)."""
    scale, lr_crops, hr_crops = test_set.scale_factor, [], []
    for lr_img, hr_img, name in test_set:
        top, left = ((side - size // scale) // 2 for side in lr_img.shape[-2:])
        if min(top, left) < 0:
            raise ValueError(f"{name} of {test_set.name} is smaller than {size} pixels; choose a smaller valid_size")
        lr_crops.append(lr_img[:, top : top + size // scale, left : left + size // scale])
        hr_crops.append(hr_img[:, top * scale : top * scale + size, left * scale : left * scale + size])
    return torch.stack(lr_crops), torch.stack(hr_crops)


# --- which data there is: the real set where DS/ holds it, else what is embedded -------------------------------------

PHOTOGRAPH_SETS = ("DIV2K", "photographs", "CID22")  # to learn from; each has a folder train and a folder valid
# folder: what fetches it
SR_TEST_SETS = {"Set5": "set5", "Set14": "set14", "B100": "b100", "Urban100": "urban100", "DIV2K/valid": "div2k"}
_OTHER_NAMES = {"B100": "b(sds?)?100"}
_JUNK = ("thumbs.db", "desktop.ini", "__macosx", "icon\r")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files and what file managers leave there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(f for f in found if not f.name.startswith(".") and f.name.lower() not in _JUNK)


def _is_archive(file: Path) -> bool:
    return file.suffix.lower() in _ARCHIVES and file.is_file()


def _find(name: str, root: str | Path) -> Path | None:
    """The folder of "Set14" or "DIV2K/train" if it is not empty; else None, and prints what is there like it, once."""
    root, (top, _, part) = Path(root), name.partition("/")
    for folder in (root / name, root / re.sub("^DIV2K/(.*)", r"DIV2K/DIV2K_\1_HR", name)):  # as unpacked
        if _entries(folder):
            return folder
    other_part = {"train": "valid", "valid": "train"}.get(part, " ")
    for entry in _entries(root) + _entries(root / top):
        plain = re.sub("[^a-z0-9]", "", entry.name.lower())
        like = re.match(rf"{_OTHER_NAMES.get(top, top.lower())}(?!\d)", plain) or entry.parent != root
        if not like or other_part in plain or entry == root / top or "lr" in plain:
            continue
        if _is_archive(entry):
            _say_once(f"{entry} is not read: unpack it")
        elif entry.is_dir() and (entry.parent == root or part in plain):
            _say_once(f"{entry} is not read: it must be {root / name if part in plain else root / top}")
    return None


@cache
def _say_once(line: str) -> None:
    print(line)


def is_there(name: str, root: str | Path = DATA_ROOT) -> bool:
    """Whether `root` holds the real data set: "CIFAR10", or a folder such as "Set14" that is not empty."""
    return (_cifar10_folder(Path(root)) if name == "CIFAR10" else _find(name, root)) is not None


def find_classification(root: str | Path = DATA_ROOT, train: bool = True) -> CIFAR10Dataset | DrawnDataset:
    """CIFAR-10 where `root` holds it (broken, it raises), else the drawn ten-class set; `.name` says which."""
    if is_there("CIFAR10", root):
        return CIFAR10Dataset(root, train)
    _find("CIFAR10", root)  # says what lies there under another name
    return DrawnDataset(train)


def _found(part: str, root: str | Path) -> dict[str, object]:
    folders = (_find(f"{name}/{part}", root) for name in PHOTOGRAPH_SETS)
    folder = next((folder for folder in folders if folder), None)
    return {"root": folder} if folder else _embedded(part)


def find_sr_train(
    root: str | Path = DATA_ROOT, crop_size: int = 128, scale_factor: int = 2, augment: bool = True,
    max_images: int | None = None,
) -> DIV2KDataset:  # fmt: skip
    """Training crops of the first of PHOTOGRAPH_SETS that is there, else of the embedded photographs."""
    return DIV2KDataset(
        crop_size=crop_size, scale_factor=scale_factor, augment=augment, max_images=max_images, **_found("train", root)
    )


def find_sr_valid(root: str | Path = DATA_ROOT, scale_factor: int = 2) -> SRTestSet:
    """Validation images of the first of PHOTOGRAPH_SETS that is there, else two embedded photographs."""
    return SRTestSet(scale_factor=scale_factor, **_found("valid", root))


def find_sr_test(root: str | Path = DATA_ROOT, scale_factor: int = 2, div2k: bool = False) -> list[SRTestSet]:
    """Those of Set5, Set14, B100, Urban100 and (`div2k`) DIV2K/valid that are there, else two embedded photographs."""
    folders = [_find(name, root) for name in SR_TEST_SETS if div2k or name != "DIV2K/valid"]
    found = [SRTestSet(folder, scale_factor) for folder in folders if folder]
    return found or [SRTestSet(None, scale_factor, **_embedded("test"))]


def absent_sr_test(root: str | Path = DATA_ROOT) -> dict[str, str]:
    """The five test sets that are not there: {name: how to get it}."""
    return {k: f"python datasets.py download {v}" for k, v in SR_TEST_SETS.items() if not is_there(k, root)}


def find_vgg(network: str = "vgg19", root: str | Path = DATA_ROOT) -> Path | None:
    """VGG16's or VGG19's ImageNet weights: torchvision's file in `root` or its cache, else VGG19's first blocks."""
    name = ARCHIVES[network][0].target
    places = Path(root) / name, Path(torch.hub.get_dir(), "checkpoints", name), Path(root, f"{network}_blocks1to3.pth")
    return next((place for place in places if place.is_file()), None)


def show(root: str | Path = DATA_ROOT) -> None:
    """Prints every data set: where it lies and how many images, how to get it, or that it is broken."""
    root = Path(root)
    hints = {a.target: f"{a.size}, python datasets.py download {name}" for name in ARCHIVES for a in ARCHIVES[name]}
    hints |= {f"{name}/{p}": "by hand, see DS/README.md" for name in PHOTOGRAPH_SETS[1:] for p in ("train", "valid")}
    for target, hint in hints.items():
        name, state = target.removesuffix("/HR").removesuffix("/cifar-10-batches-bin"), f"missing: {hint}"
        try:
            if name.endswith(".pth"):
                state = str(find_vgg(name.split("-")[0], root) or state)
            elif name == "CIFAR10":
                if folder := _cifar10_folder(root):
                    state = f"{folder}, {len(CIFAR10Dataset(root, True)) + len(CIFAR10Dataset(root, False)):,} images"
            elif folder := _find(name, root):
                state = f"{folder}, {len(SRTestSet(folder))} images"
        except (OSError, ValueError) as error:
            state = f"BROKEN: {error}"
        print(f"{name:19} {state}")
    for part, files in PHOTOGRAPHS.items():
        print(f"{'embedded':19} {part}: {', '.join(Path(f).stem for f in files)} ({PHOTOGRAPHS_NAME})")


def in_one_line(command: Callable[[], object], stopped: str) -> int:
    """Run a command; say what it raises in one line on stderr, `stopped` on Ctrl-C. Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")  # a file's name never stops a command
    try:
        command()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="datasets.py", description="Lists the data sets, or downloads one.")
    parser.add_argument("command", nargs="?", choices=["download"], help="without it: list what is there")
    parser.add_argument("name", nargs="?", choices=list(ARCHIVES), help="what to download")
    parser.add_argument("--root", default=DATA_ROOT, help="the folder of the data sets (default: DS beside this file)")
    args = parser.parse_args(argv)
    if args.command and not args.name:
        parser.error(f"download what? One of {', '.join(ARCHIVES)}")
    command = (lambda: download(args.name, args.root)) if args.command else (lambda: show(args.root))
    return in_one_line(command, stopped="stopped; the same command goes on from here.")


if __name__ == "__main__":
    sys.exit(main())
