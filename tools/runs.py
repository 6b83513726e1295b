"""A run is a folder: model.pth (a plain state dict of the chosen epoch, on the CPU), run.json (what was run, on what,
and the results), history.csv (a row an epoch) and, while it is unfinished, checkpoint.pth.

The study's runs lie in results/TASK and are never written over. Every other run lies in results/lab/TASK/HASH, the hash
of its `identity`: the same code, settings and data find it again, others train in a folder of their own.
"""
import contextlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
from torch import nn

import NetSet
from tools import files, folders, plots
from tools import settings as settings_tables
from tools.download import fetch_missing
from tools.files import broadcast, hash_of, plain, process_count, process_rank
from tools.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
HANDED = ("network()", "generator()", "discriminator()", "loss", "content_loss", "batches", "validate", "monitor")
DELETE = "Delete the folder to train again."
ACCEPT = "ACCEPT_STUDY"  # an environment variable, set by `run.py accept`


# --- a notebook's beginning -------------------------------------------------------------------------------------


@dataclass
class Task:
    """What a notebook works on: its settings, device, where data lie and results go.

    `settings` become the quick ones, in place, where the page turns out to differ from the study that it would show.
    """

    name: str
    profile: str
    settings: Settings
    device: torch.device
    data_root: Path
    results_root: Path
    changes: Mapping = field(default_factory=dict)
    is_auto: bool = False
    in_group: bool = False  # whether the run that is looked up is one of several, by `together`
    said: set = field(default_factory=set)

    def settings_of(self, task: str) -> Settings:
        """Another task's settings in this profile, with those of the changes that it knows."""
        known = settings_tables.TABLES[task]
        return settings_tables.choose(task, self.profile, {n: v for n, v in self.changes.items() if n in known})

    @property
    def study(self) -> Path:
        return self.results_root / self.name

    @property
    def lab_folder(self) -> Path:
        return self.results_root / "lab" / self.name

    def place(self, identity: Mapping, part: str = "") -> Path | None:
        """The folder of the run with this identity: the study's own where this page made it, else one in the lab.

        part: the run's name within the study, "seed0/joint". None: the page has turned to the quick settings, so the
        identity must be made anew; among runs that belong `together`, TurnedToQuickError instead. Prints one line where
        the page differs from the study.
        """
        lab = self.lab_folder / hash_of(identity)
        if self.profile != "study":
            return lab
        folder, stored = self.study / part, read_info(self.study / part)
        if stored is None:
            return folder if self._asks_for_some_runs_alone() else lab
        words = differences(*(_without_photographs(each) for each in (stored.get("identity") or {}, identity)))
        if words and os.environ.get(ACCEPT):
            settings = stored["settings"] | identity["settings"]
            write_info(folder, stored | {"identity": identity, "settings": settings})
            print(f"{folder}: taken as the run of this code ({'; '.join(words)})")
        elif words:
            self._say_difference(stored, words[:4] + [f"{len(words) - 4} more"] * (len(words) > 4))
            if self.is_auto:
                self.profile = "quick"
                self.settings.become(settings_tables.choose(self.name, "quick", self.changes))
                if self.in_group:
                    raise TurnedToQuickError
                return None
            return lab
        return folder

    def _asks_for_some_runs_alone(self) -> bool:
        """Whether the changes only say which of the study's runs are to be trained."""
        study = settings_tables.choose(self.name, "study")
        return all(name == "arm_seeds" or (name in settings_tables.WHICH_RUNS and set(value) <= set(study[name]))
                   for name, value in self.changes.items())  # fmt: skip

    def _say_difference(self, stored: Mapping, words: list[str]) -> None:
        settings = stored["settings"]
        steps = settings.get("num_epochs", 0) * settings.get("steps_per_epoch", 0)
        hours = f"{stored.get('time_seconds', 0) / 3600:.1f} h on {stored.get('environment', {}).get('device', '?')}"
        how = "the quick settings" if self.is_auto else f"the study's settings ({steps:,} steps; the study's: {hours})"
        line = (f"This page differs from the study: {'; '.join(words)}. It trains with {how}, in results/lab; titles "
                "and texts still describe the study's runs.")
        print("" if line in self.said else line + "\n", end="")
        self.said.add(line)

    def cached(self, path: Path, compute: Callable, key) -> dict:
        """`files.cached` under the hash of a key: what an answer depends on, or the run that gave it."""
        return files.cached(path, compute, key if isinstance(key, str) else hash_of(key), bool(os.environ.get(ACCEPT)))


