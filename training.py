"""One training loop for every task.

A task is a function `loss(model, batch) -> (total, {"name": value})`; `fit` knows no task. What a run is, is its
identity (tools/identity.py): with the same code, settings and data `fit` reads the finished run, or resumes after
the last whole epoch, on a CPU to the very weights that an uninterrupted run gives; with others it trains another
run. Under torchrun every process draws the same batch and takes its share.
"""
import contextlib
import copy
import datetime
import functools
import hashlib
import inspect
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import pandas as pd
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from tools import files, runs
from tools.files import broadcast, plain, process_count, process_rank
from tools.identity import identity as make_identity
from tools.runs import Run, Task

Batch = Mapping[str, Tensor]
Batches = Callable[[torch.Generator], Iterable[Batch]]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, dict]]
Validate = Callable[[nn.Module], dict[str, float]]
Report = Callable[[int, Mapping[str, float], "_Training"], object]


def fit(
    task: Task, network: Callable[[], nn.Module], loss: Loss, batches: Batches, validate: Validate,
    data: object, degradation: object = None, part: str = "", monitor: str = "accuracy", mode: str = "max",
    report: Report | None = None, pretrained: object = None, settings: Callable[[], Mapping] | None = None,
    start: Callable[[nn.Module], object] | None = None, needs_weights: bool = False, stream: str = "", **changes,
) -> Run:  # fmt: skip
    """Train the network that `network()` makes; return the run, whose `network` has the weights of its best epoch.

    task      what `runs.begin` returned: its settings are read here, with `changes` for this run. They are num_epochs,
              steps_per_epoch, learning_rate, seed, those of `make_optimizers` and `make_schedule`, ema_decay (0: off;
              else the averaged weights are validated and kept), clip_norm, mixed_precision (True: bfloat16 where the
              device computes it; weights stay float32), save_fp16 (True: model.pth in float16), patience.
    loss      loss(model, batch) -> (total, parts): a scalar tensor, and scalars by name for the history.
    batches   batches(generator) -> one epoch of dicts of tensors, first dimension N, on the model's device. What is
              drawn must come from this CPU generator: it is seeded anew each epoch, which makes resuming exact.
    validate  validate(model) -> {"psnr_db": ...} on validation data, after each epoch.
    data      the training data: anything with a name and a fingerprint. degradation: what was done to them.
    part      the run's name within the study, "seed0/joint".
    monitor, mode  the score, and "max" or "min", by which an epoch's weights are kept; "": the last epoch's are.
    report    report(step, values, run), called by the first process after each step with its losses, and after each
              epoch with the row of the history, in which "epoch" stands. run has the network so far (`eval_model`), the
              `folder`, and the history's `rows`.
    pretrained  the run, or fingerprints, of the weights that `network()` starts from, or a function that returns them.
    start     start(model): fills it with these weights, where training begins.
    settings  settings() -> all of this run's settings, where they are not the task's.
    needs_weights  a study's run that is kept without its weights is trained again, in the lab.
    stream    a name that gives this run random numbers of its own.

    Raises FloatingPointError when the loss is not finite, or validation gives no number for `monitor`; the last good
    checkpoint stays.
    """
    handed = {"loss": loss, "batches": batches, "validate": validate, "loop": train_epoch}
    settings = settings or functools.partial(task.settings.trained, **changes)
    place = _place(task, settings, {"network": network}, handed, data, degradation, part, monitor, mode, pretrained)
    with _begun(_Training(task, place, part, validate, monitor, mode, report, start, needs_weights, stream)) as run:
        if run.finished:
            return run.finish()
        model, schedule = run.networks["network"], make_schedule(run.settings)
        optimizers = make_optimizers(model, run.settings)
        schedulers = [torch.optim.lr_scheduler.LambdaLR(each, schedule) for each in optimizers]
        for epoch_batches in run.epochs(batches, {"optimizer": optimizers, "scheduler": schedulers}):
            train_epoch(distributed(model), loss, epoch_batches, [*optimizers, *schedulers], run)
        return run.finish()


