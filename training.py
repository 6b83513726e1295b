"""One training loop for every task, its checkpoints, its history.

A task is a function `loss(model, batch) -> (total, {"name": value})`; `fit` knows no task. A run is a folder:
model.pth (a plain state dict: the chosen epoch's weights), run.json (what was run, on what, and what came out),
history.csv (a row an epoch) and, while it is unfinished, checkpoint.pth. `fit` called again on an unfinished folder
goes on where it stopped, to the weights that an uninterrupted run gives; on a finished one it returns at once.

Under torchrun every process draws the same batch and takes its share, so any number of processes does the same steps:
    torchrun --standalone --nproc_per_node 8 -m IPython task1_sr.ipynb
"""
import hashlib
import json
import math
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
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

    Any other profile is returned as it is.
    """
    if profile != "auto":
        return profile
    shipped = bool((read_info(folder) or {}).get("finished"))
    if shipped and data_is_there:
        print(f"Profile study: its finished run is in {folder}, and its data is here.")
        return "study"
    reason = f"no finished study run is in {folder}" if not shipped else "the study's data is not here"
    print(f"Profile quick, because {reason}: a short run, whose figures are not the study's.")
    return "quick"


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
    cuda = device.type == "cuda"
    hardware = torch.cuda.get_device_name(device) if cuda else f"CPU, {torch.get_num_threads()} threads"
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

    def record(self, **results) -> None:
        """Add final results (and the protocol that they were measured by) to run.json."""
        self.info.update(results)
        if process_rank() == 0:
            write_json(self.folder / "run.json", self.info)


def read_info(folder: str | Path) -> dict | None:
    """run.json as a dict with at least "finished", "settings" and "data"; None where there is none."""
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
    return info


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
    try:
        return Run(folder, info, pd.read_csv(folder / "history.csv"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / 'history.csv'} cannot be read ({error}). {DELETE}") from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    write_whole(path, lambda beside: table.to_csv(beside, index=False))


def find_run(
    folder: str | Path, settings: Mapping, data: Mapping, restart_on_change: bool = False
) -> Run | None:
    """The finished run of this folder, if it is the one asked for; None where training has still to be done.

    As `fit` does, and without a model: other settings, or other weights to start from (data["starts_from"]), raise
    ValueError, or clear the old run away where restart_on_change. Other data than a finished run's is said, not
    refused: shipped weights are shown on whatever pictures there are.
    """
    folder = Path(folder)
    identity = {"settings": _plain(settings), "data": _plain(data)}
    stored = read_info(folder)
    if stored is None:
        return None
    changed = [
        f"{name} {stored['settings'].get(name)!r} -> {identity['settings'].get(name)!r}"
        for name in sorted(stored["settings"].keys() | identity["settings"].keys())
        if stored["settings"].get(name) != identity["settings"].get(name)
    ]
    other_data = stored["data"] != identity["data"]
    if restart_on_change and (changed or other_data):
        print(f"{folder} held a run with other {'settings' if changed else 'data'}; training afresh.")
        if process_rank() == 0:
            (folder / "checkpoint.pth").unlink(missing_ok=True)
            (folder / "run.json").unlink()
        return None
    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}). "
            f"Set them back, name another results_root, or delete that folder to train afresh."
        )
    run = read_run(folder)
    if run and other_data:
        if stored["data"].get("starts_from") != identity["data"].get("starts_from"):
            raise ValueError(
                f"{folder} holds a run that started from other weights ({stored['data'].get('starts_from')}; here they "
                f"are {identity['data'].get('starts_from')}). Delete that folder to train it again from these."
            )
        print(f"{folder}: its run was given {stored['data']}; here there would be {identity['data']}.")
    return run


def keep(path: str | Path, compute: Callable[[], dict[str, Tensor]], key: object) -> dict[str, Tensor]:
    """What `compute` returned when it was first called with this `key` (what it depends on, as plain values).

    Kept in the file `path`, so that a test set is read once, and a notebook shown again need not compute it anew.
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
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
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
              device computes it; weights and validation stay float32), half_weights (True: model.pth in float16),
              patience (stop early after so many epochs without a better one; None = never).
              All entries, also those that only the notebook reads, are stored and compared on the next call.
    data      name and fingerprint of the training data, for run.json.
    validate  validate(model) -> {"psnr_db": ...} on validation data, after each epoch.
    best      (metric, "max" or "min"): which epoch's weights are kept.
    restart_on_change  a folder that holds a run with other settings or data: begin again (True) or raise (False).

    Raises FloatingPointError when the loss is not finite; the last good checkpoint stays.
    """
    folder = Path(folder)
    device = next(model.parameters()).device
    identity = {"settings": _plain(settings), "data": _plain(data)}
    finished = find_run(folder, settings, data, restart_on_change)
    if finished and not finished.has_weights:
        print(f"{folder}: its finished run is kept without its weights; training it again.")
        finished = None
    if dist.is_initialized():
        dist.barrier()  # nobody looks for a checkpoint before the first process has cleared an old one away
    if finished:
        load_weights(model, folder / "model.pth")
        print(f"{folder}: finished run found, trained on {finished.info['data']['name']}; nothing to train.")
        return finished

    model.to(memory_format=torch.channels_last)
    mixed = settings.get("mixed_precision", False) and computes_bfloat16(device)
    half_weights = settings.get("half_weights", False)
    seed = settings.get("seed", 0)
    num_epochs, steps_per_epoch = settings["num_epochs"], settings["steps_per_epoch"]
    if num_epochs < 1 or steps_per_epoch < 1:
        raise ValueError(f"num_epochs and steps_per_epoch must be 1 or more; got {num_epochs} and {steps_per_epoch}.")
    optimizer = make_optimizer(model, settings)
    rate_factor = schedule(settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor)
    averaged = AveragedModel(model) if settings.get("ema_decay") else None
    judged = averaged.module if averaged else model
    parallel = model
    if process_count() > 1:
        parallel = nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)

    epoch, rows, best_value, seconds_before = _resume(folder, identity, model, averaged, optimizer, scheduler)
    info = {"finished": False, **identity, "environment": environment(device), "processes": process_count(),
            "precision": "bfloat16" if mixed else "float32"}  # fmt: skip
    if process_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "run.json", info)

    started = time.perf_counter()
    total_steps = num_epochs * steps_per_epoch
    bar = tqdm(total=total_steps, initial=epoch * steps_per_epoch, desc=folder.name, unit="step", mininterval=0.5,
               file=sys.stdout, ncols=110, disable=process_rank() != 0)  # fmt: skip
    while epoch < num_epochs and not _patience_is_spent(rows, best, settings.get("patience")):
        torch.manual_seed(seed + 1_000 * (epoch + 1) + process_rank())  # dropout; differs between processes
        generator = torch.Generator().manual_seed(seed + 1_000 * (epoch + 1))
        model.train()
        sums: dict[str, Tensor] = {}
        for step, whole_batch in enumerate(batches(generator), start=1):
            batch, share = _share(whole_batch)
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                total, parts = loss(parallel, batch)
            optimizer.zero_grad(set_to_none=True)
            (total * share).backward()
            if settings.get("clip_norm"):
                nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
            optimizer.step()
            scheduler.step()
            if averaged:
                # a decay that rises with the number of steps soon forgets the start
                steps_averaged = int(averaged.n_averaged)
                decay = min(settings["ema_decay"], (1 + steps_averaged) / (10 + steps_averaged))
                averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
                averaged.update_parameters(model)

            for name, value in {"loss": total, **parts}.items():
                sums[name] = sums.get(name, 0) + torch.as_tensor(value).detach()
            if step % 20 == 0 or step == steps_per_epoch:  # reading a value makes a GPU wait, so not at every step
                _require_finite(sums["loss"], folder, epoch, bar)
                bar.set_postfix_str(f"epoch {epoch + 1}/{num_epochs}, loss {sums['loss'].item() / step:.4f}")
            bar.update()
        if not sums or step != steps_per_epoch:
            raise ValueError(f"settings say {steps_per_epoch} steps an epoch; batches() gave {step if sums else 0}.")

        epoch += 1
        rate = settings["learning_rate"] * rate_factor(epoch * steps_per_epoch)
        scores = validate(judged.eval())
        seconds = seconds_before + time.perf_counter() - started
        rows.append(
            {"epoch": epoch, "time_seconds": round(seconds, 1), "learning_rate": rate}
            | {f"{name}_train": float(value) / step for name, value in sums.items()}
            | {f"{name}_valid": float(value) for name, value in scores.items()}
        )
        value = rows[-1][f"{best[0]}_valid"]
        if best_value is None or (value > best_value if best[1] == "max" else value < best_value):
            best_value = value
            state = judged.state_dict()
            _save(folder / "model.pth", {n: v.half() for n, v in state.items()} if half_weights else state)
        state = {"epoch": epoch, "history": rows, "best_value": best_value, "time_seconds": seconds, "info": identity}
        state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        state |= {"averaged": averaged.state_dict()} if averaged else {}
        _save(folder / "checkpoint.pth", state)
        history = pd.DataFrame(rows)
        if process_rank() == 0:
            write_table(folder / "history.csv", history)
    bar.close()

    history = pd.DataFrame(rows)
    best_row = history.loc[history[f"{best[0]}_valid"].pipe(lambda c: c.idxmax() if best[1] == "max" else c.idxmin())]
    info |= {"finished": True, "time_seconds": rows[-1]["time_seconds"], "best_epoch": int(best_row["epoch"]),
             "validation": {name: float(best_row[name]) for name in history if name.endswith("_valid")}}  # fmt: skip
    if process_rank() == 0:
        write_table(folder / "history.csv", history)
        write_json(folder / "run.json", info | {"weights": file_fingerprint(folder / "model.pth")})
        (folder / "checkpoint.pth").unlink(missing_ok=True)
    if dist.is_initialized():
        dist.barrier()
    info["weights"] = file_fingerprint(folder / "model.pth")
    load_weights(model, folder / "model.pth")
    model.eval()
    return Run(folder, info, history)


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

    mixed_precision: bfloat16 where the device computes it, for the making of training pictures; not for results.
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


def _patience_is_spent(rows: list[dict], best: tuple[str, str], patience: int | None) -> bool:
    """Whether the last `patience` epochs were no better than the best before them."""
    if not patience or len(rows) <= patience:
        return False
    values = [row[f"{best[0]}_valid"] if best[1] == "max" else -row[f"{best[0]}_valid"] for row in rows]
    return max(values[-patience:]) <= max(values[:-patience])


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


def _require_finite(loss_sum: Tensor, folder: Path, epoch: int, bar: tqdm) -> None:
    if not torch.isfinite(loss_sum):
        bar.close()
        kept = f"The checkpoint of epoch {epoch} is kept in {folder}." if epoch else "Nothing was saved yet."
        raise FloatingPointError(
            f"The training loss is not finite in epoch {epoch + 1}. {kept} Lower learning_rate or set clip_norm."
        )


def _save(path: Path, content: dict) -> None:
    if process_rank() == 0:
        write_whole(path, lambda beside: torch.save(content, beside))


def _resume(
    folder: Path, identity: dict, model, averaged, optimizer, scheduler
) -> tuple[int, list, float | None, float]:
    """Restore the state after the last whole epoch: (epochs done, history rows, best value, seconds)."""
    if not (folder / "checkpoint.pth").exists():
        return 0, [], None, 0.0
    state = read_tensors(folder / "checkpoint.pth")
    if state["info"] != identity:
        raise ValueError(
            f"{folder} holds an unfinished run with other settings or data. "
            f"Set them back to go on, or delete that folder to train afresh."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if averaged:
        averaged.load_state_dict(state["averaged"])
    print(f"{folder}: going on after epoch {state['epoch']}.")
    return state["epoch"], state["history"], state["best_value"], state["time_seconds"]
