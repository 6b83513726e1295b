"""The loop: it learns, resumes to the same bits, uses every setting, and several processes train as one."""
import copy
import itertools
import math
import os
from functools import partial

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import NetSet
import training
from tools import files, runs

from .conftest import ROOT, refuses, run_twice, same, task_in

CHANCE = torch.Generator().manual_seed(5)
BRIGHTNESS = torch.rand(64, generator=CHANCE)
IMAGES = BRIGHTNESS.view(64, 1, 1, 1) * torch.rand(64, 3, 32, 32, generator=CHANCE)
LABELS = (BRIGHTNESS > 0.5).long()
SETTINGS = {"num_epochs": 4, "steps_per_epoch": 4, "learning_rate": 3e-3, "schedule": "one_cycle", "ema_decay": 0.9}
DATA = {"name": "random images", "fingerprint": "0"}


def new_model(dropout=0.1, num_channels=4):
    return NetSet.ClassifyNet(num_classes=2, num_channels=num_channels, dropout=(dropout, dropout))


def loss(model, batch):
    cross_entropy = F.cross_entropy(model(batch["img"]), batch["label"])
    return cross_entropy, {"cross_entropy": cross_entropy}


def batches(generator):
    for index in torch.randperm(len(IMAGES), generator=generator).split(16):
        yield {"img": IMAGES[index], "label": LABELS[index]}


def validate(model):
    logits = training.predict(model, IMAGES)
    return {"accuracy": (logits.argmax(1) == LABELS).float().mean().item(), "loss": F.cross_entropy(logits, LABELS)}


def fit(folder, network=new_model, settings=SETTINGS, data=DATA, validate=validate, loss=loss, batches=batches,
        monitor="loss", mode="min", **options):  # fmt: skip
    """The network and its run, which lies in folder/task2 where this is the first one there."""
    run = training.fit(task_in(folder, settings), network, loss, batches, validate, data, monitor=monitor, mode=mode,
                       **options)  # fmt: skip
    return run.network, run


def never(*_, **__):
    raise AssertionError("trained again")


def interrupted(fit, *args, step, **options):
    """It breaks off after so many steps, by a `report`, which is no part of what a run is."""
    def report(number, values, run):
        if number == step and "epoch" not in values:
            raise KeyboardInterrupt

    refuses(KeyboardInterrupt, None, fit, *args, report=report, **options)


def timeless(run):
    return run.history.drop(columns="time_seconds")


def test_it_learns_and_leaves_a_whole_run(tmp_path, capsys):
    model, run = fit(tmp_path, settings=SETTINGS | {"num_epochs": 12, "learning_rate": 0.01})
    scores, info = run.history, runs.read_info(tmp_path / "task2")
    assert scores.accuracy_valid.max() > 0.9 and scores.loss_valid.min() < 0.3
    assert {p.name for p in run.folder.iterdir()} - {"run.lock"} == {"history.csv", "model.pth", "run.json"}
    assert info["finished"] and info["data"] == DATA and info["settings"]["learning_rate"] == 0.01
    assert info["best_epoch"] == scores.epoch[scores.loss_valid.idxmin()]
    assert same(model, files.load_weights(new_model(), run.folder / "model.pth")) and not model.training
    assert validate(model)["loss"].item() == pytest.approx(scores.loss_valid.min(), abs=1e-6)
    assert "12/12" in capsys.readouterr().out


def test_a_finished_run_is_read_and_another_identity_is_another_run(tmp_path):
    trained, first = fit(tmp_path)
    gone = {name: value for name, value in SETTINGS.items() if name != "ema_decay"}
    other = [fit(tmp_path, **changed)[1].folder for changed in ({"settings": gone}, {"pretrained": {"task1": "a"}})]
    assert len({first.folder, *other}) == 3 and {path.parent for path in other} == {tmp_path / "lab" / "task2"}
    (first.folder / "checkpoint.pth").touch()  # left where a process died after its last file
    model, run = fit(tmp_path, report=never)  # going back
    assert same(trained, model) and run.folder == first.folder and len(run.history) == 4
    assert not (first.folder / "checkpoint.pth").exists()
    (first.folder / "model.pth").unlink()  # a run may be kept without its weights
    assert fit(tmp_path, report=never)[0] is None
    again, run = fit(tmp_path, needs_weights=True)
    assert same(trained, again) and run.folder.parent.parent == tmp_path / "lab"