def train_epoch(model: nn.Module, loss: Loss, batches: Iterable[Batch], steppers: list, run) -> None:
    """One pass over `batches`. steppers: the optimizers, then their schedules. `run` clips, averages weights and keeps
    the log; "share" is 1 in a single process.
    """
    for batch in batches:
        with run.mixed_precision():
            total, parts = loss(model, batch)
        model.zero_grad()
        (total * batch["share"]).backward()
        run.clip(model)
        for stepper in steppers:
            stepper.step()
        run.log({"loss": total, **parts})


def fit_gan(
    task: Task, generator: Callable[[], nn.Module], discriminator: Callable[[], nn.Module],
    content_loss: Callable[[Tensor, Tensor], tuple[Tensor, dict]], batches: Batches, validate: Validate,
    data: object, degradation: object = None, part: str = "", monitor: str = "niqe", mode: str = "min",
    report: Report | None = None, pretrained: object = None, **changes,
) -> Run:  # fmt: skip
    """Train a generator against a discriminator, as `fit` trains one network; return the generator's run.

    content_loss  content_loss(sr_img, hr_img) -> (total, parts): keeps the generator close to the image.
    batches       as for `fit`; each batch holds "lr_img" and "hr_img".
    The settings have besides adversarial_weight (1e-3 in the paper) and discriminator_epochs: in the first ones the
    discriminator alone learns.

    The history has, as means over an epoch: loss (the generator's), adversarial, the content loss's parts,
    discriminator (its loss), and real and fake: the discriminator's mean probability of "real" for either.
    Source: Ledig et al. 2017.
    """
    makers = {"generator": generator, "discriminator": discriminator}
    handed = {"content_loss": content_loss, "batches": batches, "validate": validate, "loop": train_gan_epoch}
    settings = functools.partial(task.settings.trained, **changes)
    place = _place(task, settings, makers, handed, data, degradation, part, monitor, mode, pretrained)
    with _begun(_Training(task, place, part, validate, monitor, mode, report)) as run:
        if run.finished:
            return run.finish()
        networks, schedule = run.networks, make_schedule(run.settings)
        optimizers = {name: make_optimizers(network, run.settings) for name, network in networks.items()}
        each = itertools.chain(*optimizers.values())
        schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in each]
        for epoch_batches in run.epochs(batches, optimizers | {"scheduler": schedulers}):
            train_gan_epoch(networks, content_loss, epoch_batches, optimizers, schedulers, run)
        return run.finish()


def train_gan_epoch(networks: Mapping, content_loss, batches: Iterable[Batch], optimizers, schedulers, run) -> None:
    """One pass over `batches`: in each step the discriminator learns, then the generator."""
    generator, discriminator = networks["generator"], networks["discriminator"]
    parallel_generator, parallel_discriminator = distributed(generator), distributed(discriminator)
    for batch in batches:
        hr_img = batch["hr_img"]
        with run.mixed_precision():
            sr_img = parallel_generator(batch["lr_img"])

        # --- the discriminator learns to tell real from fake; detach keeps this loss away from the generator
        with run.mixed_precision():
            real = parallel_discriminator(hr_img).float()
            fake = parallel_discriminator(sr_img.detach()).float()
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        discriminator.zero_grad()
        (loss * batch["share"]).backward()
        run.clip(discriminator)
        for optimizer in optimizers["discriminator"]:
            optimizer.step()

        # --- the generator learns to be taken for real, and to stay close to the image
        discriminator.requires_grad_(False)
        with run.mixed_precision():
            content, parts = content_loss(sr_img, hr_img)
            adversarial = F.softplus(-discriminator(sr_img).float()).mean()  # -log D(G(LR))
        total = content + run.settings["adversarial_weight"] * adversarial
        generator.zero_grad()
        (total * batch["share"]).backward()
        run.clip(generator)
        if run.epoch < run.settings.get("discriminator_epochs", 0):
            generator.zero_grad()  # a step without gradients changes nothing
        for stepper in (*optimizers["generator"], *schedulers):
            stepper.step()
        probabilities = {"real": real.sigmoid().mean(), "fake": fake.sigmoid().mean()}
        run.log({"loss": total, "adversarial": adversarial, **parts, "discriminator": loss} | probabilities)
        discriminator.requires_grad_(True)


