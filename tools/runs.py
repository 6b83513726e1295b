"""A run is a folder: model.pth (a plain state dict of the chosen epoch, on the CPU), run.json (what was run, on what,
and the results), history.csv (a row an epoch) and, while it is unfinished, checkpoint.pth.

Files appear whole or not at all. `begin` opens a notebook: profile, settings, device, folder.
"""
import contextlib
import hashlib
import io
import json
import os
import pickle
import platform
import sys
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor, nn

import datasets
from tools import plots
from tools import settings as settings_tables
from tools.settings import Settings

DELETE = "Delete the folder to train again."


# --- a notebook's beginning -------------------------------------------------------------------------------------


@dataclass
class Begun:
    """What every notebook needs to know: task, profile, settings, device, where data lie and results go."""

    task: str
    profile: str
    settings: Settings
    device: torch.device
    folder: Path
    data_root: str
    results_root: str
    changes: Mapping = field(default_factory=dict)

    def settings_of(self, task: str) -> Settings:
        """Another task's settings in this profile, with those of the changes that it knows."""
        known = settings_tables.TABLES[task]
        changes = {name: value for name, value in self.changes.items() if name in known}
        return settings_tables.choose(task, self.profile, changes)

    @property
    def restart_on_change(self) -> bool:
        """A quick run gives way to one with other settings; any other is never overwritten."""
        return self.profile == "quick"

    def table(self):
        """The settings as a table for a notebook: name, value, meaning."""
        rows = settings_tables.TABLES[self.task]
        columns = {name: (str(value), rows[name][-1]) for name, value in self.settings.items()}
        return plots.table(pd.DataFrame(columns, [self.profile, "meaning"]).T)


def begin(
    task: str, profile: str = "auto", data_root: str | Path = "DS", results_root: str | Path = "results",
    changes: Mapping | None = None,
) -> Begun:
    """Choose profile and settings, seed, join torchrun's processes where there are any, print one line about it.

    profile: "auto" is "study" where its finished run and its test data are here, else "quick". Raises ValueError for
    "study" where its run is finished and its test data are not here: other data must not replace its results.
    """
    there = all(datasets.is_there(name, data_root) for name in settings_tables.NEEDS[task])
    finished = bool((read_info(Path(results_root) / task) or {}).get("finished"))
    if profile == "study" and finished and not there:
        needs = " and ".join(settings_tables.NEEDS[task])
        advice = "or take profile auto or quick, or another results_root to train on other data."
        raise ValueError(f"Profile study: its finished run is in {results_root}/{task}, and {needs} is not in "
                         f"{data_root}. Get it (`python datasets.py`), {advice}")  # fmt: skip
    reason = ""
    if profile == "auto":
        profile = "study" if finished and there else "quick"
        missing = "the study's test data are not here" if finished else f"no finished study is in {results_root}"
        reason = "" if profile == "study" else f" ({missing}: short runs, whose figures are not the study's)"
    chosen = settings_tables.choose(task, profile, changes)
    device = start_device(chosen.get("seed", 0))
    folder = run_folder(results_root, profile, task)
    versions = " · ".join(f"{name} {version}" for name, version in environment(device).items())
    processes = f" · {process_count()} processes" if process_count() > 1 else ""
    print(f"Profile {profile}{reason} · {versions}{processes}")
    return Begun(task, profile, chosen, device, folder, str(data_root), str(results_root), changes or {})


def run_folder(results_root: str | Path, profile: str, task: str) -> Path:
    """Where a task's run lies: results/task (study), results/quick/task, results/reference/task."""
    return Path(results_root) / task if profile == "study" else Path(results_root) / profile / task


def start_device(seed: int = 0) -> torch.device:
    """CUDA where there is one, else the CPU, seeded; joins torchrun's processes, of which the first alone prints."""
    use_cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo")
    if process_rank() != 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - stays open for the life of the process
    torch.manual_seed(seed)
    return device


def environment(device: torch.device) -> dict[str, str]:
    """Versions and device, as run.json stores them."""
    count = torch.get_num_threads()
    cpu = f"CPU, {count} thread{'s' if count > 1 else ''}"
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu
    return {"Python": platform.python_version(), "torch": torch.__version__, "device": hardware}


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


# --- run.json, history.csv --------------------------------------------------------------------------------------


