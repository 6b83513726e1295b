"""The ladder of multi_learning.ipynb: every way from a downsampled image to a class, on the same test images.

A rung is an upsampler and a classifier, one behind the other. `FIXED` rungs are put together from the two pretrained
networks; the `ARMS` are adapted and fine-tuned. To add an arm, add its entry to `ARMS` (and its name to the settings).
"""
import copy
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib import font_manager
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import datasets
import metrics
import NetSet
import training
from tools import plots, runs

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
    with torch.no_grad():
        target = teacher(batch["hr_img"]).softmax(1)
    return F.cross_entropy(logits, target)


def features_and_mixed_images(model, batch, sr_img, logits, teacher, settings):
    """L1 between the teacher's features of restored and clean image, and cross-entropy on images whose 8x8 patches are
    restored or clean at random. After SR4IR (Kim et al. 2024), which alternates the two networks' steps.
    """
    with torch.no_grad():
        target = teacher.extract(batch["hr_img"])
    feature_loss = F.l1_loss(teacher.extract(sr_img), target)
    patches = torch.rand(len(sr_img), 1, 4, 4, device=sr_img.device) < 0.5
    mixed = torch.where(patches.repeat_interleave(8, 2).repeat_interleave(8, 3), sr_img.detach(), batch["hr_img"])
    classifier = getattr(model, "module", model).classifier  # under torchrun the network is wrapped
    return feature_loss + cross_entropy(classifier(mixed), batch, settings)