def _place(task: Task, make_settings, makers, handed, data, degradation, part, monitor, mode, pretrained) -> tuple:
    """Settings, networks, identity and folder of a run; once more where the page has turned to the quick settings."""
    folder = None
    while folder is None:
        origin = pretrained() if callable(pretrained) else pretrained  # trains what is missing, and may turn the page
        settings = make_settings()
        check_lengths(settings)
        torch.manual_seed(settings.get("seed", 0))
        networks = {name: make().to(task.device) for name, make in makers.items()}
        roles = handed | {f"{name}()": make for name, make in makers.items()} | networks | {
            "optimizer": make_optimizers, "schedule": make_schedule, "monitor": f"{monitor} {mode}"}  # fmt: skip
        if origin is not None:
            roles["pretrained"] = origin
        known = data if isinstance(data, Mapping) else getattr(data, "identity", None)
        known = known or {"name": data.name, "fingerprint": data.fingerprint}
        identity = make_identity(settings, known, degradation, **roles)
        folder = task.place(identity, part)
    return settings, networks, identity, folder


@contextlib.contextmanager
def _begun(run: "_Training") -> Iterator["_Training"]:
    """The run, with its folder locked where there is something to train."""
    with contextlib.ExitStack() as resources:
        if not broadcast(bool(run.finished)):
            resources.enter_context(files.locked(run.folder, broadcast))
        run.finished, run.started = runs.read_run(run.folder), time.perf_counter()  # another may have finished it
        yield run


