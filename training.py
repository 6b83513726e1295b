"""One training loop for every task.

A task is a function `loss(model, batch) -> (total, {"name": value})`; `fit` knows no task. `fit` called again on an
unfinished folder goes on after the last whole epoch, on a CPU to the very weights that an uninterrupted run gives; on a
finished one it returns at once, or goes on where more epochs are asked for and the schedule allows it. Under torchrun
every process draws the same batch and takes its share.
"""
import contextlib
import hashlib
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import datasets
import NetSet
from tools import runs
from tools.runs import Run, process_count, process_rank

Batch = Mapping[str, Tensor]
Batches = Callable[[torch.Generator], Iterable[Batch]]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict]]
Validate = Callable[[nn.Module], dict[str, float]]


def fit(
    model: nn.Module, loss: Loss, batches: Batches, folder: str | Path, settings: Mapping, data: Mapping,
    validate: Validate, monitor: str = "accuracy", mode: str = "max", restart_on_change: bool = False,
    report: Callable[[nn.Module, pd.DataFrame], None] | None = None,
    load: bool = True,
) -> Run:  # fmt: skip
    """Train `model` in place and leave it with the weights of its best epoch; return the run.

    loss      loss(model, batch) -> (total, parts): a scalar tensor, and scalars by name for the history.
    batches   batches(generator) -> one epoch of dicts of tensors, first dimension N, on the model's device. What is
              drawn must come from this CPU generator: it is seeded anew each epoch, which makes resuming exact.
    settings  num_epochs, steps_per_epoch, learning_rate, and optionally: optimizer and its settings
              (`make_optimizer`), schedule and its settings (`make_schedule`), ema_decay (0: off; else the averaged
              weights are validated and kept), clip_norm, seed, mixed_precision (True: bfloat16 where the device
              computes it; weights stay float32), save_fp16 (True: model.pth in float16), patience (stop after so many
              epochs without a better one; None: never). All are stored in run.json and compared at the next call.
    data      name and fingerprint of the training data, for run.json; `pretrained`: fingerprints of the weights at the
              start.
    validate  validate(model) -> {"psnr_db": ...} on validation data, after each epoch.
    monitor, mode  the score, and "max" or "min", by which an epoch's weights are kept.
    restart_on_change  a folder that holds a run with other settings or data: begin again (True) or raise (False).
    report    report(model, history): called after each epoch by the first process.
    load      False: a finished run is returned as it is, even where its weights are not here; `Run.load` reads them.

    Raises FloatingPointError when the loss is not finite, or validation gives no number for `monitor`; the last good
    checkpoint stays.
    """
    if not load and (run := runs.find_run(folder, settings, data, restart_on_change)):
        return run
    model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, make_schedule(settings))
    averaged = AveragedModel(model, use_buffers=True) if settings.get("ema_decay") else None
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "averaged": averaged}
    with RunInProgress(folder, settings, data, state, validate, (monitor, mode), restart_on_change, report) as run:
        for epoch_batches in run.epochs(batches):
            train_epoch(distributed(model), loss, epoch_batches, optimizer, scheduler, run)
        return run.finish(model)


def train_epoch(model: nn.Module, loss: Loss, batches: Iterable[Batch], optimizer, scheduler, run) -> None:
    """One pass over `batches`. `run` clips, averages weights and keeps the log; "share" is 1 in a single process."""
    for batch in batches:
        with run.mixed_precision():
            total, parts = loss(model, batch)
        optimizer.zero_grad()
        (total * batch["share"]).backward()
        run.clip(model)
        optimizer.step()
        scheduler.step()
        run.log({"loss": total, **parts})


