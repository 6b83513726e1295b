"""Super-resolution measured on the test sets, and the data that the super-resolution notebooks share."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path

import pandas as pd
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datasets
import metrics
import NetSet
import training
from tools import files, notebooks, runs
from tools.identity import hash_of, identity
from tools.runs import Task
from tools.upscale import load, upscale

Methods = Mapping[str, Callable[[Tensor], Tensor]]  # by name: uint8 (3, h, w) -> uint8 (3, sh, sw)
TestSets = Sequence[datasets.SRTestSet]

# --- test sets --------------------------------------------------------------------------------------------------------


def baselines(scale_factor: int) -> Methods:
    """Upsamplers that learn nothing: uint8 (3, H, W) -> uint8 (3, sH, sW)."""
    return {
        "nearest": lambda img: img.repeat_interleave(scale_factor, -2).repeat_interleave(scale_factor, -1),
        "bicubic": lambda img: datasets.imresize(img, scale_factor),
    }


def as_method(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network as one of the methods of `measure`."""
    return partial(upscale, model)


def bicubic_psnr(lr_img: Tensor, hr_img: Tensor) -> float:
    """What bicubic interpolation reaches on a batch: mean PSNR in dB on luma, a border of the scale shaved."""
    scale_factor = hr_img.shape[-1] // lr_img.shape[-1]
    sr_img = datasets.to_float(baselines(scale_factor)["bicubic"](datasets.to_uint8(lr_img)))
    return metrics.evaluate(sr_img, hr_img, "literature", scale_factor)["psnr_db"].mean().item()


