"""Faults, tried and counted: kills, damaged files, broken images.

`python -m tests.faults` (also `python3 run.py test --long`) tries them in full, in some two minutes, and writes
results/faults.json; tests/test_runs.py tries a few of each. Every function takes how many, and a folder, and returns
how many were survived.
"""
import contextlib
import faulthandler
import hashlib
import io
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

import datasets
import NetSet
from tests import test_training
from tools import files, runs, upscale


def train(folder: Path, num_epochs: int = 4, pause: float = 0.0) -> runs.Run:
    """A small classifier on random images in folder/task2, the same bits whenever it is trained: on one thread."""
    settings = test_training.SETTINGS | {"num_epochs": num_epochs}
    return test_training.fit(folder, settings=settings, report=lambda *_: time.sleep(pause))[1]


def killed_after(seconds: float, folder: Path, first_file: str, num_epochs: int = 4, pause: float = 0.05) -> None:
    """The same in a process of its own, killed so long after it has made that file, which must not be there yet."""
    command = [sys.executable, "-m", "tests.faults", "train", str(folder), str(num_epochs), str(pause)]
    process = subprocess.Popen(command, cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (folder / "task2" / first_file).exists():
        if process.poll() is not None:
            raise RuntimeError(f"It ended before it made {first_file}: {process.communicate()[0][-2000:]}")
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    if process.returncode == 0:
        raise RuntimeError("It was done before it was killed: give it more epochs.")


def digest(folder: Path) -> str:
    """The bits of a run's weights, and its losses; its times differ."""
    state = files.read_tensors(folder / "task2" / "model.pth")
    bits = b"".join(value.numpy().tobytes() for value in state.values())
    history = runs.read_run(folder / "task2").history.drop(columns="time_seconds")
    return hashlib.sha256(bits + history.to_csv().encode()).hexdigest()


def kills(count: int, folder: Path) -> int:
    """Training killed `count` times at random moments and started again: survived if the weights are, bit for bit,
    those of an uninterrupted run. Every kill counts once; all fail together.
    """
    num_epochs, chance = 20 + 10 * count, random.Random(0)
    train(folder / "whole", num_epochs)
    for _ in range(count):
        (folder / "killed" / "task2" / "run.lock").unlink(missing_ok=True)  # what a killed process leaves
        killed_after(chance.uniform(0, 0.8), folder / "killed", "run.lock", num_epochs, pause=0.01)
    train(folder / "killed", num_epochs)
    return count * (digest(folder / "killed") == digest(folder / "whole"))


def damaged_files(count: int, folder: Path) -> int:
    """A byte changed, or the end cut off, in a file of a run, finished or not: survived if what follows is a sentence
    (ValueError), or the very run that was there.
    """
    train(folder / "finished")
    killed_after(0, folder / "unfinished", "history.csv")
    wanted, chance, survived = digest(folder / "finished"), random.Random(0), 0
    places = [("finished", name) for name in ("model.pth", "run.json", "history.csv")]
    places += [("unfinished", name) for name in ("checkpoint.pth", "run.json", "history.csv")]
    for trial in range(count):
        which, name = places[trial % len(places)]
        shutil.rmtree(folder / "damaged", ignore_errors=True)
        shutil.copytree(folder / which, folder / "damaged")
        path = folder / "damaged" / "task2" / name
        content = path.read_bytes()
        at = chance.randrange(len(content))
        changed = bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        path.write_bytes(content[:at] + chance.choice((b"", changed)))
        try:
            train(folder / "damaged")
        except ValueError as error:
            survived += str(folder / "damaged") in str(error)
        else:
            survived += digest(folder / "damaged") == wanted
    return survived


def fuzzed_images(count: int, folder: Path) -> int:
    """Image files of seven formats with bytes changed, cut out or put in, through `read_image` and, where they are
    still images, through `upscale_file`: survived if the answer is an image or a sentence, within ten seconds.
    """
    chance, seeds = random.Random(0), []
    image, text, exif = Image.effect_noise((24, 17), 80), PngInfo(), Image.Exif()
    text.add_text("caption", "x" * 99, zip=True)
    exif.update({0x0112: 6, 0x8769: {0x9003: "2020"}})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    extra = {"exif": exif.tobytes(), "pnginfo": text, "dpi": (72, 72), "icc_profile": profile}
    frames = {"save_all": True, "append_images": [image]}
    for kind, mode in [("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("BMP", "RGB"),
                       ("GIF", "P"), ("TIFF", "RGB"), ("WEBP", "RGB"), ("PPM", "RGB")]:  # fmt: skip
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind, **extra, **(frames if kind in ("GIF", "TIFF") else {}))
        seeds.append((kind.lower(), buffer.getvalue()))
    model = NetSet.SRNet(num_channels=64, num_blocks=0).eval()

    survived = 0
    for trial in range(count):
        kind, content = seeds[trial % len(seeds)]
        content = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            at = chance.randrange(len(content) + 1)
            cut, put = chance.choice([(1, 1)] * 5 + [(chance.randrange(1, 9), 0), (0, chance.randrange(1, 9))])
            content[at : at + cut] = chance.randbytes(put)
        path, out = folder / f"fuzzed.{kind}", folder / "out.png"
        path.write_bytes(content)
        out.unlink(missing_ok=True)
        started = time.monotonic()
        faulthandler.dump_traceback_later(60, exit=True)  # a decoder that never returns stops here
        try:
            img = datasets.read_image(path)
            if img[0].numel() <= 1024:
                upscale.upscale_file(path, "srnet_x2", out, model)
                survived += datasets.read_image(out).shape[1:] == torch.Size(2 * side for side in img.shape[1:])
            else:
                survived += 1
        except ValueError as error:
            survived += str(path) in str(error)
        faulthandler.cancel_dump_traceback_later()
        survived -= time.monotonic() - started > 10
    strays = {p.name for p in folder.iterdir()} - {"out.png", *(f"fuzzed.{kind}" for kind, _ in seeds)}
    return survived - bool(strays)


FAULTS = {  # name: (function, how many for the full run, how many for the tests)
    "kills": (kills, 20, 2), "damaged files": (damaged_files, 200, 24), "fuzzed images": (fuzzed_images, 10_000, 300),
}  # fmt: skip


def main() -> int:
    results = {}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as place:
        warnings.simplefilter("ignore")  # Pillow warns of what it then refuses
        for name, (survived_of, count, _) in FAULTS.items():
            (folder := Path(place) / name.replace(" ", "_")).mkdir()
            started = time.monotonic()
            with contextlib.redirect_stdout(io.StringIO()):  # progress bars
                results[name] = {"tried": count, "survived": survived_of(count, folder)}
            print(f"{name}: {results[name]}, {time.monotonic() - started:.0f} s", flush=True)
    environment = runs.environment(torch.device("cpu"))
    files.write_json(runs.ROOT / "results" / "faults.json", {"environment": environment, "faults": results})
    return int(any(result["tried"] != result["survived"] for result in results.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        sys.exit(main())
