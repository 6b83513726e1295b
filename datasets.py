"""Every data set, every degradation, and the pictures that need no download.

`python datasets.py` lists what is present under DS/ and what is missing; `python datasets.py download NAME`
fetches a set. An image is RGB uint8 (3, H, W) at rest and float32 in [0, 1] everywhere else.
"""

import argparse
import hashlib
import http.client
import io
import math
import os
import pickle
import shutil
import ssl
import stat
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

import drawn

# --- from bytes to [0, 1] and back --------------------------------------------------------------------------


def to_float(img: Tensor) -> Tensor:
    """uint8 image of any shape -> float32 in [0, 1]."""
    return img.to(torch.float32) / 255


def to_uint8(img: Tensor) -> Tensor:
    """Float image, clipped to [0, 1] -> uint8, rounded half up."""
    return (img.detach().to(torch.float32).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


# --- MATLAB's bicubic resize --------------------------------------------------------------------------------


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=256)
def _resize_blocks(
    side: int, scale: float, border: str, block: int, dtype: torch.dtype, device: torch.device
) -> list[tuple[int, int, Tensor]]:
    """The (out, in) weight matrix of one side, cut into blocks of rows, each kept where it is not zero.

    Returns (first input, end of input, weights (block rows, end - first)) per block. The matrix is a band, so
    a few small products replace one large one; a single block is the plain dense matrix.
    """
    num_out = math.ceil(scale * side)
    shrink = min(scale, 1.0)  # when shrinking the kernel is widened: that is the anti-aliasing
    num_taps = math.ceil(4 / shrink) + 2
    centre = (np.arange(num_out) + 0.5) / scale - 0.5
    taps = np.floor(centre - 2 / shrink).astype(np.int64)[:, None] + np.arange(num_taps)
    weights = shrink * _cubic(shrink * (centre[:, None] - taps))
    weights /= weights.sum(1, keepdims=True)
    if border == "symmetric":
        taps %= 2 * side
        taps = np.minimum(taps, 2 * side - 1 - taps)
    else:
        taps = taps.clip(0, side - 1)
    blocks = []
    with torch.inference_mode(False):  # what is cached here must also serve a later backward pass
        for row in range(0, num_out, block):
            cols = taps[row : row + block]
            first, end = int(cols.min()), int(cols.max()) + 1
            matrix = np.zeros((len(cols), end - first))
            np.add.at(matrix, (np.arange(len(cols))[:, None], cols - first), weights[row : row + block])
            blocks.append((first, end, torch.tensor(matrix, dtype=dtype, device=device)))
    return blocks