class Killed(BaseException):
    """As a process dies: nobody catches it."""


def test_an_epoch_is_one_transaction_wherever_it_is_killed(tmp_path, monkeypatch):
    settings, replace, left = SETTINGS | {"num_epochs": 2, "steps_per_epoch": 1}, os.replace, [-1]

    def killed(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        replace(source, target)

    train = partial(fit, settings=settings, batches=lambda generator: [next(batches(generator))])
    whole, whole_run = train(tmp_path / "whole")
    monkeypatch.setattr(os, "replace", killed)
    for count in itertools.count(1):
        left[0] = count
        try:
            train(tmp_path / str(count))
        except Killed:
            model, run = train(tmp_path / str(count))
            names = {path.name for path in run.folder.iterdir()} - {"run.lock"}
            assert same(model, whole) and timeless(run).equals(timeless(whole_run)), count
            assert names == {"history.csv", "model.pth", "run.json"} and runs.read_run(run.folder), count
        else:
            break
    assert count > 8  # run.json, two checkpoints and two histories, then history, weights and run.json


def test_a_loss_or_score_without_a_value_stops_and_keeps_the_last_checkpoint(tmp_path):
    factors = itertools.chain([1.0] * 6, itertools.repeat(math.nan))
    with pytest.raises(FloatingPointError, match=r"epoch 2\. The checkpoint of epoch 1 is kept"):
        fit(tmp_path / "loss", loss=lambda model, batch: (loss(model, batch)[0] * next(factors), {}))
    saved = files.read_tensors(tmp_path / "loss" / "task2" / "checkpoint.pth")
    assert saved["epoch"] == 1 and all(v.isfinite().all() for v in saved["network"].values())
    with pytest.raises(FloatingPointError, match=r"no number for loss in epoch 1\. Nothing was saved"):
        fit(tmp_path / "score", validate=lambda model: {"loss": float("nan")})
    with pytest.raises(FloatingPointError, match="gave x_valid, gave no number for loss in epoch 1"):
        fit(tmp_path / "other", validate=lambda model: {"x": 1.0})


def test_every_step_and_epoch_is_reported_with_the_rate_that_was_used(tmp_path):
    epochs, losses = [], {}

    def report(step, values, run):
        if "epoch" in values:
            stored = pd.read_csv(run.folder / "history.csv")
            epochs.append((step, len(stored), validate(run.eval_model)["loss"].item() == values["loss_valid"]))
        else:
            losses[step] = values["loss"]

    without_value = {"psnr_db": math.inf, "niqe": math.nan}  # null in run.json, where it does not choose
    _, run = fit(tmp_path, report=report, validate=lambda model: validate(model) | without_value)
    assert epochs == [(4 * k, k, True) for k in (1, 2, 3, 4)] and list(losses) == list(range(1, 17))
    assert sum(list(losses.values())[4:8]) / 4 == pytest.approx(run.history.loss_train[1], rel=1e-5)
    factor = training.make_schedule(SETTINGS)
    assert run.history.learning_rate.tolist() == [3e-3 * factor(step) for step in (3, 7, 11, 15)]
    assert runs.read_run(run.folder).history.psnr_db_valid.eq(math.inf).all()
    assert run.info["validation"]["psnr_db_valid"] is None is run.info["validation"]["niqe_valid"]


@pytest.mark.parametrize("mode, sign", [("min", 1), ("max", -1)])
@pytest.mark.parametrize("patience, epochs", [(None, 8), (1, 4), (2, 5), (3, 8)])
def test_patience_stops_after_epochs_that_are_no_better(tmp_path, patience, epochs, mode, sign):
    losses = iter([3.0, 2.0, 1.0, 1.0, 1.5, 0.5, 0.6, 0.7])
    settings = SETTINGS | {"num_epochs": 8, "patience": patience}
    _, run = fit(tmp_path, settings=settings, validate=lambda _: {"x": sign * next(losses)}, monitor="x", mode=mode)
    assert len(run.history) == epochs and run.info["best_epoch"] == (3 if epochs < 6 else 6)


def test_streams_of_chance_are_independent(tmp_path):
    keys = itertools.product((0, 1, 2, 1000, 2000), range(50), ("dropout", "batches"), range(4))
    assert len({training.random_stream(*key) for key in keys}) == 5 * 50 * 2 * 4
    seeds = []

    def recorded(generator):
        seeds.extend([generator.initial_seed(), torch.initial_seed()])
        return batches(generator)

    for seed, stream in ((0, ""), (1, ""), (1000, ""), (0, "adaptation")):
        fit(tmp_path / f"{seed}{stream}", settings=SETTINGS | {"seed": seed}, batches=recorded, stream=stream)
    assert len(set(seeds)) == len(seeds) == 4 * 4 * 2


@pytest.mark.parametrize("gradient, settings, moved", [
    (1.0, {"optimizer": "sgd", "momentum": 0.0}, -0.2),
    (1.0, {"optimizer": "sgd"}, -(0.1 + 0.19)),
    (1.0, {"optimizer": "sgd", "nesterov": True}, -(0.19 + 0.271)),
    (5.0, {"optimizer": "adam"}, -0.2),
    (0.0, {"optimizer": "adam", "weight_decay": 0.5}, -0.2),  # the decay is one more gradient
    (0.0, {"optimizer": "adamw", "weight_decay": 0.5}, 4 * 0.95**2 - 4),  # the decay stands alone
    (0.0, {"optimizer": "muon", "adam_factor": 0.5, "weight_decay": 0.5}, 4 * 0.975**2 - 4),
    (50.0, {"optimizer": "sgd", "momentum": 0.0, "clip_norm": 2.0}, -0.4),
    (1.0, {"optimizer": "sgd", "momentum": 0.0, "ema_decay": 0.1}, -(0.1 * 0.1 + 0.9 * 0.2)),
    (1.0, {"optimizer": "sgd", "momentum": 0.0, "ema_decay": 0.9}, -(2 / 11 * 0.1 + 9 / 11 * 0.2)),  # rises with steps
    (1.0, {"optimizer": "sgd", "momentum": 0.0, "schedule": "one_cycle", "warmup": 1.0}, -(0.05 + 0.1)),
])  # fmt: skip
def test_two_steps_by_hand(tmp_path, gradient, settings, moved):
    """A weight that starts at 4 and always has this gradient, after training in two steps of rate 0.1."""
    def network():
        model = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(model.weight, 4)
        return model

    settings = {"num_epochs": 1, "steps_per_epoch": 2, "learning_rate": 0.1, **settings}
    model, _ = fit(tmp_path, network, settings, loss=lambda model, batch: (gradient * model.weight.sum(), {}),
                   batches=lambda _: [{"x": torch.zeros(1)}] * 2, validate=lambda _: {"loss": 0.0})  # fmt: skip
    assert model.weight.item() - 4 == pytest.approx(moved, abs=1e-3 * abs(moved))


def test_schedules_by_hand():
    def factors(**settings):
        factor = training.make_schedule({"num_epochs": 5, "steps_per_epoch": 2, **settings})
        return [factor(step) for step in range(11)]

    assert factors(schedule="constant") == [1.0] * 11
    assert factors(schedule="step", step_epochs=2, gamma=0.5) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    one_cycle = factors(schedule="one_cycle", warmup=0.2)
    assert one_cycle[:3] == [0.5, 1.0, 1.0] and one_cycle[10] == pytest.approx(0)
    assert one_cycle[6] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 2))
    assert factors(schedule="one_cycle", final_rate=0.1)[10] == pytest.approx(0.1)
    refuses(ValueError, "constant, step or one_cycle; got 'cosine'", factors, schedule="cosine")


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (3, 16, 40)])
def test_orthogonalize_finds_nearly_the_nearest_orthogonal_matrix(shape):
    matrix = torch.randn(shape, generator=CHANCE)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = training.orthogonalize(matrix)
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.4
    assert F.cosine_similarity(found.flatten(), (u @ vt).flatten(), dim=0) > 0.95