# --- rungs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """A fine-tuned rung. upsampler: "bicubic", "srnet" (task 1's) or "untrained" (SRNet's layers before any training).
    trains_sr: both networks learn, not the classifier alone. lambda_sr: None is the settings' weight.
    extra: a further term, extra(model, batch, sr_img, logits, teacher, settings).
    """

    upsampler: str
    trains_sr: bool = False
    lambda_sr: float | None = None
    extra: Callable | None = None


FIXED = {"clean": "none", "degraded": "bicubic", "cascade": "srnet"}
ARMS = {
    "control": Arm("bicubic"),
    "capacity": Arm("untrained", trains_sr=True, lambda_sr=0.0),
    "frozen": Arm("srnet"),
    "joint": Arm("srnet", trains_sr=True),
    "task_only": Arm("srnet", trains_sr=True, lambda_sr=0.0),
    "distilled": Arm("srnet", trains_sr=True, extra=soft_labels),
    "feature_loss": Arm("srnet", trains_sr=True, extra=features_and_mixed_images),
}
RUNGS = ("degraded", "cascade", *ARMS, "clean")
COMPARISONS = [  # (below, above, what the difference is)
    ("degraded", "joint", "the difference that the course document reports"),
    ("degraded", "cascade", "super-resolution, nothing adapted"),
    ("degraded", "control", "adaptation of the classifier, no super-resolution"),
    ("cascade", "frozen", "adaptation, after super-resolution"),
    ("control", "frozen", "super-resolution, after adaptation"),
    ("control", "capacity", "SRNet's layers without its training"),
    ("capacity", "frozen", "what SRNet learnt on photographs"),
    ("frozen", "joint", "training SRNet along with the classifier"),
    ("control", "joint", "super-resolution and joint training together"),
    ("joint", "task_only", "without the pixel loss"),
    ("joint", "distilled", "with a clean teacher's probabilities"),
    ("joint", "feature_loss", "with a clean teacher's features"),
    ("joint", "clean", "what is still missing"),
]
UNSEEN = ("degraded", "cascade", "control", "capacity", "frozen", "joint")  # rungs tried on unseen degradations
IMAGES_SEEN = {"none": "32×32, clean", "bicubic": "16×16 → bicubic", "srnet": "16×16 → SRNet",
               "untrained": "16×16 → SRNet's layers"}  # fmt: skip


def arms_table() -> pd.DataFrame:
    """The arms for a notebook: input of the classifier, what is trained on downsampled images, loss."""
    extras = {soft_labels: " + teacher's probabilities", features_and_mixed_images: " + teacher's features"}
    rows = []
    for arm in ARMS.values():
        l1 = "L1 + " if arm.trains_sr and arm.lambda_sr is None else ""
        trained = "both networks" if arm.trains_sr else "the classifier"
        rows.append([IMAGES_SEEN[arm.upsampler], trained, l1 + "cross-entropy" + extras.get(arm.extra, "")])
    return pd.DataFrame(rows, map(plots.name_of, ARMS), ["the classifier sees", "trained", "trained with"])


class Ladder:
    """The data, the two pretrained networks, and every rung's training and test.

    begun: what `runs.begin` returned; sr_run, classifier_run: the finished runs of tasks 1 and 2.
    Test images: test_hr (N, 3, 32, 32) and test_lr (N, 3, 16, 16), float in [0, 1]; validation images as uint8.
    """

    def __init__(self, begun: runs.Begun, sr_run: runs.Run, classifier_run: runs.Run):
        self.begun, self.settings, self.folder, self.device = begun, begun.settings, begun.folder, begun.device
        if classifier_run.info["settings"]["num_valid"] != self.settings.num_valid:
            raise ValueError("num_valid must be task 2's: its training images would be validation images here.")
        self.train_set = datasets.find_classification(begun.data_root, train=True)
        self.test_set = datasets.find_classification(begun.data_root, train=False)
        train_idx, valid_idx = datasets.split_indices(len(self.train_set), self.settings.num_valid, seed=0)
        self.images = self.train_set.images[train_idx].to(self.device)
        self.labels = self.train_set.labels[train_idx].to(self.device)
        self.fuzz = datasets.Fuzz(scale_factor=2)
        self.valid_hr, self.valid_labels = self.train_set.images[valid_idx], self.train_set.labels[valid_idx]
        self.valid_lr = self.fuzz(self.valid_hr)
        test_images = self.test_set.images[: self.settings.num_test]
        self.test_labels = self.test_set.labels[: self.settings.num_test]
        self.test_hr, self.test_lr = datasets.to_float(test_images), datasets.to_float(self.fuzz(test_images))
        self.classes = self.test_set.classes
        self.data = {"name": self.train_set.name, "fingerprint": self.train_set.fingerprint}

        self.classifier_run = classifier_run
        sr = sr_run.load(NetSet.SRNet.from_settings(sr_run.info["settings"])).to(self.device)
        self.classifier = classifier_run.load(NetSet.ClassifyNet.from_settings(classifier_run.info["settings"]))
        self.classifier.to(self.device)
        torch.manual_seed(0)
        untrained = NetSet.SRNet.from_settings(sr_run.info["settings"]).to(self.device)
        self.upsamplers = {"none": nn.Identity(), "bicubic": NetSet.BicubicUpsampler(2), "srnet": sr,
                           "untrained": untrained}  # fmt: skip
        self.weights = {"task1": sr_run.info["weights"], "task2": classifier_run.info["weights"]}

    # --- training

    def pretrained(self, upsampler: str) -> dict:
        """Identity of the data and of the weights that an arm starts from."""
        parts = [part for part in self.weights if upsampler == "srnet" or part == "task2"]
        return self.data | {"pretrained": {part: self.weights[part] for part in parts}}

    @functools.cache
    def upsampled(self, upsampler: str) -> list[Tensor]:
        """Training and validation images as an upsampler returns them, uint8: computed once, used by many runs."""
        lr_img = self.fuzz(self.images[: self.settings.adapt_images].cpu())
        whole = []
        for images in (lr_img, self.valid_lr):
            parts = [training.predict(self.upsamplers[upsampler], part, mixed_precision=self.settings.mixed_precision)
                     for part in images.split(5_000)]  # fmt: skip
            whole.append(torch.cat([datasets.to_uint8(part) for part in parts]).to(self.device))
        return whole

    @functools.cache
    def adapt(self, upsampler: str, seed: int, epochs: int, with_weights: bool = False) -> runs.Run | None:
        """ClassifyNet trained further, by task 2's recipe, on upsampled images. None where epochs is 0.

        A finished run is read; with_weights: one that is kept without its weights is trained again.
        """
        if epochs == 0:
            return None
        s = self.settings
        recipe = dict(self.classifier_run.info["settings"])
        recipe |= {"seed": seed, "num_epochs": epochs, "steps_per_epoch": s.adapt_steps, "flip": s.flip,
                   "learning_rate": recipe["learning_rate"] * s.adapt_rate, "shift": s.shift,
                   "num_images": s.adapt_images, "mixed_precision": s.mixed_precision,
                   "save_fp16": s.save_fp16}  # fmt: skip
        length = "" if epochs == s.adapt_epochs else f"_{epochs}_epochs"
        place, data = self.folder / f"seed{seed}" / f"adapted_{upsampler}{length}", self.pretrained(upsampler)
        run = runs.find_run(place, recipe, data, self.begun.restart_on_change)
        if run and (run.has_weights or not with_weights):
            return run
        images, valid_images = self.upsampled(upsampler)

        def batches(generator):
            for index in datasets.sample(len(images), recipe["batch_size"], s.adapt_steps, generator):
                img = datasets.augment(images[index], s.flip, s.shift, recipe["cutout"], generator)
                yield {"img": datasets.to_float(img), "label": self.labels[index]}

        def loss(model, batch):
            return cross_entropy(model(batch["img"]), batch, recipe), {}

        def validate(model):
            return {"accuracy": metrics.accuracy(training.predict(model, valid_images), self.valid_labels)}

        model = copy.deepcopy(self.classifier)
        return training.fit(model, loss, batches, place, recipe, data, validate, "accuracy", "max",
                            self.begun.restart_on_change)  # fmt: skip

    def adapted(self, upsampler: str, seed: int) -> NetSet.ClassifyNet:
        """The classifier after the whole adaptation."""
        run = self.adapt(upsampler, seed, self.settings.adapt_epochs, with_weights=True)
        return run.load(copy.deepcopy(self.classifier)) if run else copy.deepcopy(self.classifier)

    def batches(self, generator: torch.Generator):
        """An epoch of fine-tuning: augmented clean images, the same downsampled, labels."""
        s = self.settings
        for index in datasets.sample(len(self.images), s.batch_size, s.steps_per_epoch, generator):
            hr_img = datasets.augment(self.images[index], s.flip, s.shift, 0, generator)
            lr_img = datasets.to_float(self.fuzz(hr_img))
            yield {"lr_img": lr_img, "hr_img": datasets.to_float(hr_img), "label": self.labels[index]}

    def validate(self, model: nn.Module) -> dict[str, float]:
        sr_img, logits = training.predict(model, self.valid_lr, mixed_precision=self.settings.mixed_precision)
        psnr_db = metrics.psnr(sr_img, datasets.to_float(self.valid_hr)).mean()
        return {"accuracy": metrics.accuracy(logits, self.valid_labels), "psnr_db": psnr_db}

    def fine_tune(self, name: str, seed: int = 0, lambda_sr: float | None = None) -> runs.Run:
        """The run of an arm: read where it is finished, else trained. lambda_sr: another weight, for the joint arm."""
        arm = ARMS["joint" if lambda_sr is not None else name]
        weight = next(w for w in (lambda_sr, arm.lambda_sr, self.settings.lambda_sr) if w is not None)
        place = self.folder / f"seed{seed}" / (f"lambda_{lambda_sr:g}" if lambda_sr is not None else name)
        settings = self.settings.trained(lambda_sr=weight, seed=seed)
        data = self.pretrained(arm.upsampler)
        if run := runs.find_run(place, settings, data, self.begun.restart_on_change):
            return run
        model = NetSet.MultiTaskNet(copy.deepcopy(self.upsamplers[arm.upsampler]), self.adapted(arm.upsampler, seed))
        model.to(self.device).sr.requires_grad_(arm.trains_sr)
        teacher = copy.deepcopy(self.classifier).eval().requires_grad_(False)
        extra = arm.extra and functools.partial(arm.extra, teacher=teacher, settings=settings)
        loss = functools.partial(joint_loss, settings=settings, lambda_sr=weight, extra=extra)
        return training.fit(model, loss, self.batches, place, settings, data, self.validate, "accuracy", "max",
                            self.begun.restart_on_change)  # fmt: skip

    def train(self) -> None:
        """Every run that the settings ask for: arms and seeds, other weights, shorter adaptations."""
        s = self.settings
        if unknown := sorted(set(s.arms) - set(ARMS)):
            raise ValueError(f"there is no arm {', '.join(unknown)}; there are {', '.join(ARMS)}.")
        self.runs = {(name, seed): self.fine_tune(name, seed) for seed in s.seeds for name in s.arms}
        self.sweep = {value: self.fine_tune("joint", s.seeds[0], value) for value in s.sweep}
        for seed in s.seeds:
            for upsampler in ("bicubic", "srnet"):
                for epochs in s.adapt_lengths:
                    self.adapt(upsampler, seed, epochs)

    # --- tests

    def network(self, rung: str, seed: int = 0) -> NetSet.MultiTaskNet:
        """Upsampler and classifier of a rung, trained."""
        upsampler = FIXED.get(rung) or ARMS[rung].upsampler
        model = NetSet.MultiTaskNet(copy.deepcopy(self.upsamplers[upsampler]), copy.deepcopy(self.classifier))
        return (model if rung in FIXED else self.runs[rung, seed].load(model)).to(self.device).eval()

    def seeds(self, rung: str) -> list[int]:
        """The random seeds that a rung was trained with; what is not trained counts as seed 0."""
        return [0] if rung in FIXED else [seed for seed in self.settings.seeds if (rung, seed) in self.runs]

    def _weights_of(self, rung: str, seed: int):
        return self.weights if rung in FIXED else self.runs[rung, seed].info["weights"]

    @functools.cache
    def test(self, rung: str, seed: int = 0) -> Mapping[str, Tensor]:
        """On every test image: prediction, probability, and PSNR and SSIM of what the classifier sees.

        Computed once, then kept beside the run under the fingerprints of its weights and of the test set.
        """

        def compute():
            model = self.network(rung, seed)
            sr_img, logits = training.predict(model, self.test_hr if rung == "clean" else self.test_lr)
            probability, prediction = logits.softmax(1).max(1)
            scores = {"psnr_db": metrics.psnr(sr_img, self.test_hr), "ssim": metrics.ssim(sr_img, self.test_hr)}
            return {"prediction": prediction.to(torch.uint8), "probability": probability, **scores}

        key = [self._weights_of(rung, seed), self.test_set.fingerprint, len(self.test_lr)]
        return runs.cached(self.folder / f"seed{seed}" / rung / "test.pth", compute, key)

    @functools.cache
    def unseen(self, rung: str, seed: int = 0) -> Tensor:
        """(degradations, images) bool: which test images a rung classifies correctly under each degradation."""
        degradations, num = datasets.degradations(), self.settings.num_unseen

        def compute():
            model, correct = self.network(rung, seed), []
            for degrade in degradations.values():
                logits = training.predict(model, degrade(self.test_set.images[:num]))[1]
                correct.append(logits.argmax(1) == self.test_set.labels[:num])
            return {"correct": torch.stack(correct)}

        key = [self._weights_of(rung, seed), self.test_set.fingerprint, num, list(degradations)]
        return runs.cached(self.folder / f"seed{seed}" / rung / "unseen.pth", compute, key)["correct"]

    def correct(self, rung: str, seeds: list[int] | None = None) -> Tensor:
        """(seeds, images) bool: which test images a rung classifies correctly."""
        predictions = [self.test(rung, seed)["prediction"] for seed in seeds or self.seeds(rung)]
        return torch.stack(predictions) == self.test_labels

    def paired(self, above: str, below: str, read: Callable[[str, int], Tensor]) -> tuple[Tensor, Tensor]:
        """`read(rung, seed)` of two rungs, stacked over the seeds that both were trained with."""
        trained = [rung for rung in (above, below) if rung not in FIXED]
        shared = [seed for seed in self.settings.seeds if all(seed in self.seeds(rung) for rung in trained)]
        shared = shared if trained else [0]
        return tuple(torch.stack([read(rung, 0 if rung in FIXED else seed) for seed in shared])
                     for rung in (above, below))  # fmt: skip

    @functools.cache
    def compare(self, above: str, below: str) -> dict:
        """Accuracy of one rung less that of another on the same test images and seeds, in points: `metrics.compare`."""
        return metrics.compare(*self.paired(above, below, lambda rung, seed: self.correct(rung, [seed])[0]))

    def compare_unseen(self, above: str, below: str) -> dict:
        """The same, an image's mean over the unseen degradations; the first, which all were trained on, is left out."""
        a, b = (part[:, 1:] for part in self.paired(above, below, self.unseen))
        each = 100 * (a.double().mean((1, 2)) - b.double().mean((1, 2)))
        return metrics.compare(a.flatten(0, 1), b.flatten(0, 1)) | {"by_seed": each.tolist()}

    # --- tables

    def rungs(self) -> list[str]:
        return [rung for rung in RUNGS if rung in FIXED or self.seeds(rung)]

    @functools.cache
    def table(self) -> pd.DataFrame:
        """A row a rung: accuracy (mean over seeds, lowest, highest, 95 % interval over test images), what the
        classifier sees, its PSNR and SSIM (RGB), parameters, GFLOP of classifying one image.
        """
        rows = {}
        for rung in self.rungs():
            seeds, correct = self.seeds(rung), self.correct(rung)
            upsampler = FIXED.get(rung) or ARMS[rung].upsampler
            model = NetSet.MultiTaskNet(self.upsamplers[upsampler], self.classifier)
            with FlopCounterMode(display=False) as counter:  # two operations for each multiply-add
                model((self.test_hr if rung == "clean" else self.test_lr)[:1].to(self.device))
            _, low, high = metrics.paired_bootstrap(correct, torch.zeros_like(correct))
            each = correct.float().mean(1)
            seen = {name: sum(self.test(rung, seed)[name].mean().item() for seed in seeds) / len(seeds)
                    for name in ("psnr_db", "ssim")}  # fmt: skip
            rows[rung] = {
                "image": IMAGES_SEEN[upsampler] + (", fine-tuned" if rung in ARMS and ARMS[rung].trains_sr else ""),
                "accuracy": each.mean().item(), "seeds": len(seeds), "lowest": each.min().item(),
                "highest": each.max().item(), "low": low, "high": high, **seen,
                "parameters": NetSet.count_parameters(model),
                "gflop": counter.get_total_flops() / 1e9,
            }  # fmt: skip
        return pd.DataFrame(rows).T.infer_objects().replace(float("inf"), float("nan")).rename_axis("rung")

    def weights_table(self) -> pd.DataFrame:
        """Accuracy and PSNR on validation images at each weight of the pixel loss, and of frozen; the first seed."""
        first, lambda_sr = self.settings.seeds[0], self.settings.lambda_sr
        found = {0.0: self.runs["task_only", first], lambda_sr: self.runs["joint", first]} | self.sweep
        named = {f"λ = {weight:g}": found[weight] for weight in sorted(found)} | {"frozen": self.runs["frozen", first]}
        table = pd.DataFrame({name: run.info["validation"] for name, run in named.items()}).T
        error = 1.96 * (table.accuracy_valid * (1 - table.accuracy_valid) / len(self.valid_lr)) ** 0.5
        return pd.DataFrame({"accuracy": table.accuracy_valid, "± 95 %": error, "psnr_db": table.psnr_db_valid})

    def comparisons(self) -> pd.DataFrame:
        """A row a difference of `COMPARISONS`, in points, with its 95 % interval and its value seed by seed."""
        there = self.rungs()
        rows = {
            f"{below} → {above}": {"what it is": what, **self.compare(above, below)}
            for below, above, what in COMPARISONS if below in there and above in there
        }  # fmt: skip
        return pd.DataFrame(rows).T.infer_objects().rename_axis("comparison")

    def gaps(self) -> dict[int, list[float]]:
        """Frozen less control on validation images, in points, by epochs of adaptation: a value for each seed."""
        def best(upsampler, seed, epochs):
            return self.adapt(upsampler, seed, epochs).info["validation"]["accuracy_valid"]

        lengths = sorted({*self.settings.adapt_lengths, self.settings.adapt_epochs} - {0})
        return {epochs: [100 * (best("srnet", seed, epochs) - best("bicubic", seed, epochs))
                         for seed in self.settings.seeds] for epochs in lengths}  # fmt: skip

    def unseen_table(self) -> pd.DataFrame:
        """Accuracy by rung and degradation, mean over the seeds."""
        rows = {rung: torch.stack([self.unseen(rung, seed) for seed in self.seeds(rung)]).float().mean((0, 2)).tolist()
                for rung in self.rungs() if rung in UNSEEN}  # fmt: skip
        return pd.DataFrame(rows, index=list(datasets.degradations())).T

    def unseen_comparisons(self) -> pd.DataFrame:
        """What super-resolution, and its layers alone, are worth on unseen degradations: as `comparisons`."""
        pairs = [("degraded", "cascade"), ("control", "frozen"), ("control", "capacity")]
        rows = {f"{below} → {above}": self.compare_unseen(above, below)
                for below, above in pairs if {below, above} <= set(self.rungs())}  # fmt: skip
        return pd.DataFrame(rows).T.infer_objects()

    def record(self) -> None:
        """run.json of the whole ladder: what README's tables and answers are made of."""
        table, over = self.table(), {}
        if "control" in table.index:
            over = {rung: self.compare(rung, "control") for rung in table.index if rung != "control"}
        info = {
            "finished": True, "settings": self.settings, "data": self.data,
            "environment": runs.environment(self.device), "test_data": self.test_set.name,
            "num_test": len(self.test_lr), "summary": table.round(6).reset_index().to_dict("records"),
            "comparisons": self.comparisons().reset_index().to_dict("records"),
            "over_control": [{"rung": rung, **gain} for rung, gain in over.items()],
            "sweep": {value: run.info["validation"] for value, run in self.sweep.items()},
        }  # fmt: skip
        if {"control", "frozen"} <= set(table.index):
            info |= {"gaps": self.gaps(), "num_unseen": self.settings.num_unseen,
                     "unseen": self.unseen_table().round(4).to_dict("index"),
                     "unseen_comparisons": self.unseen_comparisons().to_dict("index")}  # fmt: skip
        runs.write_info(self.folder, info)


