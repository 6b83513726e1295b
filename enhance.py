"""A picture of one's own, enlarged: `python enhance.py photo.jpg --model srgan_x4` writes photo_srgan_x4.png beside it.

`--model restore` takes noise out of it instead, `--model colorize` paints a grey one. The picture goes through the
network in overlapping tiles and is written strip by strip, so memory does not grow with it (but for colorize, which
sees the whole of it, small).
`python enhance.py --test-sets --model resshuffle_x4` measures an enlarger on every test set that is in DS/.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import datasets
import metrics
import NetSet
import training

MODELS = {  # name: its network, and the run that trained it, or several, of which the first that is there counts
    "srnet_x2": (NetSet.SRNet, "task1/longer", "task1"),
    "srresnet_x4": (NetSet.SRResNet, "srgan_x4/srresnet"),
    "srgan_x4": (NetSet.SRResNet, "srgan_x4"),
    "resshuffle_x4": (NetSet.ResShuffle, "resshuffle_x4"),
    "restore": (NetSet.JointNet, "joint_restoration/seed0/restore"),
    "colorize": (NetSet.Colorizer, "colorization"),
}
NOTEBOOKS = {
    "task1": "task1_sr.ipynb", "srgan_x4": "study_srgan_x4.ipynb", "resshuffle_x4": "study_resshuffle_x4.ipynb",
    "joint_restoration": "study_joint_restoration.ipynb", "colorization": "study_colorization.ipynb",
}  # fmt: skip
COLORIZED_SIDE = 32  # the shorter side, in pixels, at which a photograph is painted: that of CIFAR-10's pictures


def load(name: str, results_root: str | Path = Path(__file__).parent / "results") -> nn.Module:
    """A trained network of `MODELS`, on the GPU where there is one.

    Raises ValueError for an unknown name, FileNotFoundError where it has not been trained yet.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}.")
    network, *tasks = MODELS[name]
    found = (training.read_run(Path(results_root) / task) for task in tasks)
    run = next((run for run in found if run and run.has_weights), None)
    if run is None:
        notebook = NOTEBOOKS[tasks[-1].split("/")[0]]
        raise FileNotFoundError(f"{Path(results_root) / tasks[-1]} holds no trained network: run {notebook} first.")
    model = run.load(network.from_settings(run.info["settings"]))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


# --- tiles ------------------------------------------------------------------------------------------------------


