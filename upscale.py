"""Images of one's own through a trained network, and networks measured on the test sets.

`python upscale.py photo.jpg --model srgan_x4` writes photo_srgan_x4.png beside the photograph; several files and
folders may be named at once. `--model restore` takes noise out instead, `--model colorize` colours a grey image. An
image goes through the network in overlapping tiles and is written strip by strip: only the decoded input is held whole.
`python upscale.py --test-sets --model resshuffle_x4` measures an upscaler on every test set that is in DS/.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import datasets
import images
import metrics
import NetSet
import runs
import training

Method = Callable[[Tensor], Tensor]  # uint8 (3, h, w) -> uint8 (3, sh, sw)
MODELS = {  # name: its network, the run that trained it, the notebook of that run
    "srnet_x2": (NetSet.SRNet, "task1", "task1_sr.ipynb"),
    "srresnet_x4": (NetSet.SRResNet, "srgan_x4/srresnet", "study_srgan_x4.ipynb"),
    "srgan_x4": (NetSet.SRResNet, "srgan_x4", "study_srgan_x4.ipynb"),
    "resshuffle_x4": (NetSet.ResShuffle, "resshuffle_x4", "study_resshuffle_x4.ipynb"),
    "restore": (NetSet.JointNet, "joint_restoration/seed0/restore", "study_joint_restoration.ipynb"),
    "colorize": (NetSet.Colorizer, "colorization", "study_colorization.ipynb"),
}
RESULTS_ROOT = Path(__file__).parent / "results"
COLORIZED_SIDE, COLORIZED_AREA = 32, 32 * 512  # pixels at which a photograph is colorized: CIFAR-10's side, and at most


def load(name: str, results_root: str | Path = RESULTS_ROOT) -> nn.Module:
    """A trained network of `MODELS`, on the GPU where there is one.

    Raises ValueError for an unknown name, FileNotFoundError where it has not been trained yet.
    """
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose one of {', '.join(MODELS)}.")
    network, task, notebook = MODELS[name]
    run = runs.read_run(Path(results_root) / task)
    if run is None or not run.has_weights:
        raise FileNotFoundError(f"{Path(results_root) / task} holds no trained network: run {notebook} first.")
    model = run.load(network.from_settings(run.info["settings"]))
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


# --- tiles ------------------------------------------------------------------------------------------------------------


def receptive_radius(model: nn.Module) -> int:
    """How many LR pixels around its own an output pixel can depend on, rounded up: half of every kernel, added up.

    Reads convolutions and PixelShuffles in the order in which the network registers them, which is that of its forward.
    A network that also downsamples inside says its radius itself.
    """
    if hasattr(model, "receptive_radius"):
        return model.receptive_radius
    radius, scale = 0.0, 1
    for layer in model.modules():
        if isinstance(layer, nn.ConvTranspose2d) or (isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)):
            raise ValueError(f"{type(model).__name__} cannot be cut into tiles: it downsamples inside.")
        if isinstance(layer, nn.Conv2d):
            radius += (layer.kernel_size[0] // 2) / scale
        elif isinstance(layer, nn.PixelShuffle):
            scale *= layer.upscale_factor
    if not radius or scale != model.scale_factor:
        raise ValueError(f"{type(model).__name__} cannot be cut into tiles: only PixelShuffle may upsample.")
    return math.ceil(radius)


def default_tile(model: nn.Module) -> int:
    """Large tiles waste little on their overlap; with these the networks of MODELS stay under 2 GB."""
    return 640 if model.scale_factor <= 2 else 272


def _cuts(side: int, tile: int) -> list[tuple[int, int]]:
    """The side in equal parts of at most `tile`: (start, end), each start a multiple of 8."""
    step = math.ceil(side / math.ceil(side / tile) / 8) * 8
    return [(start, min(start + step, side)) for start in range(0, side, step)]


@torch.inference_mode()
def strips(model: nn.Module, img: Tensor, tile: int | None = None, progress: bool = False) -> Iterator[Tensor]:
    """The upscaled image from top to bottom, in strips: uint8 (3, H, W) -> uint8 (3, s rows, s W) each.

    model needs `scale_factor`; of several outputs the first is taken. Every tile is given as much of its surroundings
    as its pixels can depend on, so the strips, one below the other, are the whole image's result, without seams.
    tile: the largest side of a tile, a multiple of 8; None: `default_tile`.
    """
    if img.ndim != 3 or len(img) != 3 or img.dtype != torch.uint8:
        raise ValueError(f"one uint8 image (3, H, W) was expected, found {tuple(img.shape)} of {img.dtype}.")
    radius, scale, tile = receptive_radius(model), model.scale_factor, tile or default_tile(model)
    rows, columns = (_cuts(side, tile) for side in img.shape[1:])
    bar = tqdm(total=len(rows) * len(columns), unit="tile", mininterval=0.5, file=sys.stdout, disable=not progress)
    for top, bottom in rows:
        parts = []
        for left, right in columns:
            first_row, first_col = max(0, top - radius), max(0, left - radius)
            piece = img[:, first_row : bottom + radius, first_col : right + radius]
            output = training.predict(model, _filled_up(piece)[None] if scale == 1 else piece[None])
            sr_img = (output[0] if isinstance(output, tuple) else output)[0]
            height, width = (slice((start - first) * scale, (end - first) * scale) for start, end, first in
                             ((top, bottom, first_row), (left, right, first_col)))  # fmt: skip
            parts.append(datasets.to_uint8(sr_img[:, height, width]))
            bar.update()
        yield torch.cat(parts, 2)
    bar.close()


def _filled_up(img: Tensor, multiple: int = 8) -> Tensor:
    """The image with its last row and column repeated until both sides are multiples."""
    rows, cols = (torch.arange(-(-side // multiple) * multiple).clamp(max=side - 1) for side in img.shape[1:])
    return img[:, rows][:, :, cols]


def upscale(model: nn.Module, img: Tensor, tile: int | None = None) -> Tensor:
    """The whole upscaled image: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return torch.cat(list(strips(model, img, tile)), 1)