def measure(
    methods: Methods, test_sets: TestSets, protocols: Sequence[str] = ("literature",), niqe: metrics.NIQE | None = None,
    path: Path | None = None, keys: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Scores of every method on every image: a row for each set, method, image and protocol, with psnr_db and ssim, and
    niqe where `niqe` is given ("truth" is then a method as well).
    With several sets, an image's name begins with its set's. DIV2K is measured in RGB as well, as is usual. What has no
    value is nan: the PSNR of an image identical to the truth, and any score of an image too small or too flat for it.
    path: a file in which scores are kept, for the methods in `keys`, {method: what its result depends on}.
    """
    keys, columns = keys or {}, ["psnr_db", "ssim", *(["niqe"] if niqe else [])]
    before = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    stored, tables = dict(before), []
    for test_set, (method, apply) in product(test_sets, (methods | {"truth": None} if niqe else methods).items()):
        place, key = f"{test_set.name} {method}", None
        found, asked = stored.get(place, {}), list(protocols) if apply else list(protocols)[:1]
        asked += ["rgb"] * bool(apply and test_set.name == "DIV2K/valid" and "rgb" not in asked)
        if method in keys:
            key = hash_of([keys[method], test_set.fingerprint, list(protocols), bool(niqe)])
        measured = found.get("scores", {"protocol": []})
        if os.environ.get(runs.ACCEPT) and set(measured["protocol"]) == set(asked) and measured.keys() >= set(columns):
            found = found | {"key": key}  # code was rewritten; what was not measured is not there to be accepted
        if not key or found.get("key") != key:
            rows = list(_score(apply, test_set, asked, niqe))
            found = {"key": key, "scores": {column: [row[column] for row in rows] for column in rows[0]}}
        if key:
            stored[place] = found
        table = pd.DataFrame(found["scores"]).assign(set=test_set.name, method=method)
        if len(test_sets) > 1:
            table["image"] = f"{test_set.name} " + table.image
        tables.append(table[["set", "image", "method", "protocol", *columns]].astype(dict.fromkeys(columns, float)))
    if stored != before and runs.process_rank() == 0:
        with files.said_only():
            files.write_json(path, stored)
    return pd.concat(tables, ignore_index=True)


def _score(apply: Callable | None, test_set, protocols: Sequence[str], niqe) -> Iterator[dict]:
    """A row for each image and protocol, of a method or of the truth (None). What has no value is None."""
    for index, name in enumerate(test_set.names):
        lr_img, hr_img = test_set.pair(index)
        sr_img, row = datasets.to_float(apply(lr_img) if apply else hr_img), {"image": name}
        if niqe:
            value = niqe.score(sr_img) if min(sr_img.shape[1:]) >= metrics.NIQE_BLOCK else math.nan
            row["niqe"] = value if math.isfinite(value) else None
        for protocol in protocols:
            inside = min(hr_img.shape[1:]) - 2 * metrics.border_of(protocol, test_set.scale_factor)
            row |= {"protocol": protocol, "psnr_db": None, "ssim": None}
            if apply and inside >= metrics.WINDOW_SIZE:
                channels = 1 if is_stored_gray(test_set.hr[index]) else 3
                pair = sr_img[None], datasets.to_float(hr_img)[None, :channels]
                values = metrics.evaluate(*pair, protocol, test_set.scale_factor)
                row |= {name: value.item() if value.isfinite() else None for name, value in values.items()}
            yield dict(row)


def is_stored_gray(source: Path | Tensor) -> bool:
    """Whether an image file has one channel, as one of Set14 does: `metrics.evaluate` scores such a truth as it is."""
    if isinstance(source, Tensor):
        return False
    with PIL.Image.open(source) as file:
        return file.mode in ("1", "L") or file.mode.startswith("I;16")


def upscaled_images(methods: Methods, test_sets: TestSets, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The few images that a figure shows, by their names in `measure`: {name: {method: uint8 image, "truth": ...}}."""
    prefix = "{} {}" if len(test_sets) > 1 else "{1}"
    pairs = {prefix.format(test_set.name, name): (test_set, index) for test_set in test_sets
             for index, name in enumerate(test_set.names)}  # fmt: skip
    shown = {}
    for name in names:
        test_set, index = pairs[name]
        lr_img, hr_img = test_set.pair(index)
        shown[name] = {method: apply(lr_img) for method, apply in methods.items()} | {"truth": hr_img}
    return shown


# --- what the super-resolution notebooks share ------------------------------------------------------------------------


class SRData:
    """Training crops, validation images and whole test images of a super-resolution notebook, by the task's settings:
    made anew where these change. Prints a line about them. div2k: DIV2K/valid is tested as well.
    """

    not_read = True  # by `identity`, in functions: `fit` is handed this object itself

    def __init__(self, task: Task, degradation: object, div2k: bool = False):
        self.task, self.degradation = task, degradation
        self._once = cache(lambda make, *arguments: make(*arguments))
        self.all_test_sets = datasets.find_sr_test(task.data_root, degradation, div2k)
        names = [f"{part.name} ({len(part)} images)" for part in (self.train_set, self.valid_set)]
        print(f"Train: {names[0]} · validation: {names[1]}\nTest: {' · '.join(self.tested_on)}")

    @property
    def train_set(self) -> datasets.DIV2KDataset:
        get = self.task.settings.get
        return self._once(datasets.find_sr_train, self.task.data_root, get("crop_size"), self.degradation,
                          get("augment") is not False, get("num_photographs")).to(self.task.device)  # fmt: skip

    @property
    def valid_set(self) -> datasets.SRTestSet:
        return self._once(datasets.find_sr_valid, self.task.data_root, self.degradation)

    @property
    def valid_crops(self) -> tuple[Tensor, Tensor]:
        """Center crops of the validation images: (N, 3, h, w) and (N, 3, sh, sw) in [0, 1]."""
        return self._once(datasets.center_crops, self.valid_set, self.task.settings.valid_size)

    @property
    def test_sets(self) -> list[datasets.SRTestSet]:
        """In the quick profile Set5 and Set14 alone, where they are there: B100 takes minutes."""
        small = [each for each in self.all_test_sets if each.name in ("Set5", "Set14")]
        return (self.task.profile == "quick" and small) or self.all_test_sets

    @property
    def identity(self) -> dict:
        """What a run stores about its training photographs. A study is shown without them."""
        return {"name": self.train_set.name, "fingerprint": self.train_set.fingerprint, "photographs": True}

    @property
    def tested_on(self) -> list[str]:
        return [f"{test_set.name} ({len(test_set)} images)" for test_set in self.test_sets]


def validation_scores(model: nn.Module, data: SRData, niqe: metrics.NIQE | None = None, features=None) -> dict:
    """Mean PSNR on luma of the center crops, and L1 in RGB. With `niqe` and `features` also NIQE of all crops together,
    the root mean square distance of their features, and `mix`, the product of the two: noise lowers NIQE and raises the
    distance, blur does the reverse.
    """
    lr_img, hr_img = data.valid_crops
    sr_img = training.predict(model, lr_img, batch_size=8)
    scale_factor = hr_img.shape[-1] // lr_img.shape[-1]
    scores = {"psnr_db": metrics.evaluate(sr_img, hr_img, "literature", scale_factor)["psnr_db"].mean().item()}
    scores["l1"] = F.l1_loss(sr_img, hr_img).item()
    if niqe and features:
        sr_img = metrics.quantize(sr_img)
        pairs = zip(sr_img.split(8), hr_img.split(8), strict=True)
        errors = [F.mse_loss(training.predict(features, sr), training.predict(features, hr)) for sr, hr in pairs]
        scores |= {"niqe": niqe.score(sr_img), "distance": torch.stack(errors).mean().sqrt().item()}
        scores["mix"] = scores["niqe"] * scores["distance"]
    return scores


def gains(model: nn.Module, data: SRData) -> pd.DataFrame:
    """PSNR on luma of bicubic interpolation and of a network, and the network's gain with its standard error, in dB: on
    center crops of up to 100 training photographs, those that are large enough, and of the validation photographs.
    """
    train_set, size = data.train_set, data.task.settings.valid_size
    images = (train_set.image(k).cpu() for k in range(0, len(train_set), math.ceil(len(train_set) / 100)))
    seen = datasets.SRTestSet(None, data.degradation, images=[img for img in images if min(img.shape[1:]) >= size])
    rows = {"validation": data.valid_crops}
    if len(seen):
        rows = {"training": datasets.center_crops(seen, size)} | rows
    for name, (lr_img, hr_img) in rows.items():
        bicubic = datasets.to_float(baselines(seen.scale_factor)["bicubic"](datasets.to_uint8(lr_img)))
        outputs = bicubic, training.predict(model, lr_img, batch_size=8)
        before, after = (metrics.evaluate(out, hr_img, "literature", seen.scale_factor)["psnr_db"] for out in outputs)
        gain, count = after - before, len(hr_img)
        rows[name] = {"photographs": count, "bicubic (dB)": before.mean().item(), "network (dB)": after.mean().item(),
                      "gain (dB)": gain.mean().item(), "standard error": gain.std().item() / count**0.5}  # fmt: skip
    return pd.DataFrame(rows).T.astype({"photographs": int})


def perceptual_features(task: Task, vgg: str, vgg_layer: list) -> NetSet.PerceptualFeatures:
    """Features of "vgg16" or "vgg19" where ImageNet weights are in the task's `data_root` and hold that layer, else of
    the project's own classifier. The quick profile always takes the latter, a fiftieth of the work. Its `name` says
    what they are. Which network it was is a part of the run's data: a study is shown without it.
    """
    weights, features = datasets.find_vgg(vgg, task.data_root), None
    if weights and task.profile != "quick":
        layer, name = vgg_layer, f"{vgg.upper()}, ImageNet"
        of = NetSet.PerceptualFeatures.of_vgg_blocks if "blocks" in weights.name else NetSet.PerceptualFeatures.of_vgg
        try:
            features = of(weights, *layer)
        except ValueError as error:  # the first blocks alone lack the later layers
            print(f"{weights} does not serve: {error}")
    if not features:
        found = map(runs.read_run, (task.results_root / "task2", runs.ROOT / "results" / "task2"))
        run = next((run for run in found if run and run.has_weights), None) or notebooks.require_run("task2", task)
        layer = task.settings.get("classifier_layer", [2, 2])
        weights, name = run.folder / "model.pth", f"ClassifyNet, {run.info['data']['name']}"
        features = NetSet.PerceptualFeatures.of_classifier(weights, run.info["settings"], *layer)
    features.name = f"{name}, phi({layer[0]}, {layer[1]}), weights {files.file_fingerprint(weights)}"
    features.identity = "features of a trained classifier"
    return features.to(task.device)


def sr_scores(
    trained: Mapping[str, runs.Run], test_sets: Sequence[datasets.SRTestSet],
    protocols: Sequence[str] = ("literature",), niqe: metrics.NIQE | None = None,
) -> pd.DataFrame:
    """`measure` of trained networks beside nearest and bicubic; what is measured is kept beside the last of the runs,
    under all that it depends on.
    """
    methods = baselines(test_sets[0].scale_factor)
    handed = {"evaluate": metrics.evaluate, "niqe": niqe}
    keys = {name: identity({}, {}, None, **handed, method=method) for name, method in methods.items()}
    keys["truth"] = identity({}, {}, None, **handed)
    for name, run in trained.items():
        methods[name] = as_method(run.network)
        keys[name] = identity({}, run.identity, None, network=run.network, **handed)
    return measure(methods, test_sets, protocols, niqe, [*trained.values()][-1].folder / "test_scores.json", keys)


def means(scores: pd.DataFrame) -> list[dict]:
    """Means over each test set, a row for each protocol, set and method: the `summary` in run.json."""
    columns = [column for column in ("psnr_db", "ssim", "niqe") if column in scores]
    table = scores.groupby(["protocol", "set", "method"], sort=False)[columns].mean().round(4)
    return table.astype(object).where(table.notna(), None).reset_index().to_dict("records")


def show_test_sets(name: str, data_root: str | Path = datasets.DATA_ROOT) -> None:
    """Print a model's PSNR and SSIM on every test set that is there, beside bicubic."""
    names = datasets.SR_TEST_SETS
    if data_root != datasets.DATA_ROOT and not any(datasets.is_there(name, data_root) for name in names):
        raise FileNotFoundError(f"{data_root} holds none of the test sets {', '.join(names)}.")
    model = load(name)
    methods = {"bicubic": baselines(model.scale_factor)["bicubic"], name: as_method(model)}
    for test_set in datasets.find_sr_test(data_root, model.scale_factor, div2k=True):
        for (method, protocol), rows in measure(methods, [test_set]).groupby(["method", "protocol"], sort=False):
            label = metrics.protocol_label("psnr_db", protocol, model.scale_factor)
            values = f"{rows.psnr_db.mean():6.2f} {rows.ssim.mean():.4f}  {label} and SSIM".replace("nan", "  –")
            print(f"{test_set.name:12} {method:14} {values}, {rows.psnr_db.count()} of {len(rows)} images")
    if missing := [name for name in names if not datasets.is_there(name, data_root)]:
        print(f"Not in {data_root}: {', '.join(missing)}; `python3 run.py data` says how to get them.")