@dataclass
class Run:
    """A finished run as read back: `info` is run.json, `history` a row an epoch."""

    folder: Path
    info: dict
    history: pd.DataFrame

    @property
    def has_weights(self) -> bool:
        return (self.folder / "model.pth").exists()

    def load(self, model: nn.Module) -> nn.Module:
        """`model` with the weights of the best epoch. Raises where they are not here, or another run's."""
        path = self.folder / "model.pth"
        if not path.exists():
            raise FileNotFoundError(f"{self.folder} is kept without its weights. To train it again: {DELETE}")
        if self.info.get("weights", fingerprint := file_fingerprint(path)) != fingerprint:
            raise ValueError(f"{path} is not the file that its run.json names. Restore it, or: {DELETE}")
        return load_weights(model, path).eval()

    def record(self, **results) -> None:
        """Add results to run.json; the file is left alone where it holds them already."""
        if any(self.info.get(name) != value for name, value in plain(results).items()):
            self.info.update(plain(results))
            write_info(self.folder, self.info)


def read_info(folder: str | Path) -> dict | None:
    """run.json as a dict with at least "finished", "settings" and "data"; None where there is none.

    Raises ValueError where it is damaged: its checksum tells.
    """
    path = Path(folder) / "run.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        missing = {"finished", "settings", "data"} - set(info)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not whole ({error}). {DELETE}") from error
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}. {DELETE}")
    if info.pop("checksum", checksum := _checksum(info)) != checksum:
        raise ValueError(f"{path} is not as it was written: its checksum does not fit. Restore it, or: {DELETE}")
    return info


def write_info(folder: str | Path, info: Mapping) -> None:
    """run.json with a checksum of its content; the first process alone writes. Numbers without a value are null."""
    if process_rank() == 0:
        content = plain(info)
        write_json(Path(folder) / "run.json", content | {"checksum": _checksum(content)})