def imresize(img: Tensor, scale_factor: float, border: str = "symmetric", block: int = 32) -> Tensor:
    """MATLAB's `imresize(img, scale, "bicubic")`: (..., H, W) -> (..., ceil(sH), ceil(sW)), same dtype.

    uint8 gives MATLAB's bytes: height first, rounded half up and clipped, then width, rounded and clipped.
    A floating image is neither rounded nor clipped, and gradients pass. `border`: "symmetric" mirrors the
    image with its edge repeated (current MATLAB), "replicate" repeats the edge pixel (older MATLAB: the Set5
    and Set14 files in circulation). `block` is for speed only. Raises ValueError or TypeError on wrong input.
    """
    if border not in ("symmetric", "replicate"):
        raise ValueError(f'border must be "symmetric" or "replicate", found {border!r}')
    if not (scale_factor > 0 and math.isfinite(scale_factor)):
        raise ValueError(f"scale_factor must be a positive number, found {scale_factor}")
    is_uint8 = img.dtype == torch.uint8
    if not (is_uint8 or img.is_floating_point()):
        raise TypeError(f"imresize takes uint8 or floating images, found {img.dtype}: use to_float first")
    if img.dim() < 2 or 0 in img.shape:
        raise ValueError(f"imresize takes a non-empty image (..., H, W), found shape {tuple(img.shape)}")
    if is_uint8:
        # The weights of these scales are short binary fractions, so float32 sums of bytes are exact (and TF32
        # products too); at any other scale float64 keeps the rounding where MATLAB has it.
        dtype = torch.float32 if scale_factor in (0.25, 0.5, 1, 2, 4) else torch.float64
    else:
        dtype = img.dtype if img.dtype == torch.float64 else torch.float32
    *lead, height, width = img.shape
    block = 2**30 if max(height, width) <= 64 else block  # small images: one dense product a side
    scale = float(scale_factor)
    rows, cols = (_resize_blocks(s, scale, border, block, dtype, img.device) for s in (height, width))

    def settle(x: Tensor) -> Tensor:
        return x.add_(0.5).clamp_(0, 255).floor_() if is_uint8 else x

    def join(parts: list[Tensor], dim: int) -> Tensor:
        return torch.cat(parts, dim) if len(parts) > 1 else parts[0]

    flat = img.reshape(-1, height, width)
    # On the CPU pieces that stay in the cache are worth a factor of two.
    piece = max(1, 2**18 // (height * width)) if img.device.type == "cpu" else len(flat)
    done = []
    with torch.autocast(img.device.type, enabled=False):  # half precision would move the rounding
        for part in flat.split(piece):
            tall = join([settle(w @ part[:, i:j].to(dtype)) for i, j, w in rows], -2)
            done.append(join([settle(tall[:, :, i:j] @ w.T).to(img.dtype) for i, j, w in cols], -1))
    out = join(done, 0)
    return out.reshape(*lead, *out.shape[-2:])


# --- degradations: small modules on batches -----------------------------------------------------------------


def _check_images(img: Tensor, who: str) -> None:
    if img.dim() not in (3, 4) or img.shape[-3] != 3:
        raise ValueError(f"{who} takes RGB images (3, H, W) or (N, 3, H, W), found shape {tuple(img.shape)}")
    if img.dtype != torch.uint8 and not img.is_floating_point():
        raise TypeError(f"{who} takes uint8 images or floats in [0, 1], found {img.dtype}")


def _like(img: Tensor, float_img: Tensor) -> Tensor:
    """A degraded float image in the dtype of the image that came in, clamped to its range."""
    return to_uint8(float_img) if img.dtype == torch.uint8 else float_img.clamp(0, 1).to(img.dtype)


def _whole(scale_factor: int) -> int:
    if int(scale_factor) != scale_factor or scale_factor < 1:
        raise ValueError(f"scale_factor must be a whole number of at least 1, found {scale_factor}")
    return int(scale_factor)


class Fuzz(nn.Module):
    """Bicubic shrinking by `scale_factor`, nothing else: the network enlarges (seed 000's "fuzz").

    (3, H, W) or (N, 3, H, W) -> sides divided by the scale. uint8 -> uint8, byte for byte MATLAB's imresize;
    floats in [0, 1] -> floats clamped to [0, 1]. Differs from seed 000, which resizes with PIL and torch, at
    the border and in the last bit. Raises ValueError where a side is no multiple of the scale.
    """

    def __init__(self, scale_factor: int = 2):
        super().__init__()
        self.scale_factor = _whole(scale_factor)

    def forward(self, img: Tensor) -> Tensor:
        _check_images(img, "Fuzz")
        height, width = img.shape[-2:]
        if height % self.scale_factor or width % self.scale_factor:
            raise ValueError(
                f"Fuzz shrinks by {self.scale_factor}, but the image is {height}x{width}: "
                f"crop its sides to multiples of {self.scale_factor} first"
            )
        lr_img = imresize(img, 1 / self.scale_factor)
        return lr_img if img.dtype == torch.uint8 else lr_img.clamp(0, 1)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"


class GaussianNoise(nn.Module):
    """White Gaussian noise of standard deviation `sigma`, in units of [0, 1] (0.1 is 25.5 grey levels).

    Images in, images of the same shape and dtype out, clamped to the range. The noise is drawn on the CPU, so
    that the same generator gives the same noise on every device.
    """

    def __init__(self, sigma: float = 0.1):
        super().__init__()
        if not 0 <= sigma < math.inf:
            raise ValueError(f"sigma must be at least 0, found {sigma}")
        self.sigma = sigma

    def forward(self, img: Tensor, generator: torch.Generator | None = None) -> Tensor:
        _check_images(img, "GaussianNoise")
        noise = torch.randn(img.shape, generator=generator).to(img.device)
        clean = to_float(img) if img.dtype == torch.uint8 else img
        return _like(img, clean + self.sigma * noise)


class Occlusion(nn.Module):
    """A square hole of `size` pixels a side at a uniformly random place of each image, filled with black.

    Black (0), as in the restoration figures that this repository quotes, unless `fill` (in [0, 1]) says
    otherwise. Images in, images of the same shape and dtype out; places are drawn on the CPU.
    """

    def __init__(self, size: int = 8, fill: float = 0.0):
        super().__init__()
        if size < 1 or not 0 <= fill <= 1:
            raise ValueError(
                f"Occlusion takes size >= 1 and fill in [0, 1], found size {size} and fill {fill}"
            )
        self.size, self.fill = size, fill

    def forward(self, img: Tensor, generator: torch.Generator | None = None) -> Tensor:
        _check_images(img, "Occlusion")
        if self.size > min(img.shape[-2:]):
            raise ValueError(
                f"a hole of {self.size} pixels does not fit into {img.shape[-2]}x{img.shape[-1]}"
            )
        batch = img if img.dim() == 4 else img[None]
        hole = _squares(batch, self.size, generator)
        fill = round(self.fill * 255) if img.dtype == torch.uint8 else self.fill
        return batch.masked_fill(hole, fill).reshape(img.shape)


def _squares(batch: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """True in one random square of `size` per image: (N, C, H, W) -> bool (N, 1, H, W) on the same device."""
    num, _, height, width = batch.shape
    top, left = _draw(torch.tensor([[height - size + 1], [width - size + 1]]).expand(2, num), generator)
    row, col = (torch.arange(side) - start[:, None] for side, start in ((height, top), (width, left)))
    row, col = ((x >= 0) & (x < size) for x in (row, col))
    return (row[:, None, :, None] & col[:, None, None, :]).to(batch.device)


def _draw(count: Tensor, generator: torch.Generator | None) -> Tensor:
    """One whole number in [0, count) for each entry of `count`, drawn on the CPU."""
    draw = torch.rand(count.shape, generator=generator, dtype=torch.float64) * count
    return torch.minimum(draw.long(), count - 1)


def grey(img: Tensor) -> Tensor:
    """RGB -> its BT.601 luma (0.299 R + 0.587 G + 0.114 B) in all three channels, same shape and dtype."""
    _check_images(img, "grey")
    red, green, blue = (to_float(img) if img.dtype == torch.uint8 else img).split(1, -3)
    return _like(img, 0.299 * red + 0.587 * green + 0.114 * blue).expand(img.shape).contiguous()


def blur(img: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian blur of standard deviation `sigma` pixels: (N, 3, H, W) -> same shape and dtype. By torchvision."""
    from torchvision.transforms.v2.functional import gaussian_blur

    _check_images(img, "blur")
    return gaussian_blur(img, 2 * math.ceil(3 * sigma) + 1, sigma)


def jpeg(img: Tensor, quality: int = 50) -> Tensor:
    """Through JPEG and back, by Pillow: uint8 (N, 3, H, W) -> same shape. Quality 1 to 95."""
    _check_images(img, "jpeg")
    if img.dtype != torch.uint8 or img.dim() != 4:
        raise ValueError(f"jpeg expects uint8 (N, 3, H, W), found {tuple(img.shape)} of {img.dtype}")

    def through(pixels: np.ndarray) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            return torch.from_numpy(np.array(decoded))

    return torch.stack([through(pixels) for pixels in img.permute(0, 2, 3, 1).cpu().numpy()]).permute(0, 3, 1, 2)


def degradations(side: int = 16) -> dict[str, Callable[[Tensor], Tensor]]:
    """Nine ways for a picture to become small, by name: uint8 (N, 3, 2s, 2s) -> uint8 (N, 3, s, s), s = `side`.

    The first is what the study trains on. Two shrink further and enlarge again to `side` by bicubic interpolation;
    three shrink with another kernel; three damage the picture besides. Noise is the same at every call.
    """
    half = Fuzz(scale_factor=2)

    def resized(img: Tensor, mode: str) -> Tensor:
        return to_uint8(F.interpolate(to_float(img), size=(side, side), mode=mode))

    return {
        "bicubic ×2": half,
        "bicubic ×3": lambda img: imresize(imresize(img, 1 / 3), 3 / 2)[..., :side, :side],
        "bicubic ×4": lambda img: imresize(imresize(img, 1 / 4), 2),
        "area ×2": lambda img: resized(img, "area"),
        "nearest ×2": lambda img: img[..., ::2, ::2].contiguous(),
        "bicubic ×2, no antialias": lambda img: resized(img, "bicubic"),
        "blur σ 1, ×2": lambda img: half(blur(img, 1.0)),
        "×2, noise σ 0.05": lambda img: GaussianNoise(0.05)(half(img), torch.Generator().manual_seed(0)),
        "×2, JPEG 50": lambda img: jpeg(half(img), 50),
    }


# --- image files --------------------------------------------------------------------------------------------

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
_SUFFIXES_TEXT = " ".join(IMAGE_SUFFIXES)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with Image.open(path) as img:
            yield img
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # Pillow's decoders raise all sorts of errors on a broken file
        raise ValueError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}): replace or remove it"
        ) from error


def read_image(path: str | Path) -> Tensor:
    """Any image file -> uint8 (3, H, W), RGB, upright.

    The EXIF orientation is applied; transparency is composited over white; 16-bit grey scaled by 255/65535;
    of an animation the first frame counts. Raises FileNotFoundError, or ValueError naming the file where it
    is no image, cut off, or a decompression bomb (more than 179 million pixels).
    """
    with _opened(Path(path)) as source:
        img = ImageOps.exif_transpose(source)
        if img.mode == "F":
            raise ValueError("32-bit float pixels have no stated range")
        if img.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            values = np.asarray(img).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError("integer pixels outside 0..65535")
            img = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if img.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in img.info:
            img = img.convert("RGBA")
            img = Image.alpha_composite(Image.new("RGBA", img.size, "white"), img)
        pixels = np.array(img.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _image_size(source: Path | Tensor) -> tuple[int, int]:
    """(height, width) of the upright image; of a file from its header alone."""
    if isinstance(source, Tensor):
        return source.shape[-2], source.shape[-1]
    with _opened(source) as img:
        turned = img.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (img.width, img.height) if turned else (img.height, img.width)


def _pixels(source: Path | Tensor) -> Tensor:
    return source if isinstance(source, Tensor) else read_image(source)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden files and macOS "._" copies are passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; put image files there ({_SUFFIXES_TEXT})")
    files = (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    files = sorted(f for f in files if f.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} holds no image: put image files there ({_SUFFIXES_TEXT})")
    return files


def _fingerprint(tensors: Iterator[Tensor] | Sequence[Tensor]) -> str:
    """sha256 of the shapes and bytes, first 16 hex characters: says which data a run has seen."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def _folder_name(folder: Path) -> str:
    folder = Path(os.path.abspath(folder))  # not resolved: a link to a set is called as the set is here
    return f"{folder.parent.name}/{folder.name}" if folder.name in ("train", "valid", "test") else folder.name


# --- super-resolution: training crops and test images -------------------------------------------------------


def _sources(
    root: str | Path | None,
    images: Sequence[Tensor] | None,
    names: Sequence[str] | None,
    name: str | None,
) -> tuple[list[Path] | list[Tensor], list[str], str]:
    """The images of a folder (root/HR where there is one) or in memory; their names, and the set's."""
    if (root is None) == (images is None):
        raise ValueError("give either root (a folder of images) or images (uint8 tensors)")
    if images is None:
        root = Path(root)
        files = list_images(root / "HR" if (root / "HR").is_dir() else root)
        return files, [f.stem for f in files], name or _folder_name(root)
    names = [str(i) for i in range(len(images))] if names is None else list(names)
    if not len(images) == len(names) > 0:
        raise ValueError(f"found {len(images)} images and {len(names)} names: expected as many, and some")
    for image_name, img in zip(names, images, strict=True):
        if img.dim() != 3 or len(img) != 3 or img.dtype != torch.uint8:
            raise ValueError(
                f"image {image_name} is {img.dtype} {tuple(img.shape)}: expected uint8 (3, H, W)"
            )
    return list(images), names, name or "images in memory"


class DIV2KDataset(torch.utils.data.Dataset):
    """Random (lr_img, hr_img) crops of a folder of photographs (DIV2K, Agustsson and Timofte 2017, or any).

    All images are decoded at once (a thread pool) into one flat uint8 buffer, so a batch of crops is a single
    gather on the device. An image is chosen with probability proportional to its area, so every place is
    equally likely; the place is uniform on the LR pixel grid; with `augment` one of the 8 flips and rotations
    follows. LR pixels equal, byte for byte, the same place cut from the whole image shrunken by `imresize`.

    Give `root` (a folder) or `images` (uint8 (3, H, W) tensors, with `names`). `to(device)` moves the pixels.
    `max_images` takes the first ones by name only, where all would be too many for the memory.
    Raises ValueError on an image smaller than the crop, or when the pixels exceed `max_gigabytes`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        crop_size: int = 128,
        scale_factor: int = 2,
        augment: bool = True,
        *,
        images: Sequence[Tensor] | None = None,
        names: Sequence[str] | None = None,
        name: str | None = None,
        max_images: int | None = None,
        max_gigabytes: float = 12,
    ):
        self.crop_size, self.scale_factor, self.augment = int(crop_size), _whole(scale_factor), augment
        if crop_size < 1 or crop_size % scale_factor:
            raise ValueError(f"crop_size {crop_size} is no multiple of scale_factor {scale_factor}")
        sources, self.names, self.name = _sources(root, images, names, name)
        if max_images is not None and max_images < len(sources):
            sources, self.names = sources[:max_images], self.names[:max_images]
            self.name = f"{self.name}, first {max_images} images"
        with ThreadPoolExecutor() as pool:
            sizes = list(pool.map(_image_size, sources))
        for image_name, (height, width) in zip(self.names, sizes, strict=True):
            if min(height, width) // self.scale_factor * self.scale_factor < crop_size:
                raise ValueError(
                    f"{root or self.name}: image {image_name} is {height}x{width}, smaller than a crop of "
                    f"{crop_size}: remove it or choose a smaller crop_size"
                )
        self.heights, self.widths = torch.tensor(sizes).unbind(1)
        ends = (3 * self.heights * self.widths).cumsum(0)
        self.offsets = ends - 3 * self.heights * self.widths
        gigabytes = ends[-1].item() / 1e9
        if gigabytes > max_gigabytes:
            raise ValueError(
                f"{self.name}: {len(sizes)} images decode to {gigabytes:.1f} GB, more than max_gigabytes="
                f"{max_gigabytes}: raise the limit if the memory is there, or use a folder with fewer images"
            )
        self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8)

        def store(i: int) -> None:
            self.pixels[int(self.offsets[i]) : int(ends[i])] = _pixels(sources[i]).reshape(-1)

        with ThreadPoolExecutor() as pool:
            list(pool.map(store, range(len(sizes))))

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Tensor:
        """The whole image number `index`, uint8 (3, H, W)."""
        height, width = int(self.heights[index]), int(self.widths[index])
        return self.pixels[int(self.offsets[index]) :][: 3 * height * width].view(3, height, width)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A random crop pair of one image: floats (3, c/s, c/s) and (3, c, c), from torch's global RNG."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        lr_img, hr_img = self._crop(torch.tensor([index % len(self)]), None)
        return to_float(lr_img[0]), to_float(hr_img[0])

    def batch(self, batch_size: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random crop pairs, uint8 (N, 3, c/s, c/s) and (N, 3, c, c), on the pixels' device.

        `generator` is a CPU generator (None: torch's global one); the same state gives the same batch on
        every device.
        """
        area = (self.heights * self.widths).double()
        index = torch.multinomial(area, batch_size, replacement=True, generator=generator)
        return self._crop(index, generator)

    def batches(self, batch_size: int, num_steps: int) -> Callable[[torch.Generator], Iterator[dict[str, Tensor]]]:
        """What `training.fit` draws an epoch from: generator -> `num_steps` dicts of lr_img and hr_img, in [0, 1]."""

        def epoch(generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
            for _ in range(num_steps):
                lr_img, hr_img = self.batch(batch_size, generator)
                yield {"lr_img": to_float(lr_img), "hr_img": to_float(hr_img)}

        return epoch

    def _crop(self, index: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        crop, scale, device = self.crop_size, self.scale_factor, self.pixels.device
        # The widened cubic reaches 2 LR pixels to either side: crop that much more, shrink, cut it off again.
        margin = 2 * scale
        size = torch.stack([self.heights[index], self.widths[index]]) // scale * scale
        corner = (_draw((size - crop) // scale + 1, generator) * scale).to(device)
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

    `root` is a plain folder of images, or holds HR/ and, if there, LR_bicubic/X{s} with img_001x{s}.png for
    HR/img_001.png; without LR files the LR image is made by `imresize`. HR is cropped at the bottom and right
    to a multiple of the scale. `images` (uint8 tensors, with `names`) stand in for a folder. Images are read
    when asked for. FileNotFoundError on an HR image without partner, ValueError on an LR of another size.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        scale_factor: int = 2,
        *,
        images: Sequence[Tensor] | None = None,
        names: Sequence[str] | None = None,
        name: str | None = None,
    ):
        self.scale_factor, self.lr = _whole(scale_factor), None
        self.hr, self.names, self.name = _sources(root, images, names, name)
        lr_folder = Path(root or "") / "LR_bicubic" / f"X{self.scale_factor}"
        if root is not None and lr_folder.is_dir():
            partners = {f.stem: f for f in list_images(lr_folder)}
            wanted = [f"{stem}x{self.scale_factor}" for stem in self.names]
            if missing := [stem for stem in wanted if stem not in partners]:
                raise FileNotFoundError(
                    f"{lr_folder} lacks {', '.join(missing[:3])}: add the files, or remove the folder, "
                    "and LR is made from HR"
                )
            self.lr = [partners[stem] for stem in wanted]

    def __len__(self) -> int:
        return len(self.names)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """(lr_img, hr_img) of image `index` as uint8."""
        hr_img = _pixels(self.hr[index])
        height, width = (side // self.scale_factor for side in hr_img.shape[-2:])
        if not (height and width):
            raise ValueError(f"{self.name}: image {self.names[index]} is smaller than one LR pixel")
        hr_img = hr_img[:, : height * self.scale_factor, : width * self.scale_factor]
        if self.lr is None:
            return imresize(hr_img, 1 / self.scale_factor), hr_img
        lr_img = read_image(self.lr[index])
        if lr_img.shape[-2:] != (height, width):
            raise ValueError(
                f"{self.lr[index]} is {lr_img.shape[-2]}x{lr_img.shape[-1]}, but {self.hr[index].name} at "
                f"scale {self.scale_factor} makes {height}x{width}: the two do not belong together"
            )
        return lr_img, hr_img

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        lr_img, hr_img = self.pair(index)
        return to_float(lr_img), to_float(hr_img), self.names[index]

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint(img for i in range(len(self)) for img in self.pair(i))


# --- photographs inside the scikit-image wheel: no download -------------------------------------------------

PHOTOGRAPHS_NAME = "photographs inside scikit-image"
PHOTOGRAPHS = {  # split by image
    "train": (
        *("astronaut.png", "hubble_deep_field.jpg", "retina.jpg", "motorcycle_left.png"),
        *("moon.png", "brick.png", "grass.png", "gravel.png"),
    ),
    "valid": ("rocket.jpg", "camera.png"),
    "test": ("chelsea.png", "coffee.png"),
}


def embedded_photographs(part: str) -> tuple[list[Tensor], list[str]]:
    """(uint8 images (3, H, W), names) of "train", "valid" or "test", from scikit-image's own files.

    The files are read where the wheel put them. `skimage.data.astronaut()` and the like are not called, since
    they may turn to the network.
    """
    if part not in PHOTOGRAPHS:
        raise ValueError(f"part must be one of {', '.join(PHOTOGRAPHS)}, found {part!r}")
    return [_photograph(file) for file in PHOTOGRAPHS[part]], [Path(file).stem for file in PHOTOGRAPHS[part]]


def _photograph(file: str) -> Tensor:
    with resources.as_file(resources.files("skimage.data") / file) as path:
        if not path.is_file():
            raise FileNotFoundError(f"scikit-image came without {file}: install it with `pip install scikit-image`")
        return read_image(path)


# --- CIFAR-10 -----------------------------------------------------------------------------------------------

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_BATCH = 10_000  # images a file
_CIFAR10_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_CIFAR10_HELP = "delete it and run `python datasets.py download cifar10`"
STUDY_ORDER = Path(__file__).parent / "results" / "cifar10_order.npz"


class LabelledImages(torch.utils.data.Dataset):
    """What the ten-class sets share: `images` uint8 (N, 3, 32, 32) and `labels` int64 (N,), both in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.images[index]), int(self.labels[index])

    @cached_property
    def fingerprint(self) -> str:
        return _fingerprint([self.images, self.labels])


class CIFAR10Dataset(LabelledImages):
    """CIFAR-10 in memory (Krizhevsky 2009): `images` uint8 (N, 3, 32, 32), `labels` int64 (N,) in 0..9.

    50,000 training or 10,000 test images, from cifar-10-batches-bin or cifar-10-batches-py in `root`, in
    `root`/CIFAR10, or `root` itself; in the order of the studies in results/ (`study_order`). Item -> (float image, int
    label). Raises FileNotFoundError where it is missing or half-extracted, ValueError where a file is cut off, out of
    range, or would run code.
    """

    name, is_cifar10, classes = "CIFAR-10", True, CLASSES

    def __init__(self, root: str | Path = "DS", train: bool = True):
        folder = _cifar10_folder(Path(root))
        if folder is None:
            raise FileNotFoundError(f"no CIFAR-10 in {root}: run `python datasets.py download cifar10`")
        suffix = ".bin" if any(folder.glob("*.bin")) else ""
        names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        files = [folder / f"{file}{suffix}" for file in names]
        if missing := [f.name for f in files if not f.is_file()]:
            raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, half-extracted: {_CIFAR10_HELP}")
        images = np.empty((len(files), CIFAR10_BATCH, 3072), dtype=np.uint8)
        labels = np.empty((len(files), CIFAR10_BATCH), dtype=np.int64)
        for i, file in enumerate(files):
            images[i], labels[i] = (_read_binary_batch if suffix else _read_python_batch)(file)
            if labels[i].min() < 0 or labels[i].max() > 9:
                raise ValueError(f"{file} has labels outside 0..9: {_CIFAR10_HELP}")
        images, labels = images.reshape(-1, 3072), labels.reshape(-1)
        order = study_order(images, labels, "train" if train else "test")
        if order is not None:
            images, labels = images[order], labels[order]
        self.images = torch.from_numpy(images).view(-1, 3, 32, 32)
        self.labels = torch.from_numpy(labels)


def study_order(images: np.ndarray, labels: np.ndarray, part: str, path: Path = STUDY_ORDER) -> np.ndarray | None:
    """Which record stands where in the order in which results/ saw CIFAR-10; None for any other records.

    images uint8 (N, 3072) and labels (N,), in any order. The validation split, "the first 500 test pictures" and the
    answers that results/ keeps count on this order, and not every copy of CIFAR-10 comes in the same one. `path` holds
    the place of each of its records in their sorted hashes, and a digest of these, for both parts.
    """
    if not path.exists():
        return None
    records = zip(images, labels, strict=True)
    hashes = [hashlib.sha256(bytes([label]) + image.tobytes()).digest() for image, label in records]
    by_hash = sorted(range(len(hashes)), key=hashes.__getitem__)
    digest = hashlib.sha256(b"".join(hashes[i] for i in by_hash)).digest()
    with np.load(path) as known:  # arrays alone: numpy refuses what would run code
        if known[f"{part}_digest"].tobytes() != digest:
            return None
        return np.asarray(by_hash)[known[part]]


def _cifar10_folder(root: Path) -> Path | None:
    """Where the batches lie, or None where there is no CIFAR-10."""
    for folder in (base / sub for base in (root, root / "CIFAR10") for sub in _CIFAR10_FOLDERS):
        if folder.is_dir():
            return folder
    for folder in (root, root / "CIFAR10"):
        if any(folder.glob("data_batch_*")) or any(folder.glob("test_batch*")):
            return folder
    if found := sorted(f.name for f in (root / "CIFAR10").glob("[!.]*")):
        raise FileNotFoundError(f"{root}/CIFAR10 holds {found[0]}, but no CIFAR-10 batches: {_CIFAR10_HELP}")
    return None


def _read_binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    expected = CIFAR10_BATCH * 3073
    if path.stat().st_size != expected:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes instead of {expected:,}: {_CIFAR10_HELP}")
    records = np.fromfile(path, dtype=np.uint8).reshape(CIFAR10_BATCH, 3073)  # a label byte, then R, G, B
    return records[:, 1:], records[:, 0]


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


def _read_python_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open(path, "rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        data, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except KeyError as error:
        raise ValueError(f"{path} has no entry {error}: it is no CIFAR-10 batch; {_CIFAR10_HELP}") from error
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # a broken pickle raises all sorts of errors
        raise ValueError(f"{path} was not read ({error}): {_CIFAR10_HELP}") from error
    if data.dtype != np.uint8 or data.shape != (CIFAR10_BATCH, 3072) or labels.shape != (CIFAR10_BATCH,):
        raise ValueError(
            f"{path} holds {data.dtype} {data.shape} and {labels.shape} labels instead of uint8 "
            f"{(CIFAR10_BATCH, 3072)} and {(CIFAR10_BATCH,)}: {_CIFAR10_HELP}"
        )
    return data, labels


# --- the embedded ten-class set ------------------------------------------------------------------------------

# The test pictures stand before photographs that neither SRNet nor the classifier learns from.
DRAWN_BACKGROUNDS = {"train": ("astronaut.png", "motorcycle_left.png"), "test": ("chelsea.png", "coffee.png")}


class DrawnDataset(LabelledImages):
    """Ten balanced classes of 32x32 pictures drawn by this program (drawn.py), where CIFAR-10 is absent.

    The attributes of CIFAR10Dataset. Made in seconds from `seed`, the same on every machine; training and test
    pictures stand before different photographs. `size`: 4,000 for training and 1,000 for testing unless given; a
    positive multiple of ten, else ValueError.
    """

    name = "drawn shapes (not CIFAR-10)"
    is_cifar10 = False
    classes = tuple(f"{texture} {shape}" for shape in drawn.SHAPES for texture in drawn.TEXTURES)

    def __init__(self, train: bool = True, size: int | None = None, seed: int = 0):
        size = (4_000 if train else 1_000) if size is None else size
        if size < 1 or size % 10:
            raise ValueError(f"size must be a positive multiple of 10 (ten balanced classes), found {size}")
        files = DRAWN_BACKGROUNDS["train" if train else "test"]
        photos = [_photograph(file).permute(1, 2, 0).numpy() for file in files]
        rng = np.random.default_rng([seed, int(train)])
        labels = rng.permutation(np.arange(size) % 10)
        self.images = torch.from_numpy(drawn.draw_pictures(labels, photos, rng)).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels.astype(np.int64))


# --- batches of labelled images -----------------------------------------------------------------------------


def sample(
    num: int, batch_size: int, num_steps: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """Yields `num_steps` index tensors (batch_size,) into `num` images: one random order after another, end to end.

    An epoch may thus be any number of steps, and no image comes a second time before all have come once.
    """
    if not 0 < batch_size <= num:
        raise ValueError(f"a batch takes 1 to {num} of the {num} images; found batch_size {batch_size}")
    orders = -(-num_steps * batch_size // num)
    index = torch.cat([torch.randperm(num, generator=generator) for _ in range(orders)])
    yield from index[: num_steps * batch_size].split(batch_size)


def augment(
    images: Tensor,
    flip: bool = True,
    shift: int = 4,
    cutout: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random flip, shift and cutout of each image, a whole batch at once: uint8 (N, C, H, W) -> the same.

    Half of the images are mirrored left to right; each is moved by up to `shift` pixels either way, the
    uncovered border reflected (edge not repeated); a square of `cutout` pixels at a random place inside gets
    the image's own mean colour. Draws come from the CPU `generator`.
    """
    num, _, height, width = images.shape
    if not 0 <= shift < min(height, width) or not 0 <= cutout <= min(height, width):
        raise ValueError(f"shift {shift} or cutout {cutout} does not fit images of {height}x{width}")
    move = torch.randint(-shift, shift + 1, (2, num, 1), generator=generator)
    row, col = (_reflect(torch.arange(side) + move[i], side) for i, side in enumerate((height, width)))
    if flip:
        col = torch.where(torch.rand(num, 1, generator=generator) < 0.5, col.flip(1), col)
    place = (row[:, :, None] * width + col[:, None, :]).view(num, 1, -1).to(images.device)
    images = images.flatten(2).gather(2, place.expand(-1, images.shape[1], -1)).view(images.shape)
    if cutout:
        mean = (images.float().mean((2, 3), keepdim=True) + 0.5).to(images.dtype)
        images = torch.where(_squares(images, cutout, generator), mean, images)
    return images


def _reflect(place: Tensor, side: int) -> Tensor:
    place = place.abs()
    return torch.minimum(place, 2 * (side - 1) - place)


def split_indices(num: int, num_val: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A fixed split of range(num) into (train_idx, val_idx), both sorted; `num_val` for validation."""
    if not 0 <= num_val <= num:
        raise ValueError(f"num_val must lie in 0..{num}, found {num_val}")
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    return order[num_val:].sort().values, order[:num_val].sort().values


def centre_crops(test_set: "SRTestSet", size: int) -> tuple[Tensor, Tensor]:
    """The middle `size` x `size` HR pixels of each image and their LR pixels, stacked: (N, 3, size / s, size / s) and
    (N, 3, size, size), float. For scoring epochs; whole images are for the final test.
    """
    scale, lr_crops, hr_crops = test_set.scale_factor, [], []
    for lr_img, hr_img, name in test_set:
        top, left = ((side - size // scale) // 2 for side in lr_img.shape[-2:])
        if min(top, left) < 0:
            raise ValueError(f"{name} of {test_set.name} is smaller than {size} pixels; choose a smaller valid_size")
        lr_crops.append(lr_img[:, top : top + size // scale, left : left + size // scale])
        hr_crops.append(hr_img[:, top * scale : top * scale + size, left * scale : left * scale + size])
    return torch.stack(lr_crops), torch.stack(hr_crops)


# --- which data there is: the real set where DS/ holds it, else what is embedded ----------------------------


def is_there(name: str, root: str | Path = "DS") -> bool:
    """Whether `root` holds the real data set: "CIFAR10", or a folder such as "Set14" that is not empty."""
    if name == "CIFAR10":
        return _cifar10_folder(Path(root)) is not None
    folder = Path(root) / name
    return folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir())


def find_classification(
    root: str | Path = "DS", train: bool = True
) -> "CIFAR10Dataset | DrawnDataset":
    """CIFAR-10 where `root` holds it, else the drawn ten-class set.

    A CIFAR-10 folder that is there but broken raises. `.is_cifar10` and `.name` say which one it is.
    """
    if _cifar10_folder(Path(root)) is not None:
        return CIFAR10Dataset(root, train)
    return DrawnDataset(train)


def find_sr_train(
    root: str | Path = "DS", crop_size: int = 128, scale_factor: int = 2, augment: bool = True,
    max_images: int | None = None,
) -> DIV2KDataset:
    """Training crops: DIV2K/train, else CID22/train, else photographs inside scikit-image (see `.name`)."""
    for folder in (Path(root) / "DIV2K" / "train", Path(root) / "CID22" / "train"):
        if folder.is_dir():
            return DIV2KDataset(folder, crop_size, scale_factor, augment, max_images=max_images)
    images, names = embedded_photographs("train")
    extra = {"images": images, "names": names, "name": PHOTOGRAPHS_NAME}
    return DIV2KDataset(None, crop_size, scale_factor, augment, **extra)


def find_sr_valid(root: str | Path = "DS", scale_factor: int = 2) -> SRTestSet:
    """Validation images: DIV2K/valid, else CID22/valid, else two photographs inside scikit-image."""
    for folder in (Path(root) / "DIV2K" / "valid", Path(root) / "CID22" / "valid"):
        if folder.is_dir():
            return SRTestSet(folder, scale_factor)
    images, names = embedded_photographs("valid")
    return SRTestSet(None, scale_factor, images=images, names=names, name=PHOTOGRAPHS_NAME)


SR_TEST_SETS = {  # folder: what fetches it
    "Set5": "set5", "Set14": "set14", "B100": "b100", "Urban100": "urban100", "DIV2K/valid": "div2k",
}  # fmt: skip


def find_sr_test(root: str | Path = "DS", scale_factor: int = 2, div2k: bool = False) -> list[SRTestSet]:
    """Those of Set5, Set14, B100 and Urban100 that are there, else two photographs inside scikit-image.

    div2k: DIV2K's validation part too, the fifth set of seed 001. A run that chose its epoch there has seen it.
    """
    wanted = [name for name in SR_TEST_SETS if div2k or name != "DIV2K/valid"]
    if found := [SRTestSet(Path(root) / name, scale_factor) for name in wanted if (Path(root) / name).is_dir()]:
        return found
    images, names = embedded_photographs("test")
    return [SRTestSet(None, scale_factor, images=images, names=names, name=PHOTOGRAPHS_NAME)]


def absent_sr_test(root: str | Path = "DS") -> dict[str, str]:
    """The five test sets of seed 001 that are not there: {name: how to get it}."""
    return {name: f"python datasets.py download {command}" for name, command in SR_TEST_SETS.items()
            if not (Path(root) / name).is_dir()}  # fmt: skip


def find_vgg(network: str = "vgg19", root: str | Path = "DS") -> Path | None:
    """The file of VGG16's or VGG19's ImageNet weights, in `root` or where torchvision keeps them; None if nowhere."""
    name = ARCHIVES[network][0].target
    places = (Path(root) / name, Path(torch.hub.get_dir()) / "checkpoints" / name)
    return next((place for place in places if place.is_file()), None)


# --- download -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """One file to fetch: what it weighs, where it is, and which of its folders becomes which under DS/."""

    size: str
    url: str
    inner: str  # folder inside the archive; empty where the file is wanted as it is
    target: str  # where that folder or file goes, below the root
    checksum: str = ""  # "md5:..." or "sha256:...", or how it begins; empty where none is published


_CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_{}_HR.zip"
_HUB = "https://huggingface.co/datasets/eugenesiow/{0}/resolve/main/data/{0}_HR.tar.gz"
_VGG = "https://download.pytorch.org/models/{}"  # their names end in their checksums' beginnings
_CIFAR10_MD5, _TRAIN_MD5, _VALID_MD5 = (
    "md5:c32a1d4ab5d03f1284b67883e8d87530",  # on its makers' page
    "md5:bdc2d9338d4e574fe81bf7d158758658",  # in several public loaders; its makers state none
    "md5:9fcdda83005c5e5997799b69f955ff88",
)
ARCHIVES = {
    "cifar10": [
        Archive("162 MB", _CIFAR10, "cifar-10-batches-bin", "CIFAR10/cifar-10-batches-bin", _CIFAR10_MD5)
    ],
    "set5": [Archive("0.9 MB", _HUB.format("Set5"), "Set5_HR", "Set5/HR")],
    "set14": [Archive("5 MB", _HUB.format("Set14"), "Set14_HR", "Set14/HR")],
    "b100": [Archive("not stated", _HUB.format("BSD100"), "BSD100_HR", "B100/HR")],
    "urban100": [Archive("135 MB", _HUB.format("Urban100"), "Urban100_HR", "Urban100/HR")],
    "div2k": [
        Archive("3.5 GB", _DIV2K.format("train"), "DIV2K_train_HR", "DIV2K/train", _TRAIN_MD5),
        Archive("0.4 GB", _DIV2K.format("valid"), "DIV2K_valid_HR", "DIV2K/valid", _VALID_MD5),
    ],
    **{
        file.split("-")[0]: [Archive(size, _VGG.format(file), "", file, f"sha256:{file[6:14]}")]
        for file, size in (("vgg16-397923af.pth", "528 MB"), ("vgg19-dcbb9e9d.pth", "548 MB"))
    },
}


def download(name: str, root: str | Path = "DS", timeout: float = 10) -> None:
    """Fetches and unpacks a set of ARCHIVES below `root`; what is there already is left alone.

    Raises ConnectionError without a network, ValueError on a wrong checksum or an unsafe archive, OSError
    where `root` cannot be written. A cut download is kept as NAME.part, and the next call goes on from there.
    """
    if name not in ARCHIVES:
        raise ValueError(f"no data set {name!r} to download: choose one of {', '.join(ARCHIVES)}")
    root = Path(root)
    for archive in ARCHIVES[name]:
        target = root / archive.target
        if target.exists():
            print(f"{target} is already there; delete it to fetch it again.")
            continue
        root.mkdir(parents=True, exist_ok=True)
        part = root / (archive.url.rsplit("/", 1)[-1] + ".part")
        try:
            fetch(archive.url, part, timeout)
        except ConnectionError as error:
            unpack = f"unpack its folder {archive.inner} as" if archive.inner else "put it at"
            by_hand = f"or fetch the file by hand and {unpack} {target}"
            raise ConnectionError(f"{error}; run the command again, {by_hand}") from error
        _verify(part, archive)
        if not archive.inner:
            part.replace(target)
            print(f"{target} is ready.")
            continue
        try:
            extract(part, archive.inner, target)
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            part.unlink()
            raise ValueError(f"{archive.url} was not unpacked ({error}), and deleted again") from error
        part.unlink()
        print(f"{target} is ready.")


_NETWORK_ERRORS = (
    *(urllib.error.URLError, http.client.HTTPException, ssl.SSLError),
    *(TimeoutError, ConnectionError),
)


def fetch(url: str, part: Path, timeout: float = 10) -> None:
    """Fetches `url` into the file `part`, going on behind the bytes that are there where the server can."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (datasets.py)"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    total = None
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if resumed else 0
            if length := response.headers.get("Content-Length"):
                total = have + int(length)
            bar = tqdm(
                **{"desc": part.stem, "initial": have, "total": total, "unit": "B", "unit_scale": True},
                **{"file": sys.stdout, "mininterval": 0.5},
            )
            with open(part, "ab" if resumed else "wb") as file, bar:
                while block := response.read(1 << 18):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies behind the bytes that are here
            raise ConnectionError(f"{url} was not fetched (the server answers {error.code})") from error
    except _NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"{url} was not fetched ({reason})") from error
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"{url} broke off at {part.stat().st_size:,} of {total:,} bytes, kept")


def _verify(part: Path, archive: Archive) -> None:
    kind, _, expected = (archive.checksum or "sha256:").partition(":")
    digest = hashlib.new(kind)
    with open(part, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if not expected:
        print(f"{part.stem}: no checksum is published; the sha256 of what came is {found}")
    elif not found.startswith(expected):
        part.unlink()
        raise ValueError(
            f"{archive.url} came with {kind} {found} instead of {expected}: it was deleted, fetch it again"
        )


def extract(archive: Path, inner: str, target: Path, max_bytes: float = 20e9) -> None:
    """Unpacks the folder `inner` of a tar or zip archive as `target`, which appears whole or not at all.

    ValueError where a member is absolute, climbs out, is a link or a device, or all weigh over `max_bytes`.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=archive.parent))
    members: list[tuple[str, int, bool]] = []  # name, bytes, is a plain file or folder
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                plain = (0, stat.S_IFREG, stat.S_IFDIR)
                for m in file.infolist():
                    members.append((m.filename, m.file_size, stat.S_IFMT(m.external_attr >> 16) in plain))
                _check_members(members, max_bytes)
                file.extractall(temporary)
        else:
            with tarfile.open(archive) as file:
                members += [(m.name, m.size, m.isreg() or m.isdir()) for m in file.getmembers()]
                _check_members(members, max_bytes)
                file.extractall(temporary, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        if not (temporary / inner).is_dir():
            raise ValueError(f"it holds no folder {inner}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / inner).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_members(members: list[tuple[str, int, bool]], max_bytes: float) -> None:
    for name, _, plain in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise ValueError(f"unsafe archive: {name} leads outside its folder")
        if not plain:
            raise ValueError(f"unsafe archive: {name} is a link or a device")
    if (total := sum(size for _, size, _ in members)) > max_bytes:
        raise ValueError(f"unsafe archive: it unpacks to {total / 1e9:.0f} GB")


# --- the command line ---------------------------------------------------------------------------------------

_LAYOUT = {  # folder under DS/ -> how to get it
    **{
        a.target: f"{a.size}, python datasets.py download {name}" for name in ARCHIVES for a in ARCHIVES[name]
    },
    **{name: "by hand, see DS/README.md" for name in ("CID22/train", "CID22/valid")},
}


def show(root: str | Path = "DS") -> None:
    """Prints every data set: where it lies and how many images, or how to get it; or that it is broken."""
    root = Path(root)
    for target, how in _LAYOUT.items():
        name = target.removesuffix("/HR").removesuffix("/cifar-10-batches-bin")
        state = f"missing: {how}"
        try:
            if name == "CIFAR10":
                if folder := _cifar10_folder(root):
                    num = sum(len(CIFAR10Dataset(root, train)) for train in (True, False))
                    state = f"{folder}, {num:,} images"
            elif (root / name).is_file():
                state = f"{root / name}"
            elif (root / name).is_dir():
                state = f"{root / name}, {len(SRTestSet(root / name))} images"
        except (OSError, ValueError) as error:
            state = f"BROKEN: {error}"
        print(f"{name:12} {state}")
    for part, files in PHOTOGRAPHS.items():
        print(f"{'embedded':12} {part}: {', '.join(Path(f).stem for f in files)} ({PHOTOGRAPHS_NAME})")


def in_one_line(command: Callable[[], object], stopped: str) -> int:
    """Run a command; say what it raises in one line on stderr, `stopped` on Ctrl-C. Returns the exit status."""
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
    parser.add_argument("--root", default="DS", help="the folder that holds the data sets (default: DS)")
    args = parser.parse_args(argv)
    if args.command and not args.name:
        parser.error(f"download what? One of {', '.join(ARCHIVES)}")
    return in_one_line(
        lambda: download(args.name, args.root) if args.command else show(args.root),
        stopped="stopped; the same command goes on from here.",
    )


if __name__ == "__main__":
    sys.exit(main())