def test_muon_moves_inner_layers_by_orthogonal_steps_and_the_others_as_adam_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *(nn.Conv2d(16, 16, 3) for _ in range(2)), nn.Conv2d(16, 64, 1))
    assert not training._is_inner(torch.ones(16, 15, 3, 3)) and training._is_inner(torch.ones(16, 16))
    settings = {"optimizer": "muon", "learning_rate": 0.1, "adam_factor": 0.01, "weight_decay": 0.1}
    optimizers = training.make_optimizers(model, settings)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]
    assert [p.shape for p in optimizers[0].param_groups[0]["params"]] == [layer.weight.shape for layer in model[1:]]
    before, ahead = copy.deepcopy(model.state_dict()), {}
    for step in range(2):  # Nesterov's first step goes along the gradient; the second 0.95 * (0.95 g1 + g2) + g2
        model.zero_grad()
        model(torch.rand(2, 3, 9, 9, generator=CHANCE)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        for name, scale in (("1.weight", 1), ("2.weight", 1), ("3.weight", 2)):  # 64 rows of 16 are scaled by 2
            gradient = model.get_parameter(name).grad
            ahead[name] = gradient.clone() if step == 0 else 0.95 * (0.95 * ahead[name] + gradient) + gradient
            direction = training.orthogonalize(ahead[name].flatten(1)).view_as(gradient)
            before[name] = before[name] * (1 - 0.1 * 0.1) - 0.1 * scale * direction
            torch.testing.assert_close(model.state_dict()[name], before[name], rtol=1e-3, atol=1e-4)
        if step == 0:
            expected = before["0.weight"] * (1 - 0.001 * 0.1) - 0.001 * model[0].weight.grad.sign()
            torch.testing.assert_close(model.state_dict()["0.weight"], expected, rtol=1e-3, atol=1e-5)


def test_rate_factors_slow_the_named_part_only_and_frozen_parts_have_no_rate():
    pair = NetSet.MultiTaskNet(NetSet.SRNet(num_channels=64, num_blocks=0), new_model())
    size = [NetSet.count_parameters(part) for part in (pair.sr, pair.classifier)]
    for trained, wanted in ((True, {0.05: size[0], 0.1: size[1]}), (False, {0.1: size[1]})):
        pair.sr.requires_grad_(trained)
        settings = {"learning_rate": 0.1, "optimizer": "sgd", "rate_factors": {"sr": 0.5}}
        groups = training.make_optimizers(pair, settings)[0].param_groups
        assert {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups} == wanted


def test_parts_that_do_not_learn_stay_as_they_are_batch_norm_too(tmp_path):
    def network():
        pair = NetSet.MultiTaskNet(NetSet.SRResNet(2, num_channels=8, num_blocks=1), new_model())
        pair.sr.requires_grad_(False)
        return pair

    def pair_loss(model, batch):
        return F.cross_entropy(model(F.avg_pool2d(batch["img"], 2))[1], batch["label"]), {}

    model, _ = fit(tmp_path, network, loss=pair_loss, validate=lambda model: {"loss": 0.0})
    torch.manual_seed(0)
    start = network()
    assert same(model.sr, start.sr) and not same(model.classifier, start.classifier)


def test_weights_are_kept_on_the_cpu(tmp_path):
    def network():  # on another device, which the CPU cannot read
        model = new_model()
        state = {name: value.to("meta") for name, value in model.state_dict().items()}
        model.state_dict = lambda: state
        return model

    refuses(NotImplementedError, "meta tensor", fit, tmp_path, network)


def test_save_fp16_stores_float16_and_refuses_what_it_cannot_hold(tmp_path):
    settings = SETTINGS | {"save_fp16": True}
    model, run = fit(tmp_path / "half", settings=settings)
    stored = torch.load(run.folder / "model.pth", weights_only=True)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(value, stored[name].float()) for name, value in model.state_dict().items())
    exact = fit(tmp_path / "exact")[0].state_dict()
    assert all(torch.equal(value.half(), stored[name]) for name, value in exact.items())

    def start(model):
        nn.init.constant_(model.encoder.conv.bias, 1e5)

    refuses(OverflowError, r"encoder\.conv\.bias.*save_fp16", fit, tmp_path / "large", settings=settings, start=start)


