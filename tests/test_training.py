"""The loop: it learns, resumes to the same bits, uses every setting, and several processes train as one."""
import copy
import itertools
import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import NetSet
import training
from tools import runs

from .conftest import ROOT, refuses, run_twice, same, write_run

CHANCE = torch.Generator().manual_seed(5)
BRIGHTNESS = torch.rand(64, generator=CHANCE)
IMAGES = BRIGHTNESS.view(64, 1, 1, 1) * torch.rand(64, 3, 32, 32, generator=CHANCE)
LABELS = (BRIGHTNESS > 0.5).long()
SETTINGS = {"num_epochs": 4, "steps_per_epoch": 4, "learning_rate": 3e-3, "schedule": "one_cycle", "ema_decay": 0.9}
DATA = {"name": "random images", "fingerprint": "0"}


def new_model(dropout=0.1):
    torch.manual_seed(0)
    return NetSet.ClassifyNet(num_classes=2, num_channels=4, dropout=(dropout, dropout))


def loss(model, batch):
    cross_entropy = F.cross_entropy(model(batch["img"]), batch["label"])
    return cross_entropy, {"cross_entropy": cross_entropy}


def batches(generator):
    for index in torch.randperm(len(IMAGES), generator=generator).split(16):
        yield {"img": IMAGES[index], "label": LABELS[index]}


def validate(model):
    logits = training.predict(model, IMAGES)
    return {"accuracy": (logits.argmax(1) == LABELS).float().mean().item(), "loss": F.cross_entropy(logits, LABELS)}


def fit(folder, model=None, settings=SETTINGS, data=DATA, validate=validate, loss=loss, batches=batches, **options):
    model = model or new_model()
    return model, training.fit(model, loss, batches, folder, settings, data, validate, "loss", "min", **options)


def never(*_):
    raise AssertionError("trained again")


def interrupted(batches, epoch, step):
    """`batches` whose epoch, counted from 1, breaks off before a step."""
    epochs_begun = itertools.count(1)

    def until(generator):
        breaks_off = next(epochs_begun) == epoch
        yield from itertools.islice(batches(generator), step if breaks_off else None)
        if breaks_off:
            raise KeyboardInterrupt

    return until


def test_it_learns_and_leaves_a_whole_run(tmp_path, capsys):
    model, run = fit(tmp_path, settings=SETTINGS | {"num_epochs": 12, "learning_rate": 0.01})
    scores, info = run.history, runs.read_info(tmp_path)
    assert scores.accuracy_valid.max() > 0.9 and scores.loss_valid.min() < 0.3
    assert {p.name for p in tmp_path.iterdir()} - {"run.lock"} == {"history.csv", "model.pth", "run.json"}
    assert info["finished"] and info["data"] == DATA and info["settings"]["learning_rate"] == 0.01
    assert info["best_epoch"] == scores.epoch[scores.loss_valid.idxmin()]
    assert same(model, runs.load_weights(new_model(), tmp_path / "model.pth")) and not model.training
    assert validate(model)["loss"].item() == pytest.approx(scores.loss_valid.min(), abs=1e-6)
    assert "12/12" in capsys.readouterr().out


@pytest.mark.parametrize("optimizer, epoch", [("sgd", 1), ("adam", 2), ("muon", 2), ("adamw", 4)])
def test_resuming_gives_the_bits_of_an_uninterrupted_run(tmp_path, optimizer, epoch):
    settings = SETTINGS | {"optimizer": optimizer, "adam_factor": 0.1}
    whole, whole_run = fit(tmp_path / "whole", settings=settings)
    refuses(KeyboardInterrupt, None, fit, tmp_path / "run", settings=settings, batches=interrupted(batches, epoch, 2))
    torch.rand(7)  # a new process has another random state
    resumed, run = fit(tmp_path / "run", settings=settings)
    assert same(whole, resumed) and not same(whole, fit(tmp_path / "other", settings=settings | {"seed": 1})[0])
    assert run.history.drop(columns="time_seconds").equals(whole_run.history.drop(columns="time_seconds"))


def test_an_unfinished_run_goes_on_with_what_no_training_reads_and_refuses_the_rest(tmp_path):
    settings = SETTINGS | {"num_test": 10}
    refuses(KeyboardInterrupt, None, fit, tmp_path, settings=settings, batches=interrupted(batches, 2, 2))
    with pytest.raises(ValueError, match="other settings or data") as caught:  # its traceback must not keep the lock
        fit(tmp_path, settings=settings, data={"name": "others"})
    assert caught.tb and len(fit(tmp_path, settings=settings | {"num_test": 20, "cutout": 0})[1].history) == 4


