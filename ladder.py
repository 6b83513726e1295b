"""The ladder of multi_learning.ipynb: every way from a downsampled image to a class, on the same test images.

A rung is an upsampler and a classifier. `FIXED` rungs are the pretrained networks; the `ARMS` are adapted and
fine-tuned. To add an arm, add its entry to `ARMS`; the setting `arms` names those that run.
"""
import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import datasets
import metrics
import NetSet
import training
from tools import notebooks, plots, runs
from tools.identity import described, identity
from tools.runs import Run, Task

# --- losses -----------------------------------------------------------------------------------------------------


def joint_loss(model, batch, settings, lambda_sr=1.0, extra=None):
    """lambda_sr L1 + lambda_cls cross-entropy, and what the arm adds. Source: the course document."""
    sr_img, logits = model(batch["lr_img"])
    parts = {"l1": F.l1_loss(sr_img, batch["hr_img"]), "cross_entropy": cross_entropy(logits, batch, settings)}
    total = lambda_sr * parts["l1"] + settings["lambda_cls"] * parts["cross_entropy"]
    if extra:
        parts["teacher"] = extra(model, batch, sr_img, logits)
        total = total + settings["lambda_teacher"] * parts["teacher"]
    return total, parts


def cross_entropy(logits, batch, settings):
    return F.cross_entropy(logits, batch["label"], label_smoothing=settings["label_smoothing"])


def soft_labels(model, batch, sr_img, logits, teacher, settings):
    """Distillation (Hinton et al. 2015) at temperature 1: the teacher's probabilities on the clean image."""
    return F.cross_entropy(logits, teacher(batch["hr_img"]).softmax(1).detach())


def features_and_mixed_images(model, batch, sr_img, logits, teacher, settings):
    """L1 between the teacher's features of restored and clean image, and cross-entropy on images whose 8x8 patches are
    restored or clean at random. After SR4IR (Kim et al. 2024), which alternates the two networks' steps.
    """
    feature_loss = F.l1_loss(teacher.extract(sr_img), teacher.extract(batch["hr_img"]).detach())
    patches = torch.rand(len(sr_img), 1, 4, 4, device=sr_img.device) < 0.5
    mixed = torch.where(patches.repeat_interleave(8, 2).repeat_interleave(8, 3), sr_img.detach(), batch["hr_img"])
    classifier = getattr(model, "module", model).classifier  # under torchrun the network is wrapped
    return feature_loss + cross_entropy(classifier(mixed), batch, settings)


def attention(classifier, img):
    """Logits, and where a classifier looks: of its last features at each resolution the mean square over channels, (N,
    H * W), of unit length. Source: Zagoruyko and Komodakis 2017.
    """
    maps = {}

    def keep(module, args, out):
        if out.ndim == 4:
            maps[out.shape[-1]] = out

    layers = [layer for layer in classifier.modules() if not isinstance(layer, nn.Dropout) and not [*layer.children()]]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        logits = classifier(img)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, [F.normalize(part.float().square().mean(1).flatten(1)) for part in maps.values()]


def taught_loss(model, batch, settings, teacher):
    """Adaptation with a clean teacher: cross-entropy with the labels and with its probabilities, and the distance of
    attention maps, weighted as by Zagoruyko and Komodakis 2017; for 16x16 images after Shin et al. 2020.
    """
    logits, maps = attention(model, batch["img"])
    with torch.no_grad():
        answers, wanted = attention(teacher, batch["hr_img"])
    parts = {"cross_entropy": cross_entropy(logits, batch, settings),
             "probabilities": F.cross_entropy(logits, answers.softmax(1)),
             "attention": sum(F.mse_loss(*pair) for pair in zip(maps, wanted, strict=True))}
    teachers = parts["probabilities"] + settings["attention_weight"] / 2 * parts["attention"]
    return parts["cross_entropy"] + settings["lambda_teacher"] * teachers, parts


# --- rungs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """A fine-tuned rung."""

    upsampler: str  # "bicubic", "srnet" (task 1's) or "untrained" (SRNet's layers before any training)
    trains_sr: bool = False  # both networks learn, not the classifier alone
    lambda_sr: float | None = None  # None: the settings' weight
    extra: Callable | None = None  # a further term: extra(model, batch, sr_img, logits, teacher, settings)
    taught: bool = False  # its adaptation has a teacher too: `taught_loss`
    scratch: bool = False  # its classifier has never seen a clean image: adaptation begins with its initial weights