def test_mixed_precision_is_used_where_the_device_computes_it(tmp_path, monkeypatch):
    settings = SETTINGS | {"mixed_precision": True}
    monkeypatch.setattr(training, "computes_bfloat16", lambda device: False)
    plain, run = fit(tmp_path / "plain", settings=settings)
    assert run.info["precision"] == "float32" and same(plain, fit(tmp_path / "default")[0])
    monkeypatch.setattr(training, "computes_bfloat16", lambda _: True)
    mixed, run = fit(tmp_path / "mixed", settings=settings)
    assert run.info["precision"] == "bfloat16" and not same(plain, mixed)
    assert {value.dtype for value in mixed.state_dict().values()} == {torch.float32}
    logits, rounded = (training.predict(plain, IMAGES, mixed_precision=mixed) for mixed in (False, True))
    assert not torch.equal(logits, rounded) and rounded.dtype == torch.float32
    interrupted(fit, tmp_path / "both", settings=settings, step=6)
    monkeypatch.setattr(training, "computes_bfloat16", lambda device: False)
    assert fit(tmp_path / "both", settings=settings)[1].info["precision"] == "bfloat16 → float32"


@pytest.mark.parametrize("mode", [True, False])
def test_predict_in_parts_equals_whole_takes_uint8_and_leaves_the_mode(mode):
    model = new_model(dropout=0.5).train(mode)
    logits = training.predict(model, IMAGES)
    assert model.training is mode and torch.equal(logits, training.predict(model, IMAGES))  # without dropout
    torch.testing.assert_close(training.predict(model, IMAGES, batch_size=7), logits)
    pixels = (IMAGES * 255).round().byte()
    torch.testing.assert_close(training.predict(model, pixels), training.predict(model, pixels.float() / 255))
    pair = NetSet.MultiTaskNet(NetSet.BicubicUpsampler(), model)
    restored, logits = training.predict(pair, IMAGES[:5, :, ::2, ::2], batch_size=2)
    assert restored.shape == (5, 3, 32, 32) and logits.shape == (5, 2)