def test_a_finished_run_returns_at_once_whatever_it_would_train_on(tmp_path):
    (trained, _), short, other = fit(tmp_path), SETTINGS | {"num_epochs": 1}, {"name": "others"}
    model, run = fit(tmp_path, batches=never, data=other, validate=never)
    assert same(trained, model) and run.info["data"] == DATA and len(run.history) == 4
    assert len(fit(tmp_path, settings=short, restart_on_change=True)[1].history) == 1
    assert fit(tmp_path, settings=short, data=other, restart_on_change=True)[1].info["data"] == other
    (tmp_path / "model.pth").unlink()  # a run that is kept without its weights is trained again
    fit(tmp_path, settings=short, data=other)
    assert (tmp_path / "model.pth").exists()


@pytest.mark.parametrize("schedule", [{"schedule": "constant"}, {"schedule": "step", "step_epochs": 3, "gamma": 0.5}])
def test_more_epochs_go_on_from_the_end_of_a_finished_run(tmp_path, schedule):
    settings = SETTINGS | schedule
    whole, _ = fit(tmp_path / "whole", settings=settings)
    fit(tmp_path / "run", settings=settings | {"num_epochs": 2})
    longer, run = fit(tmp_path / "run", settings=settings, batches=interrupted(batches, 3, 0))  # two are left
    assert same(longer, whole) and len(run.history) == 4 and run.info["settings"]["num_epochs"] == 4
    (tmp_path / "run" / "checkpoint.pth").unlink()
    with pytest.raises(ValueError, match=r"num_epochs 4 -> 5: to go on it would need its checkpoint\.pth and"):
        fit(tmp_path / "run", settings=settings | {"num_epochs": 5})
    with pytest.raises(ValueError, match="num_epochs 4 -> 2"):
        fit(tmp_path / "whole", settings=settings | {"num_epochs": 2})
    with pytest.raises(ValueError, match="one_cycle schedule ends with its last epoch"):
        fit(tmp_path / "once")
        fit(tmp_path / "once", settings=SETTINGS | {"num_epochs": 5})
    (tmp_path / "whole" / "model.pth").unlink()
    assert same(fit(tmp_path / "whole", settings=settings)[0], whole)


def test_a_run_resumed_in_another_precision_names_both(tmp_path, monkeypatch):
    settings = SETTINGS | {"mixed_precision": True}
    for answer in (False, True):  # an epoch each
        monkeypatch.setattr(training, "computes_bfloat16", lambda device, answer=answer: answer)
        refuses(KeyboardInterrupt, None, fit, tmp_path, settings=settings, batches=interrupted(batches, 2, 2))
    assert fit(tmp_path, settings=settings)[1].info["precision"] == "float32 → bfloat16"


def test_a_loss_or_score_without_a_value_stops_and_keeps_the_last_checkpoint(tmp_path):
    factors = itertools.chain([1.0] * 6, itertools.repeat(math.nan))
    with pytest.raises(FloatingPointError, match="epoch 2"):
        fit(tmp_path / "loss", loss=lambda model, batch: (loss(model, batch)[0] * next(factors), {}))
    assert runs.read_tensors(tmp_path / "loss" / "checkpoint.pth")["epoch"] == 1
    assert all(v.isfinite().all() for v in runs.read_tensors(tmp_path / "loss" / "model.pth").values())
    with pytest.raises(FloatingPointError, match="no number for loss in epoch 1"):
        fit(tmp_path / "score", validate=lambda model: {"loss": float("nan")})


def test_every_epoch_is_reported_and_a_score_without_a_value_that_does_not_choose_is_null(tmp_path):
    seen = []

    def report(model, history):
        stored = pd.read_csv(tmp_path / "history.csv")
        seen.append((len(stored), validate(model)["loss"].item() == history.loss_valid.iloc[-1]))

    fit(tmp_path, validate=lambda model: validate(model) | {"psnr_db": math.inf, "niqe": math.nan}, report=report)
    assert seen == [(1, True), (2, True), (3, True), (4, True)]
    stored = runs.read_run(tmp_path)
    assert stored.info["finished"] and stored.history.psnr_db_valid.eq(math.inf).all()
    assert stored.info["validation"]["psnr_db_valid"] is None is stored.info["validation"]["niqe_valid"]


