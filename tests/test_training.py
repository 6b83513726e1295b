"""The loop: it learns, resumes to the same bits, writes whole files, refuses what is wrong, splits over processes."""
import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import NetSet
import training

ROOT = Path(__file__).parent.parent
CHANCE = torch.Generator().manual_seed(5)
BRIGHTNESS = torch.rand(64, generator=CHANCE)
IMAGES = BRIGHTNESS.view(64, 1, 1, 1) * torch.rand(64, 3, 32, 32, generator=CHANCE)
LABELS = (BRIGHTNESS > 0.5).long()
SETTINGS = {"num_epochs": 4, "steps_per_epoch": 4, "learning_rate": 3e-3, "schedule": "one_cycle", "ema_decay": 0.9}
DATA = {"name": "random pictures", "fingerprint": "0"}


def new_model():
    torch.manual_seed(0)
    return NetSet.ClassifyNet(num_classes=2, num_channels=4, dropout=(0.1, 0.1))


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
    return model, training.fit(model, loss, batches, folder, settings, data, validate, ("loss", "min"), **options)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_and_leaves_a_whole_run(tmp_path, capsys):
    model, run = fit(tmp_path / "run", settings=SETTINGS | {"num_epochs": 12, "learning_rate": 0.02})
    assert run.history.accuracy_valid.max() > 0.9 and run.history.loss_valid.min() < 0.3
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["history.csv", "model.pth", "run.json"]
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["finished"] and info["data"] == DATA and info["settings"]["learning_rate"] == 0.02
    assert info["best_epoch"] == run.history.epoch[run.history.loss_valid.idxmin()]
    assert not model.training
    reread = training.load_weights(new_model(), tmp_path / "run" / "model.pth")
    assert same(model, reread)
    assert validate(reread)["loss"].item() == pytest.approx(run.history.loss_valid.min(), abs=1e-6)
    assert "12/12" in capsys.readouterr().out


def test_same_seed_same_bits_other_seed_others(tmp_path):
    a, b = fit(tmp_path / "a")[0], fit(tmp_path / "b")[0]
    other = fit(tmp_path / "c", settings=SETTINGS | {"seed": 1})[0]
    assert same(a, b) and not same(a, other)


