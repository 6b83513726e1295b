"""What the tests share: one thread, no windows, where the real data is; images, runs, notebooks, two processes."""
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import hypothesis
import matplotlib
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from tools import files, runs
from tools.settings import Settings

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)
os.environ["NO_DOWNLOAD"] = "1"  # no test waits for a network
matplotlib.use("Agg")  # not through MPLBACKEND: notebooks run by the tests would inherit it and draw nothing
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """real_data("Set5") is the folder DS/Set5; the test is skipped where it is missing."""

    def folder(name: str = "") -> Path:
        path = ROOT / "DS" / name
        if not any(p.name != "README.md" for p in path.glob("*")):
            pytest.skip(f"needs real data in DS/{name}; DS/README.md and `python3 run.py data` say how to get it")
        return path

    return folder


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def random_image(height: int = 40, width: int = 56, seed: int = 0, batch: tuple = ()) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*batch, 3, height, width), dtype=torch.uint8, generator=generator)


def save(path: Path, img: torch.Tensor, mode: str | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = Image.fromarray(img.permute(1, 2, 0).numpy())
    (file.convert(mode) if mode else file).save(path, **options)
    return path


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def write_run(folder: Path, settings: Mapping, data=None, model=None, finished=True, **info) -> runs.Run | None:
    """A run of one epoch, as training leaves it; with the weights of `model` where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.csv").write_text("epoch,loss_valid\n1,0.5\n")
    if model:
        files.save_tensors(folder / "model.pth", model.state_dict())
        info["weights"] = files.file_fingerprint(folder / "model.pth")
    info["history"] = files.text_checksum(folder / "history.csv")
    data = data or {"name": "none", "fingerprint": "0"}
    runs.write_info(folder, {"finished": finished, "settings": settings, "data": data, **info})
    return runs.read_run(folder)


def task_in(folder: Path, settings: Mapping, name="task2", profile="study", **options) -> runs.Task:
    """As `runs.begin` returns it; the study's run is folder/NAME, all others lie in folder/lab/NAME."""
    return runs.Task(name, profile, Settings(settings), torch.device("cpu"), folder, folder, **options)


def code(source: str, *tags: str, **fields) -> nbformat.NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, **fields)


def write_notebook(path: Path, *cells: nbformat.NotebookNode) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def run_twice(*command: object, cwd: Path) -> str:
    """What a script prints that torchrun starts in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, *map(str, command)], capture_output=True, text=True, cwd=cwd, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FutureWarning" not in done.stderr
    return done.stdout


def refuses(error: type[BaseException] | tuple, said: str | None, call: Callable, *args, **options) -> None:
    """The call raises this error, whose message matches `said` where one is asked for."""
    with pytest.raises(error, match=said):
        call(*args, **options)