def fit_gan(
    generator: nn.Module, discriminator: nn.Module, content_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict]],
    batches: Batches, folder: str | Path, settings: Mapping, data: Mapping, validate: Validate,
    monitor: str = "niqe", mode: str = "min", restart_on_change: bool = False,
) -> Run:  # fmt: skip
    """Train `generator` against `discriminator`; leave it with the weights of its best epoch, and return the run.

    content_loss  content_loss(sr_img, hr_img) -> (total, parts): keeps the generator close to the image.
    batches       as for `fit`; each batch holds "lr_img" and "hr_img".
    settings      as for `fit`, and adversarial_weight (1e-3 in the paper), and optionally discriminator_epochs: in the
                  first ones the discriminator alone learns. Both networks have the same optimiser settings.

    The history has, as means over an epoch: loss (the generator's), adversarial, the content loss's parts,
    discriminator (its loss), and real and fake: the discriminator's mean probability of "real" for either.
    validate, monitor, the folder and what is raised: as for `fit`. Source: Ledig et al. 2017.
    """
    networks = {"generator": generator, "discriminator": discriminator}
    for network in networks.values():
        network.to(memory_format=torch.channels_last).requires_grad_(True)  # an interrupted step leaves it off
    optimizers = {name: make_optimizer(network, settings) for name, network in networks.items()}
    schedulers = {name: torch.optim.lr_scheduler.LambdaLR(o, make_schedule(settings)) for name, o in optimizers.items()}
    averaged = AveragedModel(generator, use_buffers=True) if settings.get("ema_decay") else None
    state = {"generator": generator, "averaged": averaged, "discriminator": discriminator}
    state |= {f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()}
    state |= {f"{name}_scheduler": scheduler for name, scheduler in schedulers.items()}
    with RunInProgress(folder, settings, data, state, validate, (monitor, mode), restart_on_change) as run:
        for epoch_batches in run.epochs(batches):
            train_gan_epoch(networks, content_loss, epoch_batches, optimizers, schedulers, run)
        return run.finish(generator)


def train_gan_epoch(networks: Mapping, content_loss, batches: Iterable[Batch], optimizers, schedulers, run) -> None:
    """One pass over `batches`: in each step the discriminator learns, then the generator."""
    generator, discriminator = networks["generator"], networks["discriminator"]
    parallel_generator, parallel_discriminator = distributed(generator), distributed(discriminator)
    for batch in batches:
        hr_img = batch["hr_img"]
        with run.mixed_precision():
            sr_img = parallel_generator(batch["lr_img"])

        # --- the discriminator learns to tell real from fake; detach keeps this loss away from the generator
        discriminator.requires_grad_(True)
        with run.mixed_precision():
            real = parallel_discriminator(hr_img).float()
            fake = parallel_discriminator(sr_img.detach()).float()
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        optimizers["discriminator"].zero_grad()
        (loss * batch["share"]).backward()
        run.clip(discriminator)
        optimizers["discriminator"].step()

        # --- the generator learns to be taken for real, and to stay close to the image
        discriminator.requires_grad_(False)
        with run.mixed_precision():
            content, parts = content_loss(sr_img, hr_img)
            adversarial = F.softplus(-discriminator(sr_img).float()).mean()  # -log D(G(LR))
        total = content + run.settings["adversarial_weight"] * adversarial
        optimizers["generator"].zero_grad()
        (total * batch["share"]).backward()
        run.clip(generator)
        if run.epoch < run.settings.get("discriminator_epochs", 0):
            optimizers["generator"].zero_grad()  # a step without gradients changes nothing
        optimizers["generator"].step()

        for scheduler in schedulers.values():
            scheduler.step()
        probabilities = {"real": real.sigmoid().mean(), "fake": fake.sigmoid().mean()}
        run.log({"loss": total, "adversarial": adversarial, **parts, "discriminator": loss} | probabilities)


