"""Every data set, the images that need no download, and what is done to images: degradations, random changes.

An image is RGB uint8 (3, H, W) at rest and float32 in [0, 1] everywhere else. `python3 run.py data` lists what is in
DS/ and what is missing; `python3 run.py data NAME` fetches a set.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools import cifar10, drawn
from tools.cifar10 import CLASSES

# isort: off
# some of these are here for whoever imports this module
from tools.download import fetch_missing, find_vgg, main  # noqa: F401
from tools.drawn import PHOTOGRAPHS, embedded, embedded_photographs  # noqa: F401
from tools.folders import DATA_ROOT, data_root, entries, find, hr_files, is_there
from tools.folders import names_of, say_once, say_unread, set_name
from tools.images import IMAGE_SUFFIXES, announced_sides, as_floats, as_given, check_images, draw_integers, imresize
from tools.images import blur, gray, jpeg, list_images, random_squares, read_image, turned  # noqa: F401
from tools.images import save_image, to_float, to_uint8  # noqa: F401 - the notebooks' names for them
# isort: on

# --- degradations ----------------------------------------------------------------------------------------------------


class Degradation:
    """What is done to images before a network sees them: uint8 (N, 3, H, W) or (3, H, W) -> uint8 of H/s and W/s.

    `name` labels figures; `scale_factor` s is HR side / LR side; `margin` is how many HR pixels beyond its own an
    output pixel depends on, a multiple of s. Chance is drawn on the CPU from `generator`; without one it is always the
    same. One of your own is a class derived from this one, known by its code and its attributes, which never change.
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


@dataclass(frozen=True)
class _Downsampling(Degradation):
    """Divides the sides by `scale_factor`, by torch's interpolation; ValueError where they are no multiples of it."""

    scale_factor: int = 2
    mode, reach = "", 0  # reach: LR pixels to either side that an output depends on

    def __post_init__(self):
        if int(self.scale_factor) != self.scale_factor or self.scale_factor < 1:
            raise ValueError(f"scale_factor must be a whole number of at least 1, found {self.scale_factor}")
        vars(self)["scale_factor"] = int(self.scale_factor)

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

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        size, batch = self.small_size(images), as_floats(images).reshape(-1, *images.shape[-3:])
        return as_given(images, F.interpolate(batch, size=size, mode=self.mode)).reshape(*images.shape[:-2], *size)


class Fuzz(_Downsampling):
    """MATLAB's bicubic downsampling, the course document's "fuzz": uint8 -> MATLAB's bytes, floats -> floats in [0, 1].
    The document's resizers, PIL and torch, differ at the border and in the last bit.
    """

    label, reach = "bicubic ×{0.scale_factor}", 2  # the widened cubic reaches two LR pixels to either side

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        height, width = self.small_size(images)
        lr_img = imresize(images, 1 / self.scale_factor)[..., :height, :width]  # 525 * (1 / 75) is a little above 7
        return lr_img if images.dtype == torch.uint8 else lr_img.clamp(0, 1)


FUZZ = Fuzz(2)  # the study's


class Area(_Downsampling):
    """The mean of each square of pixels."""

    label, mode = "area ×{0.scale_factor}", "area"


class Nearest(_Downsampling):
    """The first pixel of each square of pixels."""

    label, mode = "nearest ×{0.scale_factor}", "nearest"


