"""Speed, each contestant beside the others in one run: `python3 run.py bench` writes results/bench.json, and
`python3 run.py bench metrics` measures that part anew.

Contestants take turns, and the median of their times counts. Metrics and the NumPy port of imresize must give our
values, or do not count; other resizers differ by rounding and borders, and a training step's pictures by chance.
README's tables are made from the JSON by tables.py.
"""
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import piq
import pytorch_msssim
import skimage.metrics
import torch
import torch.nn.functional as F
import torchmetrics.functional.image as torchmetrics_image
from PIL import Image
from torchvision.transforms import v2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402
import enhance  # noqa: E402
import metrics  # noqa: E402
import NetSet  # noqa: E402
import tables  # noqa: E402
import training  # noqa: E402

CHANCE = torch.Generator().manual_seed(0)


def race(contestants: dict[str, Callable[[], object]], seconds: float = 8.0, least: int = 3) -> dict[str, float]:
    """The median seconds of each, by turns, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    started = None
    while started is None or min(map(len, times.values())) < least or time.perf_counter() - started < seconds:
        for name, run in contestants.items():
            before = time.perf_counter()
            run()
            if started:
                times[name].append(time.perf_counter() - before)
        started = started or time.perf_counter()
    return {name: statistics.median(values) for name, values in times.items()}


def photographs(num: int, height: int, width: int) -> torch.Tensor:
    """uint8 (num, 3, height, width): smooth noise, to which a fine one is added."""
    coarse = torch.rand(num, 3, max(2, height // 8), max(2, width // 8), generator=CHANCE)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return datasets.to_uint8((smooth + 0.1 * torch.rand(smooth.shape, generator=CHANCE) - 0.05).clamp(0, 1))


# --- metrics ----------------------------------------------------------------------------------------------------


def in_parts(metric: Callable, images: tuple[torch.Tensor, torch.Tensor], size: int) -> torch.Tensor:
    return torch.cat([metric(x, y).reshape(-1) for x, y in zip(*(img.split(size) for img in images), strict=True)])


def bench_metrics() -> list[dict]:
    rows = []
    shapes = {"10,000 of 32×32": (10_000, 32, 32), "16 of 512×512": (16, 512, 512), "one of 2048×1080": (1, 1080, 2048)}
    for what, (num, height, width) in shapes.items():
        hr_img = photographs(num, height, width)
        sr_img = (hr_img.float() + 6 * torch.randn(hr_img.shape, generator=CHANCE)).clamp(0, 255).round() / 255
        pair, size = (sr_img, hr_img / 255), max(1, 2_000_000 // (height * width))
        arrays = [img.permute(0, 2, 3, 1).numpy() for img in pair]

        def skimage_ssim(arrays=arrays):
            options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
            return [skimage.metrics.structural_similarity(x, y, channel_axis=2, **options)
                    for x, y in zip(*arrays, strict=True)]  # fmt: skip

        def skimage_psnr(arrays=arrays):
            return [skimage.metrics.peak_signal_noise_ratio(y, x, data_range=1.0) for x, y in zip(*arrays, strict=True)]

        def tm_ssim(x, y):
            return torchmetrics_image.structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")

        def tm_psnr(x, y):
            return torchmetrics_image.peak_signal_noise_ratio(x, y, data_range=1.0, dim=(1, 2, 3), reduction="none")

        ssims = {
            "ours": lambda pair=pair: metrics.ssim(*pair), "skimage": skimage_ssim,
            "torchmetrics": lambda pair=pair, size=size: in_parts(tm_ssim, pair, size),
            "piq": lambda pair=pair, size=size: in_parts(
                lambda x, y: piq.ssim(x, y, downsample=False, reduction="none"), pair, size),
            "pytorch-msssim": lambda pair=pair, size=size: in_parts(
                lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0, size_average=False), pair, size),
        }  # fmt: skip
        psnrs = {
            "ours": lambda pair=pair: metrics.psnr(*pair), "skimage": skimage_psnr,
            "torchmetrics": lambda pair=pair, size=size: in_parts(tm_psnr, pair, size),
            "piq": lambda pair=pair, size=size: in_parts(lambda x, y: piq.psnr(x, y, reduction="none"), pair, size),
        }
        for metric, contestants in (("ssim", ssims), ("psnr", psnrs)):
            wanted = metrics.ssim(*pair) if metric == "ssim" else metrics.psnr(*pair)
            off = {name: float((torch.as_tensor(run()).double() - wanted).abs().max()) for name, run in
                   contestants.items()}  # fmt: skip
            times = race(contestants)
            # torchmetrics counts the padded border of SSIM: it is timed, and stands apart
            peers = {n: t for n, t in times.items() if n != "ours" and off[n] < (1e-3 if metric == "ssim" else 1e-2)}
            rows.append({"what": f"{metric}, {what}", "seconds": times, "off": off,
                         "ratio": min(peers.values()) / times["ours"], "against": min(peers, key=peers.get),
                         "target": 2.0 if num > 1000 else 1.0})  # fmt: skip
    return rows


# --- resizing ---------------------------------------------------------------------------------------------------


def plain_imresize(img: np.ndarray, scale: float) -> np.ndarray:
    """MATLAB's routine as it is usually written for NumPy: indices and weights of each output row, then a loop."""
    def cubic(x):
        x = np.abs(x)
        return ((1.5 * x**3 - 2.5 * x**2 + 1) * (x <= 1)
                + (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * ((x > 1) & (x <= 2)))  # fmt: skip

    for axis in (0, 1):
        length, width = img.shape[axis], 4 / min(scale, 1)
        num = int(np.ceil(length * scale))
        place = (np.arange(1, num + 1) / scale) + 0.5 * (1 - 1 / scale)
        index = np.floor(place - width / 2)[:, None] + np.arange(int(np.ceil(width)) + 2)
        weight = min(scale, 1) * cubic(min(scale, 1) * (place[:, None] - index))
        weight /= weight.sum(1, keepdims=True)
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        index = mirror[(index.astype(int) - 1) % (2 * length)]
        shape = list(img.shape)
        shape[axis] = num
        out = np.zeros(shape)
        for k in range(num):
            if axis == 0:
                out[k] = np.tensordot(weight[k], img[index[k]].astype(float), 1)
            else:
                out[:, k] = np.tensordot(weight[k], img[:, index[k]].astype(float), ([0], [1]))
        img = np.clip(np.floor(out + 0.5), 0, 255).astype(np.uint8)
    return img


def bench_imresize() -> list[dict]:
    rows = []
    for what, img, port_counts in (
        ("one of 2040×1356, halved", photographs(1, 1356, 2040), True),
        ("10,000 of 32×32, halved (Fuzz)", photographs(10_000, 32, 32), False),
    ):
        arrays = [array.permute(1, 2, 0).numpy() for array in img]
        size = [side // 2 for side in img.shape[2:]]
        ours = datasets.imresize if port_counts else lambda img, scale: datasets.Fuzz(2)(img)
        few = arrays[:100]  # of the port, which would take minutes: its time is scaled up
        contestants = {
            "ours": lambda img=img, ours=ours: ours(img, 0.5),
            "Pillow": lambda arrays=arrays, size=size: [
                np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.BICUBIC)) for a in arrays],
            "torch, antialias": lambda img=img, size=size: F.interpolate(
                img.float(), size, mode="bicubic", antialias=True).round().clamp(0, 255).byte(),
            "NumPy port": lambda few=few: [plain_imresize(a, 0.5) for a in few],
        }  # fmt: skip
        same = torch.from_numpy(np.stack(contestants["NumPy port"]())).permute(0, 3, 1, 2)
        off = {"NumPy port": int((same.int() - contestants["ours"]()[: len(few)].int()).abs().max())}
        if off["NumPy port"]:
            raise ValueError(f"{what}: the port differs by {off['NumPy port']} levels, so it is no contestant.")
        times = race(contestants)
        times["NumPy port"] *= len(arrays) / len(few)
        for peer, target in (("NumPy port", 20.0), ("Pillow", 0.5 if port_counts else 1.0),
                             ("torch, antialias", None if port_counts else 1.0)):  # fmt: skip
            rows.append({"what": f"imresize, {what}", "seconds": times, "off": off, "against": peer,
                         "ratio": times[peer] / times["ours"], "target": target})  # fmt: skip
    return rows