class RunInProgress:
    """What `fit` and `fit_gan` do around their loops: lock the folder, seed, resume, log, validate, save.

    state: what a checkpoint holds, by name: anything with a state_dict, or None. Of its networks "averaged", where
    there is one, or else the first is validated and kept.
    """

    def __init__(self, folder, settings, data, state, validate, best, restart_on_change=False, report=None):
        self.folder, self.settings, self.data = Path(folder), settings, data
        self.state = {name: part for name, part in state.items() if part is not None}
        self.model, self.averaged = next(iter(state.values())), state["averaged"]
        self.eval_model = self.averaged.module if self.averaged else self.model
        self.validate, (self.monitor, self.mode), self.report = validate, best, report
        self.restart_on_change, self.best_value = restart_on_change, None
        self.device = next(self.model.parameters()).device
        self.num_epochs, self.steps_per_epoch = settings["num_epochs"], settings["steps_per_epoch"]
        if self.num_epochs < 1 or self.steps_per_epoch < 1:
            found = f"{self.num_epochs} and {self.steps_per_epoch}"
            raise ValueError(f"num_epochs and steps_per_epoch must be 1 or more; got {found}.")
        self.mixed = settings.get("mixed_precision", False) and computes_bfloat16(self.device)
        self.identity = runs.plain({"settings": settings, "data": data})
        self.epoch, self.rows, self.seconds_before = 0, [], 0.0
        self.info = {"finished": False, **self.identity, "environment": runs.environment(self.device),
                     "processes": process_count(), "precision": "bfloat16" if self.mixed else "float32"}  # fmt: skip
        self.finished = None

    def __enter__(self) -> "RunInProgress":
        found = runs.find_run(self.folder, self.settings, self.data, self.restart_on_change)
        _barrier()  # nobody looks for a checkpoint before the first process has cleared an old one away
        with contextlib.ExitStack() as resources:  # an error on the way lets the folder go
            self._open(found, resources)
            self.resources = resources.pop_all()
        self.started = time.perf_counter()
        return self

    def _open(self, found: Run | None, resources: contextlib.ExitStack) -> None:
        """Lock the folder; take over what is finished there, or go on with what was begun."""
        if process_rank() == 0 and not (found and found.has_weights):
            resources.enter_context(runs.locked(self.folder))
            found = runs.find_run(self.folder, self.settings, self.data)  # another process may have finished it
        _barrier()
        found = found if process_rank() == 0 else runs.find_run(self.folder, self.settings, self.data)
        if found and found.has_weights:
            self.finished = found
            return
        if process_rank() == 0 and not (self.folder / "model.pth").exists():  # taken away: from the beginning
            (self.folder / "checkpoint.pth").unlink(missing_ok=True)
        _barrier()
        if (self.folder / "checkpoint.pth").exists():
            self._resume()
        runs.write_info(self.folder, self.info)

    def __exit__(self, *error) -> None:
        self.resources.close()

    def mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def clip(self, model: nn.Module) -> None:
        if self.settings.get("clip_norm"):
            nn.utils.clip_grad_norm_(model.parameters(), self.settings["clip_norm"])

    def epochs(self, batches: Batches) -> Iterator[Iterator[Batch]]:
        """The batches of every epoch that is still to be done; after each one: validate, save."""
        if self.finished:
            return
        total = self.num_epochs * self.steps_per_epoch
        self.bar = tqdm(total=total, initial=self.epoch * self.steps_per_epoch, desc=self.folder.name, unit="step",
                        mininterval=0.5, file=sys.stdout, ncols=110, disable=process_rank() != 0)  # fmt: skip
        while self.epoch < self.num_epochs and not self._patience_is_spent():
            seed = self.settings.get("seed", 0)
            torch.manual_seed(random_stream(seed, self.epoch, "dropout", process_rank()))
            for part in self.state.values():
                if isinstance(part, nn.Module):
                    part.train()
            self.sums, self.step = {}, 0
            generator = torch.Generator().manual_seed(random_stream(seed, self.epoch, "batches"))
            yield map(_share, batches(generator))
            if self.step != self.steps_per_epoch:
                raise ValueError(f"settings say {self.steps_per_epoch} steps an epoch; batches() gave {self.step}.")
            self._end_epoch()
        self.bar.close()

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """A step's losses, of which `loss` must stay finite; moves the averaged weights."""
        self.step += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + torch.as_tensor(value).detach()
        if self.averaged:  # the decay rises with the steps, to forget the start
            steps = int(self.averaged.n_averaged)
            decay = min(self.settings["ema_decay"], (1 + steps) / (10 + steps))
            self.averaged.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.averaged.update_parameters(self.model)
        # reading a value makes a GPU wait, so not at every step
        if self.step % 20 == 0 or self.step == self.steps_per_epoch:
            loss = self.sums["loss"].item() / self.step
            if not math.isfinite(loss):
                self._stop(f"The training loss is not finite in epoch {self.epoch + 1}.", self.epoch)
            self.bar.set_postfix_str(f"epoch {self.epoch + 1}/{self.num_epochs}, loss {loss:.4f}")
        self.bar.update()

    def finish(self, model: nn.Module) -> Run:
        """The chosen epoch's weights in `model`, and the last lines of run.json."""
        if not self.finished:
            _barrier()  # the first process has written its files
            history = pd.DataFrame(self.rows)
            values = history[f"{self.monitor}_valid"]
            best_row = history.loc[values.idxmax() if self.mode == "max" else values.idxmin()]
            self.info |= {
                "finished": True, "time_seconds": self.rows[-1]["time_seconds"], "best_epoch": int(best_row["epoch"]),
                "validation": {name: float(best_row[name]) for name in history if name.endswith("_valid")},
                "weights": runs.file_fingerprint(self.folder / "model.pth"),
                "history": runs.text_checksum(self.folder / "history.csv"),
            }  # fmt: skip
            runs.write_info(self.folder, self.info)
            if process_rank() == 0 and self.settings.get("schedule") == "one_cycle":  # else more epochs may follow
                (self.folder / "checkpoint.pth").unlink(missing_ok=True)
            _barrier()
            self.finished = Run(self.folder, runs.plain(self.info), history)
        self.finished.load(model)
        return self.finished

    def _stop(self, reason: str, last_epoch: int) -> None:
        self.bar.close()
        kept = f"The checkpoint of epoch {last_epoch} is kept in {self.folder}."
        kept = kept if last_epoch else "Nothing was saved yet."
        raise FloatingPointError(f"{reason} {kept} Lower learning_rate or set clip_norm.")

    def _end_epoch(self) -> None:
        """Validate, keep the weights if they are the best so far, write history and checkpoint.

        The first process validates, and all decide by its scores, so that they stop and go on together.
        """
        self.epoch += 1
        rate = self.settings["learning_rate"] * make_schedule(self.settings)(self.epoch * self.steps_per_epoch)
        for part in self.state.values():
            if isinstance(part, nn.Module):
                _share_buffers(part)
        scores = self.validate(self.eval_model.eval()) if process_rank() == 0 else {}
        scores = _broadcast({f"{name}_valid": float(value) for name, value in scores.items()})
        losses = _mean_over_processes({name: float(value) / self.step for name, value in self.sums.items()})
        seconds = self.seconds_before + time.perf_counter() - self.started
        self.rows.append(
            {"epoch": self.epoch, "time_seconds": round(seconds, 1), "learning_rate": rate}
            | {f"{name}_train": value for name, value in losses.items()} | scores
        )  # fmt: skip
        value, best_value = scores[f"{self.monitor}_valid"], self.best_value
        if math.isnan(value):
            self._stop(f"Validation gave no number for {self.monitor} in epoch {self.epoch}.", self.epoch - 1)
        if best_value is None or (value > best_value if self.mode == "max" else value < best_value):
            self.best_value, weights = value, self.eval_model.state_dict()
            weights = _halved(weights) if self.settings.get("save_fp16") else weights
            runs.save_tensors(self.folder / "model.pth", weights)
        if process_rank() == 0:
            history = pd.DataFrame(self.rows)
            runs.write_whole(self.folder / "history.csv", lambda beside: history.to_csv(beside, index=False))
            if self.report:
                self.report(self.eval_model, history)
        progress = {"epoch": self.epoch, "history": self.rows, "best_value": self.best_value, "time_seconds": seconds}
        parts = {name: part.state_dict() for name, part in self.state.items()}
        runs.save_tensors(self.folder / "checkpoint.pth", progress | {"info": self.identity} | parts)

    def _resume(self) -> None:
        """Restore the state after the last whole epoch."""
        saved = runs.read_tensors(self.folder / "checkpoint.pth")
        begun = saved["info"]
        other = runs._changes(begun["settings"], self.settings) and not runs.goes_on(begun["settings"], self.settings)
        if other or begun["data"] != self.identity["data"]:
            advice = "Set them back to go on, or delete that folder to train afresh."
            raise ValueError(f"{self.folder} holds an unfinished run with other settings or data. {advice}")
        for name, part in self.state.items():
            part.load_state_dict(saved[name])
        self.epoch, self.rows, self.best_value = saved["epoch"], saved["history"], saved["best_value"]
        self.seconds_before = saved["time_seconds"]
        stored = runs.read_info(self.folder) or {}
        for part, name in ((self.info, "precision"), (self.info["environment"], "device")):  # may differ from before
            before = (stored if name == "precision" else stored.get("environment", {})).get(name, part[name])
            part[name] = before if before.split(" → ")[-1] == part[name] else f"{before} → {part[name]}"
        print(f"{self.folder}: going on after epoch {self.epoch}.")

    def _patience_is_spent(self) -> bool:
        """Whether the last `patience` epochs were no better than the best before them."""
        patience = self.settings.get("patience")
        if not patience or len(self.rows) <= patience:
            return False
        sign = 1 if self.mode == "max" else -1
        values = [sign * row[f"{self.monitor}_valid"] for row in self.rows]
        return max(values[-patience:]) <= max(values[:-patience])


