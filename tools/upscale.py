"""Images of one's own through a trained network: `run.py upscale`.

Images go through the network in overlapping tiles and are written strip by strip, so they may be large: 100 megapixels
take less than 2 GB of memory.
"""

import argparse
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import datasets
import NetSet
import training
from tools import files, folders, images
from tools.runs import load_network as load

MODELS = ("srnet_x2", "srresnet_x4", "srgan_x4", "resshuffle_x4", "restore", "colorize")  # names in runs.TRAINED
TILE, STRIP_BYTES = 512, 2**28  # the largest side of a tile; size of an upscaled strip, if that leaves it 64 rows
SPREAD = 16  # pixels that visible colors are spread into transparent ones; a multiple of 8, as tiles must be
COLORIZED_SIDE, COLORIZED_AREA = 32, 32 * 512  # pixels at which a photograph is colorized: CIFAR-10's side, and at most


# --- tiles ------------------------------------------------------------------------------------------------------------


def receptive_radius(model: nn.Module) -> int:
    """How many LR pixels around its own an output pixel can depend on, rounded up: half of every kernel, added up in
    the order of the layers, or what the network states itself. ValueError where a pixel depends on more than that, as
    after global pooling.
    """
    if hasattr(model, "receptive_radius"):
        return model.receptive_radius
    radius, scale = _reach(model.modules()), model.scale_factor
    side, middle = 2 * radius + 1, slice((radius + 8) * scale, (radius + 9) * scale)
    noise = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    surrounded = torch.stack([F.pad(noise, (8,) * 4, value=value) for value in (0, 1)])
    black, white = training.predict(model, surrounded)[:, :, middle, middle]
    if (black - white).abs().max() > 0.1 / 255:
        raise ValueError(f"{type(model).__name__} cannot be cut into tiles: a pixel depends on more than the {radius} "
                         "around it that its kernels reach.")  # fmt: skip
    return radius


