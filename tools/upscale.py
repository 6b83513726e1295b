"""Images of one's own through a trained network, and networks measured on the test sets.

`python upscale.py photo.jpg folder/ --model srgan_x4` writes photo_srgan_x4.png beside each image; `--model restore`
takes noise out, `--model colorize` colours a grey image. Images go through the network in overlapping tiles and are
written strip by strip, so they may be large.
`python upscale.py --test-sets --model resshuffle_x4` measures an upscaler on every test set that is in DS/.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import datasets
import NetSet
import training
from tools import images, runs

MODELS = {  # name: its network, the run that trained it, the notebook of that run
    "srnet_x2": (NetSet.SRNet, "task1", "task1_sr.ipynb"),
    "srresnet_x4": (NetSet.SRResNet, "srgan_x4/srresnet", "study_srgan_x4.ipynb"),
    "srgan_x4": (NetSet.SRResNet, "srgan_x4", "study_srgan_x4.ipynb"),
    "resshuffle_x4": (NetSet.ResShuffle, "resshuffle_x4", "study_resshuffle_x4.ipynb"),
    "restore": (NetSet.JointNet, "joint_restoration/seed0/restore", "study_joint_restoration.ipynb"),
    "colorize": (NetSet.Colorizer, "colorization", "study_colorization.ipynb"),
}
RESULTS_ROOT = Path(__file__).parent.parent / "results"
RECONSTRUCT_RADIUS = 3  # LR pixels around its own that SRResNetBase.reconstruct sees, at most: 1 + 4/2 at x2
COLORIZED_SIDE, COLORIZED_AREA = 32, 32 * 512  # pixels at which a photograph is colorized: CIFAR-10's side, and at most


def load(name: str, results_root: str | Path = RESULTS_ROOT) -> nn.Module:
    """A trained network of `MODELS`, on the GPU where there is one. FileNotFoundError where it is not trained yet."""
    network, task, notebook = MODELS[name]
    run = runs.read_run(Path(results_root) / task)
    if run is None or not run.has_weights:
        raise FileNotFoundError(f"{Path(results_root) / task} holds no trained network: run {notebook} first.")
    return run.load(network.from_settings(run.info["settings"])).to("cuda" if torch.cuda.is_available() else "cpu")


def receptive_radius(model: nn.Module) -> int:
    """How many LR pixels around its own an output pixel can depend on, rounded up: half of every kernel, added up.
    Layers must be registered in the order of the forward. A network that downsamples inside states its radius itself.
    """
    if hasattr(model, "receptive_radius"):
        return model.receptive_radius
    radius, scale, steps = 0.0, 1, {(1, 1)}
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            radius += layer.kernel_size[0] // 2 / scale
            steps.add(layer.stride)
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
    if not radius or len(steps) > 1 or scale != model.scale_factor:
        raise ValueError(f"{type(model).__name__} cannot be cut into tiles: only PixelShuffle may change the size.")
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
    rows, columns = (_cuts(side, tile) for side in img.shape[1:])
    for top, bottom in tqdm(rows, unit="strip", mininterval=0.5, file=sys.stdout, disable=not progress):
        parts = []
        for left, right in columns:
            first_row, first_col = max(0, top - radius), max(0, left - radius)
            output = function(img[:, first_row : bottom + radius, first_col : right + radius])
            output = output[:, (top - first_row) * scale :, (left - first_col) * scale :]
            parts.append(output[:, : (bottom - top) * scale, : (right - left) * scale])
        yield torch.cat(parts, 2)


@torch.inference_mode()
def strips(model: nn.Module, img: Tensor, tile: int | None = None, progress: bool = False) -> Iterator[Tensor]:
    """The upscaled image from top to bottom, in strips: uint8 (3, H, W) -> uint8 (3, s rows, s W) each.
    Of several outputs of the network the first is taken. tile: the largest side of a tile, a multiple of 8; by default
    one that keeps the networks of `MODELS` under 2 GB.
    """
    if img.ndim != 3 or len(img) != 3 or img.dtype != torch.uint8:
        raise ValueError(f"one uint8 image (3, H, W) was expected, found {tuple(img.shape)} of {img.dtype}.")

    def whole(piece: Tensor) -> Tensor:
        if model.scale_factor == 1:  # such a network halves its input three times
            rest = (0, -piece.shape[2] % 8, 0, -piece.shape[1] % 8)
            piece = F.pad(piece.float(), rest, mode="replicate").to(torch.uint8)
        output = training.predict(model, piece[None])
        return datasets.to_uint8((output[0] if isinstance(output, tuple) else output)[0])

    def reconstruct(features: Tensor) -> Tensor:
        return datasets.to_uint8(training.predict(model, features[None], call=model.reconstruct)[0])

    def in_two_steps(piece: Tensor) -> Tensor:  # the layers at the output's size fill most memory, and see least
        features = training.predict(model, piece[None], call=model.extract)[0]
        small = min(tile, 256)
        return torch.cat(list(_in_tiles(reconstruct, features, model.scale_factor, RECONSTRUCT_RADIUS, small)), 1)

    tile = tile or 640
    function = in_two_steps if isinstance(model, NetSet.SRResNetBase) else whole
    yield from _in_tiles(function, img, model.scale_factor, receptive_radius(model), tile, progress)


def upscale(model: nn.Module, img: Tensor, tile: int | None = None) -> Tensor:
    """The whole upscaled image: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return torch.cat(list(strips(model, img, tile)), 1)