# --- chance, and several processes ------------------------------------------------------------------------------


def random_stream(seed: int, epoch: int, purpose: str, rank: int = 0) -> int:
    """A seed of its own for each (seed, epoch, purpose, process): no two streams of a study repeat each other."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def distributed(model: nn.Module) -> nn.Module:
    """The model itself, or under torchrun a wrapper, made once, that averages its gradients over the processes."""
    if process_count() == 1:
        return model
    if not hasattr(model, "_wrapper"):
        device = next(model.parameters()).device
        # each process keeps its own buffers: sending them between two forward passes would spoil the first's gradient
        options = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        option = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"  # before 2.14
        devices = [device] if device.type == "cuda" else None
        wrapper = nn.parallel.DistributedDataParallel(model, devices, **{option: False})
        object.__setattr__(model, "_wrapper", wrapper)  # not as a child: the model is the wrapper's
    return model._wrapper


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _broadcast(values: dict) -> dict:
    """The first process's values, on all."""
    if process_count() == 1:
        return values
    shared = [values]
    dist.broadcast_object_list(shared)
    return shared[0]


def _mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    if process_count() == 1:
        return values
    everyone: list = [None] * process_count()
    dist.all_gather_object(everyone, values)
    return {name: sum(one[name] for one in everyone) / len(everyone) for name in values}


