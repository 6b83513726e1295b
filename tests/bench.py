"""Speed, each contestant beside the others in one run: `python3 run.py bench [PART ...]` writes results/bench.json.

Contestants take turns, and the median of their times counts. Large batches go to all of them in pieces of one size,
which a cache holds. Metrics and the NumPy port of imresize must give our values; other resizers differ by rounding and
borders. docs/speed.md is made from the JSON, which has the times of every contestant.
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

import cv2
import numpy as np
import piq
import pytorch_msssim
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as torchmetrics_image
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as torchvision_functional

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402
import metrics  # noqa: E402
import training  # noqa: E402
from tests.matlab import plain_imresize  # noqa: E402
from tools import files, runs, upscale  # noqa: E402

PIECE = 2**17  # values of images that the contestants of a metric get at a time
COPY, OPENCV = "a copy of both images", "OpenCV, not antialiased"
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


def row(what: str, times: dict[str, float], target: float | None, *against: str) -> dict:
    """Ours against the fastest of some contestants, of all the others where none is named."""
    against = min(against or times.keys() - {"ours"}, key=times.get)
    return {"what": what, "seconds": times, "against": against, "ratio": times[against] / times["ours"],
            "target": target}  # fmt: skip


def photographs(num: int, height: int, width: int) -> torch.Tensor:
    """uint8 (num, 3, height, width): smooth noise, to which a fine one is added."""
    coarse = torch.rand(num, 3, max(2, height // 8), max(2, width // 8), generator=GENERATOR)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return datasets.to_uint8(smooth + 0.1 * torch.rand(smooth.shape, generator=GENERATOR) - 0.05)


def bench_metrics() -> list[dict]:
    """torchmetrics counts SSIM's padded border, so only pytorch-msssim and piq stand beside ours there. PSNR must read
    both images once: a copy of both says how long memory takes for that.
    """
    rows = []
    shapes = {"10,000 of 32×32": (10_000, 32, 32), "16 of 512×512": (16, 512, 512), "one of 2048×1080": (1, 1080, 2048)}
    for what, (num, height, width) in shapes.items():
        hr_img = photographs(num, height, width)
        sr_img = (hr_img.float() + 6 * torch.randn(hr_img.shape, generator=GENERATOR)).clamp(0, 255).round() / 255
        pair, size = (sr_img, hr_img / 255), max(1, PIECE // hr_img[0].numel())

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
            if metric == "psnr":
                times = race(ways | {COPY: lambda pair=pair: [img.numpy().copy() for img in pair]})
                rows += [row(f"psnr, {what}", times, 1.0, *ways.keys() - {"ours"}),
                         row(f"psnr, {what}", times, 0.5, COPY)]  # fmt: skip
            else:
                rows.append(row(f"ssim, {what}", race(ways), 3.5 if num > 1000 else 1.5))
    return rows


def bench_imresize() -> list[dict]:
    """uint8 to uint8, of photographs in channel order; interleaved ("channels last") for those who want that. On one
    thread, which is all that Pillow and the port use, then on two. OpenCV's bicubic does without antialiasing, so it
    reads a fourth as many pixels.
    """
    rows, num_threads = [], torch.get_num_threads()
    cases = {"one of 2040×1356, halved": (1, 1356, 2040), "10,000 of 32×32, halved (Fuzz)": (10_000, 32, 32)}
    for what, img in ((what, photographs(*shape)) for what, shape in cases.items()):
        arrays, size = list(img.permute(0, 2, 3, 1).contiguous().numpy()), [side // 2 for side in img.shape[2:]]
        interleaved = img.contiguous(memory_format=torch.channels_last)
        few = arrays[:100]  # the port would take minutes for all: its time is scaled up

        def pieces(resize, img=img):  # as many values as `imresize` takes at a time
            return lambda: torch.cat([resize(part) for part in img.split(max(1, 2**18 // img[0, 0].numel() // 3))])

        def torch_resize(part, size=size):
            return F.interpolate(part, size, mode="bicubic", antialias=True)

        ways = {
            "ours": lambda img=img: datasets.Fuzz(2)(img),
            "torch": pieces(torch_resize),
            "torch, channels last": pieces(torch_resize, interleaved),
            "torchvision": pieces(lambda part, size=size: torchvision_functional.resize(
                part, size, InterpolationMode.BICUBIC, antialias=True)),
            OPENCV: lambda arrays=arrays, size=size: [
                cv2.resize(a, size[::-1], interpolation=cv2.INTER_CUBIC) for a in arrays],
        }  # fmt: skip
        alone = {
            "Pillow": lambda arrays=arrays, size=size: [
                np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.BICUBIC)) for a in arrays],
            "NumPy port": lambda few=few: [plain_imresize(a, 0.5) for a in few],
        }  # fmt: skip
        ours, fast = ways["ours"](), [name for name in ways if name.startswith("torch")]
        port = torch.from_numpy(np.stack(alone["NumPy port"]())).permute(0, 3, 1, 2)
        assert port.equal(ours[: len(few)]), "the port differs, so it is no contestant"
        for name in fast:
            far = (ways[name]().int() - ours.int())[..., 2:-2, 2:-2].abs() > 1
            assert far.float().mean() < 1e-4, f"{name} resizes in another way"
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            times, title = race(ways | (alone if threads == 1 else {})), f"imresize, {what}, {threads} thread"
            if threads == 1:
                times["NumPy port"] *= len(arrays) / len(few)
                targets = {"NumPy port": 20.0, "Pillow": 0.5 if len(img) == 1 else 1.0, OPENCV: None}
                rows += [row(title, times, target, peer) for peer, target in targets.items()]
            rows.append(row(title + "s" * (threads > 1), times, None, *fast))
        torch.set_num_threads(num_threads)
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
