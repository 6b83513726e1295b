"""MATLAB's bicubic resize, and image files. `datasets` has these names too.

An image is RGB uint8 (3, H, W) at rest and float32 in [0, 1] everywhere else.
"""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.ImageFile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin
from torch import Tensor

from tools import files


def to_float(img: Tensor) -> Tensor:
    """uint8 image of any shape -> float32 in [0, 1]."""
    return img.to(torch.float32) / 255


def save_image(img: Tensor, path: str | Path) -> None:
    """A uint8 image (3, H, W) as a file, whole or not at all; its ending names the format."""
    content = io.BytesIO()
    Image.fromarray(img.permute(1, 2, 0).numpy()).save(content, Path(path).suffix[1:].replace("jpg", "jpeg"))
    files.write_whole(Path(path), lambda beside: beside.write_bytes(content.getvalue()))


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
    center = (np.arange(num_out) + 0.5) / scale - 0.5
    taps = np.floor(center - 2 / kernel_scale).astype(np.int64)[:, None] + np.arange(num_taps)
    weights = kernel_scale * _cubic(kernel_scale * (center[:, None] - taps))
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


def gray(img: Tensor) -> Tensor:
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

    decoded = []
    for pixels in img.permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(decoded).permute(0, 3, 1, 2).to(img.device)


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
# EXIF tags of the file, not of the photograph: layout, orientation, profile, sides, and where groups of tags begin
_LAYOUT = {*range(254, 269), *range(273, 282), 284, *range(317, 348), *range(512, 534), 34665, 34675, 34853,
           0xA002, 0xA003, 0xA005}  # fmt: skip
# Bytes of one text or profile, and of all: a larger one is left out. Pillow refuses the file beyond 1 and 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 2**26, 2**30


@dataclass
class ImageFile:
    """An image file as read. pixels: uint8 (3, H, W), or (4, H, W) with opacity where something may be transparent; the
    colors are those under it. Upright, in the space of `profile`, sRGB where it is None. exif: without orientation and
    layout. left_out: what a PNG file of 8 bits cannot hold, in words.
    """

    pixels: Tensor
    profile: bytes | None
    dpi: tuple[float, float] | None
    exif: bytes | None
    left_out: list[str]


def read_image(path: str | Path) -> Tensor:
    """Any image file -> uint8 (3, H, W), RGB in sRGB's colors, upright.

    The EXIF orientation and a color profile are applied where they are readable; transparency is composited over
    white; 16-bit gray scaled by 255/65535; of an animation the first frame counts. Raises FileNotFoundError, or
    ValueError naming the file where it is no image, cut off, or has more than 179 million pixels.
    """
    pixels = read_file(path).pixels
    for strip in pixels.split(256, 1) if len(pixels) == 4 else ():
        opacity = strip[3:].int()
        strip[:3] = (strip[:3] * opacity + 255 * (255 - opacity) + 127) // 255
    return pixels[:3]


def read_file(path: str | Path, keep_profile: bool = False) -> ImageFile:
    """All of an image file that a PNG file of 8 bits can hold. keep_profile: colors are converted to sRGB only where
    such a file cannot hold their profile. Raises what `read_image` does.
    """
    with _opened(path) as img:
        return _decoded(img, keep_profile)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = True  # while opening: metadata that Pillow refuses are passed over
        with Image.open(path) as img:
            PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False  # pixels must be whole
            yield img
    except (FileNotFoundError, MemoryError, PermissionError):
        raise
    except Exception as error:  # Pillow's decoders raise all sorts of errors on a broken file
        raise ValueError(f"{path} cannot be read as an image ({type(error).__name__}: {error})") from error
    finally:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False