# --- figures ----------------------------------------------------------------------------------------------------

WORDS = {
    "en": {"title": "Adapting the classifier brings most; super-resolution adds one point",
           "one": "Adaptation first", "two": "Super-resolution first", "degraded": "degraded", "adapt": "+ adaptation",
           "sr": "+ super-resolution", "joint": "+ joint training", "clean": "clean images",
           "headings": ("The whole way", "The arms, zoomed in"), "accuracy": "Test accuracy (%)",
           "note": "{data}, {num:,} test images, mean of {seeds} seeds. Lines: 95 % intervals over test images; small "
                   "dots: seeds. Dashed, right: the control.",
           "hero": "Super-resolution adds one point to a classifier that has adapted to small images",
           "hero note": "{data}, {num:,} test images, mean of {seeds} seeds. The images: seed {seed}.",
           "columns": ["16×16 input", "control", "frozen", "clean"],
           "helps": "super-resolution helps: {count} test images",
           "harms": "super-resolution harms: {count} test images"},
    "zh": {"one": "先适应", "two": "先超分辨率", "degraded": "退化", "adapt": "+ 适应", "sr": "+ 超分辨率",
           "joint": "+ 联合训练", "clean": "清晰图像", "accuracy": "测试准确率（%）",
           "hero": "分类器适应低分辨率图像之后，超分辨率再加一个百分点",
           "hero note": "{data}，{num:,} 张测试图像，{seeds} 个随机种子的均值；图像取自种子 {seed}。",
           "columns": ["16×16 输入", "对照组", "冻结组", "清晰图像"],
           "helps": "超分辨率有帮助：{count} 张测试图像", "harms": "超分辨率有害：{count} 张测试图像"},
}  # fmt: skip


