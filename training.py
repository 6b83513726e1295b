"""One training loop for every task, its checkpoints, its history.

A task is a function `loss(model, batch) -> (total, {"name": value})`; `fit` knows no task. A run is a folder:
model.pth (a plain state dict: the chosen epoch's weights), run.json (what was run, on what, and what came out),
history.csv (a row an epoch) and, while it is unfinished, checkpoint.pth. `fit` called again on an unfinished folder
goes on where it stopped, to the weights that an uninterrupted run on this machine gives; on a finished one it returns
at once.

Under torchrun every process draws the same batch and takes its share, so any number of processes does the same steps
(but for batch norm, which in training sees the mean of its own share):
    torchrun --standalone --nproc_per_node 8 -m IPython task1_sr.ipynb
"""
import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import platform
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

PROFILES = ("quick", "study", "seed")
Batch = Mapping[str, Tensor]
DELETE = "Delete the folder to train again."


# --- settings and devices ---------------------------------------------------------------------------------------


class Settings(dict):
    """A dict whose entries also read as attributes: settings.learning_rate."""

    __getattr__ = dict.__getitem__


def choose(profile: str, changes: Mapping | None = None, **table: tuple) -> Settings:
    """One column of a table of settings: each row is name=(quick, study, seed). `changes` replaces single values.

    Raises ValueError for a profile or a name that the table does not have.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is one of {', '.join(PROFILES)}; got {profile!r}.")
    unknown = set(changes or {}) - set(table)
    if unknown:
        raise ValueError(f"No setting is called {', '.join(sorted(unknown))}; there are {', '.join(table)}.")
    column = PROFILES.index(profile)
    return Settings({name: row[column] for name, row in table.items()} | dict(changes or {}))


def pick_profile(profile: str, folder: str | Path, data_is_there: bool) -> str:
    """"auto" becomes "study" where its finished run lies in `folder` and its data is there, else "quick"; says why.

    Any other profile is returned as it is. Raises ValueError for "study" without its data where its run is finished:
    what is computed on other pictures must not take the place of the run's results.
    """
    if profile not in ("auto", "study"):
        return profile
    shipped = bool((read_info(folder) or {}).get("finished"))
    if profile == "study" and shipped and not data_is_there:
        raise ValueError(
            f"Profile study: its finished run is in {folder}, and the data it was measured on is not here. Get it (see "
            f"`python datasets.py`), or take profile auto or quick, or another results_root to train on other pictures."
        )
    if profile == "study":
        return profile
    if shipped and data_is_there:
        profile, reason = "study", f"Profile study: its finished run is in {folder}, and its data is here."
    else:
        missing = "the study's data is not here" if shipped else f"no finished study run is in {folder}"
        profile = "quick"
        reason = f"Profile quick, because {missing}: a short run, whose figures are not the study's."
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes the first alone speaks
        print(reason)
    return profile


def run_folder(results_root: str | Path, profile: str, task: str) -> Path:
    """Where a task's run lies: results/task (study), results/quick/task, results/seed/task."""
    return Path(results_root) / task if profile == "study" else Path(results_root) / profile / task


def start(seed: int = 0) -> torch.device:
    """Seed everything, join torchrun's process group where there is one, print versions and device, return the device.

    Only process 0 prints. CUDA where there is one, else CPU.
    """
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
    versions = " · ".join(f"{name} {version}" for name, version in environment(device).items())
    processes = f" · {process_count()} processes" if process_count() > 1 else ""
    print(versions + processes)
    return device


def environment(device: torch.device) -> dict[str, str]:
    """Versions and device, as run.json stores them."""
    count = torch.get_num_threads()
    hardware = f"CPU, {count} thread{'s' if count > 1 else ''}"
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    return {"Python": platform.python_version(), "torch": torch.__version__, "device": hardware}


def computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16: GPUs from Ampere on, and CPUs with AVX512-BF16 or AMX (Intel
    from 2020, AMD from 2022). There a step takes about half the time; where it is emulated, twice the time.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


