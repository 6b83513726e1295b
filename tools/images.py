"""MATLAB's bicubic resize, and image files. `datasets` has these names too.

An image is RGB uint8 (3, H, W) at rest and float32 in [0, 1] everywhere else.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms
from torch import Tensor


def to_float(img: Tensor) -> Tensor:
    """uint8 image of any shape -> float32 in [0, 1]."""
    return img.to(torch.float32) / 255


def to_uint8(img: Tensor) -> Tensor:
    """Float image, clipped to [0, 1] -> uint8, rounded half up."""
    return (img.detach().to(torch.float32).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


@lru_cache(maxsize=256)
def _resize_blocks(
    side: int, scale: float, border: str, block: int, dtype: torch.dtype, device: torch.device
) -> list[tuple[int, int, Tensor]]:
    """The (out, in) weight matrix of one side, a band, in blocks of rows: (first input, end of input, weights)."""
    num_out = math.ceil(scale * side)
    kernel_scale = min(scale, 1.0)  # below 1 the kernel is widened: that is the anti-aliasing
    num_taps = math.ceil(4 / kernel_scale) + 2
    centre = (np.arange(num_out) + 0.5) / scale - 0.5
    taps = np.floor(centre - 2 / kernel_scale).astype(np.int64)[:, None] + np.arange(num_taps)
    weights = kernel_scale * _cubic(kernel_scale * (centre[:, None] - taps))
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


def imresize(img: Tensor, scale_factor: float, border: str = "symmetric") -> Tensor:
    """MATLAB's `imresize(img, scale, "bicubic")`: (..., H, W) -> (..., ceil(sH), ceil(sW)), same dtype.

    uint8 gives MATLAB's bytes: height first, then width, each rounded half up and clipped. A floating image is
    neither rounded nor clipped, and gradients pass. `border`: "symmetric" mirrors the image, its edge repeated
    (current MATLAB), "replicate" repeats the edge pixel (older MATLAB: the Set5 and Set14 files in circulation).
    Raises ValueError on wrong input.
    """
    if border not in ("symmetric", "replicate") or not 0 < scale_factor < math.inf:
        raise ValueError(f'expected "symmetric" or "replicate" and a scale above 0, found {border!r}, {scale_factor}')
    is_uint8 = img.dtype == torch.uint8
    if not (is_uint8 or img.is_floating_point()) or img.dim() < 2 or 0 in img.shape:
        raise ValueError(f"imresize takes uint8 or floats (..., H, W), found {img.dtype} {tuple(img.shape)}")
    # The weights of these scales are short binary fractions, so float32 sums of bytes are exact (and TF32 products
    # too); at any other scale float64 keeps the rounding where MATLAB has it.
    inexact = is_uint8 and scale_factor not in (0.25, 0.5, 1, 2, 4)
    dtype = torch.float64 if inexact or img.dtype == torch.float64 else torch.float32
    *lead, height, width = img.shape
    block = 2**30 if max(height, width) <= 64 else 32  # small images: one dense product a side
    rows, cols = (_resize_blocks(s, float(scale_factor), border, block, dtype, img.device) for s in (height, width))

    def settle(x: Tensor) -> Tensor:
        return x.add_(0.5).clamp_(0, 255).floor_() if is_uint8 else x

    def join(parts: list[Tensor], dim: int) -> Tensor:
        return torch.cat(parts, dim) if len(parts) > 1 else parts[0]  # cat would copy

    flat = img.reshape(-1, height, width)
    # On the CPU pieces that stay in the cache are worth a factor of two.
    piece = max(1, 2**18 // (height * width)) if img.device.type == "cpu" else len(flat)
    done = []
    with torch.autocast(img.device.type, enabled=False):  # half precision would move the rounding
        for part in flat.split(piece):
            tall = join([settle(w @ part[:, i:j].to(dtype)) for i, j, w in rows], -2)
            done.append(join([settle(tall[:, :, i:j] @ w.T).to(img.dtype) for i, j, w in cols], -1))
    out = torch.cat(done)
    return out.reshape(*lead, *out.shape[-2:])


# --- pixels ----------------------------------------------------------------------------------------------------------


def check_images(img: Tensor) -> None:
    if img.dim() not in (3, 4) or img.shape[-3] != 3 or not (img.dtype == torch.uint8 or img.is_floating_point()):
        expected = "RGB images (3, H, W) or (N, 3, H, W), uint8 or floats in [0, 1]"
        raise ValueError(f"expected {expected}, found {img.dtype} {tuple(img.shape)}")


def as_floats(img: Tensor) -> Tensor:
    """An RGB image or a batch, uint8 or floats, as floats in [0, 1]."""
    check_images(img)
    return to_float(img) if img.dtype == torch.uint8 else img


def as_given(img: Tensor, float_img: Tensor) -> Tensor:
    """A degraded float image in the dtype of the image that came in, clamped to its range."""
    return to_uint8(float_img) if img.dtype == torch.uint8 else float_img.clamp(0, 1).to(img.dtype)


def grey(img: Tensor) -> Tensor:
    """RGB -> its BT.601 luma (0.299 R + 0.587 G + 0.114 B) in all three channels, same shape and dtype."""
    red, green, blue = as_floats(img).split(1, -3)
    return as_given(img, 0.299 * red + 0.587 * green + 0.114 * blue).expand(img.shape).contiguous()


def blur(img: Tensor, sigma: float = 1.0) -> Tensor:
    """Gaussian blur of standard deviation `sigma` pixels: (N, 3, H, W) -> same shape and dtype. By torchvision."""
    from torchvision.transforms.v2.functional import gaussian_blur

    return gaussian_blur(img, 2 * math.ceil(3 * sigma) + 1, sigma)


def jpeg(img: Tensor, quality: int = 50) -> Tensor:
    """Through JPEG and back, by Pillow: uint8 (N, 3, H, W) -> same shape. Quality 1 to 95."""
    if img.dtype != torch.uint8 or img.dim() != 4:
        raise ValueError(f"jpeg expects uint8 (N, 3, H, W), found {tuple(img.shape)} of {img.dtype}")

    def compressed(pixels: np.ndarray) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            return torch.from_numpy(np.array(decoded))

    rows = img.permute(0, 2, 3, 1).cpu().numpy()
    return torch.stack([compressed(pixels) for pixels in rows]).permute(0, 3, 1, 2).to(img.device)


def draw_integers(count: Tensor, generator: torch.Generator | None) -> Tensor:
    """One whole number in [0, count) for each entry of `count`, drawn on the CPU."""
    draw = torch.rand(count.shape, generator=generator, dtype=torch.float64) * count
    return torch.minimum(draw.long(), count - 1)


def random_squares(batch: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """True in one random square of `size` per image: (N, C, H, W) -> bool (N, 1, H, W) on the same device."""
    num, _, *sides = batch.shape
    corner = draw_integers(torch.tensor(sides)[:, None].expand(2, num) - size + 1, generator).to(batch.device)
    row, col = (torch.arange(side, device=batch.device) - corner[i, :, None] for i, side in enumerate(sides))
    row, col = ((x >= 0) & (x < size) for x in (row, col))
    return row[:, None, :, None] & col[:, None, None, :]


def turned(img: Tensor, turn: Tensor) -> Tensor:
    """The dihedral move 0..7 of each square image: (N, C, S, S), (N,) -> (N, C, S, S); 0 leaves it."""
    bits = turn[:, None, None, None]
    img = torch.where(bits & 1 > 0, img.flip(-1), img)
    img = torch.where(bits & 2 > 0, img.flip(-2), img)
    return torch.where(bits & 4 > 0, img.transpose(-1, -2), img)


# --- image files -----------------------------------------------------------------------------------------------------

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_UPRIGHT = {i: Image.Transpose[turn] for i, turn in enumerate(_TURNS, 2)}  # by EXIF orientation


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
        raise ValueError(f"{path} cannot be read as an image ({type(error).__name__}: {error})") from error


def read_image(path: str | Path) -> Tensor:
    """Any image file -> uint8 (3, H, W), RGB in sRGB's colours, upright.

    The EXIF orientation and a colour profile are applied where they are readable; transparency is composited over
    white; 16-bit grey scaled by 255/65535; of an animation the first frame counts. Raises FileNotFoundError, or
    ValueError naming the file where it is no image, cut off, or has more than 179 million pixels.
    """
    with _opened(Path(path)) as source:
        source.load()  # recent Pillow turns TIFF files here, and then they have no orientation left
        img = _turned_upright(source)
        if img.mode == "F":
            raise ValueError("32-bit float pixels have no stated range")
        if img.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
            values = np.asarray(img).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError("integer pixels outside 0..65535")
            img = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        if img.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in img.info:
            opaque = "L" if img.mode in ("LA", "La") else "RGB"
            img = img.convert("RGBA")
            img = Image.alpha_composite(Image.new("RGBA", img.size, "white"), img).convert(opaque)
        pixels = np.array(_in_srgb(img, source.info.get("icc_profile")))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _turned_upright(img: Image.Image) -> Image.Image:
    try:
        turn = _UPRIGHT.get(img.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # unreadable metadata raise all sorts of errors; the pixels are sound
        return img
    return img if turn is None else img.transpose(turn)


def _in_srgb(img: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """RGB image, its colours converted from the profile to sRGB; a profile that does not fit is passed over."""
    if icc_profile:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(profile.profile.xcolor_space.strip())
            fits = img.mode == mode or (mode == "RGB" and img.mode != "CMYK")
            if fits and "sRGB" not in ImageCms.getProfileDescription(profile):
                srgb = ImageCms.createProfile("sRGB")
                return ImageCms.profileToProfile(img.convert(mode), profile, srgb, outputMode="RGB")
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass
    return img.convert("RGB")


def announced_sides(path: Path) -> list[int]:
    """The two sides of an image file by its header alone, shorter first: which is which only decoding says."""
    with _opened(path) as img:
        return sorted(img.size)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden files are passed over. FileNotFoundError without any."""
    folder = Path(folder)
    files = (f for f in (folder.iterdir() if folder.is_dir() else ()) if not f.name.startswith("."))
    files = sorted(f for f in files if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    if not files:
        what = "holds no image" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(f"{folder} {what}: put image files there ({' '.join(IMAGE_SUFFIXES)})")
    return files