def waterfall_paths(table: pd.DataFrame, words: Mapping) -> tuple[dict, dict]:
    """`plots.ladder`'s paths and ceiling, from a ladder's table."""
    percent = 100 * table.accuracy
    first = [("degraded", "degraded"), ("adapt", "control"), ("sr", "frozen"), ("joint", "joint")]
    second = [("degraded", "degraded"), ("sr", "cascade"), ("adapt", "frozen")]
    paths = {
        words[name]: [{"label": words[label], "value": percent[rung], "accent": label == "sr"} for label, rung in steps]
        for name, steps in (("one", first), ("two", second)) if {rung for _, rung in steps} <= set(table.index)
    }  # fmt: skip
    return paths, {"label": words["clean"], "value": percent["clean"]}


def waterfall(rungs: Ladder, table: pd.DataFrame) -> Figure:
    """The way from degraded to clean, step by step, and beside it, zoomed in, the fine-tuned arms."""
    words = WORDS["en"]
    paths, ceiling = waterfall_paths(table, words)
    arms = [
        {"label": plots.name_of(rung).lower(), "value": 100 * row.accuracy,
         "low": 100 * row.low, "high": 100 * row.high,
         "accent": rung == "frozen", "seeds": (100 * rungs.correct(rung).float().mean(1)).tolist()}
        for rung, row in table.iterrows() if rung in ARMS
    ]  # fmt: skip
    note = words["note"].format(data=rungs.test_set.name, num=len(rungs.test_lr), seeds=len(rungs.settings.seeds))
    return plots.ladder(paths, ceiling, arms, words["headings"], words["accuracy"], words["title"], note)


