"""Every task's settings, one table a task: a row is name: (quick, study, reference, meaning).

`quick` runs in minutes on two CPU cores, `study` is what results/ ships, `reference` is the recipe of the course
document (for SRGAN that of its paper, for the other studies that of their documents).
"""
from collections.abc import Mapping

PROFILES = ("quick", "study", "reference")
NEEDS = {  # the test data of each task; where it is missing, `auto` becomes `quick`
    "task1": ("Set5", "Set14"), "task2": ("CIFAR10",), "multi": ("CIFAR10",), "srgan_x4": ("Set5", "Set14"),
    "resshuffle_x4": ("Set5", "Set14"), "joint_restoration": ("CIFAR10",), "colorization": ("CIFAR10",),
}  # fmt: skip
NOTEBOOKS = {
    "task1": "task1_sr.ipynb", "task2": "task2_classify.ipynb", "multi": "multi_learning.ipynb",
    "srgan_x4": "study_srgan_x4.ipynb", "resshuffle_x4": "study_resshuffle_x4.ipynb",
    "joint_restoration": "study_joint_restoration.ipynb", "colorization": "study_colorization.ipynb",
}  # fmt: skip
# Settings that say which runs there are, or how they are tested. No training reads them, so they may change freely.
WHICH_RUNS = {"sweep", "arms", "arm_seeds", "seeds", "adapt_lengths", "labels"}
NOT_TRAINED = WHICH_RUNS | {"dataset", "num_test", "num_unseen", "angle_batches", "our_learning_rate", "label_steps"}
LADDER_ARMS = ["control", "capacity", "frozen", "joint", "task_only", "distilled", "feature_loss", "scratch",
               "control_distilled", "frozen_distilled"]
JOINT_ARMS = ["classify", "restore", "joint", "joint_10", "separate"]