# --- runs on disk -----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A run's folder as read back: `info` is run.json, `history` a row an epoch."""

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
        """Add final results (and the protocol that they were measured by) to run.json."""
        self.info.update(results)
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
    """run.json, with a checksum of its own content; the first process alone writes."""
    if process_rank() == 0:
        plain = _plain(info)
        write_json(Path(folder) / "run.json", plain | {"checksum": _checksum(plain)})


def _checksum(content: Mapping) -> str:
    """Of a dict as JSON, whatever the order and layout of the file. "checksum" itself is left out."""
    entries = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]


def _text_checksum(path: Path) -> str:
    """Of a text file, whatever ends its lines."""
    return hashlib.sha256(path.read_text(encoding="utf-8").encode()).hexdigest()[:16]


def file_fingerprint(path: str | Path) -> str:
    """The first 16 characters of a file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it into place: a reader sees the old file or the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def read_run(folder: str | Path) -> Run | None:
    """The finished run in a folder, or None where there is none. A damaged one raises ValueError."""
    folder = Path(folder)
    info = read_info(folder)
    if info is None or not info["finished"]:
        return None
    path = folder / "history.csv"
    try:
        if info.get("history", checksum := _text_checksum(path)) != checksum:
            raise ValueError("its checksum does not fit")
        return Run(folder, info, pd.read_csv(path))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Restore it, or: {DELETE}") from error


def find_seed_runs(results_root: str | Path, data_names: Mapping[str, str]) -> dict[str, Run]:
    """The seed's own recipe, as far as it was trained: the runs of these tasks (task: the name of its data).

    Those of the profile "seed" in results/seed/, finished or not, else their beginning, which results/seed_begun/
    ships; all from one place, since the joint run started from the others. {} where neither place has them all.
    """
    for place in ("seed", "seed_begun"):
        runs = {}
        for task, name in data_names.items():
            folder = Path(results_root) / place / task
            info = read_info(folder)
            if info and info["data"]["name"] == name and (folder / "history.csv").exists():
                runs[task] = Run(folder, info, pd.read_csv(folder / "history.csv"))
        if runs.keys() == data_names.keys():
            return runs
    return {}


def in_epochs(run: Run, num_pictures: float) -> pd.DataFrame:
    """A run's history whose `epoch` counts passes over `num_pictures` training pictures, so that runs with epochs of
    different length share an axis.
    """
    settings = run.info["settings"]
    drawn = run.history.epoch * settings["steps_per_epoch"] * settings["batch_size"]
    return run.history.assign(epoch=drawn / num_pictures)


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_whole(path, lambda beside: table.to_csv(beside, index=False))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile. Raises RuntimeError where somebody does."""
    lock = FileLock(folder / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"Another process is training in {folder}. Wait for it, stop it, or name another results_root."
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not delete what is open
            (folder / "run.lock").unlink()
        lock.release()


def find_run(
    folder: str | Path, settings: Mapping, data: Mapping, restart_on_change: bool = False
) -> Run | None:
    """The finished run of this folder, if it is the one asked for; None where training has still to be done.

    As `fit` does, and without a model: other settings, or other weights to start from (data["starts_from"]), raise
    ValueError, or clear the old run away where restart_on_change. Other data than a finished run's is said, not
    refused: shipped weights are shown on whatever pictures there are.
    """
    folder = Path(folder)
    stored = read_info(folder)
    if stored is None:
        return None
    changed, data = _changes(stored["settings"], settings), _plain(data)
    other_data = stored["data"] != data
    if restart_on_change and (changed or other_data):
        print(f"{folder} held a run with other {'settings' if changed else 'data'}; training afresh.")
        if process_rank() == 0:
            with _locked(folder):
                (folder / "checkpoint.pth").unlink(missing_ok=True)
                (folder / "run.json").unlink()
        return None
    refuse_other_settings(folder, settings)
    run = read_run(folder)
    if run and other_data:
        if stored["data"].get("starts_from") != data.get("starts_from"):
            raise ValueError(
                f"{folder} holds a run that started from other weights ({stored['data'].get('starts_from')}; here they "
                f"are {data.get('starts_from')}). Delete that folder to train it again from these."
            )
        print(f"{folder}: its run was given {stored['data']}; here there would be {data}.")
    return run


def refuse_other_settings(folder: str | Path, settings: Mapping) -> None:
    """Raises ValueError where the run.json of this folder was made with other settings, so that none is lost."""
    stored = read_info(folder)
    if stored and (changed := _changes(stored["settings"], settings)):
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}). "
            f"Set them back, name another results_root, or delete that folder to train afresh."
        )