def _share(batch: Batch) -> dict:
    """This process's part of a batch, images in channels_last; "share" makes the mean over processes exact."""
    rank, count = process_rank(), process_count()
    size = len(next(iter(batch.values())))
    if size < count:
        raise ValueError(f"A batch of {size} cannot be shared by {count} processes. Make batch_size larger.")
    part = {name: value[rank::count] for name, value in batch.items()}
    images = {n: v.contiguous(memory_format=torch.channels_last) for n, v in part.items() if v.ndim == 4}
    return part | images | {"share": len(next(iter(part.values()))) * count / size}


def _share_buffers(model: nn.Module) -> None:
    """The mean over the processes of what each has gathered, such as batch norm's running statistics."""
    for buffer in model.buffers() if process_count() > 1 else ():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= process_count()


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; raises OverflowError where one is too large for it."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in weights.items():
        if value.is_floating_point() and value.isfinite().all() and not halved[name].isfinite().all():
            raise OverflowError(f"{name} has weights beyond 65,504, float16's largest. Set save_fp16 to False.")
    return halved


# --- optimiser and schedule -------------------------------------------------------------------------------------


class Muon(torch.optim.AdamW):
    """Muon for the groups marked "orthogonal", AdamW for the others. Source: Jordan et al. 2024, "Muon: an optimizer
    for hidden layers in neural networks".

    A weight's momentum is replaced by the nearest orthogonal matrix (a convolution is read as one matrix, out x rest),
    so no direction moves further than another. Features behind ReLU are all >= 0: their common brightness is a
    direction of much higher curvature than the others, which limits Adam's rate. torch.optim.Muon takes matrices only.
    Weights of one shape are orthogonalised in one product. Weight decay is decoupled in both.
    """

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        for group in groups:
            by_shape: dict[tuple, list] = {}
            for weight in group["params"] if group["orthogonal"] else ():
                if weight.grad is not None:
                    if not self.state[weight]:  # Adam looks for "step" in every state that it loads
                        self.state[weight].update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
                    by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
            for (rows, columns), weights in by_shape.items():
                grads, momenta = [w.grad for w in weights], [self.state[w]["momentum"] for w in weights]
                torch._foreach_lerp_(momenta, grads, 1 - 0.95)
                ahead = torch._foreach_lerp(grads, momenta, 0.95)
                directions = orthogonalise(torch.stack([direction.flatten(1) for direction in ahead]))
                steps = [direction.view_as(w) for direction, w in zip(directions, weights, strict=True)]
                if group["weight_decay"]:
                    torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, steps, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)
        self.param_groups = [group for group in groups if not group["orthogonal"]]
        loss = super().step(closure)
        self.param_groups = groups
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    """Nearly the nearest matrix with orthonormal rows or columns, (..., M, N) -> same: five Newton-Schulz steps, which
    bring all singular values to between 0.7 and 1.2. The coefficients are Jordan et al.'s.
    """
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def make_optimizer(model: nn.Module, settings: Mapping) -> torch.optim.Optimizer:
    """The optimiser that the settings name, over the parameters that require gradients.

    settings: learning_rate; optimizer "adam", "adamw", "sgd" (momentum, nesterov) or "muon" (adam_factor: the share of
    the rate at which its Adam part learns); weight_decay; rate_factors, {"sr": 0.1} for a part that learns more slowly.
    """
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
        momentum, nesterov = settings.get("momentum", 0.9), settings.get("nesterov", False)
        return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, nesterov=nesterov)
    raise ValueError(f"optimizer is adam, adamw, muon or sgd; got {name!r}.")