def begin(
    task: str, profile: str = "auto", data_root: str | Path = "DS", results_root: str | Path = "results",
    changes: Mapping | None = None, download: bool = True,
) -> Task:  # fmt: skip
    """Choose profile and settings, fetch small data sets that are missing, seed, join torchrun's processes where there
    are any, and print one line about it.

    profile: "auto" is "study" where its finished run and its test data are here and nothing is changed, else "quick".
    """
    changes, results_root = dict(changes or {}), Path(results_root).expanduser()
    default = str(data_root) == "DS" and not Path("DS").is_dir()
    data_root = folders.data_root(folders.DATA_ROOT if default else data_root)
    settings_tables.choose(task, "quick" if profile == "auto" else profile, changes)  # wrong names and kinds first
    device = start_device()
    needs = settings_tables.NEEDS[task] if not changes.get("dataset") else ()
    missing = broadcast(fetch_missing(needs, data_root, download) if process_rank() == 0 else [])  # all wait for it
    missing = " and ".join(missing)
    reasons, is_auto = [], profile == "auto"
    if is_auto:
        reasons += ["changed: " + ", ".join(f"{name} = {value}" for name, value in changes.items())] if changes else []
        reasons += [f"{missing} not in {data_root}"] if missing else []
        finished = (read_info(results_root / task) or {}).get("finished")
        reasons += [] if finished else [f"no finished study in {results_root}"]
        profile = "quick" if reasons else "study"
    elif profile == "study" and missing:
        raise ValueError(f"Profile study needs {missing} in {data_root}. Get it with `python3 run.py data`, or take "
                         "profile auto or quick.")  # fmt: skip
    reason = f" ({'; '.join(reasons)}: short runs; titles and texts describe the study's)" if reasons else ""
    chosen = settings_tables.choose(task, profile, changes)
    torch.manual_seed(chosen.get("seed", 0))
    versions = " · ".join(f"{name} {version}" for name, version in environment(device).items())
    processes = f" · {process_count()} processes" if process_count() > 1 else ""
    print(f"Profile {profile}{reason} · {versions}{processes}")
    return Task(task, profile, chosen, device, data_root, results_root, changes, is_auto)


class TurnedToQuickError(Exception):
    """The page has turned to the quick settings: the runs that belong together begin anew."""


def together(task: Task, train: Callable) -> object:
    """train(), begun anew with the quick settings where one of its runs turns out to differ from the study's."""
    task.in_group = True
    try:
        with contextlib.suppress(TurnedToQuickError):
            return train()
        return train()
    finally:
        task.in_group = False


def start_device(seed: int = 0) -> torch.device:
    """CUDA where there is one, else the CPU, seeded; joins torchrun's processes, of which the first alone prints."""
    use_cuda = torch.cuda.is_available()
    launched = dist.is_torchelastic_launched()  # LOCAL_RANK alone may be set for other reasons
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if launched else 0) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    if launched and not dist.is_initialized():
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


# --- run.json, history.csv --------------------------------------------------------------------------------------


@dataclass
class Run:
    """A finished run as read back: `info` is run.json, `history` a row an epoch, `network` the trained network."""

    folder: Path
    info: dict
    history: pd.DataFrame
    network: nn.Module | None = None

    @property
    def has_weights(self) -> bool:
        return (self.folder / "model.pth").exists()

    @property
    def identity(self) -> dict[str, str]:
        """What another run is told of this one: the weights that it starts from."""
        return {"weights": self.info["weights"]}

    def load(self, model: nn.Module) -> nn.Module:
        """`model` with the weights of the best epoch. Raises where they are not here, or another run's."""
        path = self.folder / "model.pth"
        if not path.exists():
            raise FileNotFoundError(f"{self.folder} is kept without its weights, so it cannot be tested anew. Take the "
                                    "profile quick, which trains a run of its own.")  # fmt: skip
        if self.info.get("weights", fingerprint := files.file_fingerprint(path)) != fingerprint:
            raise ValueError(f"{path} is not the file that its run.json names. Restore it, or: {DELETE}")
        return files.load_weights(model, path)

    def record(self, **results) -> Path:
        """`record` results of this run's test in its run.json."""
        folder = record(self.folder, self.info, **results)
        self.info.update(plain(results))
        return folder