PHOTOGRAPHS = F.interpolate(torch.rand(16, 3, 6, 6, generator=CHANCE), size=(32, 32), mode="bicubic").clamp(0, 1)
GAN = {"num_epochs": 3, "steps_per_epoch": 4, "learning_rate": 1e-3, "adversarial_weight": 1e-3, "ema_decay": 0.9}


def pixel_loss(sr_img, hr_img):
    mse = F.mse_loss(sr_img, hr_img)
    return mse, {"mse": mse}


def gan_batches(generator):
    for index in torch.randperm(16, generator=generator).split(4):
        yield {"lr_img": F.avg_pool2d(PHOTOGRAPHS[index], 2), "hr_img": PHOTOGRAPHS[index]}


def gan_validate(model):
    return {"mse": F.mse_loss(training.predict(model, F.avg_pool2d(PHOTOGRAPHS, 2)), PHOTOGRAPHS)}


new_generator, new_judge = partial(NetSet.SRResNet, 2, 8, num_blocks=1), partial(NetSet.Discriminator, 4, 8)


def fit_gan(folder, settings=GAN, generator=new_generator, judge=new_judge, content=pixel_loss, validate=gan_validate,
            **options):  # fmt: skip
    """Generator, discriminator and run."""
    made = []
    run = training.fit_gan(task_in(folder, settings), generator, lambda: made.append(judge()) or made[-1], content,
                           gan_batches, validate, DATA, monitor="mse", mode="min", **options)  # fmt: skip
    return run.network, made[-1], run