def _is_inner(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter.shape[1]) >= 16


def make_schedule(settings: Mapping) -> Callable[[int], float]:
    """step -> factor on the learning rate.

    "constant": 1. "step": gamma after every step_epochs epochs. "one_cycle": linear rise over the first `warmup`
    (a fraction of all steps), then half a cosine down to final_rate (a fraction of the peak, 0 unless set; after
    Smith & Topin 2018).
    """
    name, steps_per_epoch = settings.get("schedule", "constant"), settings["steps_per_epoch"]
    if name == "constant":
        return lambda step: 1.0
    if name == "step":
        return lambda step: settings["gamma"] ** (step // steps_per_epoch // settings["step_epochs"])
    if name == "one_cycle":
        total = settings["num_epochs"] * steps_per_epoch
        rise = max(1, round(settings.get("warmup", 0.2) * total))
        low = settings.get("final_rate", 0.0)
        return lambda step: (
            (step + 1) / rise if step < rise
            else low + (1 - low) * (0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, total - rise)))
        )  # fmt: skip
    raise ValueError(f"schedule is constant, step or one_cycle; got {name!r}.")


# --- networks in use --------------------------------------------------------------------------------------------


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


@torch.inference_mode()
def predict(
    model: nn.Module, images: Tensor, batch_size: int = 250, mixed_precision: bool = False,
    call: Callable | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Apply `model` in evaluation mode to images (N, 3, H, W), float in [0, 1] or uint8, in parts; outputs come back
    whole, on the CPU, in float32.

    mixed_precision: bfloat16 and TF32 where the device computes them, for making training images and for choosing an
    epoch; what is reported is computed without. call: the part of the model to apply, if not its forward.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    mixed = mixed_precision and computes_bfloat16(device)
    was_training, outputs = model.training, []
    model.eval()
    for part in images.split(batch_size):
        part = part.to(device, memory_format=torch.channels_last)
        # a GPU's convolutions would otherwise round float32 to TF32's 10 bits
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed), torch.backends.cudnn.flags(
            enabled=True, benchmark=torch.backends.cudnn.benchmark, allow_tf32=mixed
        ):
            output = (call or model)(part.float() / 255 if part.dtype == torch.uint8 else part)
        outputs.append(tuple(o.float().cpu() for o in (output if isinstance(output, tuple) else (output,))))
    model.train(was_training)
    whole = tuple(torch.cat(column) for column in zip(*outputs, strict=True))
    return whole if len(whole) > 1 else whole[0]


def perceptual_features(
    vgg: str, vgg_layer: list, classifier_layer: list, profile: str, data_root: str | Path, results_root: str | Path
) -> tuple[NetSet.PerceptualFeatures, str]:
    """(features, what they are in words): of "vgg16" or "vgg19" where ImageNet weights are in `data_root`, else of the
    project's own classifier. The quick profile always takes the latter, a fiftieth of the work.
    """
    weights = datasets.find_vgg(vgg, data_root) if profile != "quick" else None
    if weights is None:
        places = [Path(results_root) / "task2", runs.run_folder(results_root, profile, "task2"),
                  Path(__file__).parent / "results" / "task2"]  # fmt: skip
        run = next((run for run in map(runs.read_run, places) if run and run.has_weights), None)
        if run is None:
            raise FileNotFoundError(f"{places[1]} holds no trained classifier: run task2_classify.ipynb first.")
        weights, layer, name = run.folder / "model.pth", classifier_layer, f"ClassifyNet, {run.info['data']['name']}"
        features = NetSet.PerceptualFeatures.of_classifier(weights, run.info["settings"], *layer)
    elif "blocks" in weights.name:
        layer, name = vgg_layer, "VGG19, ImageNet"
        features = NetSet.PerceptualFeatures.of_vgg_blocks(weights, *layer)
    else:
        layer, name = vgg_layer, f"{vgg.upper()}, ImageNet"
        features = NetSet.PerceptualFeatures.of_vgg(weights, *layer)
    return features, f"{name}, phi({layer[0]}, {layer[1]}), weights {runs.file_fingerprint(weights)}"