FIXED = {"clean": "none", "degraded": "bicubic", "cascade": "srnet"}
ARMS = {
    "scratch": Arm("bicubic", scratch=True),
    "control": Arm("bicubic"),
    "control_distilled": Arm("bicubic", extra=soft_labels, taught=True),
    "capacity": Arm("untrained", trains_sr=True, lambda_sr=0.0),
    "frozen": Arm("srnet"),
    "frozen_distilled": Arm("srnet", extra=soft_labels, taught=True),
    "joint": Arm("srnet", trains_sr=True),
    "task_only": Arm("srnet", trains_sr=True, lambda_sr=0.0),
    "distilled": Arm("srnet", trains_sr=True, extra=soft_labels),
    "feature_loss": Arm("srnet", trains_sr=True, extra=features_and_mixed_images),
}
COMPARISONS = {  # (below, above): what the difference is
    ("degraded", "joint"): "the difference that the course document reports",
    ("degraded", "cascade"): "super-resolution, nothing adapted",
    ("degraded", "control"): "adaptation of the classifier, no super-resolution",
    ("cascade", "frozen"): "adaptation, after super-resolution",
    ("control", "frozen"): "super-resolution, after adaptation",
    ("control", "capacity"): "SRNet's layers without its training",
    ("capacity", "frozen"): "SRNet's training: photographs, and far more steps",
    ("scratch", "control"): "clean images first, and more epochs in all",
    ("control", "control_distilled"): "a clean teacher, no super-resolution",
    ("frozen", "frozen_distilled"): "a clean teacher, after super-resolution",
    ("control_distilled", "frozen_distilled"): "super-resolution, with a clean teacher",
    ("frozen", "joint"): "training SRNet along with the classifier",
    ("control", "joint"): "super-resolution and joint training together",
    ("joint", "task_only"): "without the pixel loss",
    ("joint", "distilled"): "with a clean teacher's probabilities",
    ("joint", "feature_loss"): "with a clean teacher's features",
    ("joint", "clean"): "what is still missing",
}
UNSEEN = ("degraded", "cascade", "control", "capacity", "frozen", "joint")  # rungs tried on unseen degradations
IMAGES_SEEN = {"none": "32×32, clean", "bicubic": "16×16 → bicubic", "srnet": "16×16 → SRNet",
               "untrained": "16×16 → SRNet's layers"}  # fmt: skip


def upsampler_of(rung: str) -> str:
    return FIXED.get(rung) or ARMS[rung].upsampler


def arms_table(arms: Iterable[str] = ARMS) -> pd.DataFrame:
    """The arms for a notebook: input of the classifier, what is trained on downsampled images, loss."""
    extras = {soft_labels: " + teacher's probabilities", features_and_mixed_images: " + teacher's features"}
    rows = []
    for arm in (ARMS[name] for name in arms):
        l1 = "L1 + " if arm.trains_sr and arm.lambda_sr is None else ""
        trained = "both networks" if arm.trains_sr else "the classifier" + ", from its initial weights" * arm.scratch
        extra = extras.get(arm.extra, " + a further term" if arm.extra else "")
        extra += " (in adaptation also its attention maps)" if arm.taught else ""
        rows.append([IMAGES_SEEN[arm.upsampler], trained, l1 + "cross-entropy" + extra])
    return pd.DataFrame(rows, map(plots.name_of, arms), ["the classifier sees", "trained", "trained with"])