def shared_folder(task: Task, found: Iterable[Run], name: str, *parts) -> Path:
    """Where the results of several runs together go: the study's folder where all are its own, else one in the lab, by
    `name` and by what they are made of: these runs, and `parts`.
    """
    folders = [run.folder for run in found]
    if folders and all(task.study in folder.parents for folder in folders):
        return task.study
    return task.lab_folder / f"{name}_{hash_of([*parts, sorted(folder.name for folder in folders)])}"


def record(folder: Path, info: Mapping, **results) -> Path:
    """Add a test's results to `info` in a folder's run.json, and return where their figures belong. Results that a
    study holds are not written over: where they come out otherwise than there (the test was edited, a test set is
    missing), the lab keeps them. `environment`, which is not the same everywhere, does not count.
    """
    results = plain(results)
    others = [name for name, value in results.items()
              if name != "environment" and not _alike(info.get(name, value), value)]  # fmt: skip
    in_lab = folder.parent.parent.name == "lab" and re.fullmatch(r"(\w+_)?[0-9a-f]{12}", folder.name)
    if others and not in_lab and not os.environ.get(ACCEPT):
        folder = folder.parent / "lab" / folder.name / hash_of(results)
        print(f"This page's test differs from the study's ({', '.join(others)}): it is kept in {folder}.")
    elif not others and results.keys() <= info.keys():
        with contextlib.suppress(OSError):
            os.utime(folder / "run.json") if in_lab else None  # `run.py` prints the results that a page ended with
        return folder
    with files.said_only():
        write_info(folder, {**info, **results})
    return folder


def _alike(old, new) -> bool:
    """Whether two results are the same but for rounding, which differs between machines."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_alike(old[name], new[name]) for name in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_alike, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=1e-4, abs_tol=1e-4)
    return old == new


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
    if info.pop("checksum", None) not in (None, files.hash_of(info, 16)):
        raise ValueError(f"{path} is not as it was written: its checksum does not fit. Restore it, or: {DELETE}")
    return info


def write_info(folder: str | Path, info: Mapping) -> None:
    """run.json with a checksum of its content; the first process alone writes. Numbers without a value are null."""
    if process_rank() == 0:
        content = plain(info)
        files.write_json(Path(folder) / "run.json", content | {"checksum": files.hash_of(content, 16)})


def read_run(folder: str | Path) -> Run | None:
    """The finished run in a folder, or None where there is none. A damaged one raises ValueError."""
    folder = Path(folder)
    info = read_info(folder)
    if info is None or not info["finished"]:
        return None
    path = folder / "history.csv"
    try:
        if info.get("history", checksum := files.text_checksum(path)) != checksum:
            raise ValueError("its checksum does not fit")
        return Run(folder, info, pd.read_csv(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Restore it, or: {DELETE}") from error


# --- trained networks by name -----------------------------------------------------------------------------------

TRAINED = {  # name: the run that trained it, and its name in NetSet.NETWORKS; "": an upsampler before a classifier
    "srnet_x2": ("task1", "srnet"), "srresnet_x4": ("srgan_x4/srresnet", "srresnet"),
    "srgan_x4": ("srgan_x4", "srresnet"), "resshuffle_x4": ("resshuffle_x4", "resshuffle"),
    "restore": ("joint_restoration/seed0/restore", "jointnet"), "colorize": ("colorization", "colorizer"),
    "joint_restoration": ("joint_restoration/seed0/joint", "jointnet"), "classifier": ("task2", "classifynet"),
    **{arm: (f"multi/seed0/{arm}", "") for arm in settings_tables.LADDER_ARMS},
}  # fmt: skip


def load_network(name: str, results_root: str | Path = ROOT / "results") -> nn.Module:
    """A trained network of `TRAINED`, in evaluation mode, on the GPU where there is one.

    Those of task "multi" are `NetSet.MultiTaskNet`: lr_img (N, 3, 16, 16) -> (sr_img (N, 3, 32, 32), logits (N, 10)).
    Raises ValueError for another name, FileNotFoundError where it is not trained yet.
    """
    if name not in TRAINED:
        raise ValueError(f"there is no trained network {name!r}; there are {', '.join(TRAINED)}.")
    (place, network), root = TRAINED[name], Path(results_root)
    run, notebook = read_run(root / place), settings_tables.NOTEBOOKS[place.split("/")[0]]
    if run is None or not run.has_weights:
        raise FileNotFoundError(f"{root / place} holds no trained network: run {notebook} first.")
    if network:
        model = NetSet.make(run.info["settings"], network)
    else:
        first, second = (read_info(root / task)["settings"] for task in ("task1", "task2"))
        has_sr = any(weight.startswith("sr.") for weight in files.read_tensors(run.folder / "model.pth"))
        sr = NetSet.make(first, "srnet") if has_sr else NetSet.BicubicUpsampler(2)
        model = NetSet.MultiTaskNet(sr, NetSet.make(second, "classifynet"))
    return run.load(model).to("cuda" if torch.cuda.is_available() else "cpu")


# --- comparing runs ---------------------------------------------------------------------------------------------


def differences(stored: Mapping, wanted: Mapping) -> list[str]:
    """What differs between two identities, in words: "num_blocks 8 → 4", "loss edited", "data A → B"."""
    words = []
    for part in ("data", "degradation"):
        old, new = stored.get(part) or {}, wanted.get(part) or {}
        names = [old.get("name"), new.get("name")]
        if old != new:
            words.append(f"{part} edited" if names[0] == names[1] else f"{part} {names[0]} → {names[1]}")
    for part in ("settings", "roles"):
        words += _changed("", stored.get(part) or {}, wanted.get(part) or {})
    return words


def _changed(name: str, old, new) -> list[str]:
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return [word for key in names for word in _changed(f"{name}.{key}".lstrip("."), old.get(key), new.get(key))]
    if any(str(value).startswith("#") for value in (old, new)):
        return [f"{name} {'added' if old is None else 'removed' if new is None else 'edited'}"]
    return [f"{name} {'none' if old is None else old} → {'none' if new is None else new}"]


def _without_photographs(identity: Mapping) -> dict:
    """An identity less what a study's run is not compared by: photographs need not be here to show it."""
    data = identity.get("data") or {}
    return identity | {"data": {} if data.get("photographs") else {n: data.get(n) for n in ("name", "fingerprint")}}