def _changes(stored: Mapping, settings: Mapping) -> list[str]:
    """What differs, as "name old -> new"."""
    settings = _plain(settings)
    return [
        f"{name} {stored.get(name)!r} -> {settings.get(name)!r}"
        for name in sorted(stored.keys() | settings.keys()) if stored.get(name) != settings.get(name)
    ]  # fmt: skip


def keep(path: str | Path, compute: Callable[[], dict[Hashable, Tensor]], key: object) -> dict[Hashable, Tensor]:
    """What `compute` returned when it was last called with this `key` (what it depends on, as plain values).

    Kept, for the latest key, in the file `path`, so that a test set is read once, and a notebook shown again need not
    compute it anew.
    """
    path, key = Path(path), json.loads(json.dumps(key))
    if path.exists():
        kept = read_tensors(path)
        if kept.pop("key", None) == key:
            return kept
    values = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(path, values | {"key": key})
    return values


def read_tensors(path: str | Path) -> dict:
    """torch.load that runs no code and puts its failures into a sentence."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There are no weights at {path}. Run the notebook that trains them first.")
    try:
        with zipfile.ZipFile(path) as file:  # torch itself does not look at the checksums that it writes
            if damaged := file.testzip():
                raise ValueError(f"the checksum of {damaged} does not fit")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, NotImplementedError,
            zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        reason = str(error).split("\n")[0][:200]
        raise ValueError(f"{path} is not a whole file of weights ({reason}). Delete it and train again.") from error


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill `model` from a state dict file (float16 weights are widened). Another network's file raises ValueError."""
    state = read_tensors(path)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    if wanted != found:
        different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        name = different[0]
        raise ValueError(
            f"{path} holds another network's weights: {len(different)} entries differ from {type(model).__name__}'s; "
            f"{name} is {found.get(name, 'absent')} there and {wanted.get(name, 'absent')} here. "
            f"Build the network with the settings in the run.json beside it."
        )
    model.load_state_dict(state)
    return model


# --- the loop ---------------------------------------------------------------------------------------------------


def fit(
    model: nn.Module,
    loss: Callable[[nn.Module, Batch], tuple[Tensor, dict]],
    batches: Callable[[torch.Generator], Iterable[Batch]],
    folder: str | Path,
    settings: Mapping,
    data: Mapping,
    validate: Callable[[nn.Module], dict[str, float]],
    best: tuple[str, str],
    restart_on_change: bool = False,
    report: Callable[[nn.Module, pd.DataFrame], None] | None = None,
) -> Run:
    """Train `model` in place and leave it with the weights of its best epoch; return the run.

    loss      loss(model, batch) -> (total, parts): a scalar tensor, and scalars by name for the history.
    batches   batches(generator) -> one epoch of dicts of tensors, first dimension N, on the model's device. All
              chance comes from the generator, which is seeded by (seed, epoch): that is what makes resuming exact.
    settings  num_epochs, steps_per_epoch, learning_rate, and optionally: optimizer ("adam", "adamw", "sgd", or
              "muon", whose Adam part learns at adam_factor of the rate),
              momentum, weight_decay, rate_factors ({"sr": 0.1}: a part of the model that learns more slowly), schedule
              ("constant", "step" with step_epochs and gamma, "one_cycle" with warmup), ema_decay (0 = off; else the
              averaged weights are validated and kept), clip_norm, seed, mixed_precision (True: bfloat16 where the
              device computes it; weights stay float32), half_weights (True: model.pth in float16),
              patience (stop early after so many epochs without a better one; None = never).
              All entries, also those that only the notebook reads, are stored and compared on the next call.
    data      name and fingerprint of the training data, for run.json.
    validate  validate(model) -> {"psnr_db": ...} on validation data, after each epoch.
    best      (metric, "max" or "min"): which epoch's weights are kept.
    restart_on_change  a folder that holds a run with other settings or data: begin again (True) or raise (False).
    report    report(model, history): called after each epoch by the first process, to leave pictures behind.

    Raises FloatingPointError when the loss is not finite, or validation gives no number for `best`; the last good
    checkpoint stays.
    """
    finished = _finished_run(model, folder, settings, data, restart_on_change)
    if finished:
        return finished
    model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(settings))
    averaged = AveragedModel(model, use_buffers=True) if settings.get("ema_decay") else None
    parallel = _on_every_process(model)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "averaged": averaged}
    judged = averaged.module if averaged else model
    with _RunInProgress(folder, settings, data, state, judged, validate, best, report) as work:
        for batch, share in work.steps(batches):
            with work.mixed_precision():
                total, parts = loss(parallel, batch)
            optimizer.zero_grad(set_to_none=True)
            (total * share).backward()
            _clip(model, settings)
            optimizer.step()
            scheduler.step()
            _average(averaged, model, settings)
            work.log({"loss": total, **parts})
        return work.finish(model)