def read_run(folder: str | Path) -> Run | None:
    """The finished run in a folder, or None where there is none. A damaged one raises ValueError."""
    folder = Path(folder)
    info = read_info(folder)
    if info is None or not info["finished"]:
        return None
    path = folder / "history.csv"
    try:
        if info.get("history", checksum := text_checksum(path)) != checksum:
            raise ValueError("its checksum does not fit")
        return Run(folder, info, pd.read_csv(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Restore it, or: {DELETE}") from error


def find_run(folder: str | Path, settings: Mapping, data: Mapping, restart_on_change: bool = False) -> Run | None:
    """The finished run of this folder if it is the one asked for; None where training has still to be done.

    Compared are the settings that training reads, and the weights it started from (data["pretrained"]); the training
    data are not, so that shipped weights are shown wherever their test images are. A difference raises ValueError, or
    clears the old run away where restart_on_change (then other data count as well). More epochs than a finished run had
    go on from its end (None), unless the schedule has ended there or the checkpoint is gone.
    """
    folder = Path(folder)
    stored = read_info(folder)
    if stored is None:
        return None
    changed = _changes(stored["settings"], settings)
    wanted, found = plain(data), stored["data"]
    if found.get("pretrained") != wanted.get("pretrained"):
        changed.append(f"pretrained {found.get('pretrained')} -> {wanted.get('pretrained')}")
    if len(changed) == 1 and found == wanted and goes_on(stored["settings"], settings):
        if (folder / "checkpoint.pth").exists() and (folder / "model.pth").exists():
            return None
        changed[0] += ": to go on it would need its checkpoint.pth and model.pth"
    elif len(changed) == 1 and "num_epochs" in changed[0] and settings.get("schedule") == "one_cycle":
        changed[0] += ": its one_cycle schedule ends with its last epoch, so no more can follow"
    if restart_on_change and (changed or found != wanted):
        print(f"{folder} held a run with other {'settings' if changed else 'data'}; training afresh.")
        if process_rank() == 0:
            with locked(folder):
                (folder / "checkpoint.pth").unlink(missing_ok=True)
                (folder / "run.json").unlink(missing_ok=True)
        return None
    if changed:
        advice = "Set them back, name another results_root, or delete that folder to train afresh."
        raise ValueError(f"{folder} holds a run with other settings ({'; '.join(changed)}). {advice}")
    return read_run(folder)


def goes_on(stored: Mapping, settings: Mapping) -> bool:
    """Whether these settings only ask for more epochs, of a schedule that does not depend on their number."""
    fixed = settings.get("schedule", "constant") != "one_cycle"
    more = settings.get("num_epochs", 0) > stored.get("num_epochs", 0)
    return fixed and more and len(_changes(stored, settings)) == 1


def _changes(stored: Mapping, settings: Mapping) -> list[str]:
    """What differs of the settings that training reads, as "name old -> new".

    A setting that the stored run does not know passes at its neutral value; one that is gone since passes.
    """
    neutral = {"optimizer": "adam", "schedule": "constant", "momentum": 0.9, "adam_factor": 1.0, "seed": 0}
    settings = {name: value for name, value in plain(settings).items() if name not in settings_tables.NOT_TRAINED}
    return [
        f"{name} {stored.get(name)!r} -> {value!r}" for name, value in sorted(settings.items())
        if (stored[name] != value if name in stored else value not in (neutral.get(name), None, False, 0, {}, []))
    ]  # fmt: skip


# --- whole files ------------------------------------------------------------------------------------------------


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it into place: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def save_tensors(path: Path, content: dict) -> None:
    """torch.save of a dict, every tensor in it moved to the CPU; the first process alone writes."""
    if process_rank() == 0:
        buffer = io.BytesIO()  # torch's own message on a full disk is "unexpected pos"
        torch.save(on_cpu(content), buffer)
        try:
            write_whole(path, lambda beside: beside.write_bytes(buffer.getbuffer()))
        except OSError as error:
            advice = "What was there before is kept; make room and run again, it goes on from there."
            raise OSError(f"{path} could not be written ({error.strerror or error}). {advice}") from error


def on_cpu(content):
    """The same nested dicts and lists with every tensor on the CPU, so that a file loads on any machine."""
    if isinstance(content, Tensor):
        return content.detach().cpu()
    if isinstance(content, Mapping):
        return {key: on_cpu(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(on_cpu(value) for value in content)
    return content


def read_tensors(path: str | Path) -> dict:
    """torch.load that runs no code and says in a sentence what is wrong with a file."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There are no weights at {path}. Run the notebook that trains them first.")
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the checksums that it writes
            with zipfile.ZipFile(path) as file:
                if damaged := file.testzip():
                    raise ValueError(f"the checksum of {damaged} does not fit")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:200]
        raise ValueError(
            f"{path} holds more than tensors, perhaps a whole pickled module ({reason}). It is not opened, since it "
            f"could run code. Save model.state_dict() instead."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile,
            zlib.error) as error:  # fmt: skip
        reason = str(error).split("\n")[0][:200]
        raise ValueError(f"{path} cannot be read as weights ({reason}). It is damaged, or holds no weights.") from error


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill `model` from a state dict file; float16 weights are widened, a prefix `module.` and a wrapping "params" or
    "state_dict" are taken off. Another network's file raises ValueError.
    """
    state = read_tensors(path)
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, no weights by name. Save model.state_dict() instead.")
    for wrapper in ("params_ema", "params", "state_dict"):
        state = state[wrapper] if isinstance(state.get(wrapper), Mapping) else state
    state = {name.removeprefix("module."): value for name, value in state.items()}
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    if wanted != found:
        name, *others = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"{path} holds another network's weights: {1 + len(others)} entries differ from {type(model).__name__}'s; "
            f"{name} is {found.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. "
            f"Build the network with the settings in the run.json beside it."
        )
    model.load_state_dict(state)
    return model


def cached(path: str | Path, compute: Callable[[], dict[Hashable, Tensor]], key: object) -> dict[Hashable, Tensor]:
    """What `compute` returned when it was last called with this `key` (what it depends on, as plain values).

    Kept in the file `path`, so that a test set is read once, and a notebook shown again need not compute it anew.
    """
    path, key = Path(path), json.loads(json.dumps(key))
    if path.exists():
        stored = read_tensors(path)
        if stored.pop("key", None) == key:
            return stored
    values = compute()
    save_tensors(path, values | {"key": key})
    return values


def file_fingerprint(path: str | Path) -> str:
    """The first 16 characters of a file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def text_checksum(path: Path) -> str:
    """Of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()[:16]


def _checksum(content: Mapping) -> str:
    """Of a dict as JSON, whatever the order and layout of the file. "checksum" itself is left out."""
    entries = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def plain(content):
    """As JSON will give it back, so that stored and present values compare equal; nan and inf become None."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    return None if isinstance(content, float) and content - content != 0 else content


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile; who comes second waits."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is training in {folder}; waiting for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