@pytest.mark.parametrize("mode, sign", [("min", 1), ("max", -1)])
@pytest.mark.parametrize("patience, epochs", [(None, 8), (1, 4), (2, 5), (3, 8)])
def test_patience_stops_after_epochs_that_are_no_better(tmp_path, patience, epochs, mode, sign):
    losses = iter([3.0, 2.0, 1.0, 1.0, 1.5, 0.5, 0.6, 0.7])
    settings = SETTINGS | {"num_epochs": 8, "patience": patience}
    run = training.fit(new_model(), loss, batches, tmp_path, settings, DATA, lambda _: {"x": sign * next(losses)}, "x",
                       mode)  # fmt: skip
    assert len(run.history) == epochs and run.info["best_epoch"] == (3 if epochs < 6 else 6)


def test_streams_of_chance_are_independent(tmp_path):
    keys = itertools.product((0, 1, 2, 1000, 2000), range(50), ("dropout", "batches"), range(4))
    assert len({training.random_stream(*key) for key in keys}) == 5 * 50 * 2 * 4
    seeds = []

    def recorded(generator):
        seeds.extend([generator.initial_seed(), torch.initial_seed()])
        return batches(generator)

    for seed in (0, 1, 1000):
        fit(tmp_path / str(seed), settings=SETTINGS | {"seed": seed}, batches=recorded)
    assert len(set(seeds)) == len(seeds) == 3 * 4 * 2


def one_weight(folder, gradient, **settings):
    """A weight that starts at 4 and always has this gradient, after training in two steps of rate 0.1."""
    model = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(model.weight, 4)
    settings = {"num_epochs": 1, "steps_per_epoch": 2, "learning_rate": 0.1, **settings}
    training.fit(model, lambda model, batch: (gradient * model.weight.sum(), {}), lambda _: [{"x": torch.zeros(1)}] * 2,
                 folder, settings, DATA, lambda _: {"x": 0.0}, "x", "min")  # fmt: skip
    return model.weight.item()


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
    assert one_weight(tmp_path, gradient, **settings) - 4 == pytest.approx(moved, abs=1e-3 * abs(moved))


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
def test_orthogonalise_finds_nearly_the_nearest_orthogonal_matrix(shape):
    matrix = torch.randn(shape, generator=CHANCE)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = training.orthogonalise(matrix)
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.4
    assert F.cosine_similarity(found.flatten(), (u @ vt).flatten(), dim=0) > 0.95


def test_muon_moves_inner_layers_by_orthogonal_steps_and_the_others_as_adam_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *(nn.Conv2d(16, 16, 3) for _ in range(2)), nn.Conv2d(16, 64, 1))
    alone = [copy.deepcopy(layer.weight) for layer in model[1:]]
    settings = {"optimizer": "muon", "learning_rate": 0.1, "adam_factor": 0.01, "weight_decay": 0.1}
    optimizer = training.make_optimizer(model, settings)
    singles = [training.Muon([{"params": [weight], "orthogonal": True}], 0.1, weight_decay=0.1) for weight in alone]
    before = copy.deepcopy(model.state_dict())
    for step in range(2):
        optimizer.zero_grad()
        model(torch.rand(2, 3, 9, 9, generator=CHANCE)).square().mean().backward()
        gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
        for single, weight, layer in zip(singles, alone, model[1:], strict=True):
            weight.grad = layer.weight.grad.clone()
            single.step()
        optimizer.step()
        if step == 0:  # Nesterov's first step goes along the gradient itself; 64 rows of 16 are scaled by 2
            for name, scale in (("1.weight", 1), ("3.weight", 2)):
                direction = training.orthogonalise(gradients[name].flatten(1)).view_as(before[name])
                expected = before[name] * (1 - 0.1 * 0.1) - 0.1 * scale * direction
                torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-3, atol=1e-4)
            expected = before["0.weight"] * (1 - 0.001 * 0.1) - 0.001 * gradients["0.weight"].sign()
            torch.testing.assert_close(model.state_dict()["0.weight"], expected, rtol=1e-3, atol=1e-5)
    for weight, layer in zip(alone, model[1:], strict=True):  # by shapes as one at a time
        torch.testing.assert_close(layer.weight, weight, rtol=1e-4, atol=1e-5)


def test_rate_factors_slow_the_named_part_only_and_frozen_parts_have_no_rate():
    pair = NetSet.MultiTaskNet(NetSet.SRNet(num_channels=64, num_blocks=0), new_model())
    size = [NetSet.count_parameters(part) for part in (pair.sr, pair.classifier)]
    for trained, wanted in ((True, {0.05: size[0], 0.1: size[1]}), (False, {0.1: size[1]})):
        pair.sr.requires_grad_(trained)
        settings = {"learning_rate": 0.1, "optimizer": "sgd", "rate_factors": {"sr": 0.5}}
        groups = training.make_optimizer(pair, settings).param_groups
        assert {group["lr"]: sum(p.numel() for p in group["params"]) for group in groups} == wanted