@pytest.mark.parametrize("stop_in_epoch", [1, 2, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_resuming_gives_the_bits_of_an_uninterrupted_run(tmp_path, stop_in_epoch, optimizer, capsys):
    settings = SETTINGS | {"optimizer": optimizer, "adam_factor": 0.1}
    whole, whole_run = fit(tmp_path / "whole", settings=settings)
    epochs_begun = []

    def interrupted(generator):
        epochs_begun.append(1)
        for step, batch in enumerate(batches(generator)):
            if len(epochs_begun) == stop_in_epoch and step == 2:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", settings=settings, batches=interrupted)
    torch.rand(7)  # a new process has another random state
    resumed, run = fit(tmp_path / "run", settings=settings)
    assert same(whole, resumed)
    assert run.history.drop(columns="time_seconds").equals(whole_run.history.drop(columns="time_seconds"))


def test_a_run_resumed_in_another_precision_names_both(tmp_path, monkeypatch):
    settings, epochs_begun = SETTINGS | {"mixed_precision": True}, []

    def interrupted(generator):
        epochs_begun.append(1)
        yield from batches(generator)
        if len(epochs_begun) % 2 == 0:
            raise KeyboardInterrupt

    for computes_bfloat16 in (False, True):  # an epoch each
        monkeypatch.setattr(training, "computes_bfloat16", lambda device, answer=computes_bfloat16: answer)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, settings=settings, batches=interrupted)
    assert fit(tmp_path, settings=settings)[1].info["precision"] == "float32 → bfloat16"


def test_a_validation_that_gives_no_number_stops(tmp_path):
    with pytest.raises(FloatingPointError, match=r"no number for loss in epoch 1\. Nothing was saved yet\. Lower"):
        fit(tmp_path, validate=lambda model: {"loss": float("nan")})


def test_a_finished_run_returns_at_once_with_its_weights(tmp_path, capsys):
    trained, _ = fit(tmp_path)

    def never(generator):
        raise AssertionError("trained again")

    model, run = fit(tmp_path, batches=never)
    assert same(trained, model) and run.info["finished"] and len(run.history) == 4
    model, _ = fit(tmp_path, batches=never, data={"name": "others", "fingerprint": "1"})
    assert "trained on random pictures" in capsys.readouterr().out


def test_other_settings_are_refused_or_begin_afresh(tmp_path):
    fit(tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate 0.003 -> 0.1.*delete that folder"):
        fit(tmp_path, settings=SETTINGS | {"learning_rate": 0.1})
    _, run = fit(tmp_path, settings=SETTINGS | {"num_epochs": 1}, restart_on_change=True)
    assert len(run.history) == 1
    _, run = fit(tmp_path, settings=SETTINGS | {"num_epochs": 1}, data={"name": "x"}, restart_on_change=True)
    assert run.info["data"] == {"name": "x"}


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    calls = []

    def breaks(model, batch):
        calls.append(1)
        return loss(model, batch)[0] * (float("nan") if len(calls) > 6 else 1), {}

    with pytest.raises(FloatingPointError, match=r"epoch 2.*checkpoint of epoch 1 is kept.*learning_rate"):
        fit(tmp_path, loss=breaks)
    assert training.read_tensors(tmp_path / "checkpoint.pth")["epoch"] == 1
    assert all(v.isfinite().all() for v in training.read_tensors(tmp_path / "model.pth").values())


def test_damaged_and_foreign_weights_are_named(tmp_path):
    fit(tmp_path / "run")
    path = tmp_path / "run" / "model.pth"
    with pytest.raises(ValueError, match=r"another network's.*encoder.conv.bias is \(4,\) there and \(8,\) here"):
        training.load_weights(NetSet.ClassifyNet(num_classes=2, num_channels=8), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole file of weights"):
        training.load_weights(new_model(), path)
    with pytest.raises(FileNotFoundError, match="Run the notebook"):
        training.load_weights(new_model(), tmp_path / "none.pth")
    torch.save({"code": Path}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="not a whole file of weights"):
        training.read_tensors(tmp_path / "code.pth")
    (tmp_path / "run" / "run.json").write_text('{"finished": tr')
    with pytest.raises(ValueError, match=r"run.json is not whole.*Delete the folder"):
        training.read_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run.json is not whole.*Delete the folder"):
        fit(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"finished": true}')
    with pytest.raises(ValueError, match="lacks data, settings"):
        training.read_run(tmp_path / "run")


def test_a_damaged_checkpoint_is_named_and_nothing_is_overwritten(tmp_path):
    def stops(generator):
        yield from batches(generator)
        if (tmp_path / "checkpoint.pth").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, batches=stops)
    half = (tmp_path / "checkpoint.pth").read_bytes()[:5000]
    (tmp_path / "checkpoint.pth").write_bytes(half)
    weights = (tmp_path / "model.pth").read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint.pth is not a whole file of weights"):
        fit(tmp_path)
    assert (tmp_path / "model.pth").read_bytes() == weights


def test_float16_weights_are_widened(tmp_path):
    model = new_model()
    torch.save({name: value.half() for name, value in model.state_dict().items()}, tmp_path / "half.pth")
    loaded = training.load_weights(new_model(), tmp_path / "half.pth")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_half_weights_are_stored_in_float16_and_are_what_training_ends_with(tmp_path):
    model, run = fit(tmp_path / "half", settings=SETTINGS | {"half_weights": True})
    stored = torch.load(tmp_path / "half" / "model.pth", weights_only=True)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(value, stored[name].float()) for name, value in model.state_dict().items())
    assert run.info["weights"] == training.file_fingerprint(tmp_path / "half" / "model.pth")
    whole = fit(tmp_path / "whole")[0]
    assert not same(model, whole)  # rounded, and by no more than float16 rounds
    for rounded, exact in zip(model.state_dict().values(), whole.state_dict().values(), strict=True):
        torch.testing.assert_close(rounded, exact, rtol=2**-11, atol=2**-24)


def test_mixed_precision_is_used_where_the_device_computes_it(tmp_path, monkeypatch):
    settings = SETTINGS | {"mixed_precision": True}
    monkeypatch.setattr(training, "computes_bfloat16", lambda device: False)
    plain, run = fit(tmp_path / "plain", settings=settings)
    assert run.info["precision"] == "float32" and same(plain, fit(tmp_path / "default")[0])
    monkeypatch.setattr(training, "computes_bfloat16", lambda device: True)
    mixed, run = fit(tmp_path / "mixed", settings=settings)
    assert run.info["precision"] == "bfloat16" and not same(plain, mixed)
    assert {value.dtype for value in mixed.state_dict().values()} == {torch.float32}
    logits = training.predict(plain, IMAGES)
    rounded = training.predict(plain, IMAGES, mixed_precision=True)
    assert not torch.equal(logits, rounded) and rounded.dtype == torch.float32
    torch.testing.assert_close(logits, rounded, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "capabilities, expected",
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False), ({}, False)],
)
def test_cpus_that_compute_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert training.computes_bfloat16(torch.device("cpu")) is expected
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert training.computes_bfloat16(torch.device("cuda")) is True