class BicubicPlain(_Downsampling):
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
        return batch.masked_fill(random_squares(batch, self.size, _or_fixed(generator)), 0).reshape(images.shape)


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
        name, scale, margin = ", ".join(part.name.removeprefix("bicubic ") for part in parts), 1, 0
        for part in reversed(parts):
            scale, margin = scale * part.scale_factor, margin * part.scale_factor + part.margin
        vars(self).update(parts=parts, name=name, scale_factor=scale, margin=-(-margin // scale) * scale)

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
        chosen, degraded = torch.randint(len(self.parts), (len(batch),), generator=generator).tolist(), {}
        for number, part in enumerate(self.parts):
            if index := [i for i, choice in enumerate(chosen) if choice == number]:
                degraded |= zip(index, part(batch[index], generator), strict=True)
        whole = torch.stack([degraded[i] for i in range(len(batch))])
        return whole.reshape(*images.shape[:-3], *whole.shape[1:])


def as_degradation(degradation: Degradation | int) -> Degradation:
    """The degradation itself; Fuzz(s) where a number s is given."""
    return degradation if isinstance(degradation, Degradation) else Fuzz(degradation)


def degradations() -> dict[str, Degradation]:
    """Nine ways to downsample by 2, by name, the study's first."""
    ways = [FUZZ, Rescaled(3), Rescaled(4), Area(2), Nearest(2), BicubicPlain(2), Chain(Blur(1.0), FUZZ),
            Chain(FUZZ, Noise(0.05)), Chain(FUZZ, Jpeg(50))]  # fmt: skip
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


def augment(
    images: Tensor, flip: bool = True, shift: int = 4, cutout: int = 0, generator: torch.Generator | None = None
) -> Tensor:
    """Random flip, shift and cutout of each image, a whole batch at once: uint8 (N, C, H, W) -> the same.

    Half of the images are mirrored; each is moved by up to `shift` pixels, the uncovered border reflected (edge not
    repeated); a random square of `cutout` pixels gets the image's mean color. Numbers are drawn on the CPU.
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
        images = torch.where(random_squares(images, cutout, generator), mean, images)
    return images


# --- super-resolution: training crops and test images ----------------------------------------------------------------


def _fingerprint(tensors: Iterator[Tensor] | Sequence[Tensor]) -> str:
    """The first 16 hex characters of the SHA-256 of dtypes, shapes and bytes: which data a run has seen."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def _pixels(source: Path | Tensor) -> Tensor:
    return source if isinstance(source, Tensor) else read_image(source)


def _sources(
    root: str | Path | None, images: Sequence[Tensor | Path] | None, names: Sequence[str] | None, name: str | None
) -> tuple[list[Tensor | Path], list[str], str]:
    """HR images, of a folder or as given, their names, the set's name."""
    if images is None:
        files = hr_files(root := Path(root).expanduser())
        return files, names_of(files), name or set_name(root)
    names = names or [str(i) for i in range(len(images))]
    for image_name, img in zip(names, images, strict=True):
        if isinstance(img, Tensor) and (img.dim() != 3 or len(img) != 3 or img.dtype != torch.uint8):
            raise ValueError(f"image {image_name} is {img.dtype} {tuple(img.shape)}: expected uint8 (3, H, W)")
    return list(images), list(names), name or "images in memory"


def _degraded(degradation: Degradation, hr_img: Tensor, generator: torch.Generator) -> Tensor:
    lr_img, scale = degradation(hr_img, generator), degradation.scale_factor
    if lr_img.dtype != torch.uint8 or lr_img.shape[-2:] != tuple(side // scale for side in hr_img.shape[-2:]):
        expected = f"expected uint8 and the sides divided by its scale_factor {scale}"
        raise ValueError(f"{degradation.name} made {lr_img.dtype} {(*lr_img.shape,)} of {(*hr_img.shape,)}: {expected}")
    return lr_img


class DIV2KDataset:
    """Random (lr_img, hr_img) crops of a folder of photographs (DIV2K, Agustsson and Timofte 2017, or any).

    All images are decoded into one flat uint8 buffer, so a batch of crops is a single gather on the device. An image
    is drawn in proportion to its area, then a corner, uniformly; with `augment` one of the 8 flips and rotations
    follows. A crop is degraded with the `margin` around it: its LR pixels are those of the whole image, byte for byte.
    What a degradation leaves to chance does not change which crops are drawn.

    Give `root` (a folder) or `images` (uint8 (3, H, W) tensors or files, with `names`). `degradation`: a number stands
    for Fuzz of it. `max_images` takes the first ones by name.
    """

    def __init__(
        self, root: str | Path | None = None, crop_size: int = 128, degradation: Degradation | int = FUZZ,
        augment: bool = True, *, images: Sequence[Tensor | Path] | None = None, names: Sequence[str] | None = None,
        name: str | None = None, max_images: int | None = None,
    ):  # fmt: skip
        self.crop_size, self.degradation, self.augment = crop_size, as_degradation(degradation), augment
        self.scale_factor = self.degradation.scale_factor
        if crop_size < 1 or crop_size % self.scale_factor:
            raise ValueError(f"crop_size {crop_size} is no multiple of scale_factor {self.scale_factor}")
        sources, self.names, self.name = _sources(root, images, names, name)
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

    def batch(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random crop pairs, uint8 (N, 3, c/s, c/s) and (N, 3, c, c), on the pixels' device, drawn on the CPU."""
        crop, scale, margin, device = self.crop_size, self.scale_factor, self.degradation.margin, self.pixels.device
        area = (self.heights * self.widths).double()
        index = torch.multinomial(area, batch_size, replacement=True, generator=generator)
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
        lr_img = _degraded(self.degradation, hr_img, fork(generator))
        hr_img, lr_img = (img[..., edge : edge + side, edge : edge + side] for img, edge, side in
                          ((hr_img, margin, crop), (lr_img, margin // scale, crop // scale)))  # fmt: skip
        return (turned(lr_img, turn), turned(hr_img, turn)) if self.augment else (lr_img, hr_img)

    def to(self, device: str | torch.device) -> "DIV2KDataset":
        self.pixels = self.pixels.to(device)
        return self

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.heights, self.widths, self.pixels])


class SRTestSet:
    """Whole test images: item -> (lr_img (3, h, w), hr_img (3, s*h, s*w), name), floats in [0, 1].

    `root` holds images, or HR/ and, if there, LR_bicubic/X{s} with img_001x{s}.png for HR/img_001.png; or give
    `images`. Without LR files, or where the degradation is not Fuzz(s), LR is made, the image's number being the random
    seed. HR is cropped at the bottom and right to a multiple of the scale.
    """

    def __init__(
        self, root: str | Path | None = None, degradation: Degradation | int = FUZZ, *,
        images: Sequence[Tensor | Path] | None = None, names: Sequence[str] | None = None, name: str | None = None,
    ):  # fmt: skip
        self.degradation, self.lr = as_degradation(degradation), None
        self.scale_factor = scale = self.degradation.scale_factor
        self.hr, self.names, self.name = _sources(root, images, names, name)
        folder = Path(root or "").expanduser() / "LR_bicubic" / f"X{scale}"
        if root is not None and self.degradation == Fuzz(scale) and folder.is_dir():
            files = {file.stem.removesuffix(f"x{scale}"): file for file in list_images(folder)}
            if missing := [name for name in self.names if name not in files]:
                advice = "add what is missing, or remove all LR files, and LR is made from HR"
                raise FileNotFoundError(f"{folder} lacks the LR file of {', '.join(missing[:3])}: {advice}")
            self.lr = [files[name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """(lr_img, hr_img) of image `index` as uint8."""
        hr_img = _pixels(self.hr[index])
        height, width = (side // self.scale_factor for side in hr_img.shape[-2:])
        hr_img = hr_img[:, : height * self.scale_factor, : width * self.scale_factor]
        if self.lr is None:
            return _degraded(self.degradation, hr_img, torch.Generator().manual_seed(index)), hr_img
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


# --- images with labels: CIFAR-10, folders of one's own, drawn -------------------------------------------------------


class LabelledImages:
    """`images` uint8 (N, 3, H, W) and `labels` int64 (N,) in memory."""

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str], name: str):
        self.images, self.labels, self.classes, self.name = images, labels, tuple(classes), name

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.images, self.labels])


def labelled_folder(folder: str | Path, classes: Sequence[str] | None = None) -> LabelledImages:
    """A folder of images for each class: of each image the largest centered square, brought to 32x32 by `imresize`.

    classes: those of the training images, so that a label means the same here; a class without images is said in a
    line. Without it the folders are the classes.
    """
    folder = Path(folder).expanduser()
    found = [entry.name for entry in entries(folder) if entry.is_dir()]
    if not found:
        raise FileNotFoundError(f"{folder} holds no folders: put each class's images into a folder of its own there")
    say_unread(folder, found)
    if other := [name for name in found if name not in (classes or found)]:
        raise ValueError(f"{folder} holds {', '.join(other)}, which is none of the classes {', '.join(classes)}")
    files = {name: [file for file in entries(folder / name) if file.suffix.lower() in IMAGE_SUFFIXES]
             for name in classes or found}  # fmt: skip
    if empty := [name for name in files if not files[name]]:
        if classes is None or len(empty) == len(classes):
            raise FileNotFoundError(f"{folder} holds no images of {', '.join(empty)}: put image files there")
        say_once(f"{folder} has no images of {', '.join(empty)}")
    for name in found:
        say_unread(folder / name, {file.name for file in files[name]})

    def read(file: Path) -> Tensor:
        img = read_image(file)
        side = min(img.shape[-2:])
        top, left = ((length - side) // 2 for length in img.shape[-2:])
        img = img[:, top : top + side, left : left + side]
        return img if side == 32 else imresize(img, 32 / side)[:, :32, :32]

    with ThreadPoolExecutor() as pool:
        images = torch.stack(list(pool.map(read, itertools.chain(*files.values()))))
    labels = torch.tensor([label for label, name in enumerate(files) for _ in files[name]])
    return LabelledImages(images, labels, classes or found, set_name(folder))


class CIFAR10Dataset(LabelledImages):
    """CIFAR-10 (Krizhevsky 2009): `images` uint8 (N, 3, 32, 32), `labels` int64 (N,) in 0..9.

    From cifar-10-batches-bin, cifar-10-batches-py, or train/ and test/ with a folder of image files for each class, in
    `root`, in `root`/CIFAR10, or `root` itself. Always in the order of each record's SHA-256 (label byte, then pixels).
    """

    def __init__(self, root: str | Path = DATA_ROOT, train: bool = True):
        folder = cifar10.find(data_root(root))
        if folder is None:
            raise FileNotFoundError(f"no CIFAR-10 in {root}: run `python3 run.py data cifar10`")
        if (folder / ("train" if train else "test")).is_dir():
            data = labelled_folder(folder / ("train" if train else "test"), CLASSES)
            records = torch.cat([data.labels[:, None].to(torch.uint8), data.images.flatten(1)], 1).numpy()
        else:
            records = cifar10.read(folder, train)
        hashes = [hashlib.sha256(record).digest() for record in records]
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        images = torch.from_numpy(records[:, 1:][order]).view(-1, 3, 32, 32)
        expected = cifar10.BATCH * (5 if train else 1)
        name = "CIFAR-10" if len(images) == expected else f"CIFAR-10, {len(images):,} of {expected:,} images"
        super().__init__(images, torch.from_numpy(records[order, 0].astype(np.int64)), CLASSES, name)


class DrawnDataset(LabelledImages):
    """Ten balanced classes of 32x32 images drawn in seconds by drawn.py, the same everywhere, where CIFAR-10 is absent.

    Training and test images have different photographs behind them. `size`: a multiple of ten; 4,000 or 1,000 if None.
    """

    def __init__(self, train: bool = True, size: int | None = None):
        size = (4_000 if train else 1_000) if size is None else size
        if size < 1 or size % 10:
            raise ValueError(f"size must be a positive multiple of 10 (ten balanced classes), found {size}")
        classes = [f"{texture} {shape}" for shape in drawn.SHAPES for texture in drawn.TEXTURES]
        super().__init__(*drawn.draw_set(train, size), classes, "drawn shapes (not CIFAR-10)")


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


def center_crops(test_set: SRTestSet, size: int) -> tuple[Tensor, Tensor]:
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

PHOTOGRAPH_SETS = ("DIV2K", "photographs", "CID22")  # to learn from; each has a folder train, the last two also valid
DIV2K_VALID = 10  # the last images of DIV2K/train choose the epoch; DIV2K/valid is a test set


def find_classification(root: str | Path = DATA_ROOT, train: bool = True, dataset: str | None = None) -> LabelledImages:
    """CIFAR-10 where `root` holds it (broken, it raises), else the drawn ten-class set; `.name` says which.

    dataset: a folder in `root` with classes of one's own, as train/CLASS/ and test/CLASS/, or "CIFAR10" and nothing
    else. Labels count by the training images' classes.
    """
    root = data_root(root)
    if dataset is None and not is_there("CIFAR10", root):
        return DrawnDataset(train)
    if dataset in (None, "CIFAR10", "CIFAR-10"):
        return CIFAR10Dataset(root, train)
    folder = root / Path(dataset).expanduser()
    if not (folder / "train").is_dir() or not (folder / "test").is_dir():
        raise FileNotFoundError(f"no data set {dataset}: looked for {folder}/train/CLASS/ and {folder}/test/CLASS/")
    say_unread(folder, ("train", "test"))
    classes = [entry.name for entry in entries(folder / "train") if entry.is_dir()]
    data = labelled_folder(folder / "train") if train else labelled_folder(folder / "test", classes)
    data.name = folder.name
    return data


def _photographs(part: str, root: str | Path) -> dict[str, object]:
    """Photographs for "train" or "valid": of the first of PHOTOGRAPH_SETS that is there, else the embedded ones."""
    if folder := find("DIV2K/train", root):
        files = hr_files(folder)
        if len(files) <= DIV2K_VALID:
            raise ValueError(f"{folder} holds {len(files)} images: expected more, {DIV2K_VALID} of them to validate on")
        chosen = slice(-DIV2K_VALID) if part == "train" else slice(-DIV2K_VALID, None)
        name = f"DIV2K/train, {'without' if part == 'train' else 'only'} its last {DIV2K_VALID} images"
        return {"images": files[chosen], "names": names_of(files)[chosen], "name": name}
    folders = (find(f"{name}/{part}", root) for name in PHOTOGRAPH_SETS[1:])
    folder = next((folder for folder in folders if folder), None)
    return {"root": folder} if folder else embedded(part)


def find_sr_train(
    root: str | Path = DATA_ROOT, crop_size: int = 128, degradation: Degradation | int = FUZZ, augment: bool = True,
    max_images: int | None = None,
) -> DIV2KDataset:  # fmt: skip
    """Training crops of the first of PHOTOGRAPH_SETS that is there, else of the embedded photographs."""
    return DIV2KDataset(**_photographs("train", root), crop_size=crop_size, degradation=degradation, augment=augment,
                        max_images=max_images)  # fmt: skip


def find_sr_valid(root: str | Path = DATA_ROOT, degradation: Degradation | int = FUZZ) -> SRTestSet:
    """Validation images: the last ten of DIV2K/train, or photographs/valid, or CID22/valid, or embedded photographs."""
    return SRTestSet(degradation=degradation, **_photographs("valid", root))


SR_TEST_SETS = ("Set5", "Set14", "B100", "Urban100", "DIV2K/valid")


def find_sr_test(
    root: str | Path = DATA_ROOT, degradation: Degradation | int = FUZZ, div2k: bool = False
) -> list[SRTestSet]:
    """Those of Set5, Set14, B100, Urban100 and (`div2k`) DIV2K/valid that are there, else two embedded photographs."""
    folders = [find(name, root) for name in SR_TEST_SETS if div2k or name != "DIV2K/valid"]
    found = [SRTestSet(folder, degradation) for folder in folders if folder]
    return found or [SRTestSet(None, degradation, **embedded("test"))]