def fit_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    content_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict]],
    batches: Callable[[torch.Generator], Iterable[Batch]],
    folder: str | Path,
    settings: Mapping,
    data: Mapping,
    validate: Callable[[nn.Module], dict[str, float]],
    best: tuple[str, str],
    restart_on_change: bool = False,
) -> Run:
    """Train `generator` against `discriminator`; leave it with the weights of its best epoch, and return the run.

    content_loss  content_loss(sr_img, hr_img) -> (total, parts): what keeps the generator with its picture.
    batches       as for `fit`; each batch holds "lr_img" and "hr_img".
    settings      as for `fit`, and adversarial_weight (1e-3 in the paper). Both networks learn by the same optimiser
                  settings.

    The history has, as means over an epoch: loss (the generator's), adversarial, the content loss's parts,
    discriminator (its loss), and true and made: what the discriminator answers on average, 1 for "true".
    validate, best, the folder and what is raised: as for `fit`. Source: Ledig et al. 2017; seed 001.
    """
    finished = _finished_run(generator, folder, settings, data, restart_on_change)
    if finished:
        return finished
    networks = {"generator": generator, "discriminator": discriminator}
    for network in networks.values():
        network.to(memory_format=torch.channels_last).requires_grad_(True)  # an interrupted step leaves it off
    optimizers = {name: make_optimizer(network, settings) for name, network in networks.items()}
    schedulers = {name: torch.optim.lr_scheduler.LambdaLR(o, schedule(settings)) for name, o in optimizers.items()}
    averaged = AveragedModel(generator, use_buffers=True) if settings.get("ema_decay") else None
    make, judge = _on_every_process(generator), _on_every_process(discriminator)
    state = networks | {f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}
    state |= {f"{name}_scheduler": scheduler for name, scheduler in schedulers.items()} | {"averaged": averaged}
    judged = averaged.module if averaged else generator
    with _RunInProgress(folder, settings, data, state, judged, validate, best) as work:
        for batch, share in work.steps(batches):
            with work.mixed_precision():
                sr_img = make(batch["lr_img"])

            # --- the discriminator learns to tell true pictures from made ones
            discriminator.requires_grad_(True)
            optimizers["discriminator"].zero_grad(set_to_none=True)
            answers, discriminator_loss = {}, 0.0
            # detach: this step must not teach the generator, and least of all to be found out
            for name, img, target in (("true", batch["hr_img"], 1.0), ("made", sr_img.detach(), 0.0)):
                with work.mixed_precision():
                    logits = judge(img).float()
                    part = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
                (part * share).backward()
                answers[name] = logits.detach().sigmoid().mean()
                discriminator_loss = discriminator_loss + part.detach()
            _clip(discriminator, settings)
            optimizers["discriminator"].step()

            # --- the generator learns to be taken for true, and to stay with its picture
            discriminator.requires_grad_(False)
            with work.mixed_precision():
                content, parts = content_loss(sr_img, batch["hr_img"])
                logits = discriminator(sr_img).float()
                adversarial = F.softplus(-logits).mean()  # -log D(G(LR))
            total = content + settings["adversarial_weight"] * adversarial
            optimizers["generator"].zero_grad(set_to_none=True)
            (total * share).backward()
            _clip(generator, settings)
            optimizers["generator"].step()

            for scheduler in schedulers.values():
                scheduler.step()
            _average(averaged, generator, settings)
            losses = {"loss": total, "adversarial": adversarial, **parts, "discriminator": discriminator_loss}
            work.log(losses | answers)
        return work.finish(generator)