def sr_loss(model, batch):
    return pixel_loss(model(batch["lr_img"]), batch["hr_img"])


def new_pair():
    torch.manual_seed(0)
    return new_generator(), new_judge()


def test_without_adversarial_weight_a_gan_trains_the_generator_as_fit_does(tmp_path):
    """The discriminator's step leaves the generator's gradients alone, and learns to tell real from fake."""
    settings = GAN | {"adversarial_weight": 0.0, "num_epochs": 6}
    generator, _, run = fit_gan(tmp_path / "gan", settings)
    alone, _ = fit(tmp_path / "alone", new_generator, settings, loss=sr_loss, batches=gan_batches,
                   validate=gan_validate, monitor="mse")  # fmt: skip
    assert same(generator, alone)
    first, last = run.history.iloc[0], run.history.iloc[-1]
    assert last.discriminator_train < first.discriminator_train and last.real_train > last.fake_train
    assert last.loss_train == pytest.approx(last.mse_train, rel=1e-5) and last.adversarial_train > 0
    assert not same(generator, fit_gan(tmp_path / "against", GAN | {"adversarial_weight": 1.0, "num_epochs": 6})[0])


def test_the_generator_learns_to_be_taken_for_real(tmp_path):
    lr_img, (generator, frozen) = F.avg_pool2d(PHOTOGRAPHS, 2), new_pair()
    settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-2, "adversarial_weight": 1.0,
                "num_epochs": 1, "steps_per_epoch": 4}  # fmt: skip
    trained, *_ = fit_gan(tmp_path, settings, lambda: copy.deepcopy(generator), lambda: copy.deepcopy(frozen),
                          content=lambda sr_img, hr_img: (0 * sr_img.mean(), {}))  # fmt: skip
    before, after = (frozen(net.train()(lr_img)).mean().item() for net in (generator, trained))
    assert after > before


def test_in_discriminator_epochs_the_discriminator_alone_learns(tmp_path):
    (start, judge), settings = new_pair(), GAN | {"ema_decay": 0.0, "num_epochs": 2, "adversarial_weight": 1.0}
    moved = {}
    for count in (1, 2):
        scores = iter((2.0, 1.0))  # the last epoch's weights are kept
        generator, discriminator, _ = fit_gan(tmp_path / str(count), settings | {"discriminator_epochs": count},
                                              validate=lambda _, scores=scores: {"mse": next(scores)})  # fmt: skip
        assert not same(discriminator, judge)
        moved[count] = [torch.equal(a, b) for a, b in zip(start.parameters(), generator.parameters(), strict=True)]
    assert all(moved[2]) and not all(moved[1])


@pytest.mark.parametrize("fit, settings, step", [
    *((fit, SETTINGS | {"optimizer": optimizer, "adam_factor": 0.1}, step)
      for optimizer, step in (("sgd", 2), ("adam", 6), ("muon", 7), ("adamw", 14))),
    (fit_gan, GAN, 2), (fit_gan, GAN, 9),
])  # fmt: skip
def test_interrupted_in_any_epoch_it_ends_with_the_bits_of_an_uninterrupted_run(tmp_path, fit, settings, step):
    whole, *_, whole_run = fit(tmp_path / "whole", settings=settings)
    for changed in (settings | {"learning_rate": 1.0}, settings):  # in one process, as a cell that is run again
        torch.rand(7)
        interrupted(fit, tmp_path / "run", settings=changed, step=step)
    resumed, *_, run = fit(tmp_path / "run", settings=settings)
    assert same(whole, resumed) and timeless(run).equals(timeless(whole_run))
    assert not same(whole, fit(tmp_path / "run", settings=settings | {"seed": 1})[0])