class _Training:
    """What `fit` and `fit_gan` do around their loops: lock the folder, seed, resume, log, validate, save.

    Of the networks the first is validated and kept, as averaged weights where the settings say so. An epoch is finished
    with one file, checkpoint.pth, in which weights, history and the best weights stand together.
    """

    def __init__(self, task, place, part, validate, monitor, mode, report, start=None, needs_weights=False, stream=""):
        self.settings, self.networks, identity, self.folder = place
        self.validate, self.monitor, self.mode, self.report = validate, monitor, mode, report
        self.start, self.stream = start, stream
        if needs_weights and (found := runs.read_run(self.folder)) and not found.has_weights:
            self.folder = task.lab_folder / files.hash_of(identity)
        self.model, self.device = next(iter(self.networks.values())), task.device
        self.mixed = self.settings.get("mixed_precision", False) and computes_bfloat16(self.device)
        self.epoch, self.rows, self.seconds_before, self.best_weights = 0, [], 0.0, None
        self.finished, self.started = runs.read_run(self.folder), time.perf_counter()
        self.info = {"finished": False, "profile": task.profile,
                     "changed": runs.changed_from_profile(task, identity, part), "settings": self.settings,
                     "data": identity["data"], "identity": identity, "environment": runs.environment(self.device),
                     "processes": process_count(), "precision": "bfloat16" if self.mixed else "float32"}  # fmt: skip

    def mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def clip(self, model: nn.Module) -> None:
        if self.settings.get("clip_norm"):
            nn.utils.clip_grad_norm_(model.parameters(), self.settings["clip_norm"])

    def epochs(self, batches: Batches, steppers: Mapping[str, list]) -> Iterator[Iterator[Batch]]:
        """The batches of every epoch that is still to be done; after each one: validate, save. steppers: optimizers and
        schedules, by name, which a checkpoint holds beside the networks.
        """
        for network in self.networks.values():
            network.to(memory_format=torch.channels_last)
            synchronize_batch_norm(network)
        if self.start and not (self.folder / "checkpoint.pth").exists():
            self.start(self.model)
        self.averaged = AveragedModel(self.model, use_buffers=True) if self.settings.get("ema_decay") else None
        self.eval_model = self.averaged.module if self.averaged else self.model
        state = {f"{name}{i}_steps": each for name, found in steppers.items() for i, each in enumerate(found)}
        self.state = self.networks | state | ({"averaged": self.averaged} if self.averaged else {})
        if (self.folder / "checkpoint.pth").exists():
            _resume(self)
        runs.write_info(self.folder, self.info)
        num_epochs, steps = self.settings["num_epochs"], self.settings["steps_per_epoch"]
        self.bar = tqdm(total=num_epochs * steps, initial=self.epoch * steps, desc=self.folder.name, unit="step",
                        mininterval=0.5, file=sys.stdout, ncols=110, disable=process_rank() != 0)  # fmt: skip
        while self.epoch < num_epochs and self._epochs_since_best() < (self.settings.get("patience") or math.inf):
            seed = self.settings.get("seed", 0)
            torch.manual_seed(random_stream(seed, self.epoch, "dropout" + self.stream, process_rank()))
            for network in self.networks.values():
                set_training(network)
            self.sums, self.step = {}, 0
            generator = torch.Generator().manual_seed(random_stream(seed, self.epoch, "batches" + self.stream))
            yield map(_share, batches(generator))
            if self.step != steps:
                raise ValueError(f"settings say {steps} steps per epoch; batches() gave {self.step}.")
            self._end_epoch()
        self.bar.close()

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """A step's losses, of which `loss` must stay finite; moves the averaged weights."""
        self.step += 1
        values = {name: torch.as_tensor(value).detach() for name, value in values.items()}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        if self.averaged:
            _average(self.averaged, self.model, self.settings["ema_decay"])
        steps = self.settings["steps_per_epoch"]
        # reading a value makes a GPU wait, so not at every step
        if self.step % 20 == 0 or self.step == steps:
            loss = self.sums["loss"].item() / self.step
            if not math.isfinite(loss):
                _stop(self, f"The training loss is not finite in epoch {self.epoch + 1}.", self.epoch)
            self.bar.set_postfix_str(f"epoch {self.epoch + 1}/{self.settings['num_epochs']}, loss {loss:.4f}")
        if self.report and process_rank() == 0:
            self.report(self.epoch * steps + self.step, {n: float(v) for n, v in values.items()}, self)
        self.bar.update()

    def finish(self) -> Run:
        """The finished run, its network filled with the chosen epoch's weights where they are here."""
        if not self.finished:
            history = pd.DataFrame(self.rows)
            best_row = history.loc[len(history) - 1 - self._epochs_since_best()]
            self._write_weights_and_history()
            broadcast(None)  # the first process has written its files
            self.info |= {
                "finished": True, "time_seconds": self.rows[-1]["time_seconds"], "best_epoch": int(best_row["epoch"]),
                "validation": {name: float(best_row[name]) for name in history if name.endswith("_valid")},
                "weights": files.file_fingerprint(self.folder / "model.pth"),
                "history": files.text_checksum(self.folder / "history.csv"),
                "ended": datetime.datetime.now().isoformat(timespec="milliseconds"),
            }  # fmt: skip
            runs.write_info(self.folder, self.info)
            broadcast(None)  # and run.json
            self.finished = Run(self.folder, plain(self.info), history)
        if process_rank() == 0:
            with contextlib.suppress(OSError):  # what a finished run shows needs no writing
                (self.folder / "checkpoint.pth").unlink(missing_ok=True)
        if self.finished.has_weights:
            self.finished.network = self.finished.load(self.model)
        return self.finished

    def _end_epoch(self) -> None:
        """Validate, take the weights if they are the best so far, and write it all as one checkpoint.

        The first process validates, and all decide by its scores, so that they stop and continue together.
        """
        self.epoch += 1
        rate = self.settings["learning_rate"] * make_schedule(self.settings)(self.epoch * self.step - 1)
        with torch.no_grad():
            scores = self.validate(self.eval_model.eval()) if process_rank() == 0 else {}
        scores = broadcast({f"{name}_valid": float(value) for name, value in scores.items()})
        losses = _mean_over_processes({name: float(value) / self.step for name, value in self.sums.items()})
        seconds = self.seconds_before + time.perf_counter() - self.started
        self.rows.append(
            {"epoch": self.epoch, "time_seconds": round(seconds, 1), "learning_rate": rate}
            | {f"{name}_train": value for name, value in losses.items()} | scores
        )  # fmt: skip
        if self.monitor and math.isnan(scores.get(f"{self.monitor}_valid", math.nan)):
            found = f"Validation, which gave {', '.join(scores) or 'nothing'}, gave no number for {self.monitor}"
            _stop(self, f"{found} in epoch {self.epoch}.", self.epoch - 1)
        if self._epochs_since_best() == 0:
            weights = {name: value.cpu() for name, value in self.eval_model.state_dict().items()}  # loads anywhere
            self.best_weights = _halved(weights) if self.settings.get("save_fp16") else copy.deepcopy(weights)
        progress = {"epoch": self.epoch, "history": self.rows, "time_seconds": seconds,
                    "best_weights": self.best_weights}  # fmt: skip
        parts = {name: part.state_dict() for name, part in self.state.items()}
        files.save_tensors(self.folder / "checkpoint.pth", progress | parts)
        self._write_weights_and_history(weights=False)
        if self.report and process_rank() == 0:
            self.report(self.epoch * self.step, self.rows[-1], self)

    def _write_weights_and_history(self, weights: bool = True) -> None:
        """From what the last checkpoint holds: made anew where a run resumes between two of these files."""
        if process_rank() == 0:
            table = pd.DataFrame(self.rows)
            files.write_whole(self.folder / "history.csv", lambda beside: table.to_csv(beside, index=False))
            if weights:
                files.save_tensors(self.folder / "model.pth", self.best_weights)

    def _epochs_since_best(self) -> int:
        if not self.monitor:
            return 0
        values = [row[f"{self.monitor}_valid"] * (1 if self.mode == "max" else -1) for row in self.rows]
        return len(values) - 1 - values.index(max(values)) if values else 0