def test_history_can_be_read_after_every_epoch(tmp_path):
    seen = []

    def watching(model):
        seen.append(len(pd.read_csv(tmp_path / "history.csv")) if (tmp_path / "history.csv").exists() else 0)
        return validate(model)

    fit(tmp_path, validate=watching)
    assert seen == [0, 1, 2, 3] and len(training.read_run(tmp_path).history) == 4


def test_report_sees_the_model_and_its_history_after_every_epoch(tmp_path):
    seen = []

    def report(model, history):
        logits = training.predict(model, IMAGES)
        seen.append((len(history), F.cross_entropy(logits, LABELS).item() == history.loss_valid.iloc[-1]))

    fit(tmp_path, report=report)
    assert seen == [(1, True), (2, True), (3, True), (4, True)]


@pytest.mark.parametrize("patience, epochs", [(None, 8), (1, 4), (2, 5), (3, 8), (8, 8)])
def test_patience_stops_after_epochs_that_are_no_better(tmp_path, patience, epochs):
    losses = iter([3.0, 2.0, 1.0, 1.0, 1.5, 0.5, 0.6, 0.7])
    settings = SETTINGS | {"num_epochs": 8, "patience": patience}
    _, run = fit(tmp_path, settings=settings, validate=lambda model: {"loss": next(losses)})
    assert len(run.history) == epochs and run.info["finished"]
    assert run.info["best_epoch"] == (3 if epochs < 6 else 6)
    assert len(fit(tmp_path, settings=settings, validate=None)[1].history) == epochs  # nothing left to train


def test_find_run_needs_no_model_and_no_weights(tmp_path):
    assert training.find_run(tmp_path, SETTINGS, DATA) is None
    fit(tmp_path)
    assert training.find_run(tmp_path, SETTINGS, DATA).has_weights
    (tmp_path / "model.pth").unlink()
    run = training.find_run(tmp_path, SETTINGS, DATA)
    assert not run.has_weights and len(run.history) == 4
    with pytest.raises(ValueError, match="started from other weights"):
        training.find_run(tmp_path, SETTINGS, DATA | {"starts_from": "abc"})
    with pytest.raises(ValueError, match=r"learning_rate 0\.003 -> 0\.1"):
        training.find_run(tmp_path, SETTINGS | {"learning_rate": 0.1}, DATA)
    assert training.find_run(tmp_path, SETTINGS | {"learning_rate": 0.1}, DATA, restart_on_change=True) is None
    assert not (tmp_path / "run.json").exists()