def test_save_fp16_stores_float16_and_refuses_what_it_cannot_hold(tmp_path):
    settings = SETTINGS | {"save_fp16": True}
    model, _ = fit(tmp_path / "half", settings=settings)
    stored = torch.load(tmp_path / "half" / "model.pth", weights_only=True)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(value, stored[name].float()) for name, value in model.state_dict().items())
    exact, large = fit(tmp_path / "exact")[0].state_dict(), new_model()
    assert all(torch.equal(value.half(), stored[name]) for name, value in exact.items())
    nn.init.constant_(large.encoder.conv.bias, 1e5)
    refuses(OverflowError, r"encoder\.conv\.bias.*save_fp16", fit, tmp_path / "large", large, settings)


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


def test_perceptual_features_are_vggs_or_the_classifiers_and_say_so(tmp_path, monkeypatch):
    folder, settings = tmp_path / "results" / "task2", {"num_channels": 8, "dropout": [0.0, 0.0]}
    write_run(folder, settings, {"name": "ten classes"}, NetSet.ClassifyNet.from_settings(settings))
    place = {"data_root": tmp_path, "results_root": tmp_path / "results"}
    monkeypatch.setattr(training.datasets, "find_vgg", lambda network, root: None)
    features, words = training.perceptual_features("vgg19", [5, 4], [2, 1], "study", **place)
    assert features(torch.rand(1, 3, 32, 32)).shape == (1, 8, 16, 16)
    assert words == f"ClassifyNet, ten classes, phi(2, 1), weights {runs.file_fingerprint(folder / 'model.pth')}"
    (blocks := tmp_path / "vgg19_blocks1to3.pth").touch()
    monkeypatch.setattr(training.datasets, "find_vgg", lambda network, root: blocks)
    monkeypatch.setattr(NetSet.PerceptualFeatures, "of_vgg_blocks", lambda weights, i, j: (weights, i, j))
    features, words = training.perceptual_features("vgg19", [3, 4], [2, 1], "study", **place)
    assert features == (blocks, 3, 4) and words.startswith("VGG19, ImageNet, phi(3, 4)")
    assert training.perceptual_features("vgg19", [3, 4], [2, 1], "quick", **place)[1].startswith("ClassifyNet")


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


def new_pair():
    torch.manual_seed(0)
    return NetSet.SRResNet(2, num_channels=8, num_blocks=1), NetSet.Discriminator(4, 8)


def fit_gan(folder, settings=GAN, batches=gan_batches, content=pixel_loss, pair=None, validate=gan_validate):
    generator, discriminator = pair or new_pair()
    run = training.fit_gan(generator, discriminator, content, batches, folder, settings, DATA, validate, "mse")
    return generator, discriminator, run


def test_without_adversarial_weight_a_gan_trains_the_generator_as_fit_does(tmp_path):
    """The discriminator's step leaves the generator's gradients alone, and learns to tell real from fake."""
    settings, (alone, _) = GAN | {"adversarial_weight": 0.0, "num_epochs": 6}, new_pair()
    generator, _, run = fit_gan(tmp_path / "gan", settings)
    training.fit(alone, lambda model, batch: pixel_loss(model(batch["lr_img"]), batch["hr_img"]), gan_batches,
                 tmp_path / "alone", settings, DATA, gan_validate, "mse", "min")  # fmt: skip
    assert same(generator, alone)
    first, last = run.history.iloc[0], run.history.iloc[-1]
    assert last.discriminator_train < first.discriminator_train and last.real_train > last.fake_train
    assert last.loss_train == pytest.approx(last.mse_train, rel=1e-5) and last.adversarial_train > 0
    assert not same(generator, fit_gan(tmp_path / "against", GAN | {"adversarial_weight": 1.0, "num_epochs": 6})[0])


def test_the_generator_learns_to_be_taken_for_real(tmp_path):
    generator, discriminator = new_pair()
    lr_img, frozen = F.avg_pool2d(PHOTOGRAPHS, 2), copy.deepcopy(discriminator)
    before = discriminator(generator(lr_img)).mean().item()
    settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-2, "adversarial_weight": 1.0,
                "num_epochs": 1, "steps_per_epoch": 4}  # fmt: skip
    fit_gan(tmp_path, settings, content=lambda sr_img, hr_img: (0 * sr_img.mean(), {}), pair=(generator, discriminator))
    assert frozen(generator.train()(lr_img)).mean().item() > before


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