DATASET = (None, None, None, "a folder in data_root with train/CLASS/ and test/CLASS/; None: CIFAR-10")
OPTIMIZATION = {  # how every network is trained; each table below replaces some rows
    "optimizer": ("adam", "adam", "adam", "adam, adamw, muon or sgd"),
    "learning_rate": (1e-3, 1e-3, 1e-3, "peak"),
    "adam_factor": (0.1, 0.1, 0.1, "Muon's Adam part learns at this share of the rate"),
    "momentum": (0.9, 0.9, 0.9, "of SGD"),
    "nesterov": (False, False, False, "Nesterov momentum"),
    "weight_decay": (0.0, 0.0, 0.0, ""),
    "schedule": ("one_cycle", "one_cycle", "constant", "of the learning rate: one_cycle, step or constant"),
    "warmup": (0.2, 0.2, 0.2, "one_cycle: share of the steps in which the rate rises"),
    "final_rate": (0.0, 0.0, 0.0, "one_cycle: share of the peak at which it ends"),
    "step_epochs": (10, 10, 10, "step: epochs between two steps of the rate"),
    "gamma": (0.5, 0.5, 0.5, "step: factor on the rate at each step"),
    "clip_norm": (0.0, 0.0, 0.0, "largest norm of the gradient; 0: off"),
    "ema_decay": (0.0, 0.0, 0.0, "of the averaged weights that are kept; 0: off"),
    "patience": (None, None, None, "stop after so many epochs without a better one; None: never"),
    "mixed_precision": (False, True, False, "bfloat16 where the device computes it"),
    "save_fp16": (False, True, False, "weights are stored in float16"),
    "seed": (0, 0, 0, "random seed"),
}
SUPER_RESOLUTION = OPTIMIZATION | {  # what the three networks share
    "network": ("srresnet", "srresnet", "srresnet", "a name in NetSet.NETWORKS"),
    "scale_factor": (4, 4, 4, "HR side / LR side"),
    "num_photographs": (200, None, None, "training photographs; None: all"),
    "crop_size": (48, 96, 96, "side of the training crops, HR pixels"),
    "batch_size": (8, 16, 16, "crops a step"),
    "valid_size": (192, 192, 192, "center crop of each validation photograph, HR pixels"),
    "num_channels": (32, 64, 64, "width of the network"),
    "num_blocks": (4, 16, 16, "residual blocks"),
    "init": ("bicubic", "bicubic", "pytorch", "initial weights"),
    "learning_rate": (1e-3, 5e-4, 1e-4, "peak"),
    "warmup": (0.2, 0.05, 0.2, "one_cycle: share of the steps in which the rate rises"),
    "ema_decay": (0.95, 0.999, 0.0, "of the averaged weights that are kept; 0: off"),
    "num_epochs": (4, 13, 100, ""),
    "steps_per_epoch": (60, 500, 10_000, ""),
}
TABLES = {
    "task1": SUPER_RESOLUTION | {
        "network": ("srnet", "srnet", "srnet", "a name in NetSet.NETWORKS"),
        "scale_factor": (2, 2, 2, "HR side / LR side"),
        "crop_size": (48, 96, 128, "side of the training crops, HR pixels"),
        "batch_size": (8, 32, 64, "crops a step"),
        "valid_size": (96, 96, 96, "center crop of each validation photograph, HR pixels"),
        "num_channels": (64, 128, 128, "width of the residual blocks"),
        "num_blocks": (2, 8, 8, "residual blocks"),
        "ssim_weight": (0.1, 0.1, 0.0, "weight of 1 - SSIM beside L1"),
        "optimizer": ("adam", "muon", "adam", "adam, adamw, muon or sgd"),
        "learning_rate": (3e-4, 5e-3, 1e-3, "peak"),
        "adam_factor": (1.0, 0.04, 1.0, "Muon's Adam part learns at this share of the rate"),
        "schedule": ("one_cycle", "one_cycle", "step", "of the learning rate"),
        "step_epochs": (10, 10, 25, "step: epochs between two steps of the rate"),
        "gamma": (0.5, 0.5, 0.7, "step: factor on the rate at each step"),
        "clip_norm": (1.0, 1.0, 0.0, "largest norm of the gradient; 0: off"),
        "num_epochs": (6, 18, 100, ""),
        "steps_per_epoch": (60, 500, 13, "reference: 800 photographs in batches of 64"),
    },
    "task2": OPTIMIZATION | {
        "network": ("classifynet", "classifynet", "classifynet", "a name in NetSet.NETWORKS"),
        "dataset": DATASET,
        "save_fp16": (False, False, False, "weights are stored in float16"),
        "num_valid": (500, 5_000, 5_000, "images held back to choose the epoch"),
        "batch_size": (64, 256, 64, "images a step"),
        "shift": (2, 4, 0, "largest random shift, pixels"),
        "flip": (True, True, False, "random flips left to right"),
        "cutout": (0, 8, 0, "side of a random square set to the image's mean color, pixels"),
        "num_channels": (32, 64, 64, "width of the first stages"),
        "dropout": ([0.05, 0.1], [0.1, 0.3], [0.25, 0.5], "after each pooling, between the linear layers"),
        "init": ("kaiming", "kaiming", "pytorch", "initial weights"),
        "optimizer": ("adamw", "sgd", "sgd", "adam, adamw, muon or sgd"),
        "learning_rate": (3e-3, 0.06, 1e-3, "peak"),
        "nesterov": (True, True, False, "Nesterov momentum"),
        "weight_decay": (0.01, 5e-4, 0.0, ""),
        "label_smoothing": (0.05, 0.1, 0.0, ""),
        "ema_decay": (0.98, 0.998, 0.0, "of the averaged weights that are kept; 0: off"),
        "clip_norm": (1.0, 2.0, 0.0, "largest norm of the gradient; 0: off"),
        "num_epochs": (10, 100, 100, ""),
        "steps_per_epoch": (55, 175, 703, ""),
    },
    "multi": OPTIMIZATION | {
        "dataset": DATASET,
        "num_valid": (500, 5_000, 5_000, "images held back to choose the epoch; as in task 2"),
        "num_test": (1_000, 10_000, 10_000, "test images"),
        "num_unseen": (200, 10_000, 10_000, "of these, for each unseen degradation, and for the views"),
        "angle_batches": (2, 8, 8, "of 64 images, for the angle between the two losses' gradients"),
        "batch_size": (64, 128, 64, "images a step"),
        "shift": (2, 4, 0, "largest random shift, pixels"),
        "flip": (True, True, False, "random flips left to right"),
        "lambda_sr": (1.0, 1.0, 1.0, "weight of L1 between restored and clean image"),
        "lambda_cls": (1.0, 1.0, 1.0, "weight of the cross-entropy"),
        "lambda_teacher": (1.0, 1.0, 1.0, "weight of the teacher's term, in the arms that have one"),
        "attention_weight": (1e3, 1e3, 1e3, "weight of the distance between attention maps in it"),
        "label_smoothing": (0.05, 0.1, 0.0, ""),
        "adapt_epochs": (2, 16, 0, "epochs in which the classifier alone adapts"),
        "adapt_steps": (30, 175, 0, "steps of such an epoch"),
        "adapt_images": (4_000, 45_000, 0, "training images upsampled for it"),
        "adapt_rate": (0.3, 0.3, 0.0, "share of task 2's learning rate"),
        "scratch_epochs": (2, 32, 0, "epochs of the arm that begins with initial weights, at task 2's learning rate"),
        "adapt_lengths": ({"1": [0]}, {"2": [0, 1, 2], "8": [0, 1, 2], "32": [0]}, {}, "other lengths: seeds"),
        "labels": ({}, {share: [0, 1, 2] for share in ("1", "4", "10", "40")}, {}, "% of the labels: seeds"),
        "label_steps": (0.1, 1.0, 1.0, "share of the study's steps for these"),
        "optimizer": ("adamw", "adamw", "sgd", "adam, adamw, muon or sgd"),
        "learning_rate": (1e-3, 1e-4, 5e-4, "peak, of fine-tuning"),
        "rate_factors": ({"sr": 0.03}, {"sr": 1.0}, {}, "share of the rate for a part of the network"),
        "ema_decay": (0.97, 0.995, 0.0, "of the averaged weights that are kept; 0: off"),
        "clip_norm": (1.0, 1.0, 0.0, "largest norm of the gradient; 0: off"),
        "num_epochs": (1, 4, 50, "of fine-tuning"),
        "steps_per_epoch": (20, 351, 703, ""),
        "sweep": ([], [10.0, 100.0, 1000.0], [], "other lambda_sr"),
        "arms": (LADDER_ARMS[:4], LADDER_ARMS, ["joint"], "the fine-tuned rungs"),
        "seeds": ([0], [0, 1, 2], [0], "random seeds of adaptation and fine-tuning"),
        "arm_seeds": ({}, {"scratch": [0], "control_distilled": [0], "frozen_distilled": [0, 1]}, {},
                      "an arm's random seeds, where not all"),
    },
    "resshuffle_x4": SUPER_RESOLUTION | {
        "network": ("resshuffle", "resshuffle", "resshuffle", "a name in NetSet.NETWORKS"),
        "batch_size": (8, 16, 32, "crops a step"),
        "valid_size": (96, 96, 96, "center crop of each validation photograph, HR pixels"),
        "optimizer": ("adam", "muon", "adam", "adam, adamw, muon or sgd"),
        "learning_rate": (1e-3, 3e-3, 2e-4, "peak"),
        "adam_factor": (1.0, 0.1, 1.0, "Muon's Adam part learns at this share of the rate"),
        "schedule": ("one_cycle", "one_cycle", "step", "of the learning rate"),
        "step_epochs": (10, 10, 50, "step: epochs between two steps of the rate"),
        "num_epochs": (4, 26, 400, ""),
        "steps_per_epoch": (60, 500, 25, "reference: 800 photographs in batches of 32"),
        "patience": (None, None, 20, "stop after so many epochs without a better one; None: never"),
    },
    "srresnet_x4": SUPER_RESOLUTION,
    "srgan_x4": SUPER_RESOLUTION | {
        "pixel_weight": (1.0, 1.0, 0.0, "of the squared difference of pixels"),
        "feature_weight": (3e-3, 1e-2, 6e-3, "of the squared difference of features"),
        "vgg_layer": ([5, 4], [3, 4], [5, 4], "i, j: VGG19's j-th convolution before the i-th pooling"),
        "classifier_layer": ([2, 2], [2, 2], [2, 2], "the same of ClassifyNet, where VGG19 is not here"),
        "calibrate": (True, True, False, "features are divided by their root mean square"),
        "adversarial_weight": (1e-3, 1e-3, 1e-3, ""),
        "discriminator_epochs": (0, 1, 0, "epochs at the start in which the discriminator alone learns"),
        "learning_rate": (1e-4, 1e-4, 1e-4, "of both networks"),
        "schedule": ("constant", "one_cycle", "step", "of the learning rate"),
        "final_rate": (0.0, 0.1, 0.0, "share of the peak at which one_cycle ends"),
        "gamma": (0.5, 0.5, 0.1, "step: factor on the rate at each step"),
        "num_epochs": (3, 8, 20, ""),
        "steps_per_epoch": (25, 1_000, 10_000, ""),
    },
    "joint_restoration": OPTIMIZATION | {
        "network": ("jointnet", "jointnet", "jointnet", "a name in NetSet.NETWORKS"),
        "num_valid": (500, 5_000, 5_000, "images held back to choose the epoch"),
        "num_test": (1_000, 10_000, 10_000, "test images"),
        "batch_size": (50, 128, 128, "images a step"),
        "sigma": (0.1, 0.1, 0.1, "standard deviation of the noise, images in [0, 1]"),
        "mask_size": (8, 8, 8, "side of the black square, pixels"),
        "shift": (2, 4, 4, "largest random shift, pixels"),
        "num_channels": (8, 32, 64, "width of ResNet-18's first stage; 64 is usual"),
        "lambda_restore": (0.1, 0.1, 0.1, "weight of L1 beside the cross-entropy"),
        "optimizer": ("adam", "muon", "adam", "adam, adamw, muon or sgd"),
        "learning_rate": (4e-3, 3e-2, 1e-4, "peak"),
        "adam_factor": (1.0, 0.1, 1.0, "Muon's Adam part learns at this share of the rate"),
        "ema_decay": (0.95, 0.995, 0.0, "of the averaged weights that are kept; 0: off"),
        "num_epochs": (2, 9, 100, ""),
        "steps_per_epoch": (50, 351, 351, ""),
        "arms": (JOINT_ARMS[:4], JOINT_ARMS, JOINT_ARMS, "the networks that are compared"),
        "seeds": ([0], [0, 1, 2], [0], "random seeds"),
        "arm_seeds": ({}, {"separate": [0]}, {}, "an arm's random seeds, where not all"),
    },
    "colorization": OPTIMIZATION | {
        "network": ("colorizer", "colorizer", "colorizer", "a name in NetSet.NETWORKS"),
        "schedule": ("constant", "constant", "constant", "of the learning rate of the document's runs"),
        "num_images": (4_000, None, None, "of the training set; None: all"),
        "num_valid": (400, 5_000, 5_000, "of these, at most a tenth, held back for validation"),
        "num_test": (500, 10_000, 10_000, "test images"),
        "batch_size": (50, 256, 100, "images a step"),
        "num_channels": (16, 24, 64, "width of the U-Net's finest level, doubled at each next one"),
        "perceptual_weight": (0.01, 0.01, 0.01, "of the squared difference of features"),
        "vgg_layer": ([3, 3], [3, 3], [3, 3], "i, j: VGG's j-th convolution before the i-th pooling"),
        "classifier_layer": ([2, 2], [2, 2], [2, 2], "the same of ClassifyNet, where VGG is not here"),
        "l1_weight": (1e-6, 1e-6, 1e-6, "of the sum of the weights' sizes"),
        "l2_weight": (1e-5, 1e-5, 1e-5, "of the sum of their squares"),
        "learning_rate": (1e-4, 1e-4, 1e-4, "of the document's runs"),
        "our_learning_rate": (2e-3, 2e-3, 2e-3, "peak, of our recipe"),
        "num_epochs": (2, 15, 50, ""),
        "steps_per_epoch": (20, 300, 450, ""),
        "arms": (*[["mse", "perceptual", "regularized", "fast", "slow", "unet", "chroma"]] * 3, ""),
    },
}  # fmt: skip


