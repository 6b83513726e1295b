"""Super-resolution measured on the test sets, and the data that the super-resolution notebooks share."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import datasets
import metrics
import training
from tools import runs
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
    methods: Methods, test_sets: TestSets, protocols: Sequence[str] = ("literature",), niqe: metrics.NIQE | None = None
) -> pd.DataFrame:
    """Scores of every method on every image: a row for each set, method, image and protocol, with psnr_db and ssim, and
    niqe where `niqe` is given ("truth" is then a method as well).
    With several sets, an image's name begins with its set's. DIV2K is measured in RGB as well, as is usual. What has no
    value is nan: the PSNR of an image identical to the truth, and any score of an image too small or too flat for it.
    """
    return measure_cached(None, methods, {}, test_sets, protocols, niqe)


def measure_cached(
    folder: str | Path | None, methods: Methods, weights: Mapping[str, str], test_sets: TestSets,
    protocols: Sequence[str] = ("literature",), niqe: metrics.NIQE | None = None,
) -> pd.DataFrame:
    """As `measure`, but scores are kept in folder/test_scores.json for the methods in weights, {method: fingerprint of
    its weights}. They hold for the same weights, test set and protocols, and NIQE's for any photographs.
    """
    path = Path(folder) / "test_scores.json" if folder else None
    before = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    stored, tables, columns = dict(before), [], ["psnr_db", "ssim", *(["niqe"] if niqe else [])]
    for test_set in test_sets:
        prefix = f"{test_set.name} " if len(test_sets) > 1 else ""
        for method, apply in (methods | {"truth": None} if niqe else methods).items():
            place, key = f"{test_set.name} {method}", [weights.get(method), test_set.fingerprint, list(protocols)]
            found = stored.get(place, {"key": None, "scores": ()})
            if method not in weights or found["key"] != key or (niqe and "niqe" not in found["scores"]):
                rows = list(_score(apply, test_set, protocols, niqe))
                found = {"key": key, "scores": {column: [row[column] for row in rows] for column in rows[0]}}
                stored |= {place: found} if method in weights else {}
            table = pd.DataFrame(found["scores"] | {"set": test_set.name, "method": method})
            table = table.assign(image=prefix + table.image)[["set", "image", "method", "protocol", *columns]]
            tables.append(table.astype(dict.fromkeys(columns, float)))  # None, where there is no value, becomes nan
    if stored != before and runs.process_rank() == 0:
        runs.write_json(path, stored)
    return pd.concat(tables, ignore_index=True)


def _score(apply: Callable | None, test_set, protocols: Sequence[str], niqe) -> Iterator[dict]:
    """A row for each image and protocol, of a method or of the truth (None). What has no value is None."""
    also = ["rgb"] if test_set.name == "DIV2K/valid" else []
    protocols = dict.fromkeys([*protocols, *also]) if apply else protocols[:1]
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
                pair = sr_img[None], datasets.to_float(hr_img)[None]
                values = metrics.evaluate(*pair, protocol, test_set.scale_factor)
                row |= {name: value.item() if value.isfinite() else None for name, value in values.items()}
            yield dict(row)


def upscaled_images(methods: Methods, test_sets: TestSets, names: Sequence[str]) -> dict[str, dict[str, Tensor]]:
    """The few images that a figure shows, by their names in `measure`: {name: {method: uint8 image, "truth": ...}}."""
    prefix = {test_set: f"{test_set.name} " if len(test_sets) > 1 else "" for test_set in test_sets}
    pairs = {prefix[test_set] + name: test_set.pair(index) for test_set in test_sets
             for index, name in enumerate(test_set.names) if prefix[test_set] + name in names}  # fmt: skip
    return {name: {method: apply(pairs[name][0]) for method, apply in methods.items()} | {"truth": pairs[name][1]}
            for name in names}  # fmt: skip


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
    print(f"Train: {names[0]} · validation: {names[1]}\nTest: {' · '.join(data.tested_on)}")
    return data


def sr_validate(
    valid_lr: Tensor, valid_hr: Tensor, scale_factor: int, niqe: metrics.NIQE | None = None,
    features: nn.Module | None = None,
) -> Callable[[nn.Module], dict[str, float]]:
    """The `validate` of `training.fit`: mean PSNR on luma. With `niqe` and `features` also NIQE of all crops together,
    the root mean square distance of their features, and `mix`, the product of the two: noise lowers NIQE and raises
    the distance, blur does the reverse.
    """

    def validate(model: nn.Module) -> dict[str, float]:
        sr_img = training.predict(model, valid_lr, batch_size=8)
        scores = {"psnr_db": metrics.evaluate(sr_img, valid_hr, "literature", scale_factor)["psnr_db"].mean().item()}
        if niqe and features:
            sr_img = metrics.quantize(sr_img)
            pairs = zip(sr_img.split(8), valid_hr.split(8), strict=True)
            errors = [F.mse_loss(training.predict(features, sr), training.predict(features, hr)) for sr, hr in pairs]
            scores |= {"niqe": niqe.score(sr_img), "distance": torch.stack(errors).mean().sqrt().item()}
            scores["mix"] = scores["niqe"] * scores["distance"]
        return scores

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


def show_test_sets(name: str, data_root: str | Path = datasets.DATA_ROOT) -> None:
    """Print a model's PSNR and SSIM on every test set that is there, beside bicubic, and how to get the others."""
    model = load(name)
    methods = {"bicubic": baselines(model.scale_factor)["bicubic"], name: as_method(model)}
    for test_set in datasets.find_sr_test(data_root, model.scale_factor, div2k=True):
        for (method, protocol), rows in measure(methods, [test_set]).groupby(["method", "protocol"], sort=False):
            label = metrics.protocol_label("psnr_db", protocol, model.scale_factor)
            values = f"{rows.psnr_db.mean():6.2f} {rows.ssim.mean():.4f}  {label} and SSIM".replace("nan", "  –")
            print(f"{test_set.name:12} {method:14} {values}, {rows.psnr_db.count()} of {len(rows)} images")
    for absent, how in datasets.absent_sr_test(data_root).items():
        print(f"{absent:12} is not there: {how}")