class _RunInProgress:
    """A run in progress, for `fit` and `fit_gan`: its seeding, progress bar, history, checkpoints and last lines.
    Inside `with` its folder is locked, so that no other process trains there.

    state: what a checkpoint holds, by name: anything with a state_dict, or None. judged: the network that is validated
    and kept.
    """

    def __init__(self, folder, settings, data, state, judged, validate, best, report=None):
        self.folder, self.settings, self.judged, self.report = Path(folder), settings, judged, report
        self.validate, self.best, self.best_value = validate, best, None
        self.state = {name: part for name, part in state.items() if part is not None}
        self.device = next(judged.parameters()).device
        self.num_epochs, self.steps_per_epoch = settings["num_epochs"], settings["steps_per_epoch"]
        if self.num_epochs < 1 or self.steps_per_epoch < 1:
            found = f"{self.num_epochs} and {self.steps_per_epoch}"
            raise ValueError(f"num_epochs and steps_per_epoch must be 1 or more; got {found}.")
        self.mixed = settings.get("mixed_precision", False) and computes_bfloat16(self.device)
        self.identity = {"settings": _plain(settings), "data": _plain(data)}
        self.epoch, self.rows, self.seconds_before = 0, [], 0.0
        self.info = {"finished": False, **self.identity, "environment": environment(self.device),
                     "processes": process_count(), "precision": "bfloat16" if self.mixed else "float32"}  # fmt: skip
        self.resources = contextlib.ExitStack()

    def __enter__(self) -> "_RunInProgress":
        with contextlib.ExitStack() as resources:
            if process_rank() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                resources.enter_context(_locked(self.folder))
            stored = read_info(self.folder) or {"finished": False}
            if stored["finished"] and (self.folder / "model.pth").exists():
                raise RuntimeError(f"{self.folder} was finished by another process just now. Call again to read it.")
            if (self.folder / "checkpoint.pth").exists():
                self._resume()
                now = self.info["precision"]  # this machine may compute in another one than that of the last spell
                spells = stored.get("precision", now).split(" → ")
                self.info["precision"] = " → ".join(spells if spells[-1] == now else [*spells, now])
            write_info(self.folder, self.info)
            self.resources = resources.pop_all()
        self.started = time.perf_counter()
        return self

    def __exit__(self, *error) -> None:
        self.resources.close()

    def mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def steps(self, batches: Callable[[torch.Generator], Iterable[Batch]]) -> Iterator[tuple[Batch, float]]:
        """This process's share of every batch of every epoch that is still to be done, and the weight of its loss."""
        seed, networks = self.settings.get("seed", 0), [p for p in self.state.values() if isinstance(p, nn.Module)]
        self.bar = tqdm(total=self.num_epochs * self.steps_per_epoch, initial=self.epoch * self.steps_per_epoch,
                        desc=self.folder.name, unit="step", mininterval=0.5, file=sys.stdout, ncols=110,
                        disable=process_rank() != 0)  # fmt: skip
        while self.epoch < self.num_epochs and not self._patience_is_spent():
            torch.manual_seed(seed + 1_000 * (self.epoch + 1) + process_rank())  # dropout; differs between processes
            for network in networks:
                network.train()
            self.sums, self.step = {}, 0
            for batch in batches(torch.Generator().manual_seed(seed + 1_000 * (self.epoch + 1))):
                yield _share(batch)
            if self.step != self.steps_per_epoch:
                raise ValueError(f"settings say {self.steps_per_epoch} steps an epoch; batches() gave {self.step}.")
            self._end_epoch()
        self.bar.close()

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """A step's losses. `loss` must stay finite."""
        self.step += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach()
        # reading a value makes a GPU wait, so not at every step
        if self.step % 20 == 0 or self.step == self.steps_per_epoch:
            loss = self.sums["loss"].item() / self.step
            if not math.isfinite(loss):
                self._stop(f"The training loss is not finite in epoch {self.epoch + 1}.", self.epoch)
            self.bar.set_postfix_str(f"epoch {self.epoch + 1}/{self.num_epochs}, loss {loss:.4f}")
        self.bar.update()

    def _stop(self, reason: str, last_epoch: int) -> None:
        self.bar.close()
        kept = f"The checkpoint of epoch {last_epoch} is kept in {self.folder}."
        kept = kept if last_epoch else "Nothing was saved yet."
        raise FloatingPointError(f"{reason} {kept} Lower learning_rate or set clip_norm.")

    def finish(self, model: nn.Module) -> Run:
        """The chosen epoch's weights in `model`, and the last lines of run.json."""
        if dist.is_initialized():
            dist.barrier()  # the first process has written its files
        history, (name, direction) = pd.DataFrame(self.rows), self.best
        values = history[f"{name}_valid"]
        best_row = history.loc[values.idxmax() if direction == "max" else values.idxmin()]
        self.info |= {"finished": True, "time_seconds": self.rows[-1]["time_seconds"],
                      "best_epoch": int(best_row["epoch"]),
                      "validation": {name: float(best_row[name]) for name in history if name.endswith("_valid")},
                      "weights": file_fingerprint(self.folder / "model.pth"),
                      "history": _text_checksum(self.folder / "history.csv")}  # fmt: skip
        load_weights(model, self.folder / "model.pth")  # before the checkpoint goes
        write_info(self.folder, self.info)
        if process_rank() == 0:
            (self.folder / "checkpoint.pth").unlink(missing_ok=True)
        if dist.is_initialized():
            dist.barrier()
        model.eval()
        return Run(self.folder, self.info, history)

    def _end_epoch(self) -> None:
        """Validate, keep the weights if they are the best so far, write history and checkpoint."""
        self.epoch += 1
        rate = self.settings["learning_rate"] * schedule(self.settings)(self.epoch * self.steps_per_epoch)
        for part in self.state.values():
            if isinstance(part, nn.Module):
                _share_buffers(part)
        scores = self.validate(self.judged.eval())
        seconds = self.seconds_before + time.perf_counter() - self.started
        self.rows.append(
            {"epoch": self.epoch, "time_seconds": round(seconds, 1), "learning_rate": rate}
            | {f"{name}_train": float(value) / self.step for name, value in self.sums.items()}
            | {f"{name}_valid": float(value) for name, value in scores.items()}
        )
        value, best_value = self.rows[-1][f"{self.best[0]}_valid"], self.best_value
        if math.isnan(value):
            self._stop(f"Validation gave no number for {self.best[0]} in epoch {self.epoch}.", self.epoch - 1)
        if best_value is None or (value > best_value if self.best[1] == "max" else value < best_value):
            self.best_value, weights = value, self.judged.state_dict()
            if self.settings.get("half_weights"):
                weights = {n: v.half() if v.is_floating_point() else v for n, v in weights.items()}
            _save(self.folder / "model.pth", weights)
        if process_rank() == 0:
            write_table(self.folder / "history.csv", pd.DataFrame(self.rows))
            if self.report:
                self.report(self.judged, pd.DataFrame(self.rows))
        progress = {"epoch": self.epoch, "history": self.rows, "best_value": self.best_value, "time_seconds": seconds}
        parts = {name: part.state_dict() for name, part in self.state.items()}
        _save(self.folder / "checkpoint.pth", progress | {"info": self.identity} | parts)

    def _resume(self) -> None:
        """Restore the state after the last whole epoch."""
        saved = read_tensors(self.folder / "checkpoint.pth")
        if saved["info"] != self.identity:
            raise ValueError(
                f"{self.folder} holds an unfinished run with other settings or data. "
                f"Set them back to go on, or delete that folder to train afresh."
            )
        for name, part in self.state.items():
            part.load_state_dict(saved[name])
        self.epoch, self.rows, self.best_value = saved["epoch"], saved["history"], saved["best_value"]
        self.seconds_before = saved["time_seconds"]
        print(f"{self.folder}: going on after epoch {self.epoch}.")

    def _patience_is_spent(self) -> bool:
        """Whether the last `patience` epochs were no better than the best before them."""
        patience = self.settings.get("patience")
        if not patience or len(self.rows) <= patience:
            return False
        sign = 1 if self.best[1] == "max" else -1
        values = [sign * row[f"{self.best[0]}_valid"] for row in self.rows]
        return max(values[-patience:]) <= max(values[:-patience])