def colorize(model: NetSet.Colorizer, img: Tensor) -> Tensor:
    """A colorized photograph: uint8 (3, H, W), of which only the luma is read -> uint8 (3, H, W).

    The network knows images of 32x32, so the photograph is colorized at about that size, and its chroma, which is
    smooth, is upsampled and put under the luma that was given: every detail stays, and colours are broad.
    """
    grey = datasets.to_float(datasets.grey(img))
    scale = min(COLORIZED_SIDE / min(img.shape[1:]), (COLORIZED_AREA / img[0].numel()) ** 0.5)
    sides = [min(max(8, round(side * scale / 8) * 8), COLORIZED_AREA // 8) for side in img.shape[1:]]
    small = F.interpolate(grey[None], sides, mode="area")
    chroma = F.interpolate(training.predict(model, small) - small, img.shape[1:], mode="bicubic", align_corners=False)
    return datasets.to_uint8((grey + chroma[0]).clamp(0, 1))


# --- files ------------------------------------------------------------------------------------------------------------


def upscale_file(
    path: str | Path, name: str, out: str | Path | None = None, model: nn.Module | None = None, again: bool = False,
    progress: bool = True,
) -> Path:
    """Upscale, restore or colorize an image file by a model of `MODELS`, into a PNG file beside it; return its path.

    Any mode and orientation that `datasets.read_image` reads; transparency is kept. Raises FileExistsError rather than
    write over a file, unless it is to be made `again` (a notebook that is run a second time); over the input it never
    writes.
    """
    path = Path(path)
    out = Path(out) if out else path.with_name(f"{path.stem}_{name}.png")
    if out.suffix.lower() != ".png":
        raise ValueError(f"{out} must end in .png: that is the format that can be written strip by strip.")
    if out.exists() and not (again and out.resolve() != path.resolve()):
        raise FileExistsError(f"{out} is there already: move it away, or name another file with --out.")
    img, alpha = datasets.read_image(path), _read_alpha(path)
    model = model or load(name)
    runs.write_whole(out, lambda beside: _write_png(beside, model, img, alpha, progress))
    return out


def _read_alpha(path: Path) -> Tensor | None:
    """How opaque every pixel is, uint8 (1, H, W), upright; None where all are."""
    with Image.open(path) as source:
        source.load()
        if "transparency" not in source.info and source.mode not in ("RGBA", "RGBa", "LA", "La", "PA"):
            return None
        alpha = images._turned_upright(source).convert("RGBA").getchannel("A")
    alpha = torch.from_numpy(np.array(alpha))[None]
    return alpha if (alpha < 255).any() else None


def _write_png(path: Path, model: nn.Module, img: Tensor, alpha: Tensor | None, progress: bool) -> None:
    import png  # pypng: the one that writes while rows are still being made

    height, width = (side * model.scale_factor for side in img.shape[1:])
    alpha = None if alpha is None else datasets.imresize(alpha, model.scale_factor)
    parts = [colorize(model, img)] if isinstance(model, NetSet.Colorizer) else strips(model, img, progress=progress)

    def rows() -> Iterator[bytes]:
        top = 0
        for part in parts:
            if alpha is not None:  # colours were put on white to be read: what is left without the white
                opacity = alpha[:, top : top + part.shape[1]]
                colour = 255 - (255 - part.float()) * 255 / opacity.clamp(min=1)
                part, top = torch.cat([colour.round().clamp(0, 255).to(torch.uint8), opacity]), top + part.shape[1]
            yield from (row.tobytes() for row in part.permute(1, 2, 0).numpy())

    with open(path, "wb") as file:
        writer = png.Writer(width, height, greyscale=False, alpha=alpha is not None, bitdepth=8, compression=1)
        writer.write(file, rows())


# --- test sets --------------------------------------------------------------------------------------------------------


def baselines(scale_factor: int) -> dict[str, Method]:
    """Upsamplers that learn nothing: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return {
        "nearest": lambda img: img.repeat_interleave(scale_factor, -2).repeat_interleave(scale_factor, -1),
        "bicubic": lambda img: datasets.imresize(img, scale_factor),
    }


def as_method(model: nn.Module, tile: int | None = None) -> Method:
    """A network as one of the methods of `measure`."""
    return lambda img: upscale(model, img, tile)


def bicubic_psnr(lr_img: Tensor, hr_img: Tensor) -> float:
    """What bicubic interpolation reaches on a batch: mean PSNR in dB on luma, a border of the scale shaved."""
    scale_factor = hr_img.shape[-1] // lr_img.shape[-1]
    sr_img = datasets.to_float(baselines(scale_factor)["bicubic"](datasets.to_uint8(lr_img)))
    return metrics.evaluate(sr_img, hr_img, "literature", scale_factor)["psnr_db"].mean().item()


def measure(
    methods: Mapping[str, Method], test_sets: Sequence[datasets.SRTestSet], protocols: Sequence[str] = ("literature",),
    niqe: metrics.NIQE | None = None,
) -> pd.DataFrame:
    """Every image of every test set by every method: a row for each set, method, image and protocol, with psnr_db and
    ssim, and niqe where `niqe` is given ("truth" is then a method as well).

    An image's name follows its set's where there are several sets. DIV2K is measured in RGB as well, as is usual. What
    has no value is nan, which pandas leaves out of means: the PSNR of an image identical to the truth (its SSIM is 1),
    PSNR and SSIM of an image too small for SSIM's window, NIQE of a flat or small image.
    """
    return _measure(methods, test_sets, protocols, niqe, weights={}, stored={})


def measure_cached(
    folder: str | Path, methods: Mapping[str, Method], weights: Mapping[str, str],
    test_sets: Sequence[datasets.SRTestSet], protocols: Sequence[str] = ("literature",),
    niqe: metrics.NIQE | None = None,
) -> pd.DataFrame:
    """As `measure`, but a network's scores are kept in folder/test_scores.json.

    weights: {method: fingerprint of its file of weights}; baselines have none and are measured each time. Scores count
    as long as weights, test set and protocols are the same; NIQE's whatever photographs `niqe` was made from.
    """
    path = Path(folder) / "test_scores.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stored = dict(before)
    table = _measure(methods, test_sets, protocols, niqe, weights, stored)
    if stored != before and runs.process_rank() == 0:
        runs.write_json(path, stored)
    return table


def _measure(methods, test_sets, protocols, niqe, weights: Mapping[str, str], stored: dict) -> pd.DataFrame:
    """`measure`; `stored` holds the scores of the methods that have weights, and takes in those that it lacks."""
    tables = []
    for test_set in test_sets:
        for method, apply in (methods | {"truth": None} if niqe else methods).items():
            place, key = f"{test_set.name} {method}", None
            if method in weights:
                key = [weights[method], test_set.fingerprint, list(protocols)]
            if key and stored.get(place, {}).get("key") == key and (not niqe or "niqe" in stored[place]["scores"]):
                scores = stored[place]["scores"]
            else:
                rows = [row for i in range(len(test_set)) for row in _score(apply, test_set, i, protocols, niqe)]
                scores = {column: [row[column] for row in rows] for column in rows[0]}
                if key:
                    stored[place] = {"key": key, "scores": scores}
            table = pd.DataFrame(scores | {"set": test_set.name, "method": method})
            tables.append(table.assign(image=[_image_name(test_set, name, test_sets) for name in table.image]))
    table = pd.concat(tables, ignore_index=True)
    columns = [column for column in ("psnr_db", "ssim", "niqe") if column in table]
    table = table[["set", "image", "method", "protocol", *columns]].astype(dict.fromkeys(columns, float))
    for name in table.image[table.ssim.isna() & (table.method != "truth")].unique():
        print(f"{name}: no PSNR and SSIM, whose window needs {metrics.WINDOW_SIZE} pixels a side inside the border.")
    return table


def _score(apply: Method | None, test_set, index: int, protocols: Sequence[str], niqe) -> Iterator[dict]:
    """A row for each protocol of one image by one method, or by none: the truth. What has no value is None."""
    lr_img, hr_img = test_set.pair(index)
    sr_img = datasets.to_float(apply(lr_img) if apply else hr_img)
    row = {"image": test_set.names[index]}
    if niqe:
        value = niqe.score(sr_img) if min(sr_img.shape[1:]) >= metrics.NIQE_BLOCK else math.nan
        row["niqe"] = value if math.isfinite(value) else None
    in_rgb = test_set.name == "DIV2K/valid" and "rgb" not in protocols
    for protocol in (*protocols, *(["rgb"] if in_rgb else [])) if apply else protocols[:1]:
        border = metrics.border_of(protocol, test_set.scale_factor)
        scores = dict.fromkeys(("psnr_db", "ssim"))
        if apply and min(hr_img.shape[1:]) - 2 * border >= metrics.WINDOW_SIZE:
            pair = sr_img[None], datasets.to_float(hr_img)[None]
            values = metrics.evaluate(*pair, protocol, test_set.scale_factor)
            scores = {name: value.item() if value.isfinite() else None for name, value in values.items()}
        yield row | {"protocol": protocol} | scores


def _image_name(test_set: datasets.SRTestSet, name: str, test_sets: Sequence[datasets.SRTestSet]) -> str:
    return f"{test_set.name} {name}" if len(test_sets) > 1 else name


def upscaled_images(
    methods: Mapping[str, Method], test_sets: Sequence[datasets.SRTestSet], names: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """The few images that a figure shows, by their names in `measure`: {name: {method: uint8 image, "truth": ...}}."""
    places = {_image_name(test_set, name, test_sets): (test_set, index)
              for test_set in test_sets for index, name in enumerate(test_set.names)}  # fmt: skip
    if absent := [name for name in names if name not in places]:
        raise ValueError(f"no test image is called {', '.join(absent)}; there are {', '.join(places)}.")
    pairs = {name: places[name][0].pair(places[name][1]) for name in names}
    return {name: {method: apply(lr_img) for method, apply in methods.items()} | {"truth": hr_img}
            for name, (lr_img, hr_img) in pairs.items()}  # fmt: skip


# --- what the super-resolution notebooks share ------------------------------------------------------------------------


@dataclass
class SRData:
    """Training crops, validation crops (N, 3, h, w) and (N, 3, sh, sw) in [0, 1], and whole test images."""

    train_set: datasets.DIV2KDataset
    valid_set: datasets.SRTestSet
    valid_lr: Tensor
    valid_hr: Tensor
    test_sets: list[datasets.SRTestSet]

    @property
    def identity(self) -> dict[str, str]:
        """What a run stores about its training photographs."""
        return {"name": self.train_set.name, "fingerprint": self.train_set.fingerprint}

    @property
    def tested_on(self) -> list[str]:
        return [f"{test_set.name} ({len(test_set)} images)" for test_set in self.test_sets]


def sr_data(begun: runs.Begun, augment: bool = True, div2k: bool = False) -> SRData:
    """The data of a super-resolution task, by its settings; prints a line about them. div2k: test on it as well."""
    root, settings, scale_factor = begun.data_root, begun.settings, begun.settings.scale_factor
    train_set = datasets.find_sr_train(root, settings.crop_size, scale_factor, augment, settings.num_photographs)
    valid_set = datasets.find_sr_valid(root, scale_factor)
    test_sets = datasets.find_sr_test(root, scale_factor, div2k)
    valid_crops = datasets.centre_crops(valid_set, settings.valid_size)
    data = SRData(train_set.to(begun.device), valid_set, *valid_crops, test_sets)
    names = [f"{train_set.name} ({len(train_set)} images)", f"{valid_set.name} ({len(valid_set)} images)"]
    print(f"Train: {names[0]} · validation: {names[1]} · test: {', '.join(data.tested_on)}")
    return data


def sr_validate(
    valid_lr: Tensor, valid_hr: Tensor, scale_factor: int, niqe: metrics.NIQE | None = None
) -> Callable[[nn.Module], dict[str, float]]:
    """The `validate` of `training.fit`: mean PSNR on luma, and NIQE of all crops together where `niqe` is given."""

    def validate(model: nn.Module) -> dict[str, float]:
        sr_img = training.predict(model, valid_lr, batch_size=8)
        psnr_db = metrics.evaluate(sr_img, valid_hr, "literature", scale_factor)["psnr_db"].mean().item()
        return {"psnr_db": psnr_db} | ({"niqe": niqe.score(metrics.quantize(sr_img))} if niqe else {})

    return validate


def sr_scores(
    folder: str | Path, networks: Mapping[str, nn.Module], weights: Mapping[str, str],
    test_sets: Sequence[datasets.SRTestSet], protocols: Sequence[str] = ("literature",),
    niqe: metrics.NIQE | None = None,
) -> pd.DataFrame:
    """`measure_cached` of networks beside nearest and bicubic, whose scores are kept too."""
    methods = baselines(test_sets[0].scale_factor)
    weights = dict.fromkeys([*methods, "truth"], "no weights") | weights
    methods |= {name: as_method(network) for name, network in networks.items()}
    return measure_cached(folder, methods, weights, test_sets, protocols, niqe)


def means(scores: pd.DataFrame) -> list[dict]:
    """Means over each test set, a row for each protocol, set and method: the `summary` in run.json."""
    columns = [column for column in ("psnr_db", "ssim", "niqe") if column in scores]
    table = scores.groupby(["protocol", "set", "method"], sort=False)[columns].mean().round(4)
    return table.astype(object).where(table.notna(), None).reset_index().to_dict("records")


# --- commands ---------------------------------------------------------------------------------------------------------


def show_test_sets(name: str, data_root: str | Path = datasets.DATA_ROOT) -> None:
    """Print a model's PSNR and SSIM on every test set that is there, beside bicubic, and how to get the others."""
    model = load(name)
    methods = {"bicubic": baselines(model.scale_factor)["bicubic"], name: as_method(model)}
    for test_set in datasets.find_sr_test(data_root, model.scale_factor, div2k=True):
        for (method, protocol), rows in measure(methods, [test_set]).groupby(["method", "protocol"], sort=False):
            values = f"{rows.psnr_db.mean():6.2f} {rows.ssim.mean():.4f}".replace("nan", "  –")
            label = f"{metrics.protocol_label('psnr_db', protocol, model.scale_factor)} and SSIM, {len(rows)} images"
            counts = {"too small": rows.ssim.isna(), "identical": rows.psnr_db.isna() & rows.ssim.notna()}
            label += "".join(f", {which.sum()} {reason}" for reason, which in counts.items() if which.any())
            print(f"{test_set.name:12} {method:14} {values}  {label}")
    for absent, how in datasets.absent_sr_test(data_root).items():
        print(f"{absent:12} is not there: {how}")


def upscale_files(paths: Sequence[str], name: str, out: str | None = None) -> None:
    """Every file, and every image of every folder, by a model of `MODELS`. What was skipped or failed is said at the
    end. Raises ValueError where a file failed or nothing could be done.

    out: a .png file for a single image, else a folder for the results.
    """
    files, written, skipped, failed = [], [], [], []
    for path in map(Path, paths):
        try:
            found = datasets.list_images(path) if path.is_dir() else [path]
        except FileNotFoundError as error:
            failed.append(str(error))
            continue
        for file in found:
            if path.is_dir() and file.stem.endswith(f"_{name}"):
                skipped.append(f"{file}: it is a result of {name}.")
            elif file not in files:
                files.append(file)
    single, to_file = len(files) == 1, bool(out) and out.lower().endswith(".png")
    if to_file and len(files) > 1:
        raise ValueError(f"{out} can hold one image, found {len(files)}: name a folder with --out.")
    model = load(name)
    for file in tqdm(files, unit="image", mininterval=0.5, file=sys.stdout, disable=single):
        target = Path(out) if to_file else Path(out or file.parent) / f"{file.stem}_{name}.png"
        try:
            written.append(upscale_file(file, name, target, model, progress=single))
        except FileExistsError as error:
            skipped.append(f"{file}: {error}")
        except (OSError, ValueError) as error:
            failed.append(str(error))
    for line in [*(f"{path} is ready." for path in written), *(f"skipped {line}" for line in skipped)]:
        print(line)
    if failed or not written:
        raise ValueError("\nerror: ".join(failed) or "nothing was written.")


def make_parser() -> argparse.ArgumentParser:
    what = "Upscales, restores or colorizes images, or measures an upscaler."
    parser = argparse.ArgumentParser(prog="upscale.py", description=what)
    parser.add_argument("images", nargs="*", help="image files, or folders of them")
    parser.add_argument("--model", default="srnet_x2", choices=list(MODELS))
    parser.add_argument("--out", help="a folder, or for one image a .png file (default: beside each image)")
    parser.add_argument("--test-sets", action="store_true", help="measure the model on the test sets in --root")
    parser.add_argument("--root", default=datasets.DATA_ROOT, help="the folder of the data sets (default: DS)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if bool(args.images) == args.test_sets or (args.out and args.test_sets):
        parser.error("either images (and --out), or --test-sets")
    if args.test_sets and args.model in ("restore", "colorize"):
        parser.error("--test-sets measures upscalers: srnet_x2, srresnet_x4, srgan_x4 or resshuffle_x4")
    if args.test_sets:
        return datasets.in_one_line(lambda: show_test_sets(args.model, args.root), stopped="stopped.")
    stopped = "stopped; no unfinished file is left."
    return datasets.in_one_line(lambda: upscale_files(args.images, args.model, args.out), stopped)


if __name__ == "__main__":
    sys.exit(main())