def _decoded(img: Image.Image, keep_profile: bool) -> ImageFile:
    """Strip by strip, so that Pillow's pixels and the result alone have the size of the image."""
    options = img.tile[0][3] if img.tile else ""
    layout, *others = map(str, options if isinstance(options, tuple) else (options,))  # "L;4": gray of four bits
    img.load()
    with suppress(Exception):  # an orientation that cannot be read
        ImageOps.exif_transpose(img, in_place=True)
    if img.mode == "F":
        raise ValueError("32-bit float pixels have no stated range")
    is_deep = img.mode[0] == "I" or ";16" in layout or (img.format == "PPM" and others not in ([], ["255"]))
    key = img.info.get("transparency")
    if is_deep and isinstance(key, tuple):  # of each color Pillow keeps the upper byte, of the key both
        img.info["transparency"] = tuple(value >> 8 for value in key)
    elif layout in ("L;2", "L;4") and key is not None:  # Pillow spreads 2 and 4 bits over 8, but not the key's
        img.info["transparency"] = key * (85 if layout == "L;2" else 17)

    one_channel = img.mode[0] in "1LI" or layout.startswith("LA")
    mode = "CMYK" if img.mode == "CMYK" else "L" if one_channel else "RGB"
    to_rgb, profile = _color_space(mode, img.info.get("icc_profile"), keep_profile)
    width, height = img.size
    channels, step = 4 if img.has_transparency_data else 3, max(1, 2**20 // width)
    pixels = torch.empty(channels, height, width, dtype=torch.uint8)
    for top in range(0, height, step):
        strip = img.crop((0, top, width, min(top + step, height)))
        if img.mode[0] == "I":  # 16-bit gray, which Pillow would clip at 255
            values = np.asarray(strip).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                raise ValueError("integer pixels outside 0..65535")
            strip = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
            opacity = (values != key) * np.uint8(255)
        elif channels == 4:
            strip = (strip.convert("LA") if img.mode == "La" else strip).convert("RGBA")
            opacity = np.array(strip.getchannel("A"))
            strip = strip.convert(mode)
        pixels[:3, top : top + step] = torch.from_numpy(np.array(to_rgb(strip))).permute(2, 0, 1)
        if channels == 4:
            pixels[3, top : top + step] = torch.from_numpy(opacity)
    return ImageFile(pixels, profile, *_metadata(img, is_deep))


def _metadata(img: Image.Image, is_deep: bool) -> tuple[tuple[float, float] | None, bytes | None, list[str]]:
    """dpi, exif and left_out of an `ImageFile`."""
    left_out, exif, dpi = ["8 of 16 bits a channel"] if is_deep else [], None, img.info.get("dpi")
    if getattr(img, "text", None) or img.info.keys() & {"comment", "photoshop", "xmp", "XML:com.adobe.xmp"}:
        left_out.append("texts (XMP, IPTC, comments)")
    try:
        found, kept = img.getexif(), Image.Exif()
        kept.update((tag, value) for tag, value in found.items() if tag not in _LAYOUT)
        for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if entries := {tag: value for tag, value in found.get_ifd(group).items() if tag not in _LAYOUT}:
                kept[group] = entries
        exif = kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except Exception:  # unreadable metadata raise all sorts of errors; the pixels are sound
        left_out.append("EXIF that cannot be read")
    with suppress(Exception):  # of a later frame
        if (frames := getattr(img, "n_frames", 1) - 1) > 0:
            left_out.append(f"{frames} further frame{'s' if frames > 1 else ''}")
    return dpi if dpi and all(0 < value < 1e6 for value in dpi) else None, exif, left_out


def _color_space(mode: str, icc_profile: bytes | None, keep: bool) -> tuple[Callable, bytes | None]:
    """(how an image of this mode becomes RGB, the profile that it is in then, None for sRGB); a profile that does not
    fit is passed over.
    """
    with suppress(OSError, ValueError, ImageCms.PyCMSError):
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile or b""))
        space = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(profile.profile.xcolor_space.strip())
        if keep and space == mode != "CMYK":
            return lambda img: img.convert("RGB"), icc_profile
        fits = space == mode or (space == "RGB" and mode == "L")
        if fits and "sRGB" not in ImageCms.getProfileDescription(profile):
            transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), space, "RGB")
            return lambda img: ImageCms.applyTransform(img.convert(space), transform), None
    return lambda img: img.convert("RGB"), None


def announced_sides(path: Path) -> list[int]:
    """The two sides of an image file by its header alone, shorter first: which is which only decoding says."""
    with _opened(path) as img:
        return sorted(img.size)


def list_images(folder: str | Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden files are passed over. FileNotFoundError without any."""
    folder = Path(folder)
    found = sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    if not found:
        what = "holds no image" if folder.is_dir() else "is no folder"
        raise FileNotFoundError(f"{folder} {what}: put image files there ({' '.join(IMAGE_SUFFIXES)})")
    return found