def changed_from_profile(task: Task, identity: Mapping, part: str = "") -> list[str]:
    """How a run differs from its profile's settings, and from the study's run of that name in what is handed over."""
    table = plain(settings_tables.choose(task.name, task.profile))
    now = {name: value for name, value in identity["settings"].items() if name in table}
    study = (read_info(task.study / part) or {}).get("identity") or {}
    roles = {role: found for role, found in study.get("roles", {}).items() if role in HANDED}
    degradations = [each.get("degradation") for each in (study, identity)] if study else [None, None]
    return differences(
        {"degradation": degradations[0], "settings": {name: table[name] for name in now}, "roles": roles},
        {"degradation": degradations[1], "settings": now,
         "roles": {role: identity["roles"].get(role) for role in roles}})  # fmt: skip


def find_runs(results_root: str | Path = "results", task: str | None = None) -> list[Run]:
    """Every finished run of the study and of the lab, of one task or of all, the newest first."""
    root = Path(results_root)
    folders = {path.parent for name in ([task] if task else settings_tables.NOTEBOOKS)
               for place in (root / name, root / "lab" / name) for path in place.glob("**/run.json")
               if (path.parent / "history.csv").exists()}  # fmt: skip
    found = [run for run in map(read_run, folders) if run]
    return sorted(found, key=lambda run: run.info.get("ended", ""), reverse=True)


def table(task: str | None = None, results_root: str | Path = "results", which: Sequence[Run] | None = None):
    """Runs side by side, the newest first: what differs from the profile, validation scores, epochs, time."""
    rows = {}
    for run in which or find_runs(results_root, task):
        info = run.info
        scores = {name.removesuffix("_valid"): value for name, value in info.get("validation", {}).items()}
        rows[str(run.folder.relative_to(results_root))] = {
            "profile": info.get("profile", "study"), "what differs": "; ".join(info.get("changed", [])) or "–",
            "data": info["data"]["name"], **scores, "epochs": len(run.history),
            "minutes": info.get("time_seconds", 0) / 60, "ended": info.get("ended", "")[:16],
        }  # fmt: skip
    frame = pd.DataFrame(rows).T.infer_objects() if rows else pd.DataFrame({"runs": []})
    return plots.table(frame.rename_axis("run"), "{:.4g}") if plots.in_notebook() else frame