def _finished_run(model, folder, settings, data, restart_on_change) -> Run | None:
    """The folder's finished run, its weights in `model`; None where training has still to be done."""
    finished = find_run(folder, settings, data, restart_on_change)
    if finished and not finished.has_weights:
        print(f"{folder}: its finished run is kept without its weights; training it again.")
        finished = None
    if dist.is_initialized():
        dist.barrier()  # nobody looks for a checkpoint before the first process has cleared an old one away
    if finished:
        finished.load(model)
        print(f"{folder}: finished run found, trained on {finished.info['data']['name']}; nothing to train.")
    return finished


def _on_every_process(model: nn.Module) -> nn.Module:
    """The model itself, or under torchrun a wrapper that averages its gradients over the processes."""
    if process_count() == 1:
        return model
    device = next(model.parameters()).device
    # buffers stay each process's own: sending them between two forward passes would spoil the first one's gradient
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def _share_buffers(model: nn.Module) -> None:
    """The mean over the processes of what each has gathered, such as batch norm's running statistics."""
    for buffer in model.buffers() if process_count() > 1 else ():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= process_count()


def _clip(model: nn.Module, settings: Mapping) -> None:
    if settings.get("clip_norm"):
        nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])


def _average(averaged: AveragedModel | None, model: nn.Module, settings: Mapping) -> None:
    """Move the averaged weights a little towards the model's; the decay rises with the steps, to forget the start."""
    if averaged:
        steps = int(averaged.n_averaged)
        averaged.multi_avg_fn = get_ema_multi_avg_fn(min(settings["ema_decay"], (1 + steps) / (10 + steps)))
        averaged.update_parameters(model)