def test_resuming_a_gan_gives_the_bits_of_an_uninterrupted_run(tmp_path):
    whole, _, whole_run = fit_gan(tmp_path / "whole")
    pair = new_pair()
    refuses(KeyboardInterrupt, None, fit_gan, tmp_path / "run", batches=interrupted(gan_batches, 3, 1), pair=pair)
    resumed, _, run = fit_gan(tmp_path / "run", pair=pair)  # the same networks, as in a notebook
    assert same(whole, resumed)
    assert run.history.drop(columns="time_seconds").equals(whole_run.history.drop(columns="time_seconds"))


def train_in_every_process(folder):
    """Three runs whose traces the test below reads: in each of two processes, and in one alone."""
    rank, seen = runs.process_rank(), {"labels": [], "chance": []}
    torch.manual_seed(0)
    joint = NetSet.MultiTaskNet(NetSet.SRNet(num_channels=64, num_blocks=0, init="kaiming"), new_model(dropout=0.0))
    batch = {"lr_img": F.avg_pool2d(IMAGES[:5], 2), "hr_img": IMAGES[:5], "label": LABELS[:5]}  # shared as 3 and 2

    def joint_loss(model, batch):
        sr_img, logits = model(batch["lr_img"])
        return F.l1_loss(sr_img, batch["hr_img"]) + F.cross_entropy(logits, batch["label"]), {}

    step = {"num_epochs": 1, "steps_per_epoch": 1, "learning_rate": 1.0, "optimizer": "sgd"}  # moves by the gradient
    for num_epochs in (1, 2):  # the second call goes on
        training.fit(joint, joint_loss, lambda _: [batch], folder / "joint", step | {"num_epochs": num_epochs}, DATA,
                     lambda _: {"x": 0.0}, "x", "min")

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

    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 2))
    settings = {"num_epochs": 5, "steps_per_epoch": 4, "learning_rate": 1e-2, "optimizer": "sgd", "patience": 1}
    _, run = fit(folder / "patience", model, settings, loss=ranked_loss, batches=recorded, validate=validate_once)
    generator, _, gan = fit_gan(folder / "gan", GAN | {"num_epochs": 1})
    torch.save(seen | {
        "joint": joint.state_dict(), "history": run.history.to_dict("list"), "gan": generator.state_dict(),
        "mean": model[0].running_mean, "linear": model[3].weight.data, "gan loss": gan.history.loss_train.tolist(),
    }, folder / f"rank{rank}.pth")  # fmt: skip


def test_two_processes_train_as_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(f"""import sys; sys.path.insert(0, {str(ROOT)!r})
import pathlib; from tools import runs
from tests import test_training
print("started", runs.start_device(0))
test_training.train_in_every_process(pathlib.Path({str(tmp_path / 'two')!r}))""")
    assert run_twice(script, cwd=ROOT).count("started") == 1
    train_in_every_process(tmp_path / "one")
    one, first, second = (torch.load(tmp_path / p, weights_only=True) for p in
                          ("one/rank0.pth", "two/rank0.pth", "two/rank1.pth"))  # fmt: skip
    torch.testing.assert_close(first["joint"], one["joint"], rtol=0, atol=1e-6)
    torch.testing.assert_close(first["mean"], one["mean"])
    assert first["history"]["rank_train"] == [0.5] * 2 == second["history"]["rank_train"]  # mean; all stop together
    assert one["labels"] == first["labels"] == second["labels"] != []
    assert not set(first["chance"]) & set(second["chance"]) and first["gan loss"] == second["gan loss"]
    for name in ("mean", "linear", "gan"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares its answers with the CPU's")
def test_a_gpu_gives_the_answers_of_the_cpu_and_its_weights_load_there(tmp_path):
    model = NetSet.MultiTaskNet(NetSet.SRNet(), NetSet.ClassifyNet()).eval()
    runs.load_weights(model, ROOT / "results" / "multi" / "seed0" / "joint" / "model.pth")
    lr_img = F.avg_pool2d(IMAGES, 2)
    (img, logits), on_gpu = training.predict(model, lr_img), training.predict(model.cuda(), lr_img)
    torch.testing.assert_close(on_gpu[0], img, rtol=0, atol=1e-4)
    first, second = logits.softmax(1).topk(2).values.T
    clear = first - second > 1e-3
    assert torch.equal(on_gpu[1].argmax(1)[clear], logits.argmax(1)[clear])
    runs.save_tensors(tmp_path / "model.pth", model.state_dict())
    assert {value.device.type for value in torch.load(tmp_path / "model.pth").values()} == {"cpu"}
