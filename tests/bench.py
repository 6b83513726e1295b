"""Speed, each contestant beside the others in one run: `python3 run.py bench` writes results/bench.json.

Contestants take turns, and the median of their times counts. Large batches go to all of them in pieces of one size,
which a cache holds. Metrics and the NumPy port of imresize must give our values; other resizers differ by rounding and
borders. docs/speed.md is made from the JSON, which has the times of every contestant.
"""
import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import piq
import pytorch_msssim
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as torchmetrics_image
from PIL import Image

import datasets
import metrics
import training
from tests.matlab import plain_imresize
from tools import files, runs, upscale

PIECE = 2**17  # values of images that the contestants get at a time
COPY, OPENCV, PORT = "a copy of both images", "OpenCV, not antialiased", "NumPy port"
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
    ratio = times[against] / times["ours"]
    print(f"{what}: {ratio:.2f} times as fast as {against}", flush=True)
    return {"what": what, "seconds": times, "against": against, "ratio": ratio, "target": target}


def photographs(num: int, height: int, width: int) -> torch.Tensor:
    """uint8 (num, 3, height, width): smooth noise, to which a fine one is added."""
    coarse = torch.rand(num, 3, max(2, height // 8), max(2, width // 8), generator=GENERATOR)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return datasets.to_uint8(smooth + 0.1 * torch.rand(smooth.shape, generator=GENERATOR) - 0.05)


def in_pieces(function: Callable, values: int, *images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The function applied to so many values of the images at a time."""
    parts = [img.split(max(1, values // images[0][0].numel())) for img in images]
    return lambda: torch.cat([function(*part) for part in zip(*parts, strict=True)])


def bench_metrics(size: str, num: int, height: int, width: int, ssim_target: float) -> list[dict]:
    """torchmetrics counts SSIM's padded border, so only pytorch-msssim and piq stand beside ours there. PSNR must read
    both images once: a copy of both says how long memory takes for that.
    """
    hr_img = photographs(num, height, width)
    sr_img = (hr_img.float() + 6 * torch.randn(hr_img.shape, generator=GENERATOR)).clamp(0, 255).round() / 255
    pair = sr_img, hr_img / 255
    peers = {
        "ssim": {"pytorch-msssim": lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0, size_average=False),
                 "piq": lambda x, y: piq.ssim(x, y, downsample=False, reduction="none")},
        "psnr": {"piq": lambda x, y: piq.psnr(x, y, reduction="none"),
                 "torchmetrics": lambda x, y: torchmetrics_image.peak_signal_noise_ratio(
                     x, y, data_range=1.0, dim=(1, 2, 3), reduction="none").reshape(-1)},
    }  # fmt: skip
    times = {}
    for metric, others in peers.items():
        ways = {"ours": functools.partial(getattr(metrics, metric), *pair)}
        ways |= {name: in_pieces(other, PIECE, *pair) for name, other in others.items()}
        values = {name: way().double() for name, way in ways.items()}
        assert all((value - values["ours"]).abs().max() < 1e-2 for value in values.values()), metric
        times[metric] = race(ways | ({COPY: lambda: [img.numpy().copy() for img in pair]} if metric == "psnr" else {}))
    return [row(f"ssim, {size}", times["ssim"], ssim_target),
            row(f"psnr, {size}", times["psnr"], 1.0, *peers["psnr"]),
            row(f"psnr, {size}", times["psnr"], 0.5, COPY)]  # fmt: skip


def bench_imresize(what: str, num: int, height: int, width: int, pillow_target: float) -> list[dict]:
    """uint8 to uint8, of photographs in channel order; interleaved ("channels last") for those who want that. On one
    thread, which is all that Pillow and the port use, then on two. OpenCV's bicubic does without antialiasing, so it
    reads a fourth as many pixels.
    """
    img, size = photographs(num, height, width), [height // 2, width // 2]
    arrays = list(img.permute(0, 2, 3, 1).contiguous().numpy())
    few = arrays[:100]  # the port would take minutes for all: its time is scaled up

    def torch_resize(part):
        return F.interpolate(part, size, mode="bicubic", antialias=True)

    fast = {  # torchvision calls the same function
        "torch": in_pieces(torch_resize, 2**18, img),
        "torch, channels last": in_pieces(torch_resize, 2**18, img.contiguous(memory_format=torch.channels_last)),
    }
    ways = fast | {
        "ours": lambda: datasets.Fuzz(2)(img),
        OPENCV: lambda: [cv2.resize(a, size[::-1], interpolation=cv2.INTER_CUBIC) for a in arrays],
    }
    alone = {
        "Pillow": lambda: [np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.BICUBIC)) for a in arrays],
        PORT: lambda: [plain_imresize(a, 0.5) for a in few],
    }
    ours, port = ways["ours"](), torch.from_numpy(np.stack(alone[PORT]())).permute(0, 3, 1, 2)
    assert port.equal(ours[: len(few)]), "the port differs, so it is no contestant"
    for name, way in fast.items():
        far = (way().int() - ours.int())[..., 2:-2, 2:-2].abs() > 1
        assert far.float().mean() < 1e-4, f"{name} resizes in another way"
    rows, num_threads = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        title = f"imresize, {what}, {threads} thread" + "s" * (threads > 1)
        times = race(ways | (alone if threads == 1 else {}))
        if threads == 1:
            times[PORT] *= len(arrays) / len(few)
            rows += [row(title, times, target, peer)
                     for peer, target in ((PORT, 20.0), ("Pillow", pillow_target), (OPENCV, None))]  # fmt: skip
        rows.append(row(title, times, None, *fast))
    torch.set_num_threads(num_threads)
    return rows


def upscale_alone(name: str, in_tiles: bool) -> tuple[float, float]:
    """Seconds and peak memory (GB) of upscaling one megapixel, in a process that does nothing else."""
    import resource

    img, model = photographs(1, 800, 1200), upscale.load(name).cpu()
    started = time.perf_counter()
    upscale.upscale(model, img[0]) if in_tiles else training.predict(model, img)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def bench_upscale(name: str) -> list[dict]:
    for variable in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"):  # run.py's, which upscale.py does without
        os.environ.pop(variable, None)
    times, memory = {}, {}
    for way, in_tiles in (("ours", True), ("the whole image at once", False)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            times[way], memory[way] = pool.submit(upscale_alone, name, in_tiles).result()
    return [row(f"{name}, 800×1200, in tiles", times, 0.87) | {"peak memory (GB)": memory}]


RACES = (
    (bench_imresize, "one of 2040×1356, halved", 1, 1356, 2040, 0.5),
    (bench_imresize, "10,000 of 32×32, halved (Fuzz)", 10_000, 32, 32, 1.0),
    (bench_metrics, "10,000 of 32×32", 10_000, 32, 32, 3.5),
    (bench_metrics, "16 of 512×512", 16, 512, 512, 1.5),
    (bench_metrics, "one of 2048×1080", 1, 1080, 2048, 1.5),
    (bench_upscale, "srnet_x2"),
    (bench_upscale, "resshuffle_x4"),
)

if __name__ == "__main__":
    rows = [row for bench, *case in RACES for row in bench(*case)]
    environment = runs.environment(torch.device("cpu"))
    files.write_json(runs.ROOT / "results" / "bench.json", {"environment": environment, "rows": rows})