def test_the_seeds_runs_are_the_readers_own_before_the_shipped_ones(tmp_path):
    asked = {"task1": "photographs", "task2": "pictures"}
    for place, task, accuracy in (
        ("seed_begun", "task1", [0.1]), ("seed_begun", "task2", [0.2, 0.3]), ("seed", "task1", [0.4]),
        ("seed", "task2", [0.5, 0.6, 0.7]),
    ):  # fmt: skip
        before, folder = training.find_seed_runs(tmp_path, asked), tmp_path / place / task
        folder.mkdir(parents=True)
        settings = {"steps_per_epoch": 10, "batch_size": 5}
        training.write_info(folder, {"finished": False, "settings": settings, "data": {"name": asked[task]}})
        runs = training.find_seed_runs(tmp_path, asked)
        assert runs.keys() == before.keys() and all(runs[name].folder == before[name].folder for name in runs)
        epochs = range(1, len(accuracy) + 1)
        training.write_table(folder / "history.csv", pd.DataFrame({"epoch": epochs, "accuracy_valid": accuracy}))
        runs = training.find_seed_runs(tmp_path, asked)
        if task == "task2":  # now this place has both
            assert [run.folder.parent.name for run in runs.values()] == [place, place]
            assert runs[task].history.accuracy_valid.tolist() == accuracy
            counted = training.in_epochs(runs[task], num_pictures=200)
            assert counted.epoch.tolist() == [0.25 * epoch for epoch in epochs]
    assert training.find_seed_runs(tmp_path, asked | {"task2": "other pictures"}) == {}