class Muon(torch.optim.Adam):
    """Muon for the groups marked "orthogonal", Adam for the others. Source: Jordan et al. 2024, "Muon: an optimizer
    for hidden layers in neural networks".

    A weight's momentum is replaced by the nearest orthogonal matrix (a convolution is read as one matrix, out x rest),
    so no direction moves further than another. That matters where features are all >= 0, as behind ReLU: their common
    brightness is one direction of huge curvature, which makes Adam choose between shaking and crawling.
    torch.optim.Muon takes matrices only.
    """

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        for group in groups:
            for weight in group["params"] if group["orthogonal"] else ():
                if weight.grad is not None:
                    if not self.state[weight]:  # Adam looks for "step" in every state that it loads
                        self.state[weight].update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
                    momentum = self.state[weight]["momentum"]
                    momentum.lerp_(weight.grad, 1 - 0.95)
                    direction = orthogonalise(weight.grad.lerp(momentum, 0.95).flatten(1)).view_as(weight)
                    weight.add_(direction, alpha=-group["lr"] * max(1, len(weight) / weight[0].numel()) ** 0.5)
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        loss = super().step(closure)
        self.param_groups = groups
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearly the nearest matrix with orthonormal rows or columns: five Newton-Schulz steps, which bring all singular
    values to between 0.7 and 1.2. The coefficients are Jordan et al.'s.
    """
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if len(x) > len(x.T) else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if len(matrix) > len(matrix.T) else x


def make_optimizer(model: nn.Module, settings: Mapping) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the parameters that require gradients."""
    rate, decay = settings["learning_rate"], settings.get("weight_decay", 0.0)
    groups: dict[float, list] = {}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = parameter_name.split(".")[0]
            groups.setdefault(settings.get("rate_factors", {}).get(part, 1.0), []).append(parameter)
    parameters = [{"params": group, "lr": rate * factor} for factor, group in groups.items()]
    name = settings.get("optimizer", "adam")
    if name == "muon":
        # inner layers alone: what touches colours has few rows or columns to be orthogonal among
        split = [
            {"orthogonal": inner, "lr": group["lr"] * (1 if inner else settings["adam_factor"]),
             "params": [p for p in group["params"] if _is_inner(p) == inner]}
            for group in parameters for inner in (True, False)
        ]  # fmt: skip
        return Muon([group for group in split if group["params"]], rate, weight_decay=decay)
    if name == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    if name == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    if name == "sgd":
        momentum = settings.get("momentum", 0.9)
        nesterov = settings.get("nesterov", False)
        return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, nesterov=nesterov)
    raise ValueError(f"optimizer is adam, adamw, muon or sgd; got {name!r}.")