class Settings(dict):
    """A dict whose entries also read as attributes: settings.learning_rate."""

    not_read = True  # by `identity`, among what a function reads: the settings are a part of their own

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no setting is called {name}; there are {', '.join(self)}.") from None

    def become(self, others: Mapping) -> None:
        """Take over other values, in place: cells that have read `settings` go on with them."""
        self.clear()
        self.update(others)

    def seeds_of(self, arm: str) -> list[int]:
        """The random seeds that an arm is trained with: all, or those that `arm_seeds` names."""
        seeds = self.arm_seeds.get(arm, self.seeds)
        if self.seeds[0] not in seeds or not set(seeds) <= set(self.seeds):
            raise ValueError(f"arm_seeds of {arm} must be some of seeds, {self.seeds}, the first of them included; "
                             f"found {seeds}.")  # fmt: skip
        return seeds

    def trained(self, **changes) -> dict:
        """Those that training reads, with `changes`: what a run of `training.fit` is told and compared by."""
        return {name: value for name, value in self.items() if name not in NOT_TRAINED} | changes


def choose(task: str, profile: str, changes: Mapping | None = None) -> Settings:
    """A task's settings in a profile. `changes` replaces single values.

    Raises ValueError for a task, profile or name that there is not.
    """
    if task not in TABLES or profile not in PROFILES:
        known = f"tasks are {', '.join(TABLES)}, profiles {', '.join(PROFILES)}"
        raise ValueError(f"there is no task {task!r} with a profile {profile!r}: {known}.")
    table = TABLES[task]
    changes = {name: value.item() if hasattr(value, "item") else value for name, value in (changes or {}).items()}
    if unknown := sorted(set(changes) - set(table)):
        raise ValueError(f"no setting is called {', '.join(unknown)}; there are {', '.join(table)}.")
    column = PROFILES.index(profile)
    values = {name: row[column] for name, row in table.items()}
    for name, value in changes.items():
        rows = [other[name][:3] for other in TABLES.values() if name in other]  # where all of ours are None
        if value is not None or None not in table[name][:3]:
            _check(name, value, {type(entry) for row in rows for entry in row} - {type(None)})
    return Settings(values | changes)


KINDS = {float: "a number", int: "a whole number", str: "text", bool: "True or False", list: "a list", dict: "a dict"}
POSITIVE = ("num_", "steps_", "step_", "batch_", "crop_", "valid_size", "scale_")


def _check(name: str, value, kinds: set[type]) -> None:
    """Raise where a changed value is of another kind than the table's: text for a number, 1.5 epochs, a batch of 0."""
    if kinds and type(value) not in kinds and not (float in kinds and type(value) is int):
        wanted = next(text for kind, text in KINDS.items() if kind in kinds)
        raise ValueError(f"{name} must be {wanted}, found {value!r}.")
    if name.startswith(POSITIVE) and name not in ("num_unseen", "num_blocks") and value < 1:
        raise ValueError(f"{name} must be 1 or more, found {value!r}.")
    if "rate" in name and isinstance(value, (int, float)) and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number of 0 or more, found {value!r}.")