# --- training steps ---------------------------------------------------------------------------------------------


def take_step(model, optimizer, loss) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def step_functions(task: str, plain: bool) -> tuple[Callable[[], object], int]:
    """(one training step, its batch size): ours on whole batches, or the plain way: per-image transforms of PIL images
    in a DataLoader, per-image resizing, contiguous format.
    """
    torch.manual_seed(0)
    narrow = {"num_channels": 64, "num_blocks": 2}
    if task == "task 1":
        size, model = 16, NetSet.SRNet(2, **narrow)
        large = photographs(8, 512, 512)
        train_set = datasets.DIV2KDataset(None, 64, 2, images=list(large))
        to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
        crop = v2.Compose([v2.RandomCrop(64), v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])

        pictures = [Image.fromarray(img.permute(1, 2, 0).numpy()) for img in large]

        class Plain(torch.utils.data.Dataset):
            def __len__(self):
                return 100 * size

            def __getitem__(self, index):
                hr_img = crop(pictures[index % len(pictures)])
                return to_tensor(hr_img.resize((32, 32), Image.Resampling.BICUBIC)), to_tensor(hr_img)

        def loss(model, batch):
            return F.l1_loss(model(batch[0]), batch[1])

        def ours(generator):
            while True:
                yield tuple(datasets.to_float(img) for img in train_set.batch(size, generator))
    else:
        size = 128 if task == "task 2" else 32
        images, labels = photographs(2_000, 32, 32), torch.randint(10, (2_000,), generator=CHANCE)
        classifier, fuzz = NetSet.ClassifyNet(num_channels=64), datasets.Fuzz(2)
        model = classifier if task == "task 2" else NetSet.MultiTaskNet(NetSet.SRNet(2, **narrow), classifier)
        change = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(32, padding=4, padding_mode="reflect"),
                             v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])  # fmt: skip

        pictures = [Image.fromarray(img.permute(1, 2, 0).numpy()) for img in images]

        class Plain(torch.utils.data.Dataset):
            def __len__(self):
                return len(pictures)

            def __getitem__(self, index):
                lr_img = hr_img = change(pictures[index])
                if task == "task 3":
                    lr_img = v2.functional.resize(hr_img, [16, 16], v2.InterpolationMode.BICUBIC, antialias=True)
                return lr_img, hr_img, int(labels[index])

        def loss(model, batch):
            if task == "task 2":
                return F.cross_entropy(model(batch[0]), batch[2])
            sr_img, logits = model(batch[0])
            return F.l1_loss(sr_img, batch[1]) + F.cross_entropy(logits, batch[2])

        def ours(generator):
            while True:
                for index in datasets.sample(len(images), size, len(images) // size, generator):
                    hr_img = datasets.augment(images[index], generator=generator)
                    lr_img = fuzz(hr_img) if task == "task 3" else hr_img
                    yield datasets.to_float(lr_img), datasets.to_float(hr_img), labels[index]

    def repeat(loader):
        while True:
            yield from loader

    if plain:
        source = repeat(torch.utils.data.DataLoader(Plain(), size, shuffle=True, drop_last=True))
    else:
        model, source = model.to(memory_format=torch.channels_last), ours(torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)

    def step():
        batch = next(source)
        if not plain:
            batch = [part.to(memory_format=torch.channels_last) if part.ndim == 4 else part for part in batch]
        take_step(model, optimizer, loss(model, batch))

    return step, size


def bench_steps() -> list[dict]:
    rows = []
    for task in ("task 1", "task 2", "task 3"):
        (ours, size), (plain, _) = step_functions(task, plain=False), step_functions(task, plain=True)
        times = race({"ours": ours, "the plain way": plain})
        memory = {name: in_own_process("step", task, str(name != "ours")) for name in times}
        rows.append({"what": f"training step, {task}", "seconds": times, "against": "the plain way",
                     "ratio": times["the plain way"] / times["ours"], "target": 1.0,
                     "images a second": {name: size / value for name, value in times.items()},
                     "peak memory (GB)": memory})  # fmt: skip
    return rows


def in_own_process(*what: str) -> float:
    """Peak memory, in GB, of a process that does one thing."""
    done = subprocess.run([sys.executable, __file__, *what], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


# --- a picture of one's own -------------------------------------------------------------------------------------


def bench_enlarge() -> list[dict]:
    img, model = photographs(1, 1152, 1728)[0], enhance.load("resshuffle_x4").cpu()
    ways = {"tiled": lambda: enhance.enlarge(model, img, 128), "whole": lambda: enhance.enlarge(model, img, 4096)}
    times = race(ways, seconds=0.0, least=1)
    memory = {way: in_own_process("enlarge", way) for way in times}
    return [{"what": "2-megapixel picture, ResShuffle ×4, tiled", "seconds": times, "against": "whole",
             "ratio": times["whole"] / times["tiled"], "target": None, "peak memory (GB)": memory}]  # fmt: skip


# --- epochs, from the histories ------------------------------------------------------------------------------------


def bench_epochs() -> list[dict]:
    """Epochs until validation accuracy first reaches the seed's test accuracies, from the committed histories: 84.80 %
    clean, 100 epochs there; 80.95 % on shrunken pictures, 50 more, here those of the adaptation to SRNet's pictures.
    An epoch counts the pictures that it drew, in units of 45,000.
    """
    rows = []
    for name, run, accuracy, epochs in (
        ("clean", "task2", tables.SEED_000["clean"], 100),
        ("shrunken", "multi/seed0/adapted_srnet", tables.SEED_000["joint"], 50),
    ):
        folder = ROOT / "results" / run
        history = training.in_epochs(training.read_run(folder), num_pictures=45_000)
        first = history[100 * history.accuracy_valid >= accuracy].iloc[0]
        ours = float(first.epoch)
        rows.append({
            "name": name, "accuracy": accuracy, "epochs": {"ours": ours, "seed 000": epochs}, "against": "seed 000",
            "ratio": epochs / ours, "seconds": {"ours": float(first.time_seconds)}, "target": 10.0,
        })  # fmt: skip
    return rows


PARTS = {  # "epochs" measures nothing: every call reads the histories
    "imresize": bench_imresize, "metrics": bench_metrics, "steps": bench_steps, "enlargement": bench_enlarge,
    "epochs": lambda: [],
}  # fmt: skip


def main(names: list[str], path: Path = ROOT / "results" / "bench.json") -> int:
    """Measure the named parts anew, or all. What is not measured stays, if it was measured with the same versions."""
    if unknown := set(names) - set(PARTS):
        print(f"bench has the parts {', '.join(PARTS)}; found {', '.join(sorted(unknown))}.", file=sys.stderr)
        return 2
    result = {"environment": training.environment(torch.device("cpu")), "epochs": bench_epochs(), "rows": []}
    kept = json.loads(path.read_text(encoding="utf-8")) if names and path.exists() else result
    if kept["environment"] != result["environment"]:
        print(f"{path} was measured under {kept['environment']}; measure every part anew.", file=sys.stderr)
        return 2
    parts = {part: [row for row in kept["rows"] if row["part"] == part] for part in PARTS}
    for part in names or PARTS:
        parts[part] = [{"part": part} | row for row in PARTS[part]()]
        for row in parts[part]:
            target = "" if row["target"] is None else f", target {row['target']:g}"
            print(f"{row['what']}: {row['ratio']:.2f} times as fast as {row['against']}{target}", flush=True)
        training.write_json(path, result | {"rows": [row for rows in parts.values() for row in rows]})
    return 0


def peak_memory() -> float:
    """Of this process, in GB. Linux counts its parent's into ru_maxrss, but not into VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        one_step, _ = step_functions(sys.argv[2], plain=sys.argv[3] == "True")
        for _ in range(5):
            one_step()
        print(peak_memory())
    elif sys.argv[1:2] == ["enlarge"]:
        picture, side = photographs(1, 1152, 1728)[0], 128 if "tiled" in sys.argv else 4096
        enhance.enlarge(enhance.load("resshuffle_x4"), picture, side)
        print(peak_memory())
    else:
        sys.exit(main(sys.argv[1:]))