def colorize(model: NetSet.Colorizer, img: Tensor) -> Tensor:
    """A colorized photograph: uint8 (3, H, W), of which only the luma is read -> uint8 (3, H, W).
    The network knows images of 32x32: chroma is predicted at about that size, upsampled and put under the given luma.
    """
    grey = datasets.to_float(datasets.grey(img))
    scale = min(COLORIZED_SIDE / min(img.shape[1:]), (COLORIZED_AREA / img[0].numel()) ** 0.5)
    sides = [min(max(8, round(side * scale / 8) * 8), COLORIZED_AREA // 8) for side in img.shape[1:]]
    small = F.interpolate(grey[None], sides, mode="area")
    chroma = F.interpolate(training.predict(model, small) - small, img.shape[1:], mode="bicubic", align_corners=False)
    return datasets.to_uint8(grey + chroma[0])


# --- files ------------------------------------------------------------------------------------------------------------


def upscale_file(
    path: str | Path, name: str, out: str | Path | None = None, model: nn.Module | None = None, again: bool = False
) -> Path:
    """Upscale, restore or colorize an image file by a model of `MODELS`, into a PNG file; return its path.
    Reads what `datasets.read_image` does; transparency is kept. out: a .png file, or a folder (default: the image's
    own). Raises FileExistsError rather than write over the input, or, unless `again`, over another file.
    """
    import png  # pypng: the one that writes while rows are still being made

    path, out = Path(path), Path(out or Path(path).parent)
    out = out if out.suffix.lower() == ".png" else out / f"{path.stem}_{name}.png"
    if out.exists() and not (again and out.resolve() != path.resolve()):
        raise FileExistsError(f"{out} is there already: move it away, or name another file with --out.")
    img, alpha = datasets.read_image(path), _read_alpha(path)
    model = model or load(name)
    parts = [colorize(model, img)] if isinstance(model, NetSet.Colorizer) else strips(model, img, progress=True)
    rows = (row for part in parts for row in part.permute(1, 2, 0))
    if alpha is not None:
        alpha = datasets.imresize(alpha, model.scale_factor).movedim(0, -1)
        rows = (torch.cat(row, 1) for row in zip(rows, alpha, strict=True))
    height, width = (side * model.scale_factor for side in img.shape[1:])
    writer = png.Writer(width, height, greyscale=False, alpha=alpha is not None, bitdepth=8, compression=1)

    def write(beside: Path) -> None:
        with open(beside, "wb") as file:
            writer.write(file, (row.numpy().tobytes() for row in rows))

    runs.write_whole(out, write)
    return out


def _read_alpha(path: Path) -> Tensor | None:
    """How opaque every pixel is, uint8 (1, H, W), upright; None for an image without transparency."""
    with Image.open(path) as source:
        source.load()
        if not source.has_transparency_data:
            return None
        return torch.from_numpy(np.array(images._turned_upright(source).convert("RGBA").getchannel("A")))[None]


# --- commands ---------------------------------------------------------------------------------------------------------


def upscale_files(paths: Sequence[str], name: str, out: str | None = None) -> None:
    """Every file, and every image of every folder, by a model of `MODELS`; what is there already is skipped.
    out: a .png file for a single image, else a folder for the results. ValueError where a file failed or none was made.
    """
    files, num_written, failed = [], 0, []
    for path in map(Path, paths):
        found = datasets.list_images(path) if path.is_dir() else [path]
        files += [file for file in found if file == path or not file.stem.endswith(f"_{name}")]  # no results of its own
    if len(files) > 1 and str(out).lower().endswith(".png"):
        raise ValueError(f"{out} can hold one image, found {len(files)}: name a folder with --out.")
    model = load(name)
    for file in files:
        try:
            print(f"{upscale_file(file, name, out, model)} is ready.")
            num_written += 1
        except FileExistsError as error:
            print(f"skipped {file}: {error}")
        except (OSError, ValueError) as error:
            failed.append(str(error))
    if failed or not num_written:
        raise ValueError("\nerror: ".join(failed) or "nothing was written.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="upscale.py", description="Upscale, restore or colorize images.")
    parser.add_argument("images", nargs="*", help="image files, or folders of them")
    parser.add_argument("--model", default="srnet_x2", choices=list(MODELS))
    parser.add_argument("--out", help="a folder, or for one image a .png file (default: beside each image)")
    parser.add_argument("--test-sets", action="store_true", help="measure the model on the test sets in --root")
    parser.add_argument("--root", default=datasets.DATA_ROOT, help="the folder of the data sets (default: DS)")
    args = parser.parse_args(argv)
    if bool(args.images) == args.test_sets or (args.test_sets and (args.out or args.model in ("restore", "colorize"))):
        parser.error("either images (and --out), or --test-sets and a model that upscales")
    if args.test_sets:
        from tools import sr

        return datasets.in_one_line(lambda: sr.show_test_sets(args.model, args.root), stopped="stopped.")
    return datasets.in_one_line(lambda: upscale_files(args.images, args.model, args.out), stopped="stopped.")


if __name__ == "__main__":
    sys.exit(main())