def _resume(run: _Training) -> None:
    """Restore the state after the last whole epoch."""
    saved = files.read_tensors(run.folder / "checkpoint.pth")
    for name, part in run.state.items():
        part.load_state_dict(saved[name])
    run.epoch, run.rows = saved["epoch"], saved["history"]
    run.seconds_before, run.best_weights = saved["time_seconds"], saved["best_weights"]
    stored = runs.read_info(run.folder) or {}
    for part, name in ((run.info, "precision"), (run.info["environment"], "device")):  # may differ from before
        before = (stored if name == "precision" else stored.get("environment", {})).get(name, part[name])
        part[name] = before if before.split(" → ")[-1] == part[name] else f"{before} → {part[name]}"
    print(f"{run.folder}: resuming after epoch {run.epoch}.")


def _average(averaged: AveragedModel, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's; the decay rises with the steps, to forget the start."""
    steps = int(averaged.n_averaged)
    averaged.multi_avg_fn = get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))
    averaged.update_parameters(model)


def _stop(run: _Training, reason: str, last_epoch: int) -> None:
    run.bar.close()
    kept = f"The checkpoint of epoch {last_epoch} is kept in {run.folder}." if last_epoch else "Nothing was saved yet."
    raise FloatingPointError(f"{reason} {kept} Lower learning_rate or set clip_norm.")


def check_lengths(settings: Mapping) -> None:
    found = [settings["num_epochs"], settings["steps_per_epoch"]]
    if not all(isinstance(value, int) and value >= 1 for value in found):
        raise ValueError(f"num_epochs and steps_per_epoch must be whole numbers of 1 or more; got {found}.")


def set_training(model: nn.Module) -> None:
    """Training mode, but for a part of the network that does not learn: its batch norm and dropout stay as they are."""
    model.train()
    for part in model.children():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


# --- chance, and several processes ------------------------------------------------------------------------------