def receptive_radius(model: nn.Module) -> int:
    """How many LR pixels around its own an output pixel can depend on, rounded up: half of every kernel, added up.

    Reads convolutions and PixelShuffles in the order in which the network registers them, which is that of its forward.
    A network that also shrinks says its radius itself.
    """
    if hasattr(model, "receptive_radius"):
        return model.receptive_radius
    radius, scale = 0.0, 1
    for layer in model.modules():
        if isinstance(layer, nn.ConvTranspose2d) or (isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)):
            raise ValueError(f"{type(model).__name__} cannot be cut into tiles: it shrinks what it sees.")
        if isinstance(layer, nn.Conv2d):
            radius += (layer.kernel_size[0] // 2) / scale
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
    if not radius or scale != model.scale_factor:
        raise ValueError(f"{type(model).__name__} cannot be cut into tiles: only PixelShuffle may enlarge.")
    return math.ceil(radius)


@torch.inference_mode()
def strips(model: nn.Module, img: Tensor, tile: int = 128, progress: bool = False) -> Iterator[Tensor]:
    """The enlarged picture from top to bottom, in strips: img uint8 (3, H, W) -> uint8 (3, s tile, s W) each.

    model needs `scale_factor`; of several outputs the first is taken. Every tile is given as much of its surroundings
    as its pixels can depend on, so the strips, one below the other, are the whole picture's result, without seams.
    tile is a multiple of 8, as networks that shrink by 8 inside need their pieces to be.
    """
    if img.ndim != 3 or len(img) != 3 or img.dtype != torch.uint8:
        raise ValueError(f"one uint8 image (3, H, W) was expected, found {tuple(img.shape)} of {img.dtype}.")
    radius, scale = receptive_radius(model), model.scale_factor
    height, width = img.shape[1:]
    tops, lefts = range(0, height, tile), range(0, width, tile)
    bar = tqdm(total=len(tops) * len(lefts), unit="tile", mininterval=0.5, file=sys.stdout, disable=not progress)
    for top in tops:
        parts = []
        for left in lefts:
            first_row, first_col = max(0, top - radius), max(0, left - radius)
            rows, cols = min(tile, height - top), min(tile, width - left)
            piece = img[:, first_row : top + rows + radius, first_col : left + cols + radius]
            row, col = (top - first_row) * scale, (left - first_col) * scale
            output = training.predict(model, _filled_up(piece)[None] if scale == 1 else piece[None])
            sr_img = (output[0] if isinstance(output, tuple) else output)[0]
            parts.append(datasets.to_uint8(sr_img[:, row : row + rows * scale, col : col + cols * scale]))
            bar.update()
        yield torch.cat(parts, 2)
    bar.close()


def _filled_up(img: Tensor, multiple: int = 8) -> Tensor:
    """The picture with its last row and column repeated until both sides are multiples."""
    rows, cols = (torch.arange(-(-side // multiple) * multiple).clamp(max=side - 1) for side in img.shape[1:])
    return img[:, rows][:, :, cols]


def colorize(model: NetSet.Colorizer, img: Tensor) -> Tensor:
    """A photograph painted: uint8 (3, H, W), of which only the luma is read -> uint8 (3, H, W).

    The network knows pictures of 32x32, so the photograph is painted at about that size, and its chroma, which is
    smooth, is enlarged and put under the luma that was given: every detail stays, and colours are broad.
    """
    grey = datasets.to_float(datasets.grey(img))
    scale = COLORIZED_SIDE / min(img.shape[1:])
    small = F.interpolate(grey[None], [max(8, round(side * scale / 8) * 8) for side in img.shape[1:]], mode="area")
    chroma = training.predict(model, small) - small
    chroma = F.interpolate(chroma, img.shape[1:], mode="bicubic", align_corners=False)[0]
    return datasets.to_uint8((grey + chroma).clamp(0, 1))


def enlarge(model: nn.Module, img: Tensor, tile: int = 128) -> Tensor:
    """The whole enlarged picture: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return torch.cat(list(strips(model, img, tile)), 1)


def enlarge_file(
    path: str | Path, name: str, out: str | Path | None = None, model: nn.Module | None = None, again: bool = False
) -> Path:
    """Enlarge, restore or colorize an image file by a model of `MODELS`, into a PNG file beside it; return its path.

    Any mode and orientation that `datasets.read_image` reads. Raises FileExistsError rather than write over a file,
    unless it is to be made `again` (a notebook that is run a second time); over the input it never writes.
    """
    path = Path(path)
    out = Path(out) if out else path.with_name(f"{path.stem}_{name}.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out} must end in .png: that is the format that can be written strip by strip.")
    if out.exists() and not (again and out.resolve() != path.resolve()):
        raise FileExistsError(f"{out} is there already: move it away, or name another file with --out.")
    img, model = datasets.read_image(path), model or load(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    training.write_whole(out, lambda beside: _write_png(beside, model, img))
    return out


def _write_png(path: Path, model: nn.Module, img: Tensor) -> None:
    import png  # pypng: the one that writes while rows are still being made

    height, width = (side * model.scale_factor for side in img.shape[1:])
    painted = isinstance(model, NetSet.Colorizer)
    made = [colorize(model, img)] if painted else strips(model, img, progress=True)
    pixels = (strip.permute(1, 2, 0).reshape(-1, 3 * width).numpy() for strip in made)
    rows = (row for strip in pixels for row in strip)
    with open(path, "wb") as file:
        png.Writer(width, height, greyscale=False, bitdepth=8, compression=1).write(file, rows)


# --- test sets --------------------------------------------------------------------------------------------------


def baselines(scale_factor: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Enlargers that learn nothing: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return {
        "nearest": lambda img: img.repeat_interleave(scale_factor, -2).repeat_interleave(scale_factor, -1),
        "bicubic": lambda img: datasets.imresize(img, scale_factor),
    }


def as_method(model: nn.Module, tile: int = 512) -> Callable[[Tensor], Tensor]:
    """A network as one of the methods of `measure`; its tiles are large, so most test pictures pass in one piece."""
    return lambda img: enlarge(model, img, tile)


def measure(
    methods: Mapping[str, Callable[[Tensor], Tensor]],
    test_sets: Sequence[datasets.SRTestSet],
    protocols: Sequence[str] = ("literature",),
    natural: metrics.NaturalScenes | None = None,
    keep_pictures: bool = True,
) -> tuple[pd.DataFrame, dict[str, dict[str, Tensor]]]:
    """Every picture of every test set by every method: (scores, pictures).

    methods: {name: uint8 (3, h, w) -> uint8 (3, sh, sw)}. scores has a row for each set, picture, method and protocol,
    with psnr_db and ssim, and niqe where `natural` says what is natural ("truth" is then a method as well). A picture
    is called by its name, behind its set's where there are several sets. DIV2K is measured in RGB as well, as is usual.
    pictures: {picture: {method: uint8 image}}, "truth" included; empty without keep_pictures, for large sets.
    """
    rows, pictures = [], {}
    for test_set in test_sets:
        measured_by = (*protocols, *(("rgb",) if test_set.name == "DIV2K/valid" and "rgb" not in protocols else ()))
        for index, name in enumerate(test_set.names):
            picture = f"{test_set.name} {name}" if len(test_sets) > 1 else name
            lr_img, hr_img = test_set.pair(index)
            seen = {method: apply(lr_img) for method, apply in methods.items()} | {"truth": hr_img}
            if keep_pictures:
                pictures[picture] = seen
            hr_img = datasets.to_float(hr_img)
            for method, sr_img in seen.items():
                sr_img = datasets.to_float(sr_img)
                row = {"set": test_set.name, "picture": picture, "method": method}
                if natural:
                    row["niqe"] = natural.score(sr_img)
                for protocol in measured_by if method != "truth" else ():
                    scores = metrics.evaluate(sr_img[None], hr_img[None], protocol, test_set.scale_factor)
                    rows.append(row | {"protocol": protocol} | {name: value.item() for name, value in scores.items()})
                if method == "truth" and natural:
                    rows.append(row | {"protocol": protocols[0]})
    return pd.DataFrame(rows), pictures


def natural_scenes(train_set: datasets.DIV2KDataset, max_photographs: int = 100) -> metrics.NaturalScenes:
    """What NIQE calls natural: the first training photographs, of those that are large enough for a block."""
    photographs = (train_set.image(index).cpu() for index in range(min(max_photographs, len(train_set))))
    large = (img for img in photographs if min(img.shape[1:]) >= metrics.NIQE_BLOCK)
    return metrics.NaturalScenes(datasets.to_float(img) for img in large)


def bicubic_psnr(lr_img: Tensor, hr_img: Tensor) -> float:
    """What bicubic interpolation reaches on a batch: mean PSNR in dB on luma, a border of the scale shaved."""
    scale_factor = hr_img.shape[-1] // lr_img.shape[-1]
    sr_img = datasets.to_float(baselines(scale_factor)["bicubic"](datasets.to_uint8(lr_img)))
    return metrics.evaluate(sr_img, hr_img, "literature", scale_factor)["psnr_db"].mean().item()


def show_test_sets(name: str, data_root: str | Path = "DS") -> None:
    """Print a model's PSNR and SSIM on every test set that is there, beside bicubic, and how to get the others."""
    model = load(name)
    scale_factor = model.scale_factor
    methods = {"bicubic": baselines(scale_factor)["bicubic"], name: as_method(model)}
    for test_set in datasets.find_sr_test(data_root, scale_factor, div2k=True):
        scores, _ = measure(methods, [test_set], keep_pictures=False)
        means = scores.groupby(["method", "protocol"], sort=False)[["psnr_db", "ssim"]].mean()
        for (method, protocol), mean in means.iterrows():
            label = f"{metrics.protocol_label('psnr_db', protocol, scale_factor)} and SSIM, {len(test_set)} pictures"
            print(f"{test_set.name:12} {method:14} {mean.psnr_db:6.2f} {mean.ssim:.4f}  {label}")
    for absent, how in datasets.absent_sr_test(data_root).items():
        print(f"{absent:12} is not there: {how}")


def make_parser() -> argparse.ArgumentParser:
    what = "Enlarges, restores or colorizes a picture, or measures an enlarger."
    parser = argparse.ArgumentParser(prog="enhance.py", description=what)
    parser.add_argument("picture", nargs="?", help="an image file")
    parser.add_argument("--model", default="srnet_x2", choices=list(MODELS))
    parser.add_argument("--out", help="a .png file (default: beside the picture, named after picture and model)")
    parser.add_argument("--test-sets", action="store_true", help="measure the model on the test sets in --root")
    parser.add_argument("--root", default="DS", help="the folder that holds the data sets (default: DS)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.picture) == args.test_sets or (args.out and args.test_sets):
        parser.error("either a picture (and --out), or --test-sets")
    if args.test_sets and args.model in ("restore", "colorize"):
        parser.error("--test-sets measures enlargers: srnet_x2, srresnet_x4, srgan_x4 or resshuffle_x4")
    if args.test_sets:
        return datasets.in_one_line(lambda: show_test_sets(args.model, args.root), stopped="stopped.")
    return datasets.in_one_line(
        lambda: print(f"{enlarge_file(args.picture, args.model, args.out)} is ready."),
        stopped="stopped; nothing was written.",
    )


if __name__ == "__main__":
    sys.exit(main())