class Adaptation:
    """The data, the networks of tasks 1 and 2 (trained where they are missing), and how the classifier adapts to an
    upsampler's images. degradation: what makes 16x16 images of 32x32; loss: as `joint_loss`. Test images: test_hr
    (N, 3, 32, 32) and test_lr (N, 3, 16, 16), float in [0, 1]; training and validation images as uint8.
    """

    not_read = True  # by `identity`: what counts of it is handed over apart

    def __init__(self, task: Task, degradation=None, loss: Callable = joint_loss, report: Callable | None = None):
        self.task, self.device, self.loss, self.report = task, task.device, loss, report
        self.degradation = degradation or datasets.Fuzz(2)
        self.train_set, self.test_set = (
            datasets.find_classification(task.data_root, train, task.settings.dataset) for train in (True, False))
        self.classes, self.profile, self.runs, self.sweep = self.test_set.classes, None, {}, {}
        self.prepare()

    def prepare(self):
        """Data and pretrained networks of the task's profile, made anew where that has changed."""
        if self.profile == self.task.profile:
            return self
        self.settings, self.profile, self._kept = self.task.settings, self.task.profile, {}
        self.sr_run, self.classifier_run = (notebooks.require_run(name, self.task) for name in ("task1", "task2"))
        if (other := self.classifier_run.info["data"])["fingerprint"] != self.train_set.fingerprint:
            raise ValueError(f"task 2's classifier was trained on {other['name']}, not on this {self.train_set.name}: "
                             "run task2_classify.ipynb on the same data first.")  # fmt: skip
        num_valid = min(self.settings.num_valid, len(self.train_set) // 10)
        if min(self.classifier_run.info["settings"]["num_valid"], len(self.train_set) // 10) != num_valid:
            raise ValueError("num_valid must be task 2's: its training images would be validation images here.")
        parts = self.train_set.images, self.train_set.labels
        train_idx, valid_idx = datasets.split_indices(len(self.train_set), num_valid, seed=0)
        self.images, self.labels = (part[train_idx].to(self.device) for part in parts)
        self.valid_hr, self.valid_labels = (part[valid_idx] for part in parts)
        self.valid_lr = self.degradation(self.valid_hr)
        num_test = self.settings.num_test
        images, self.test_labels = self.test_set.images[:num_test], self.test_set.labels[:num_test]
        self.test_hr, self.test_lr = datasets.to_float(images), datasets.to_float(self.degradation(images))
        sr = self.sr_run.load(NetSet.make(self.sr_run.info["settings"])).to(self.device)
        classifier = NetSet.make(self.classifier_run.info["settings"], num_classes=len(self.classes))
        self.classifier = self.classifier_run.load(classifier).to(self.device)
        self.teacher = copy.deepcopy(self.classifier).eval().requires_grad_(False)
        torch.manual_seed(0)
        untrained = NetSet.make(self.sr_run.info["settings"]).to(self.device).eval()
        self.upsamplers = {"none": nn.Identity(), "bicubic": NetSet.BicubicUpsampler(sr.scale_factor), "srnet": sr,
                           "untrained": untrained}  # fmt: skip
        self.weights = {"task1": self.sr_run.info["weights"], "task2": self.classifier_run.info["weights"]}
        return self

    def pretrained(self, arm: Arm, seed: int | None = None) -> dict:
        """The weights that an arm's adaptation starts from; of a seed, also those that it ended with."""
        used = {"task1": arm.upsampler == "srnet", "task2": not arm.scratch or arm.taught or arm.extra}
        origins = {part: self.weights[part] for part in self.weights if used[part]}
        if seed is not None and (adapted := self.adapt(arm, seed)):
            origins["adapted"] = adapted.info["weights"]
        return origins

    def upsampled(self, upsampler: str) -> list[Tensor]:
        """Training and validation images as an upsampler returns them, uint8: computed once, used by many runs."""
        if upsampler not in self._kept:
            lr_img = self.degradation(self.images[: self.settings.adapt_images].cpu())
            network, mixed = self.upsamplers[upsampler], self.settings.mixed_precision
            for images in (lr_img, self.valid_lr):
                parts = [datasets.to_uint8(training.predict(network, part, mixed_precision=mixed))
                         for part in images.split(5_000)]  # fmt: skip
                self._kept.setdefault(upsampler, []).append(torch.cat(parts).to(self.device))
        return self._kept[upsampler]

    def upsampled_test(self, upsampler: str) -> Tensor:
        """Test images as an upsampler returns them, float32, computed in full precision; of "none" the clean ones."""
        if (upsampler, "test") not in self._kept:
            images = self.test_hr if upsampler == "none" else self.test_lr
            self._kept[upsampler, "test"] = training.predict(self.upsamplers[upsampler], images)
        return self._kept[upsampler, "test"]

    def adapt_settings(self, arm: Arm, seed: int, epochs: int | None) -> dict:
        """Task 2's recipe, at a lower rate where its weights are trained further."""
        recipe, s = dict(self.prepare().classifier_run.info["settings"]), self.settings
        names = ["flip", "shift", "mixed_precision", "save_fp16"]
        names += ["lambda_teacher", "attention_weight"] if arm.taught else []
        rate = recipe["learning_rate"] * (1.0 if arm.scratch else s.adapt_rate)
        return recipe | {name: s[name] for name in names} | {
            "seed": seed, "num_epochs": epochs or self.usual_epochs(arm), "steps_per_epoch": s.adapt_steps,
            "num_images": s.adapt_images, "learning_rate": rate}  # fmt: skip

    def usual_epochs(self, arm: Arm) -> int:
        """How long an arm adapts where nothing else is asked for."""
        if arm.scratch and not self.settings.scratch_epochs:
            raise ValueError("the arm scratch begins with initial weights: scratch_epochs must be 1 or more, found 0.")
        return self.settings.scratch_epochs if arm.scratch else self.settings.adapt_epochs

    def adapt(self, arm: Arm, seed: int, epochs: int | None = None, needs_weights: bool = False) -> Run | None:
        """An arm's ClassifyNet, trained further by task 2's recipe on upsampled images; None where there is no
        adaptation. Arms that differ in fine-tuning alone share it. A teacher sees the clean image, augmented alike.
        epochs: other than the settings', which are read when training begins: the page may turn to the quick ones.
        """
        upsampler, taught, scratch = arm.upsampler, arm.taught, arm.scratch
        if self.prepare().usual_epochs(arm) == epochs:
            epochs = None
        if epochs == 0 or not (epochs or self.usual_epochs(arm)):
            return None

        def settings():
            return self.adapt_settings(Arm(upsampler, taught=taught, scratch=scratch), seed, epochs)

        def network():
            if not scratch:
                return copy.deepcopy(self.prepare().classifier)
            torch.manual_seed(training.random_stream(seed, 0, "initial weights"))
            return NetSet.make(settings(), num_classes=len(self.classes))

        def batches(generator):
            (images, _), s = self.upsampled(upsampler), settings()
            for index in datasets.sample(len(images), s["batch_size"], s["steps_per_epoch"], generator):
                both = torch.cat([images[index], self.images[index]], 1) if taught else images[index]
                both = datasets.to_float(datasets.augment(both, s["flip"], s["shift"], s["cutout"], generator))
                clean = {"hr_img": both[:, 3:]} if taught else {}
                yield {"img": both[:, :3], "label": self.labels[index]} | clean

        def adapt_loss(model, batch):
            if taught:
                return taught_loss(model, batch, settings(), self.teacher)
            return cross_entropy(model(batch["img"]), batch, settings()), {}

        def validate(model):
            logits, labels = training.predict(model, self.upsampled(upsampler)[1]), self.valid_labels
            loss = cross_entropy(logits, {"label": labels}, settings())
            return {"accuracy": metrics.accuracy(logits, labels), "loss": loss}

        parts = {"adapted": True, upsampler: True, "taught": taught, "scratch": scratch, f"{epochs}_epochs": epochs}
        name = "_".join(part for part, holds in parts.items() if holds)
        return training.fit(
            self.task, network, adapt_loss, batches, validate, self.train_set, self.degradation, f"seed{seed}/{name}",
            report=self.report, stream="adaptation", needs_weights=needs_weights, settings=settings,
            pretrained=lambda: self.pretrained(Arm(upsampler, taught=taught, scratch=scratch)))

    def adapted(self, arm: Arm, seed: int) -> nn.Module:
        """The classifier after the whole adaptation."""
        run = self.adapt(arm, seed, needs_weights=True)
        classifier = copy.deepcopy(self.classifier)
        return run.load(classifier) if run else classifier


class Ladder(Adaptation):
    """Every rung's fine-tuning, and the trained rungs."""

    @property
    def folder(self) -> Path:
        """Where tables, figures and the answers of untrained rungs go: the study's folder, or one for these runs."""
        return runs.shared_folder(self.task, self.runs.values(), "ladder", self.weights, described(self.degradation))

    def batches(self, generator: torch.Generator):
        """An epoch of fine-tuning: augmented clean images, the same downsampled, labels."""
        s = self.settings
        for index in datasets.sample(len(self.images), s.batch_size, s.steps_per_epoch, generator):
            hr_img = datasets.augment(self.images[index], s.flip, s.shift, 0, generator)
            lr_img = datasets.to_float(self.degradation(hr_img, datasets.fork(generator)))
            yield {"lr_img": lr_img, "hr_img": datasets.to_float(hr_img), "label": self.labels[index]}

    def validate(self, model: nn.Module) -> dict[str, float]:
        sr_img, logits = training.predict(model, self.valid_lr, mixed_precision=self.settings.mixed_precision)
        psnr_db = metrics.psnr(sr_img, datasets.to_float(self.valid_hr)).mean()
        return {"accuracy": metrics.accuracy(logits, self.valid_labels), "psnr_db": psnr_db}

    def fine_tune(self, name: str, seed: int, lambda_sr: float | None = None) -> Run:
        """The run of an arm: read where it is finished, else trained. lambda_sr: another weight, for the joint arm."""
        arm, base = ARMS["joint" if lambda_sr is not None else name], self.loss

        def network():
            model = copy.deepcopy(NetSet.MultiTaskNet(self.prepare().upsamplers[arm.upsampler], self.classifier))
            model.sr.requires_grad_(arm.trains_sr)
            return model

        def settings():
            weight = next(w for w in (lambda_sr, arm.lambda_sr, self.prepare().settings.lambda_sr) if w is not None)
            return self.settings.trained(lambda_sr=weight, seed=seed)

        def extra(*given):
            return arm.extra(*given, teacher=self.teacher, settings=self.settings)

        def loss(model, batch):
            return base(model, batch, settings(), settings()["lambda_sr"], extra if arm.extra else None)

        return training.fit(
            self.task, network, loss, self.batches, self.validate, self.train_set, self.degradation,
            f"seed{seed}/" + (f"lambda_{lambda_sr:g}" if lambda_sr is not None else name), report=self.report,
            start=lambda model: model.classifier.load_state_dict(self.adapted(arm, seed).state_dict()),
            settings=settings, pretrained=lambda: self.pretrained(arm, seed))

    def train(self) -> "Ladder":
        """Every run that the settings ask for: arms and seeds, other weights and lengths of adaptation, few labels."""
        if unknown := sorted({*self.settings.arms, *self.settings.arm_seeds} - set(ARMS)):
            raise ValueError(f"there is no arm {', '.join(unknown)}; there are {', '.join(ARMS)}.")

        def train():
            s = self.prepare().settings
            wanted = [(name, seed) for name in s.arms for seed in s.seeds_of(name)]
            self.runs = {(name, seed): self.fine_tune(name, seed) for name, seed in wanted}
            self.sweep = {value: self.fine_tune("joint", s.seeds[0], value) for value in s.sweep}
            if {"control", "frozen"} <= set(s.arms):
                gaps(self)
            labels_table(self)

        runs.together(self.task, train)
        return self

    def changed(self) -> list[str]:
        """How the runs differ from their profile, but for seeds and for what an arm's entry says."""
        def is_own(arm, word):
            return word.startswith("seed ") or (ARMS[arm].lambda_sr is not None and word.startswith("lambda_sr "))

        return sorted({word for (arm, _), run in self.runs.items() for word in run.info.get("changed", [])
                       if not is_own(arm, word)})  # fmt: skip

    def network(self, rung: str, seed: int | None = None) -> NetSet.MultiTaskNet:
        """Upsampler and classifier of a rung, trained with this or the first random seed, in evaluation mode."""
        model = copy.deepcopy(NetSet.MultiTaskNet(self.upsamplers[upsampler_of(rung)], self.classifier))
        if rung not in FIXED:
            self.runs[rung, self.seeds(rung)[0] if seed is None else seed].load(model)
        return model.to(self.device).eval()

    def test_images(self, rung: str) -> Tensor:
        """What the upsampler of a rung is given."""
        return self.test_hr if rung == "clean" else self.test_lr

    def seeds(self, rung: str) -> list[int]:
        """The random seeds that a rung was trained with; what is not trained counts as the first one."""
        seeds = self.settings.seeds
        return seeds[:1] if rung in FIXED else [seed for seed in seeds if (rung, seed) in self.runs]

    def rungs(self) -> list[str]:
        return [rung for rung in ("degraded", "cascade", *ARMS, "clean") if rung in FIXED or self.seeds(rung)]


class Scores:
    """What the rungs of a trained ladder do on the test images: tests, read once and kept, and their tables."""

    def __init__(self, ladder: Ladder):
        if not ladder.runs:
            raise ValueError(f"no arm is trained: `arms` names some of {', '.join(ARMS)}, and train() comes first.")
        self.ladder, self.settings, self.test_set = ladder, ladder.settings, ladder.test_set
        self.folder, self.rungs, self.first = ladder.folder, ladder.rungs(), ladder.settings.seeds[0]

    def _kept(self, rung: str, seed: int | None, name: str, compute: Callable, **depends_on) -> Mapping[str, Tensor]:
        """compute(network) of a rung, under the identity of all that it depends on: once, then kept beside the run."""
        seed, ladder = self.first if seed is None else seed, self.ladder
        trained = None if rung in FIXED else ladder.runs[rung, seed]
        network = NetSet.MultiTaskNet(ladder.upsamplers[upsampler_of(rung)], ladder.classifier)
        data = {"name": self.test_set.name, "fingerprint": self.test_set.fingerprint}
        key = identity({"num": len(ladder.test_lr)}, data, ladder.degradation, network=network,
                       weights=trained.info["weights"] if trained else ladder.weights, **depends_on)  # fmt: skip
        place = trained.folder if trained else self.folder / f"seed{seed}" / rung
        return ladder.task.cached(place / f"{name}.pth", lambda: compute(ladder.network(rung, seed)), key)

    @functools.cache
    def test(self, rung: str, seed: int | None = None) -> Mapping[str, Tensor]:
        """On every test image: prediction, probability, and PSNR and SSIM of what the classifier sees."""

        def compute(model):
            if rung in ARMS and ARMS[rung].trains_sr:
                sr_img = training.predict(model.sr, self.ladder.test_lr)
            else:  # several rungs share an upsampler
                sr_img = self.ladder.upsampled_test(upsampler_of(rung))
            logits = training.predict(model.classifier, sr_img)
            probability, prediction = logits.softmax(1).max(1)
            pair = sr_img, self.ladder.test_hr
            return {"prediction": prediction.to(torch.uint8), "probability": probability,
                    "psnr_db": metrics.psnr(*pair), "ssim": metrics.ssim(*pair)}  # fmt: skip

        return self._kept(rung, seed, "test", compute, psnr=metrics.psnr, ssim=metrics.ssim)

    @functools.cache
    def unseen(self, rung: str, seed: int | None = None) -> Tensor:
        """(degradations, images) bool: which test images a rung classifies correctly under each degradation."""
        degradations, num = datasets.degradations(), self.settings.num_unseen

        def compute(model):
            images, labels = self.test_set.images[:num], self.test_set.labels[:num]
            predicted = [training.predict(model, degrade(images))[1].argmax(1) for degrade in degradations.values()]
            return {"correct": torch.stack(predicted) == labels}

        tried = {name: described(degradation) for name, degradation in degradations.items()}
        return self._kept(rung, seed, "unseen", compute, num_unseen=num, tried=tried)["correct"]

    @functools.cache
    def views(self, rung: str, seed: int | None = None) -> Tensor:
        """(3, images) bool: which test images a rung classifies correctly by the mean logits of 1, 2, 10 `VIEWS`."""

        num = self.settings.num_unseen

        def compute(model):
            total, predictions = 0, []
            sr_img = training.predict(model.sr, self.ladder.test_images(rung)[:num])
            for number, (flip, *shift) in enumerate(VIEWS, 1):
                total = total + training.predict(model.classifier, view(sr_img, flip, *shift))
                predictions += [total.argmax(1).to(torch.uint8)] if number in NUM_VIEWS else []
            return {"prediction": torch.stack(predictions)}

        found = self._kept(rung, seed, "views", compute, num_unseen=num, views=VIEWS, view=view)
        return found["prediction"] == self.ladder.test_labels[:num]

    def correct(self, rung: str, seeds: list[int] | None = None) -> Tensor:
        """(seeds, images) bool: which test images a rung classifies correctly."""
        predictions = [self.test(rung, seed)["prediction"] for seed in seeds or self.ladder.seeds(rung)]
        return torch.stack(predictions) == self.ladder.test_labels

    def paired(self, above: str, below: str, read: Callable[[str, int], Tensor]) -> tuple[Tensor, Tensor]:
        """`read(rung, seed)` of two rungs, stacked over the seeds that both were trained with."""
        trained = [self.ladder.seeds(rung) for rung in (above, below) if rung not in FIXED] or [[self.first]]
        shared = [seed for seed in self.settings.seeds if all(seed in seeds for seeds in trained)]
        return tuple(torch.stack([read(rung, self.first if rung in FIXED else seed) for seed in shared])
                     for rung in (above, below))  # fmt: skip

    @functools.cache
    def compare(self, above: str, below: str) -> dict:
        """Accuracy of one rung less that of another on the same test images and seeds, in points: `metrics.compare`."""
        return metrics.compare(*self.paired(above, below, lambda rung, seed: self.correct(rung, [seed])[0]))

    def compare_unseen(self, above: str, below: str) -> dict:
        """The same, an image's mean over the unseen degradations: the one that the arms were trained on is left out."""
        own = described(self.ladder.degradation)
        unseen = [k for k, each in enumerate(datasets.degradations().values()) if described(each) != own]
        return metrics.compare(*(part[:, unseen] for part in self.paired(above, below, self.unseen)))

    def unseen_differences(self, above: str, below: str) -> pd.DataFrame:
        """The same under each degradation, a row each: the one that the arms were trained on is among them."""
        pair = self.paired(above, below, self.unseen)
        return pd.DataFrame({name: metrics.compare(*(part[:, k] for part in pair))
                             for k, name in enumerate(datasets.degradations())}).T  # fmt: skip

    @functools.cache
    def table(self) -> pd.DataFrame:
        """A row a rung: accuracy and its 95 % interval, what the classifier sees, how good that is, what it costs."""
        ladder, rows = self.ladder, {}
        for rung in self.rungs:
            seeds, correct, upsampler = ladder.seeds(rung), self.correct(rung), upsampler_of(rung)
            model = NetSet.MultiTaskNet(ladder.upsamplers[upsampler], ladder.classifier).eval()
            _, low, high = metrics.paired_interval(correct, torch.zeros_like(correct))
            each = correct.float().mean(1)
            seen = {name: sum(self.test(rung, seed)[name].mean().item() for seed in seeds) / len(seeds)
                    for name in ("psnr_db", "ssim")}  # fmt: skip
            rows[rung] = {
                "image": IMAGES_SEEN[upsampler] + (", fine-tuned" if rung in ARMS and ARMS[rung].trains_sr else ""),
                "accuracy": each.mean().item(), "seeds": len(seeds), "lowest": each.min().item(),
                "highest": each.max().item(), "low": low, "high": high, **seen,
                "parameters": NetSet.count_parameters(model),
                "gflop": gflop(model, ladder.test_images(rung)[:1].to(ladder.device)),
            }  # fmt: skip
        return pd.DataFrame(rows).T.infer_objects().replace(float("inf"), float("nan")).rename_axis("rung")

    def _differences(self, pairs: Iterable[tuple[str, str]], compare: Callable[[str, str], dict]) -> pd.DataFrame:
        """A row for each pair (below, above) of the rungs that are here."""
        rows = {f"{below} → {above}": compare(above, below) for below, above in pairs
                if {below, above} <= set(self.rungs)}  # fmt: skip
        return pd.DataFrame(rows).T.infer_objects()

    def comparisons(self) -> pd.DataFrame:
        """A row a difference of `COMPARISONS`, in points, with its 95 % interval and its value seed by seed."""
        def explained(above, below):
            return {"what it is": COMPARISONS[below, above], **self.compare(above, below)}

        return self._differences(COMPARISONS, explained).rename_axis("comparison")

    def unseen_table(self) -> pd.DataFrame:
        """Accuracy by rung and degradation, mean over the seeds."""
        rows = {rung: torch.stack([self.unseen(rung, seed) for seed in self.ladder.seeds(rung)]).float().mean((0, 2))
                .tolist() for rung in self.rungs if rung in UNSEEN}  # fmt: skip
        return pd.DataFrame(rows, index=list(datasets.degradations())).T

    def unseen_comparisons(self) -> pd.DataFrame:
        """What super-resolution, and its layers alone, are worth on unseen degradations: as `comparisons`."""
        pairs = [("degraded", "cascade"), ("control", "frozen"), ("control", "capacity")]
        return self._differences(pairs, self.compare_unseen)

    def record(self, **further) -> None:
        """`runs.record` of the whole ladder, `further` results among it: what README's tables and answers are made of.
        """
        table, ladder = self.table(), self.ladder
        others = [rung for rung in self.rungs if rung != "control"] if "control" in self.rungs else []
        info = {
            "finished": True, "settings": self.settings, "data": next(iter(ladder.runs.values())).info["data"],
            "profile": ladder.profile, "changed": ladder.changed(),
            "environment": runs.environment(ladder.device), "test_data": self.test_set.name,
            "num_test": len(ladder.test_lr), "summary": table.round(6).reset_index().to_dict("records"),
            "comparisons": self.comparisons().reset_index().to_dict("records"),
            "over_control": [{"rung": rung, **self.compare(rung, "control")} for rung in others],
            "sweep": {value: run.info["validation"] for value, run in ladder.sweep.items()},
        }  # fmt: skip
        if {"control", "frozen"} <= set(self.rungs):
            info |= {"gaps": gaps(ladder), "num_unseen": self.settings.num_unseen,
                     "unseen": self.unseen_table().round(4).to_dict("index"),
                     "unseen_comparisons": self.unseen_comparisons().to_dict("index"),
                     "unseen_differences": self.unseen_differences("frozen", "control").to_dict("index")}  # fmt: skip
        runs.record(self.folder, runs.read_info(self.folder) or {}, **info | further)


VIEWS = [(flip, *shift) for shift in ((0, 0), (0, 2), (0, -2), (2, 0), (-2, 0)) for flip in (False, True)]
NUM_VIEWS = (1, 2, 10)  # the image; it and its mirror image; both, also moved by two pixels to each side


def view(img: Tensor, flip: bool, down: int, right: int) -> Tensor:
    """Images (N, C, H, W) as a classifier may see them too: mirrored, moved by up to two pixels, border reflected."""
    img = img.flip(-1) if flip else img
    height, width = img.shape[-2:]
    return F.pad(img, (2, 2, 2, 2), mode="reflect")[..., 2 - down : 2 - down + height, 2 - right : 2 - right + width]


def views_table(scores: Scores, rungs: Mapping[str, list[int]]) -> pd.DataFrame:
    """A row a rung and number of views: GFLOP per image, accuracy. rungs: of each, the seeds whose weights are here;
    where there is none, the floor is shown.
    """
    rows, ladder = [], scores.ladder
    for rung, seeds in (rungs or {"degraded": [scores.first]}).items():
        model, images = ladder.network(rung, seeds[0]), (ladder.test_images(rung), ladder.test_hr)
        once, each = (gflop(part, img[:1].to(ladder.device))
                      for part, img in zip((model.sr, model.classifier), images, strict=True))  # fmt: skip
        correct = torch.stack([scores.views(rung, seed) for seed in seeds])
        rows += [{"arm": rung, "views": num, "gflop": once + num * each, "seeds": len(seeds),
                  "accuracy": correct[:, k].float().mean().item()} for k, num in enumerate(NUM_VIEWS)]  # fmt: skip
    return pd.DataFrame(rows)


def compare_views(scores: Scores, above: tuple[str, int], below: tuple[str, int], seeds: list[int]) -> dict:
    """`metrics.compare` of two rungs, each with a number of views, ("control", 10), at the same seeds."""
    return metrics.compare(*(torch.stack([scores.views(rung, seed)[NUM_VIEWS.index(num)] for seed in seeds])
                             for rung, num in (above, below)))  # fmt: skip


def gradients(model: NetSet.MultiTaskNet, batch: Mapping[str, Tensor], label_smoothing: float) -> dict[str, Tensor]:
    """The gradient of each of the joint loss's two terms at SRNet's weights, as one vector each."""
    weights = [weight for weight in model.sr.parameters() if weight.requires_grad]
    sr_img, logits = model(batch["lr_img"])
    losses = {"l1": F.l1_loss(sr_img, batch["hr_img"]),
              "cross_entropy": F.cross_entropy(logits, batch["label"], label_smoothing=label_smoothing)}  # fmt: skip
    return {name: torch.cat([part.flatten() for part in torch.autograd.grad(value, weights, retain_graph=True)])
            for name, value in losses.items()}  # fmt: skip


def angles(scores: Scores, rung: str) -> dict[str, dict]:
    """How the gradients of L1 and cross-entropy at SRNet lie to each other, on training and on validation images, batch
    by batch: their norms and the cosine of their angle; and `mean_cosine`, that of their means. Evaluation mode.
    """
    ladder, smoothing = scores.ladder, scores.settings.label_smoothing
    num_batches, batch_size = scores.settings.angle_batches, 64
    parts = {"training": (ladder.images, ladder.labels), "validation": (ladder.valid_hr, ladder.valid_labels)}

    def compute(model):
        found, model = {}, model.requires_grad_(True)
        for part, (images, labels) in parts.items():
            size, vectors = min(batch_size, len(images)), []
            count = size * min(num_batches, len(images) // size)
            for hr_img, label in zip(images[:count].split(size), labels[:count].split(size), strict=True):
                lr_img = ladder.degradation(hr_img.cpu())
                batch = {"lr_img": datasets.to_float(lr_img), "hr_img": datasets.to_float(hr_img), "label": label}
                batch = {name: value.to(ladder.device) for name, value in batch.items()}
                vectors.append([vector.cpu() for vector in gradients(model, batch, smoothing).values()])
            l1, cross_entropy = (torch.stack(each) for each in zip(*vectors, strict=True))
            found |= {f"{part} l1": l1.norm(dim=1), f"{part} cross_entropy": cross_entropy.norm(dim=1),
                      f"{part} cosine": F.cosine_similarity(l1, cross_entropy),
                      f"{part} mean_cosine": F.cosine_similarity(l1.mean(0), cross_entropy.mean(0), 0)[None]}
        return found

    kept = scores._kept(rung, scores.first, "angles", compute, gradients=gradients, batches=[num_batches, batch_size])
    return {part: {name: kept[f"{part} {name}"].tolist() for name in ("l1", "cross_entropy", "cosine", "mean_cosine")}
            for part in parts}  # fmt: skip


def gflop(model: nn.Module, img: Tensor) -> float:
    """What one forward pass costs, 10^9 operations; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(img)
    return counter.get_total_flops() / 1e9


def lengths(ladder: Ladder) -> dict[int, list[int]]:
    """For how many epochs both control and frozen adapt, from few to many, and with which random seeds."""
    s, both = ladder.settings, [seed for seed in ladder.seeds("control") if seed in ladder.seeds("frozen")]
    found = {int(epochs): [seed for seed in seeds if seed in both] for epochs, seeds in s.adapt_lengths.items()}
    return {epochs: seeds for epochs, seeds in sorted((found | {s.adapt_epochs: both}).items())
            if s.adapt_epochs and seeds}  # fmt: skip


def gaps(ladder: Ladder) -> dict[int, list[float]]:
    """Frozen less control on validation images, in points, by epochs of adaptation: a value for each of its seeds."""
    def best(arm, seed, epochs):
        return ladder.adapt(ARMS[arm], seed, epochs).info["validation"]["accuracy_valid"]

    return {epochs: [100 * (best("frozen", seed, epochs) - best("control", seed, epochs)) for seed in seeds]
            for epochs, seeds in lengths(ladder).items()}  # fmt: skip


def ladders_table(task: Task) -> pd.DataFrame:
    """Every ladder of this profile that was recorded in the lab, the newest first: what differs, test accuracy (%) of
    each rung, and PSNR (dB) of what the classifiers of frozen and joint see.
    """
    rows, paths = {}, task.lab_folder.glob("ladder_*/run.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        info = runs.read_info(path.parent)
        if info.get("profile") == task.profile:
            scores = {row["rung"]: row for row in info["summary"]}
            rows[path.parent.name] = {
                "what differs": "; ".join(info["changed"]) or "–",
                **{rung: 100 * row["accuracy"] for rung, row in scores.items()},
                **{f"{rung} (dB)": scores[rung]["psnr_db"] for rung in ("frozen", "joint") if rung in scores},
            }  # fmt: skip
    return pd.DataFrame(rows).T.infer_objects()


def weights_table(ladder: Ladder) -> pd.DataFrame:
    """Accuracy and PSNR on validation images at each weight of the pixel loss, and of frozen; the first seed."""
    first, lambda_sr = ladder.settings.seeds[0], ladder.settings.lambda_sr
    joint, task_only, frozen = (ladder.runs.get((arm, first)) for arm in ("joint", "task_only", "frozen"))
    found = {lambda_sr: joint, 0.0: task_only} | ladder.sweep
    named = {f"λ = {weight:g}": found[weight] for weight in sorted(found)} | {"frozen": frozen}
    rows = {name: run.info["validation"] for name, run in named.items() if run}
    return pd.DataFrame({score: {name: row[f"{score}_valid"] for name, row in rows.items()}
                         for score in ("accuracy", "psnr_db")})  # fmt: skip

# --- few labels -------------------------------------------------------------------------------------------------

LABEL_STEPS = {1: (600, 300), 4: (1_200, 600), 10: (2_000, 1_000), 40: (3_200, 1_600)}  # from scratch, of adaptation


def labeled(labels: Tensor, percent: float, seed: int) -> Tensor:
    """Indices of `percent` of the images, of each class alike; of one seed the fewer are among the more."""
    order = torch.Generator().manual_seed(1000 + seed)
    by_class = [(labels == k).nonzero()[:, 0] for k in labels.unique()]
    by_class = [index[torch.randperm(len(index), generator=order)] for index in by_class]
    return torch.cat([index[: round(len(labels) / len(by_class) * percent / 100)] for index in by_class]).sort().values


def few_labels(ladder: Ladder, percent: int, seed: int) -> Mapping[str, Tensor]:
    """What clean classifier, degraded, cascade, control and frozen predict on the test images (N,) where all of them
    know the same `percent` of the labels. SRNet, which needs none, is task 1's. No label chooses an epoch: the averaged
    weights of the last one are kept.
    """
    index = labeled(ladder.labels[: ladder.settings.adapt_images].cpu(), percent, seed)
    if percent not in LABEL_STEPS:
        raise ValueError(f"labels are {', '.join(map(str, LABEL_STEPS))} percent; found {percent}.")
    (from_scratch, adapting), share = LABEL_STEPS[percent], ladder.settings.label_steps

    def train(name, upsampler, num_steps, rate, start=None):
        def settings():
            recipe = dict(ladder.prepare().classifier_run.info["settings"])
            return recipe | {"seed": seed, "batch_size": min(128, len(index)), "num_epochs": 4, "mixed_precision": True,
                             "steps_per_epoch": max(1, round(share * num_steps / 4)), "save_fp16": True,
                             "learning_rate": rate * recipe["learning_rate"], "labels_percent": percent,
                             "num_images": len(index), "flip": ladder.settings.flip, "shift": ladder.settings.shift}

        def network():
            torch.manual_seed(training.random_stream(seed, 0, "initial weights"))
            return NetSet.make(settings(), num_classes=len(ladder.classes))

        def batches(generator):
            s, images = settings(), ladder.upsampled(upsampler)[0] if upsampler else ladder.images
            for chosen in datasets.sample(len(index), s["batch_size"], s["steps_per_epoch"], generator):
                img = datasets.augment(images[index[chosen]], s["flip"], s["shift"], s["cutout"], generator)
                yield {"img": datasets.to_float(img), "label": ladder.labels[index[chosen]]}

        def loss(model, batch):
            return cross_entropy(model(batch["img"]), batch, settings()), {}

        def validate(model):
            images = ladder.upsampled(upsampler)[1] if upsampler else ladder.valid_hr
            logits = training.predict(model, images, mixed_precision=True)
            return {"accuracy": metrics.accuracy(logits, ladder.valid_labels)}

        return training.fit(
            ladder.task, network, loss, batches, validate, ladder.train_set, ladder.degradation,
            f"labels/seed{seed}/{percent}/{name}", monitor="", report=ladder.report, settings=settings,
            pretrained=[ladder.weights["task1"] if upsampler == "srnet" else "", start],
            start=lambda model: start and start.load(model))

    clean = train("clean", "", from_scratch, 1.0)
    trained = {"clean": clean, "control": train("control", "bicubic", adapting, 0.3, clean),
               "frozen": train("frozen", "srnet", adapting, 0.3, clean)}  # fmt: skip

    def compute():
        bicubic, restored = (ladder.upsampled_test(name) for name in ("bicubic", "srnet"))
        ways = {"clean": ("clean", ladder.test_hr), "degraded": ("clean", bicubic), "cascade": ("clean", restored),
                "control": ("control", bicubic), "frozen": ("frozen", restored)}
        return {way: training.predict(trained[name].network, images).argmax(1).to(torch.uint8)
                for way, (name, images) in ways.items()}  # fmt: skip

    key = [{name: run.identity for name, run in trained.items()}, ladder.test_set.fingerprint, len(ladder.test_lr)]
    return ladder.task.cached(trained["frozen"].folder / "test.pth", compute, key) | {"index": index}


def labels_table(ladder: Ladder) -> pd.DataFrame:
    """Accuracy (%) by the number of labels, the mean over random seeds; frozen less control, paired, in points; and
    `regained`, the share (%) of what low resolution costs, clean less control, that this is.
    """
    rows, ways = [], ("degraded", "cascade", "control", "frozen", "clean")
    for percent, seeds in ladder.settings.labels.items():
        tested = [few_labels(ladder, int(percent), seed) for seed in seeds]
        correct = {way: torch.stack([each[way].long() == ladder.test_labels for each in tested]) for way in ways}
        means = {way: 100 * correct[way].double().mean().item() for way in ways}
        gain = metrics.compare(correct["frozen"], correct["control"])
        cost = means["clean"] - means["control"]
        rows.append({"labels": len(tested[0]["index"]), **means, **gain,
                     "regained": 100 * gain["points"] / cost if cost else float("nan")})  # fmt: skip
    return pd.DataFrame(rows)
