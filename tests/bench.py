"""Speed, each contestant beside the others in one run: `python3 run.py bench [PART ...]` writes results/bench.json.

Contestants take turns, and the median of their times counts. Metrics and the NumPy port of imresize must give our
values; other resizers differ by rounding and borders. docs/speed.md is made from the JSON.
"""
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import piq
import pytorch_msssim
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as torchmetrics_image
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402
import metrics  # noqa: E402
import training  # noqa: E402
from tests.matlab import plain_imresize  # noqa: E402
from tools import files, runs, upscale  # noqa: E402

GENERATOR = torch.Generator().manual_seed(0)


def race(contestants: dict[str, Callable[[], object]], seconds: float = 8.0, least: int = 3) -> dict[str, float]:
    """The median seconds of each, by turns, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    started = time.perf_counter()
    while min(map(len, times.values())) < least or time.perf_counter() - started < seconds:
        for name, run in contestants.items():
            before = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - before)
    return {name: statistics.median(values) for name, values in times.items()}


def row(what: str, times: dict[str, float], target: float | None, against: str | None = None) -> dict:
    """Ours against one contestant, or the fastest of the others."""
    against = against or min(times.keys() - {"ours"}, key=times.get)
    return {"what": what, "seconds": times, "against": against, "ratio": times[against] / times["ours"],
            "target": target}  # fmt: skip


def photographs(num: int, height: int, width: int) -> torch.Tensor:
    """uint8 (num, 3, height, width): smooth noise, to which a fine one is added."""
    coarse = torch.rand(num, 3, max(2, height // 8), max(2, width // 8), generator=GENERATOR)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return datasets.to_uint8(smooth + 0.1 * torch.rand(smooth.shape, generator=GENERATOR) - 0.05)


def bench_metrics() -> list[dict]:
    """torchmetrics counts SSIM's padded border, so only pytorch-msssim and piq stand beside ours there."""
    rows = []
    shapes = {"10,000 of 32×32": (10_000, 32, 32), "16 of 512×512": (16, 512, 512), "one of 2048×1080": (1, 1080, 2048)}
    for what, (num, height, width) in shapes.items():
        hr_img = photographs(num, height, width)
        sr_img = (hr_img.float() + 6 * torch.randn(hr_img.shape, generator=GENERATOR)).clamp(0, 255).round() / 255
        pair, size = (sr_img, hr_img / 255), max(1, 2_000_000 // (height * width))

        def split(metric, pair=pair, size=size):
            return lambda: torch.cat([metric(x, y).reshape(-1)
                                      for x, y in zip(*(img.split(size) for img in pair), strict=True)])  # fmt: skip

        contestants = {
            "ssim": {
                "ours": lambda pair=pair: metrics.ssim(*pair),
                "pytorch-msssim": split(lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0, size_average=False)),
                "piq": split(lambda x, y: piq.ssim(x, y, downsample=False, reduction="none")),
            },
            "psnr": {
                "ours": lambda pair=pair: metrics.psnr(*pair),
                "piq": split(lambda x, y: piq.psnr(x, y, reduction="none")),
                "torchmetrics": split(lambda x, y: torchmetrics_image.peak_signal_noise_ratio(
                    x, y, data_range=1.0, dim=(1, 2, 3), reduction="none")),
            },
        }  # fmt: skip
        for metric, ways in contestants.items():
            values = {name: way().double() for name, way in ways.items()}
            assert all((value - values["ours"]).abs().max() < 1e-2 for value in values.values()), metric
            rows.append(row(f"{metric}, {what}", race(ways), 2.0 if num > 1000 else 1.0))
    return rows


def bench_imresize() -> list[dict]:
    rows = []
    cases = {"one of 2040×1356, halved": (1, 1356, 2040), "10,000 of 32×32, halved (Fuzz)": (10_000, 32, 32)}
    for what, img in ((what, photographs(*shape)) for what, shape in cases.items()):
        arrays, size = list(img.permute(0, 2, 3, 1).numpy()), [side // 2 for side in img.shape[2:]]
        few = arrays[:100]  # the port would take minutes for all: its time is scaled up
        ways = {
            "ours": lambda img=img: datasets.Fuzz(2)(img),
            "Pillow": lambda arrays=arrays, size=size: [
                np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.BICUBIC)) for a in arrays],
            "torch, antialias": lambda img=img, size=size: F.interpolate(
                img.float(), size, mode="bicubic", antialias=True).round().clamp(0, 255).byte(),
            "NumPy port": lambda few=few: [plain_imresize(a, 0.5) for a in few],
        }  # fmt: skip
        port = torch.from_numpy(np.stack(ways["NumPy port"]())).permute(0, 3, 1, 2)
        assert port.equal(ways["ours"]()[: len(few)]), "the port differs, so it is no contestant"
        times = race(ways)
        times["NumPy port"] *= len(arrays) / len(few)
        targets = {"NumPy port": 20.0, "Pillow": 0.5 if len(img) == 1 else 1.0, "torch, antialias": None}
        rows += [row(f"imresize, {what}", times, target, peer) for peer, target in targets.items()]
    return rows


def upscale_alone(name: str, in_tiles: bool) -> tuple[float, float]:
    """Seconds and peak memory (GB) of upscaling one megapixel, in a process that does nothing else."""
    import resource

    img, model = photographs(1, 800, 1200), upscale.load(name).cpu()
    started = time.perf_counter()
    upscale.upscale(model, img[0]) if in_tiles else training.predict(model, img)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def bench_upscale() -> list[dict]:
    rows = []
    for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):  # run.py's, which upscale.py does without
        os.environ.pop(name, None)
    for name in ("srnet_x2", "resshuffle_x4"):
        found = {}
        for way, in_tiles in (("ours", True), ("the whole image at once", False)):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[way] = pool.submit(upscale_alone, name, in_tiles).result()
        times, memory = ({way: pair[k] for way, pair in found.items()} for k in range(2))
        rows.append(row(f"{name}, 800×1200, in tiles", times, 0.87) | {"peak memory (GB)": memory})
    return rows


PARTS = {"imresize": bench_imresize, "metrics": bench_metrics, "upscale": bench_upscale}


def main(names: list[str], path: Path = ROOT / "results" / "bench.json") -> int:
    """Measure the named parts anew, or all. What is not measured stays, if it was measured with the same versions."""
    if unknown := set(names) - set(PARTS):
        print(f"bench has the parts {', '.join(PARTS)}; found {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    environment, rows = runs.environment(torch.device("cpu")), []
    if names and path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        rows = old["rows"] if old["environment"] == environment else []
    for part in names or PARTS:
        measured = [{"part": part} | one for one in PARTS[part]()]
        for one in measured:
            print(f"{one['what']}: {one['ratio']:.2f} times as fast as {one['against']}", flush=True)
        rows = [one for one in rows if one["part"] != part] + measured
        files.write_json(path, {"environment": environment, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