def random_stream(seed: int, epoch: int, purpose: str, rank: int = 0) -> int:
    """A seed of its own for each (seed, epoch, purpose, process): no two streams of a study repeat each other."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}/{rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@functools.lru_cache(maxsize=2)  # of a GAN's two networks
def distributed(model: nn.Module) -> nn.Module:
    """The model itself, or under torchrun a wrapper, made once, that averages its gradients over the processes."""
    if process_count() == 1:
        return model
    device = next(model.parameters()).device
    # each process keeps its own buffers: sending them between two forward passes would spoil the first's gradient
    options = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"  # before 2.14
    devices = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, devices, **{option: False})


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor, on all, and of their gradients on the way back."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    backward = forward


class _SharedBatchNorm(nn.BatchNorm2d):
    """Takes its statistics over the images of all processes, on any device; torch's SyncBatchNorm needs a GPU."""

    not_read = True

    def _get_name(self) -> str:  # nor is it of the network's description
        return "BatchNorm2d"

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return super().forward(features)
        x, axes, shape = features.float(), (0, 2, 3), (1, -1, 1, 1)
        count = torch.full((x.shape[1],), x.numel() / x.shape[1], device=x.device)
        total, squares, count = _SumOverProcesses.apply(torch.stack([x.sum(axes), x.square().sum(axes), count]))
        mean = total / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = (self.weight * (variance + self.eps).rsqrt()).view(shape)
        return ((x - mean.view(shape)) * scale + self.bias.view(shape)).to(features.dtype)


def synchronize_batch_norm(model: nn.Module) -> None:
    """Under torchrun batch norm takes its statistics over all processes' images, as one process would."""
    for layer in model.modules() if process_count() > 1 else ():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = _SharedBatchNorm


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


def _halved(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; raises OverflowError where one is too large for it."""
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in weights.items():
        if value.is_floating_point() and value.isfinite().all() and not halved[name].isfinite().all():
            raise OverflowError(f"{name} has weights beyond 65,504, float16's largest. Set save_fp16 to False.")
    return halved


# --- optimizer and schedule -------------------------------------------------------------------------------------


class Muon(torch.optim.Optimizer):
    """Momentum, replaced by the nearest orthogonal matrix (a convolution is read as one matrix, out x rest), so that no
    direction moves further than another. Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
    networks". For inner layers alone; `make_optimizers` puts AdamW beside it for the others.

    Features behind ReLU are all >= 0: their common brightness is a direction of much higher curvature than the others,
    which limits Adam's rate. torch.optim.Muon takes matrices only. Weights of one shape are orthogonalized in one
    product. Weight decay is decoupled.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[tuple, list] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                    by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
            for (rows, columns), weights in by_shape.items():
                grads, momenta = [w.grad for w in weights], [self.state[w]["momentum"] for w in weights]
                torch._foreach_lerp_(momenta, grads, 1 - 0.95)
                ahead = torch._foreach_lerp(grads, momenta, 0.95)
                directions = orthogonalize(torch.stack([direction.flatten(1) for direction in ahead]))
                steps = [direction.view_as(w) for direction, w in zip(directions, weights, strict=True)]
                if group["weight_decay"]:
                    torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, steps, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalize(matrix: Tensor) -> Tensor:
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


def make_optimizers(model: nn.Module, settings: Mapping) -> list[torch.optim.Optimizer]:
    """The optimizer that the settings name, over the parameters that require gradients.

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
        # inner layers alone: what touches colors has few rows or columns to be orthogonal among
        factors = {True: 1.0, False: settings.get("adam_factor", 0.1)}
        split = {inner: [{"lr": factor * group["lr"], "params": found} for group in parameters
                         if (found := [p for p in group["params"] if _is_inner(p) == inner])]
                 for inner, factor in factors.items()}  # fmt: skip
        kinds = {True: Muon, False: torch.optim.AdamW}
        return [kinds[inner](groups, rate, weight_decay=decay) for inner, groups in split.items() if groups]
    if name == "adam":
        return [torch.optim.Adam(parameters, rate, weight_decay=decay)]
    if name == "adamw":
        return [torch.optim.AdamW(parameters, rate, weight_decay=decay)]
    if name == "sgd":
        momentum, nesterov = settings.get("momentum", 0.9), settings.get("nesterov", False)
        return [torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=decay, nesterov=nesterov)]
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
            enabled=True, benchmark=torch.backends.cudnn.benchmark, allow_tf32=mixed,
            deterministic=torch.backends.cudnn.deterministic,
        ):
            output = (call or model)(part.float() / 255 if part.dtype == torch.uint8 else part)
        outputs.append(tuple(o.float().cpu() for o in (output if isinstance(output, tuple) else (output,))))
    model.train(was_training)
    whole = tuple(torch.cat(column) for column in zip(*outputs, strict=True))
    return whole if len(whole) > 1 else whole[0]