def train_in_every_process(folder):
    """Runs whose traces the test below reads: in each of two processes, and in one alone."""
    rank, seen = runs.process_rank(), {"labels": [], "chance": []}
    batch = {"lr_img": F.avg_pool2d(IMAGES[:5], 2), "hr_img": IMAGES[:5], "label": LABELS[:5]}  # shared as 3 and 2

    def new_joint():
        return NetSet.MultiTaskNet(NetSet.SRNet(num_channels=64, num_blocks=0, init="kaiming"), new_model(dropout=0.0))

    def joint_loss(model, batch):
        sr_img, logits = model(batch["lr_img"])
        return F.l1_loss(sr_img, batch["hr_img"]) + F.cross_entropy(logits, batch["label"]), {}

    def ranked_loss(model, batch):
        seen["chance"].append(torch.rand(()).item())
        return loss(model, batch)[0], {"rank": float(rank)}

    def recorded(generator):
        for batch in batches(generator):
            seen["labels"].append(batch["label"].tolist())
            yield batch

    def validate_once(model):
        assert rank == 0, "the first process alone validates"
        return {"loss": 1.0}

    step = {"num_epochs": 1, "steps_per_epoch": 1, "learning_rate": 1.0, "optimizer": "sgd"}  # moves by the gradient
    joint, _ = fit(folder / "joint", new_joint, step, loss=joint_loss, batches=lambda _: [batch],
                   validate=lambda _: {"loss": 0.0})  # fmt: skip
    settings = {"num_epochs": 5, "steps_per_epoch": 4, "learning_rate": 1e-2, "optimizer": "sgd", "patience": 1}
    normed, run = fit(folder / "patience", lambda: nn.Sequential(
        nn.BatchNorm2d(3), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 2)), settings, loss=ranked_loss,
        batches=recorded, validate=validate_once)
    settings = GAN | {"num_epochs": 2, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-2}
    pixels, _ = fit(folder / "srresnet", new_generator, settings, loss=sr_loss, batches=gan_batches,
                    validate=gan_validate, monitor="mse")  # fmt: skip
    generator, _, gan = fit_gan(folder / "gan", settings | {"num_epochs": 1}, lambda: copy.deepcopy(pixels))
    networks = {"joint": joint, "normed": normed, "srresnet": pixels, "gan": generator}
    torch.save(seen | {name: network.state_dict() for name, network in networks.items()} | {
        "history": run.history.to_dict("list"), "gan loss": gan.history.loss_train.tolist(), "folder": str(gan.folder),
    }, folder / f"rank{rank}.pth")  # fmt: skip


def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"""import sys; sys.path.insert(0, {str(ROOT)!r})
import pathlib, threading; from filelock import FileLock
import training; from tests import test_training; from tools import files, runs
print("started", runs.start_device(0))
files.POLL, folder, agreed, broadcast = 0.2, pathlib.Path({str(tmp_path / 'two')!r}), [], training.broadcast
training.broadcast = lambda value: agreed.append(value) or broadcast(value)
(folder / "joint" / "task2").mkdir(parents=True, exist_ok=True)
lock = FileLock(folder / "joint" / "task2" / "run.lock", thread_local=False)
if runs.process_rank() == 0:
    lock.acquire()
    threading.Timer(2, lock.release).start()
test_training.train_in_every_process(folder)
# while the first waits for the folder, the second sits in no one operation: not finished, not held, not held ...
assert runs.process_rank() or agreed[:4] == [False] * 4, agreed[:6]""")
    said = run_twice(script, cwd=ROOT)
    assert said.count("started") == said.count("Another process is training") == 1
    train_in_every_process(tmp_path / "one")
    one, first, second = (torch.load(tmp_path / p, weights_only=True) for p in
                          ("one/rank0.pth", "two/rank0.pth", "two/rank1.pth"))  # fmt: skip
    assert first["history"]["rank_train"] == [0.5] * 2 == second["history"]["rank_train"]  # mean; all stop together
    assert one["labels"] == first["labels"] == second["labels"] != []
    assert not set(first["chance"]) & set(second["chance"]) and first["gan loss"] == second["gan loss"]
    for name in ("joint", "normed", "srresnet", "gan"):  # running statistics among them
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        torch.testing.assert_close(first[name], one[name], rtol=0, atol=2e-6)