def _reach(layers: Iterable[nn.Module]) -> int:
    """Radius of layers in order, in pixels of their input."""
    radius, scale = 0.0, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            radius += max(d * (size // 2) for d, size in zip(layer.dilation, layer.kernel_size, strict=True)) / scale
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
    return math.ceil(radius)


def _cuts(side: int, tile: int) -> list[tuple[int, int]]:
    """The side in equal parts of at most `tile`: (start, end), each start a multiple of 8."""
    step = math.ceil(side / math.ceil(side / tile) / 8) * 8
    return [(start, min(start + step, side)) for start in range(0, side, step)]


def _in_tiles(
    function: Callable[[Tensor], Tensor], img: Tensor, scale: int, radius: int, tile: int, progress: bool = False
) -> Iterator[Tensor]:
    """function((C, H, W)) -> (D, s H, s W), tile by tile, in strips from top to bottom. Every tile is given as much of
    its surroundings as its pixels can depend on, so there are no seams.
    """
    flat = STRIP_BYTES // (len(img) * img.shape[2] * scale**2) // 8 * 8
    rows, columns = _cuts(img.shape[1], min(tile, max(flat, 64))), _cuts(img.shape[2], tile)
    for top, bottom in tqdm(rows, unit="strip", mininterval=0.5, file=sys.stdout, disable=not progress):
        strip = None
        for left, right in columns:
            first_row, first_col = max(0, top - radius), max(0, left - radius)
            output = function(img[:, first_row : bottom + radius, first_col : right + radius])
            output = output[:, (top - first_row) * scale :, (left - first_col) * scale :]
            if strip is None:  # filled in place: joining parts would hold them twice
                strip = output.new_empty(len(output), (bottom - top) * scale, img.shape[2] * scale)
            strip[:, :, left * scale : right * scale] = output[:, : strip.shape[1], : (right - left) * scale]
        yield strip


def _spread(img: Tensor) -> Tensor:
    """The colors of uint8 (4, H, W), visible ones spread into what is fully transparent: uint8 (3, H, W). What is
    hidden there, often black, would otherwise tint the edges.
    """
    colors, known = img[None, :3].float(), (img[None, 3:] > 0).float()
    for size in () if known.all() else (3, 5, 9, 17):
        sums = F.avg_pool2d(torch.cat([colors * known, known], 1), (1, size), 1, (0, size // 2))
        sums, share = F.avg_pool2d(sums, (size, 1), 1, (size // 2, 0)).split([3, 1], 1)
        colors = torch.where((known > 0) | (share == 0), colors, sums / share)
        known = (share > 0).float()
    return (colors[0] + 0.5).to(torch.uint8)


@torch.inference_mode()
def strips(model: nn.Module, img: Tensor, tile: int | None = None, progress: bool = False) -> Iterator[Tensor]:
    """The upscaled image from top to bottom: uint8 (C, H, W) -> uint8 (C, s rows, s W) each time. C is 3, or 4 with
    opacity, which is upscaled bicubically, while the colors under it go through the network as they are. Of several
    outputs of the network the first is taken. tile: the largest side of a tile, a multiple of 8. A `Colorizer` colors.
    """
    if img.ndim != 3 or len(img) not in (3, 4) or img.dtype != torch.uint8:
        raise ValueError(f"one uint8 image (3 or 4, H, W) was expected, found {tuple(img.shape)} of {img.dtype}.")
    if isinstance(model, NetSet.Colorizer):
        yield from _colorized_strips(model, img)
        return
    tile, scale = tile or TILE, model.scale_factor

    def whole(piece: Tensor, call: Callable | None = None) -> Tensor:
        if scale == 1:  # such a network halves its input three times
            rest = (0, -piece.shape[2] % 8, 0, -piece.shape[1] % 8)
            piece = F.pad(piece.float(), rest, mode="replicate").to(torch.uint8)
        output = training.predict(model, piece[None], call=call)
        return datasets.to_uint8((output[0] if isinstance(output, tuple) else output)[0])

    def in_two_steps(piece: Tensor) -> Tensor:  # the layers at the output's size fill most memory, and see least
        features = training.predict(model, piece[None], call=model.extract)[0]
        seen = _reach([*model.upsample.modules(), *model.to_rgb.modules()])
        reconstruct = partial(whole, call=model.reconstruct)
        return torch.cat(list(_in_tiles(reconstruct, features, scale, seen, min(tile, 256))), 1)

    def with_opacity(piece: Tensor) -> Tensor:
        opacity = datasets.imresize(piece[3:], scale)
        return torch.cat([apply(_spread(piece))[:, : opacity.shape[1], : opacity.shape[2]], opacity])

    apply = in_two_steps if isinstance(model, NetSet.SRResNetBase) else whole
    radius = receptive_radius(model) if max(img.shape[1:]) > tile else 0
    function, radius = (with_opacity, radius + SPREAD) if len(img) == 4 else (apply, radius)
    yield from _in_tiles(function, img, scale, radius, tile, progress)


def upscale(model: nn.Module, img: Tensor, tile: int | None = None) -> Tensor:
    """The whole image of `strips`: uint8 (C, H, W) -> uint8 (C, sH, sW)."""
    return torch.cat(list(strips(model, img, tile)), 1)


def _colorized_strips(model: NetSet.Colorizer, img: Tensor) -> Iterator[Tensor]:
    """As `strips`; only the luma is read, and opacity stays.
    The network knows images of 32x32: chroma is predicted at about that size, upsampled and put under the given luma.
    """
    height, width = img.shape[1:]
    parts = img.split(max(1, 2**20 // width), 1)
    lumas = [datasets.gray(part[:3])[:1] for part in parts]
    scale = min(COLORIZED_SIDE / min(height, width), (COLORIZED_AREA / (height * width)) ** 0.5)
    rows, cols = (min(max(8, round(side * scale / 8) * 8), COLORIZED_AREA // 8) for side in (height, width))
    narrow = [F.interpolate(datasets.to_float(luma)[None], (luma.shape[1], cols), mode="area") for luma in lumas]
    small = F.interpolate(torch.cat(narrow, 2), (rows, cols), mode="area").expand(1, 3, rows, cols)
    chroma = F.interpolate(training.predict(model, small) - small, (height, cols), mode="bicubic")
    for part, luma, color in zip(parts, lumas, chroma.split(len(parts[0][0]), 2), strict=True):
        color = F.interpolate(color, luma.shape[1:], mode="bicubic")[0]
        yield torch.cat([datasets.to_uint8(datasets.to_float(luma) + color), part[3:]])


# --- files ------------------------------------------------------------------------------------------------------------


def result_path(path: Path, name: str, out: str | Path | None = None) -> Path:
    """FILE_model.png in the folder `out`, by default the image's own, or `out` if that is a .png file."""
    out = Path(out).expanduser() if out else path.parent
    if out.suffix.lower() not in images.IMAGE_SUFFIXES or out.is_dir():
        return out / f"{path.stem}_{name}.png"
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out}: results are PNG files. Name a .png file with --out, or a folder.")
    return out


def upscale_file(
    path: str | Path, name: str, out: str | Path | None = None, model: nn.Module | None = None, again: bool = False
) -> Path:
    """Upscale, restore or colorize an image file by a model of `MODELS`, into a PNG file; return its `result_path`.
    Reads what `datasets.read_image` does. Transparency, color profile, resolution and EXIF are kept; gray stays gray,
    unless it is colorized. What is left out is printed. Raises FileExistsError rather than write over the input, or,
    unless `again`, over another file; OSError naming the result where it cannot be written.
    """
    import png  # pypng: the one that writes while rows are still being made

    path = Path(path).expanduser()
    out = result_path(path, name, out)
    if out.exists() and not (again and out.resolve() != path.resolve()):
        raise FileExistsError(f"{out} is there already: move it away, or name another file with --out.")
    model = model or load(name)
    colorizes = isinstance(model, NetSet.Colorizer)
    file = images.read_file(path, keep_profile=not colorizes)
    is_gray = not colorizes and all(torch.equal(file.pixels[0], other) for other in file.pixels[1:3])
    if is_gray and file.profile and file.profile[16:20] == b"RGB ":  # which a gray PNG file must not hold
        file = images.read_file(path)
    if file.left_out:
        print(f"{path}: {', '.join(file.left_out)} left out.")

    class Writer(png.Writer):
        def write_preamble(self, outfile):
            super().write_preamble(outfile)
            if file.profile:
                png.write_chunk(outfile, b"iCCP", b"profile\0\0" + zlib.compress(file.profile))
            if file.exif:
                png.write_chunk(outfile, b"eXIf", file.exif)

    def rows() -> Iterator[bytes]:
        for strip in strips(model, file.pixels, progress=True):
            for part in strip.split(64, 1):
                if is_gray:
                    part = torch.cat([datasets.gray(part[:3])[:1], part[3:]])
                yield from (row.numpy().tobytes() for row in part.permute(1, 2, 0))

    def write(beside: Path) -> None:
        height, width = (side * model.scale_factor for side in file.pixels.shape[1:])
        x, y = (value and round(float(value) / 0.0254) for value in file.dpi or (None, None))
        writer = Writer(width, height, greyscale=is_gray, alpha=len(file.pixels) == 4, compression=1,
                        x_pixels_per_unit=x, y_pixels_per_unit=y, unit_is_meter=True)  # fmt: skip
        with open(beside, "wb") as target:
            writer.write(target, rows())

    files.write_whole(out, write)
    return out


# --- commands ---------------------------------------------------------------------------------------------------------


def upscale_files(paths: Sequence[str], name: str, out: str | None = None) -> None:
    """Every file, and every image of every folder, by a model of `MODELS`; a result that is there already is kept.
    out: as in `result_path`. Before any work: FileNotFoundError for a path that is not there, ValueError where two
    images would become one file. After it: ValueError where a file failed, or none was made.
    """
    files, results, failed, num_made = [], {}, [], 0
    for path in (Path(path).expanduser() for path in paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder.")
        found = images.list_images(path) if path.is_dir() else [path]
        own = [file for file in found if file is path or not file.stem.endswith(f"_{name}")]
        if len(own) < len(found):
            print(f"{path}: {len(found) - len(own)} of {len(found)} images end in _{name} and are taken for results.")
        if path.is_dir():
            folders.say_unread(path, [file.name for file in found], "name its folders too")
        files += own
    for file in files:
        result = result_path(file, name, out)
        other, *_ = results.setdefault(os.path.normcase(result.resolve()), (file, result, result.exists()))
        if os.path.abspath(other) != os.path.abspath(file):
            raise ValueError(f"{other} and {file} would both become {result}: rename one, or give each its own --out.")
    model = load(name)
    for file, result, is_there in results.values():
        if is_there:
            print(f"skipped {file}: {result} is there already.")
            continue
        try:
            print(f"{upscale_file(file, name, out, model)} is ready.")
            num_made += 1
        except (OSError, ValueError) as error:
            failed.append(str(error))
    if failed or not num_made:
        raise ValueError("\n".join(failed) or "nothing was written.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py upscale", description="Upscale, restore or colorize images.")
    parser.add_argument("images", nargs="*", help="image files, or folders of them")
    parser.add_argument("--model", default="srnet_x2", choices=list(MODELS))
    parser.add_argument("--out", help="a folder, or for one image a .png file (default: beside each image)")
    parser.add_argument("--test-sets", action="store_true", help="measure the model on the test sets in --root")
    parser.add_argument("--root", default=datasets.DATA_ROOT, help="the folder of the data sets (default: DS)")
    args = parser.parse_args(argv)
    if bool(args.images) == args.test_sets or (args.test_sets and (args.out or args.model in ("restore", "colorize"))):
        parser.error("either images (and --out), or --test-sets and a model that upscales")
    if args.test_sets:
        from tools import sr  # which imports this module

        sr.show_test_sets(args.model, args.root)
    else:
        upscale_files(args.images, args.model, args.out)
    return 0