def disagreements(rungs: Ladder, above: str, below: str, num: int) -> Tensor:
    """Indices of `num` test images on which two rungs disagree: first those that `above` alone classifies correctly,
    then those that `below` alone does, in the share in which they occur; of each, the ones with the surest predictions.
    Where too few are found, further images follow.
    """
    right, wrong = (rungs.correct(rung, [0])[0] for rung in (above, below))
    sure = rungs.test(above, 0)["probability"] + rungs.test(below, 0)["probability"]
    parts = [(right & ~wrong).nonzero()[:, 0], (wrong & ~right).nonzero()[:, 0]]
    share = round(num * len(parts[0]) / max(1, len(parts[0]) + len(parts[1])))
    share = min(max(share, 1), num - 1)
    chosen = torch.cat([part[sure[part].argsort(descending=True)[:count]]
                        for part, count in zip(parts, (share, num - share), strict=True)])  # fmt: skip
    rank = (sure + 3 * (right != wrong)).index_fill(0, chosen, -1)
    return torch.cat([chosen, rank.argsort(descending=True)[: num - len(chosen)]])


def predictions(rungs: Ladder, rung: str, index: Tensor) -> tuple[Tensor, list[str]]:
    """What the classifier of a rung sees of some test images, and its predictions as captions with ✓ or ✗."""
    images = (rungs.test_hr if rung == "clean" else rungs.test_lr)[index]
    sr_img, logits = training.predict(rungs.network(rung), images)
    return sr_img, plots.marked(logits.argmax(1), rungs.test_labels[index], rungs.classes)