def test_a_finished_run_without_its_weights_is_trained_again(tmp_path, capsys):
    first = fit(tmp_path)[0]
    (tmp_path / "model.pth").unlink()
    assert same(first, fit(tmp_path)[0]) and (tmp_path / "model.pth").exists()
    assert "kept without its weights" in capsys.readouterr().out
    (tmp_path / "model.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"kept without its weights\. .* Delete the folder"):
        training.read_run(tmp_path).load(first)


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((16, 40), (40, 16), (30, 30)):
        matrix = torch.randn(shape) * 0.01
        values = torch.linalg.svdvals(training.orthogonalise(matrix))
        assert values[:15].min() > 0.6 and values.max() < 1.25
    u, _, v = torch.linalg.svd(torch.randn(20, 50), full_matrices=False)
    near = training.orthogonalise(u * torch.linspace(1, 2, 20) @ v)
    assert F.cosine_similarity(near.flatten(), (u @ v).flatten(), dim=0) > 0.98


def test_muon_by_hand():
    """One step: inner weights move along the orthogonal matrix, biases and outer layers as Adam moves them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 32, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = training.make_optimizer(model, {"optimizer": "muon", "learning_rate": 0.1, "adam_factor": 0.01})
    model(torch.rand(2, 3, 8, 8)).square().mean().backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    optimizer.step()
    moved = {name: value - before[name] for name, value in model.state_dict().items()}
    expected = -0.1 * training.orthogonalise(gradients["1.weight"].flatten(1))  # 32 x 144: no wider than long
    torch.testing.assert_close(moved["1.weight"].flatten(1), expected, rtol=1e-3, atol=1e-4)
    for name in ("0.weight", "0.bias", "1.bias"):
        torch.testing.assert_close(moved[name], -0.001 * gradients[name].sign(), rtol=0.05, atol=1e-5)


def test_keep_computes_once_for_each_key(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"answer": torch.tensor([3, 1]) + len(calls)}

    path = tmp_path / "deep" / "test.pth"
    for _ in range(2):
        assert training.keep(path, compute, ["abc", 10])["answer"].tolist() == [4, 2]
    assert training.keep(path, compute, ("abc", 10)).keys() == {"answer"}  # a tuple is a list to JSON
    assert len(calls) == 1
    assert training.keep(path, compute, ["other", 10])["answer"].tolist() == [5, 3]


@pytest.mark.parametrize(
    "asked, shipped, data_is_there, expected",
    [
        ("auto", True, True, "study"), ("auto", True, False, "quick"), ("auto", False, True, "quick"),
        ("seed", False, False, "seed"), ("quick", True, True, "quick"), ("study", True, True, "study"),
        ("study", False, False, "study"),
    ],
)  # fmt: skip
def test_pick_profile(tmp_path, capsys, asked, shipped, data_is_there, expected):
    if shipped:
        fit(tmp_path)
        capsys.readouterr()
    assert training.pick_profile(asked, tmp_path, data_is_there) == expected
    assert (expected in capsys.readouterr().out) == (asked == "auto")


def test_of_several_processes_the_first_alone_says_the_profile(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert training.pick_profile("auto", tmp_path, data_is_there=True) == "quick" and not capsys.readouterr().out


def test_other_settings_are_refused_where_a_summary_lies(tmp_path):
    training.refuse_other_settings(tmp_path, {"seeds": (0,)})
    training.write_info(tmp_path, {"finished": True, "settings": {"seeds": [0, 1], "batch_size": 4}, "data": {}})
    training.refuse_other_settings(tmp_path, {"seeds": (0, 1), "batch_size": 4})
    with pytest.raises(ValueError, match=r"other settings \(batch_size 4 -> None; seeds \[0, 1\] -> \[0\]\)"):
        training.refuse_other_settings(tmp_path, {"seeds": [0]})


def test_a_study_without_its_data_does_not_write_over_the_finished_run(tmp_path):
    fit(tmp_path)
    with pytest.raises(ValueError, match=r"its finished run is in .*\. Get it .* another results_root"):
        training.pick_profile("study", tmp_path, data_is_there=False)


def test_write_whole_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "结果 file.json"
    training.write_json(path, {"a": 1})

    def fails(beside):
        beside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        training.write_whole(path, fails)
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_schedules_by_hand():
    def factors(**settings):
        factor = training.schedule({"num_epochs": 5, "steps_per_epoch": 2, **settings})
        return [factor(step) for step in range(11)]

    assert factors(schedule="constant") == [1.0] * 11
    assert factors(schedule="step", step_epochs=2, gamma=0.5) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    one_cycle = factors(schedule="one_cycle", warmup=0.2)
    assert one_cycle[:3] == [0.5, 1.0, 1.0] and one_cycle[10] == pytest.approx(0)
    assert one_cycle[6] == pytest.approx(0.5 + 0.5 * math.cos(math.pi / 2))


def test_choose_takes_one_column_and_refuses_unknown_names():
    table = {"num_epochs": (1, 2, 3), "flip": (True, False, False)}
    assert training.choose("study", None, **table) == {"num_epochs": 2, "flip": False}
    assert training.choose("seed", {"flip": True}, **table).flip is True
    with pytest.raises(ValueError, match="quick, study, seed; got 'fast'"):
        training.choose("fast", None, **table)
    with pytest.raises(ValueError, match="No setting is called epochs; there are num_epochs, flip"):
        training.choose("quick", {"epochs": 2}, **table)


def test_predict_in_parts_equals_whole_and_takes_uint8():
    model = new_model().eval()
    torch.testing.assert_close(training.predict(model, IMAGES, batch_size=7), training.predict(model, IMAGES))
    pixels = (IMAGES * 255).round().byte()
    torch.testing.assert_close(training.predict(model, pixels), training.predict(model, pixels.float() / 255))
    pair = NetSet.MultiTaskNet(NetSet.BicubicEnlarger(), model)
    restored, logits = training.predict(pair, IMAGES[:5, :, ::2, ::2], batch_size=2)
    assert restored.shape == (5, 3, 32, 32) and logits.shape == (5, 2)


TWO_PROCESSES = """
import sys; sys.path.insert(0, {root!r})
import torch, training
from tests import test_training as t
training.start(0)
torch.set_num_threads(1)
model = t.new_model()
for layer in model.modules():
    if isinstance(layer, torch.nn.Dropout): layer.p = 0.0
settings = dict(num_epochs=2, steps_per_epoch=4, learning_rate=1e-2, optimizer="sgd")
training.fit(model, t.loss, t.batches, {folder!r}, settings, t.DATA, t.validate, ("loss", "min"))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun_trains_the_same_weights_on_one_and_two_processes(tmp_path, processes):
    script = tmp_path / "train.py"
    script.write_text(TWO_PROCESSES.format(root=str(ROOT), folder=str(tmp_path / "run")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run([*torchrun, script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("torch ") == 1, "only process 0 prints"
    model = new_model()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    settings = {"num_epochs": 2, "steps_per_epoch": 4, "learning_rate": 1e-2, "optimizer": "sgd"}
    alone, _ = fit(tmp_path / "alone", model=model, settings=settings)
    shared = training.load_weights(new_model(), tmp_path / "run" / "model.pth")
    for a, b in zip(alone.state_dict().values(), shared.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def one_step(task, folder):
    """The weights after one step of SGD at rate 1, so that they show the gradient, of a task's loss on six pictures."""
    torch.manual_seed(0)
    sr = NetSet.SRNet(num_channels=64, num_blocks=1, start="kaiming")
    classifier = NetSet.ClassifyNet(num_channels=4, dropout=(0.0, 0.0))
    model = {"sr": sr, "classify": classifier, "joint": NetSet.MultiTaskNet(sr, classifier)}[task]
    hr_img, lr_img = IMAGES[:6], F.avg_pool2d(IMAGES[:6], 2)
    batch = {"lr_img": lr_img, "hr_img": hr_img, "label": torch.arange(6)}

    def loss(model, batch):
        if task == "sr":
            return F.l1_loss(model(batch["lr_img"]), batch["hr_img"]), {}
        if task == "classify":
            return F.cross_entropy(model(batch["hr_img"]), batch["label"]), {}
        sr_img, logits = model(batch["lr_img"])
        return F.l1_loss(sr_img, batch["hr_img"]) + F.cross_entropy(logits, batch["label"]), {}

    settings = {"num_epochs": 1, "steps_per_epoch": 1, "learning_rate": 1.0, "optimizer": "sgd"}
    training.fit(model, loss, lambda generator: [batch], folder, settings, DATA, lambda m: {"x": 0.0}, ("x", "min"))
    return model


STEP_UNDER_TORCHRUN = """
import sys; sys.path.insert(0, {root!r})
import torch, training
from pathlib import Path
from tests import test_training as t
training.start(0)
torch.set_num_threads(1)
for task in ("sr", "classify", "joint"):
    t.one_step(task, Path({folder!r}) / task)
"""


def test_two_processes_have_the_gradients_of_one(tmp_path):
    script = tmp_path / "step.py"
    script.write_text(STEP_UNDER_TORCHRUN.format(root=str(ROOT), folder=str(tmp_path / "two")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*torchrun, script], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    for task in ("sr", "classify", "joint"):
        alone = one_step(task, tmp_path / "one" / task).state_dict()
        shared = training.read_tensors(tmp_path / "two" / task / "model.pth")
        for name, weight in alone.items():
            torch.testing.assert_close(shared[name], weight, rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: compares its answers with the CPU's")
def test_a_gpu_gives_the_answers_of_the_cpu():
    torch.backends.cudnn.allow_tf32 = False
    model = NetSet.MultiTaskNet(NetSet.SRNet(), NetSet.ClassifyNet()).eval()
    training.load_weights(model, ROOT / "results" / "multi" / "seed0" / "joint" / "model.pth")
    lr_img = F.avg_pool2d(IMAGES, 2)
    on_cpu = training.predict(model, lr_img)
    on_gpu = training.predict(model.cuda(), lr_img)
    torch.testing.assert_close(on_gpu[0], on_cpu[0], rtol=0, atol=1e-4)
    first, second = on_cpu[1].softmax(1).topk(2).values.T
    clear = first - second > 1e-3
    assert torch.equal(on_gpu[1].argmax(1)[clear], on_cpu[1].argmax(1)[clear])


def test_rate_factors_slow_the_named_part_only():
    pair = NetSet.MultiTaskNet(NetSet.SRNet(num_channels=64, num_blocks=0), new_model())
    optimizer = training.make_optimizer(pair, {"learning_rate": 0.1, "optimizer": "sgd", "rate_factors": {"sr": 0.5}})
    rates = {group["lr"]: sum(p.numel() for p in group["params"]) for group in optimizer.param_groups}
    assert rates == {0.05: NetSet.count_parameters(pair.sr), 0.1: NetSet.count_parameters(pair.classifier)}
    pair.sr.requires_grad_(False)
    frozen = training.make_optimizer(pair, {"learning_rate": 0.1, "optimizer": "sgd"})
    assert sum(p.numel() for g in frozen.param_groups for p in g["params"]) == NetSet.count_parameters(pair.classifier)


# --- two networks against each other


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


def new_generator():
    torch.manual_seed(0)
    return NetSet.SRResNet(2, num_channels=8, num_blocks=1)


def fit_gan(folder, settings=GAN, batches=gan_batches):
    generator, discriminator = new_generator(), NetSet.Discriminator(4, 8)
    run = training.fit_gan(
        generator, discriminator, pixel_loss, batches, folder, settings, DATA, gan_validate, ("mse", "min")
    )
    return generator, run


def test_gan_logs_both_sides_and_the_discriminator_learns(tmp_path):
    settings = GAN | {"num_epochs": 6, "adversarial_weight": 0.0}
    generator, run = fit_gan(tmp_path, settings)
    assert {"loss_train", "adversarial_train", "mse_train", "discriminator_train", "true_train", "made_train",
            "mse_valid"} <= set(run.history)  # fmt: skip
    last = run.history.iloc[-1]
    assert last.discriminator_train < run.history.discriminator_train[0]
    assert last.true_train > last.made_train
    assert last.loss_train == pytest.approx(last.mse_train, rel=1e-5)  # weight 0: the content alone
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", "model.pth", "run.json"]
    assert same(generator, training.load_weights(new_generator(), tmp_path / "model.pth"))


def test_without_adversarial_weight_a_gan_trains_the_generator_as_fit_does(tmp_path):
    settings = GAN | {"adversarial_weight": 0.0}
    generator, _ = fit_gan(tmp_path / "gan", settings)
    alone = new_generator()
    training.fit(alone, lambda model, batch: pixel_loss(model(batch["lr_img"]), batch["hr_img"]), gan_batches,
                 tmp_path / "alone", settings, DATA, gan_validate, ("mse", "min"))  # fmt: skip
    assert same(generator, alone)
    assert not same(generator, fit_gan(tmp_path / "against", GAN | {"adversarial_weight": 1.0})[0])


def test_the_generator_learns_to_be_taken_for_true(tmp_path):
    """Content 0, and a discriminator that hardly learns: what it answers to made pictures must rise."""
    torch.manual_seed(0)
    generator, discriminator = new_generator(), NetSet.Discriminator(4, 8)
    lr_img = F.avg_pool2d(PHOTOGRAPHS, 2)
    before = discriminator(generator(lr_img)).mean().item()
    settings = GAN | {"adversarial_weight": 1.0, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 1e-2}
    settings |= {"ema_decay": 0.0, "num_epochs": 1}
    frozen = copy.deepcopy(discriminator)
    training.fit_gan(generator, discriminator, lambda sr_img, hr_img: (0 * sr_img.mean(), {}), gan_batches, tmp_path,
                     settings, DATA, gan_validate, ("mse", "min"))  # fmt: skip
    assert frozen(generator.train()(lr_img)).mean().item() > before


def test_the_same_networks_can_go_on_after_an_interruption(tmp_path):
    generator, discriminator = new_generator(), NetSet.Discriminator(4, 8)
    arguments = (pixel_loss, gan_batches, tmp_path, GAN, DATA)

    def interrupted(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.fit_gan(generator, discriminator, *arguments, interrupted, ("mse", "min"))
    run = training.fit_gan(generator, discriminator, *arguments, gan_validate, ("mse", "min"))
    assert run.info["finished"]


def test_resuming_a_gan_gives_the_bits_of_an_uninterrupted_run(tmp_path):
    whole, whole_run = fit_gan(tmp_path / "whole")
    epochs_begun = []

    def interrupted(generator):
        epochs_begun.append(1)
        for step, batch in enumerate(gan_batches(generator)):
            if len(epochs_begun) == 3 and step == 1:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        fit_gan(tmp_path / "run", batches=interrupted)
    resumed, run = fit_gan(tmp_path / "run")
    assert same(whole, resumed)
    assert run.history.drop(columns="time_seconds").equals(whole_run.history.drop(columns="time_seconds"))