def _is_inner(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter.shape[1]) >= 16


def schedule(settings: Mapping) -> Callable[[int], float]:
    """step -> factor on the learning rate.

    "constant": 1. "step": gamma after every step_epochs epochs. "one_cycle": linear rise over the first `warmup`
    (a fraction of all steps), then half a cosine down to 0 (after Smith & Topin 2018).
    """
    name = settings.get("schedule", "constant")
    steps_per_epoch = settings["steps_per_epoch"]
    total = settings["num_epochs"] * steps_per_epoch
    if name == "constant":
        return lambda step: 1.0
    if name == "step":
        return lambda step: settings["gamma"] ** (step // steps_per_epoch // settings["step_epochs"])
    if name == "one_cycle":
        rise = max(1, round(settings.get("warmup", 0.2) * total))
        return lambda step: (
            (step + 1) / rise if step < rise else 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, total - rise))
        )
    raise ValueError(f"schedule is constant, step or one_cycle; got {name!r}.")


@torch.inference_mode()
def predict(
    model: nn.Module, images: Tensor, batch_size: int = 250, mixed_precision: bool = False
) -> Tensor | tuple[Tensor, ...]:
    """Apply `model` to images (N, 3, H, W), float in [0, 1] or uint8, in parts; outputs come back whole, on the CPU.

    mixed_precision: bfloat16 where the device computes it, for making training pictures and for choosing an epoch; not
    for test pictures.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    mixed = mixed_precision and computes_bfloat16(device)
    outputs = []
    for part in images.split(batch_size):
        part = part.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            output = model(part.float() / 255 if part.dtype == torch.uint8 else part)
        outputs.append(tuple(o.float().cpu() for o in (output if isinstance(output, tuple) else (output,))))
    whole = tuple(torch.cat(column) for column in zip(*outputs, strict=True))
    return whole if len(whole) > 1 else whole[0]


# --- what fit is made of ----------------------------------------------------------------------------------------


def _plain(mapping: Mapping) -> dict:
    """As JSON will give it back, so that stored and present settings compare equal."""
    return json.loads(json.dumps(dict(mapping)))


def _share(batch: Batch) -> tuple[Batch, float]:
    """This process's part of a batch, in channels_last, and the weight that makes the mean over processes exact."""
    rank, count = process_rank(), process_count()
    size = len(next(iter(batch.values())))
    if size < count:
        raise ValueError(f"A batch of {size} cannot be shared by {count} processes. Make batch_size larger.")
    part = {name: value[rank::count] for name, value in batch.items()}
    weight = len(next(iter(part.values()))) * count / size
    images = {n: v.contiguous(memory_format=torch.channels_last) for n, v in part.items() if v.ndim == 4}
    return part | images, weight


def _save(path: Path, content: dict) -> None:
    if process_rank() == 0:
        buffer = io.BytesIO()  # torch's own message on a full disk is "unexpected pos"
        torch.save(content, buffer)
        try:
            write_whole(path, lambda beside: beside.write_bytes(buffer.getbuffer()))
        except OSError as error:
            raise OSError(
                f"{path} could not be written ({error.strerror or error}). What was there before is kept; "
                f"make room and run again, it goes on from there."
            ) from error