def stages_panel(rungs: Ladder, stages: list[str], index: Tensor) -> Figure:
    """Some test images as each rung's classifier sees them, with its predictions."""
    columns, titles = {"16×16": rungs.test_lr[index]}, {}
    for stage in stages:
        columns[stage], titles[stage] = predictions(rungs, stage, index)
    return plots.panel(columns, titles, [rungs.classes[k] for k in rungs.test_labels[index]])


def hero(rungs: Ladder, table: pd.DataFrame, language: str = "en", font: str | None = None) -> Figure:
    """README's figure: an image that super-resolution helps, one that it harms, and the waterfall."""
    words, strips = WORDS[language], []
    frozen, control, clean = (rungs.correct(rung, [0])[0] for rung in ("frozen", "control", "clean"))
    for label, ahead, behind in (("helps", frozen, control), ("harms", control, frozen)):
        there = (ahead & ~behind).nonzero()[:, 0]
        there = there if len(there) else torch.arange(len(clean))  # a short run's arms may all agree
        sure = sum(rungs.test(rung)["probability"] for rung in ("frozen", "control")) * clean
        index = (sure + 3 * (ahead & ~behind)).argmax()[None]
        seen = {rung: predictions(rungs, rung, index) for rung in ("control", "frozen", "clean")}
        strips.append({
            "label": words[label].format(count=f"{(ahead & ~behind).sum():,}"),
            "images": [rungs.test_lr[index][0], *(img[0] for img, _ in seen.values())],
            "captions": ["", *(captions[0] for _, captions in seen.values())],
        })  # fmt: skip
    note = words["hero note"].format(data=rungs.test_set.name, num=len(rungs.test_lr), seed=rungs.settings.seeds[0],
                                     seeds=len(rungs.settings.seeds))  # fmt: skip
    return plots.hero(strips, words["columns"], *waterfall_paths(table, words), words["accuracy"], words["hero"], note,
                      font)  # fmt: skip


def save_heroes(rungs: Ladder, table: pd.DataFrame) -> None:
    """hero.png, and hero_zh.png where a Chinese font is installed; only where every rung of them is there."""
    if not {"control", "frozen", "joint"} <= set(table.index):
        return
    plots.show(hero(rungs, table), "hero", rungs.folder, quiet=True)
    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ("Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "WenQuanYi Micro Hei")
    if font := next((name for name in fonts if name in known), None):
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # some of them have no bold weight
        plots.show(hero(rungs, table, "zh", font), "hero_zh", rungs.folder, quiet=True)
