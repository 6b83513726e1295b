"""The ladder on drawn images and tiny networks: what each arm trains, on what, how rungs are paired, what is kept."""
import copy
import dataclasses
import itertools
from types import SimpleNamespace

import matplotlib.figure
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import datasets
import ladder
import metrics
import NetSet
import training
from ladder import ARMS, Arm, Ladder, Scores
from tools import figures, identity, notebooks, runs
from tools.settings import choose

from .conftest import ROOT, refuses, same, task_in, write_run
from .test_training import never

CHANGES = {"num_valid": 40, "num_test": 24, "num_unseen": 6, "batch_size": 8, "adapt_epochs": 2, "adapt_steps": 2,
           "adapt_lengths": {"1": [1, 7]}, "adapt_images": 40, "steps_per_epoch": 2, "seeds": [0, 1], "sweep": [10.0],
           "arms": [*ARMS]}  # fmt: skip
SR = {"network": "srnet", "scale_factor": 2, "num_channels": 64, "num_blocks": 1}
RECIPE = {"network": "classifynet", "num_channels": 4, "dropout": [0.1, 0.1], "num_valid": 40, "batch_size": 8,
          "cutout": 0, "learning_rate": 1e-2, "label_smoothing": 0.2}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def pretrained(tmp_path_factory):
    """Few drawn images, and untrained networks in the place of tasks 1 and 2."""
    folder, sets = tmp_path_factory.mktemp("pretrained"), [datasets.DrawnDataset(train, 200) for train in (False, True)]
    torch.manual_seed(0)
    sr, classifier = NetSet.make(SR), NetSet.make(RECIPE, init="pytorch")
    nn.init.normal_(sr.blocks[0].conv2.weight, std=0.05)  # a trained network differs from an untrained one
    data = {"name": "drawn", "fingerprint": sets[True].fingerprint}
    found = {"task1": write_run(folder / "task1", SR, model=sr),
             "task2": write_run(folder / "task2", RECIPE, data, model=classifier)}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "find_classification", lambda root, train=True, dataset=None: sets[train])
        patch.setattr(notebooks, "require_run", lambda name, task: found[name])
        yield SimpleNamespace(sets=sets, runs=found)


def build(folder, degradation=None, loss=ladder.joint_loss, report=None, **changes) -> Ladder:
    settings = choose("multi", "quick", CHANGES | changes)
    return Ladder(task_in(folder, settings, "multi", "quick"), degradation, loss, report)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pretrained) -> Ladder:
    return build(tmp_path_factory.mktemp("ladder")).train()


@pytest.fixture
def scores(trained) -> Scores:
    return Scores(trained)


def keys(images) -> set[bytes]:
    return {img.numpy().tobytes() for img in images}


def test_an_arm_trains_what_its_entry_says_and_nothing_else(trained):
    for name, arm in ARMS.items():
        model, run = trained.network(name), trained.runs[name, 0]
        assert same(model.sr, trained.upsamplers[arm.upsampler]) is not arm.trains_sr, name
        assert not same(model.classifier, trained.classifier), name
        assert run.info["settings"]["lambda_sr"] == (1.0 if arm.lambda_sr is None else arm.lambda_sr)
        origins = {"adapted"} | ({"task1"} if arm.upsampler == "srnet" else set())
        origins |= set() if arm.scratch else {"task2"}
        assert set(run.info["identity"]["roles"]["pretrained"]) == origins
    assert trained.sweep[10.0].info["settings"]["lambda_sr"] == 10
    assert len({run.folder for run in trained.runs.values()}) == 2 * len(ARMS)


def test_it_trains_on_training_images_chooses_by_validation_images_and_tests_on_test_images(trained, pretrained):
    (test, train), fuzz = pretrained.sets, datasets.Fuzz(2)
    assert torch.equal(datasets.to_uint8(trained.test_hr), test.images[:24])
    assert torch.equal(trained.test_labels, test.labels[:24])
    assert torch.equal(trained.test_lr, datasets.to_float(fuzz(test.images[:24])))
    learned, held_back = keys(trained.images), keys(trained.valid_hr)
    assert not learned & held_back and learned | held_back == keys(train.images)
    plain = copy.copy(trained)
    plain.settings = type(trained.settings)(trained.settings | {"flip": False, "shift": 0})
    labels = dict(zip([img.numpy().tobytes() for img in train.images], train.labels, strict=True))
    batch = next(plain.batches(torch.Generator().manual_seed(0)))
    hr_img = datasets.to_uint8(batch["hr_img"])
    assert keys(hr_img) <= learned and [labels[img.numpy().tobytes()] for img in hr_img] == batch["label"].tolist()
    assert torch.equal(batch["lr_img"], datasets.to_float(fuzz(hr_img)))
    for part, lr_img in zip(trained.upsampled("bicubic"), (fuzz(trained.images[:40]), trained.valid_lr), strict=True):
        assert torch.equal(part, datasets.to_uint8(NetSet.BicubicUpsampler(2)(datasets.to_float(lr_img))))


def test_the_loss_weighs_and_smooths_its_terms(trained):
    batch, model = next(trained.batches(torch.Generator().manual_seed(0))), trained.network("joint")
    settings = {"lambda_cls": 2.0, "lambda_teacher": 3.0, "label_smoothing": 0.3}
    total, parts = ladder.joint_loss(model, batch, settings, 0.5, lambda *_: torch.tensor(5.0))
    smoothed = F.cross_entropy(model(batch["lr_img"])[1], batch["label"], label_smoothing=0.3)
    torch.testing.assert_close(total, 0.5 * parts["l1"] + 2 * smoothed + 15)


def test_adaptation_follows_task_2_and_fine_tuning_goes_on_from_there_by_its_own_settings(trained, monkeypatch):
    handed = []
    monkeypatch.setattr(training, "fit", lambda task, network, loss, *args, **options: handed.append((loss, options)))
    trained.adapt(ARMS["control"], 1, 2)
    trained.fine_tune("joint", 1)
    trained.fine_tune("joint", 1, 10.0)
    (adapt_loss, adapting), (loss, tuning), (weighed, _) = handed
    recipe = adapting["settings"]()
    assert (recipe["learning_rate"], recipe["num_epochs"], recipe["seed"]) == (pytest.approx(0.3 * 1e-2), 2, 1)
    label, img = torch.tensor([0, 3]), torch.rand(2, 3, 32, 32)
    model = NetSet.MultiTaskNet(nn.Identity(), copy.deepcopy(trained.classifier))
    batch = {"lr_img": img, "hr_img": img - 0.1, "label": label}
    for smoothing, l1, (total, _) in ((0.2, 0, adapt_loss(trained.classifier, {"img": img, "label": label})),
                                      (0.05, 0.1, loss(model, batch)), (0.05, 1.0, weighed(model, batch))):  # fmt: skip
        expected = F.cross_entropy(trained.classifier(img), label, label_smoothing=smoothing) + l1
        torch.testing.assert_close(total, expected)
    monkeypatch.undo()
    tuning["start"](model)
    assert same(model.classifier, trained.adapted(ARMS["frozen"], 1)) and not same(model.classifier, trained.classifier)


def test_the_teacher_sees_the_clean_image_and_patches_do_not_train_the_upsampler():
    sr_img, hr_img = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 3, 32, 32)
    logits, teachers, seen = torch.randn(2, 10), torch.arange(10.0), []
    batch, settings = {"hr_img": hr_img, "label": torch.tensor([1, 2])}, {"label_smoothing": 0.0}
    found = ladder.soft_labels(None, batch, sr_img, logits, lambda img: teachers.expand(2, 10)[img is not hr_img :], {})
    torch.testing.assert_close(found, -(teachers.softmax(0) * logits.log_softmax(1)).sum(1).mean())
    model = SimpleNamespace(classifier=lambda img: seen.append(img) or img.flatten(1)[:, :10])
    teacher = SimpleNamespace(extract=lambda img: 0 * img)  # so the patches alone could bring a gradient
    ladder.features_and_mixed_images(model, batch, sr_img, logits, teacher, settings).backward()
    assert not sr_img.grad.any()
    restored = (seen[0] == sr_img).all(1)
    patches = restored.view(2, 4, 8, 4, 8).float().mean((2, 4))
    assert torch.equal(seen[0], torch.where(restored[:, None], sr_img, hr_img)) and patches.unique().tolist() == [0, 1]


def test_a_teacher_in_adaptation_shows_where_it_looks_at_the_same_clean_image(trained, monkeypatch):
    layers = nn.Conv2d(1, 2, 1, bias=False), nn.AvgPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 2)
    classifier = nn.Sequential(*layers)
    nn.init.constant_(classifier[0].weight, 1.0)
    img = torch.zeros(1, 1, 4, 4)
    img[..., :2, :2], img[..., 2:, 2:] = 3, 4
    logits, (fine, coarse) = ladder.attention(classifier, img)
    torch.testing.assert_close(coarse, torch.tensor([[9.0, 0, 0, 16]]) / 337**0.5)
    torch.testing.assert_close(fine.view(4, 4)[::3, ::3].flatten(), coarse[0] / 2)
    assert not any(layer._forward_hooks for layer in classifier) and logits.shape == (1, 2)

    handed = []
    monkeypatch.setattr(training, "fit", lambda task, network, loss, batches, *args, **options: handed.append(
        (loss, batches, args[3], options["settings"]())))
    for arm in ("control", "control_distilled"):
        trained.adapt(ARMS[arm], 1)
    (_, alone, path, _), (loss, batches, taught_path, s) = handed
    batch, other = (next(iter(each(torch.Generator().manual_seed(3)))) for each in (batches, alone))
    assert torch.equal(batch["img"], other["img"]) and taught_path == path + "_taught"
    apart = [(batch["img"] - clean).square().sum((1, 2, 3)) for clean in (batch["hr_img"], batch["hr_img"].flip(-1))]
    assert (2 * apart[0] < apart[1]).all()  # moved, mirrored and cut out alike
    model, teacher = copy.deepcopy(trained.classifier).eval(), trained.teacher
    total, parts = loss(model, batch | {"hr_img": batch["img"]})  # the teacher's own weights, and what it sees
    torch.testing.assert_close(parts["attention"], torch.tensor(0.0))
    assert total > parts["cross_entropy"] == F.cross_entropy(
        teacher(batch["img"]), batch["label"], label_smoothing=s["label_smoothing"])
    assert loss(model, batch)[1]["attention"] > 0 and not any(p.requires_grad for p in teacher.parameters())


def test_scratch_begins_with_initial_weights_of_its_seed_and_learns_at_task_2_s_rate(trained, monkeypatch):
    begun = []
    monkeypatch.setattr(training, "fit", lambda task, network, *args, **options: begun.append(
        (network(), options["settings"]())))
    for seed in (0, 1):
        trained.adapt(ARMS["scratch"], seed)
    (first, s), (second, _) = begun
    assert not same(first, second) and not same(first, trained.classifier)
    assert (s["learning_rate"], s["num_epochs"]) == (1e-2, 2)


def test_an_arm_is_trained_with_the_seeds_that_it_names(tmp_path):
    few = {"arms": ["control", "task_only"], "arm_seeds": {"task_only": [0]}, "sweep": [], "adapt_epochs": 0}
    rungs = build(tmp_path, **few).train()
    assert [*rungs.runs] == [("control", 0), ("control", 1), ("task_only", 0)] and rungs.seeds("task_only") == [0]


def test_a_second_ladder_reads_what_the_first_trained_and_whatever_is_edited_is_another_one(trained, monkeypatch):
    root = trained.task.results_root
    again = build(root, report=never).train()
    assert [run.folder for run in again.runs.values()] == [run.folder for run in trained.runs.values()]
    tested = Scores(trained).test("frozen")
    monkeypatch.setattr(training, "predict", never)
    assert torch.equal(Scores(again).test("frozen")["prediction"], tested["prediction"])  # kept
    monkeypatch.undo()

    def halved(model, batch, *args):
        total, parts = ladder.joint_loss(model, batch, *args)
        return total / 2, parts

    few = {"arms": ["frozen"], "seeds": [0], "sweep": [], "adapt_lengths": {}}
    for options in ({"degradation": datasets.Area(2)}, {"loss": halved}, {"label_smoothing": 0.3}, {"adapt_rate": 0.2}):
        other = build(root, **few | options).train()
        assert other.runs["frozen", 0].folder != trained.runs["frozen", 0].folder and other.folder != trained.folder
    kept, fake = [], copy.copy(trained)
    fake.task = copy.copy(trained.task)
    fake.task.cached = lambda path, compute, key: kept.append(identity.hash_of(key)) or tested
    for fake.degradation, rung in itertools.product((datasets.Fuzz(2), datasets.Area(2)), ("frozen", "degraded")):
        Scores(fake).test(rung)
    assert len(set(kept)) == 4  # answers of another degradation are others
    monkeypatch.setitem(ARMS, "another", Arm("srnet"))
    assert build(root, report=never, **few).train().runs["frozen", 0].folder == trained.runs["frozen", 0].folder


def test_an_edited_page_turns_to_the_quick_settings_before_anything_is_trained(tmp_path):
    few = {"arms": ["frozen"], "seeds": [0], "sweep": [], "adapt_lengths": {}}
    study, quick = (CHANGES | few | {"adapt_epochs": epochs, "steps_per_epoch": epochs} for epochs in (3, 1))
    Ladder(task_in(tmp_path, choose("multi", "quick", study), "multi", "study")).train()
    task = task_in(tmp_path, choose("multi", "quick", study), "multi", "study", is_auto=True, changes=quick)
    rungs = Ladder(task, datasets.Area(2)).train()
    trained = runs.find_runs(tmp_path, "multi")
    assert task.profile == "quick" and rungs.runs["frozen", 0].info["settings"]["steps_per_epoch"] == 1
    in_lab = [run for run in trained if "lab" in run.folder.parts]
    assert {run.info["settings"]["num_epochs"] for run in in_lab} == {1} and len(in_lab) == 2


def test_ladders_stand_side_by_side_the_newest_first_with_what_differs(tmp_path):
    few = {"arms": ["frozen", "task_only"], "seeds": [1], "sweep": [], "adapt_lengths": {}, "adapt_epochs": 0}
    for changes in ({}, {"lambda_cls": 2.0}):
        Scores(rungs := build(tmp_path, **few | changes).train()).record()
    found = ladder.ladders_table(rungs.task)
    own = "adapt_epochs 2 → 0; adapt_images 4000 → 40"  # of few and CHANGES; neither the seed nor task_only's lambda_sr
    assert "lambda_cls 1.0 → 2.0" in found["what differs"].iloc[0] and "lambda_cls" not in found["what differs"].iloc[1]
    assert own in found["what differs"].iloc[1] and not found["what differs"].str.contains("seed|lambda_sr").any()
    assert found["frozen"].iloc[0] == pytest.approx(100 * Scores(rungs).table().accuracy["frozen"], abs=1e-3)
    assert len(found) == 2 and found["frozen (dB)"].nunique() == 1 and "joint (dB)" not in found


def test_rungs_are_compared_at_the_seeds_that_both_have_above_less_below(scores, trained, monkeypatch):
    scores.ladder = copy.copy(trained)
    scores.ladder.runs = {key: run for key, run in trained.runs.items() if key != ("joint", 1)}
    read = lambda rung, seed: torch.tensor([float(seed)])  # noqa: E731
    for pair, seeds in ((("frozen", "control"), ([0, 1], [0, 1])), (("joint", "control"), ([0], [0])),
                        (("frozen", "degraded"), ([0, 1], [0, 0])), (("clean", "degraded"), ([0], [0]))):  # fmt: skip
        assert tuple(part.flatten().tolist() for part in scores.paired(*pair, read)) == seeds
    correct = {("frozen", 0): [1, 1, 1, 0], ("frozen", 1): [1, 1, 1, 1], ("control", 0): [1, 0, 0, 0],
               ("control", 1): [1, 1, 1, 0]}  # fmt: skip
    scores.ladder.test_labels = torch.ones(4)
    scores.test = lambda rung, seed: {"prediction": torch.tensor(correct[rung, seed])}
    # the degradation that the arms were trained on does not count
    monkeypatch.setattr(datasets, "degradations", lambda: {"own": datasets.Fuzz(2), "other": datasets.Area(2)})
    scores.unseen = lambda rung, seed: torch.tensor([[rung == "control"] * 4, correct[rung, seed]]).bool()
    for compare in (scores.compare, scores.compare_unseen):
        gain = compare("frozen", "control")
        assert (gain["points"], gain["by_seed"]) == (37.5, [50.0, 25.0]) and gain["low"] <= 37.5 <= gain["high"]
    under = scores.unseen_differences("frozen", "control").points.to_dict()
    assert under == {"own": -100, "other": 37.5}
    best = {"srnet": 0.8, "bicubic": 0.7}
    scores.ladder.adapt = lambda arm, seed, epochs: SimpleNamespace(
        info={"validation": {"accuracy_valid": best[arm.upsampler] + seed / 10}})
    assert ladder.gaps(scores.ladder) == {1: [pytest.approx(10)], 2: [pytest.approx(10)] * 2}


def test_disagreements_hold_gains_then_losses(scores):
    right = {"joint": torch.tensor([1, 1, 1, 0, 1, 0]).bool(), "control": torch.tensor([0, 0, 1, 1, 0, 0]).bool()}
    scores.correct = lambda rung, seeds: right[rung][None]
    scores.test = lambda rung, seed=None: {"probability": torch.tensor([0.1, 0.9, 0.5, 0.5, 0.4, 0.5])}
    assert figures.disagreements(scores, "joint", "control", 4).tolist() == [1, 4, 0, 3]
    assert figures.disagreements(scores, "joint", "joint", 3).tolist() == [1, 2, 3]  # none: the surest


@pytest.mark.parametrize("changes, data, said", [
    ({"arms": ["scratch"], "scratch_epochs": 0}, {}, "scratch_epochs must be 1 or more"),
    ({"arm_seeds": {"contrl": [0]}}, {}, "no arm contrl"), ({"arm_seeds": {"joint": [1]}}, {}, "the first of them"),
    ({"num_valid": 10}, {}, "num_valid must be task 2's"), ({"arms": ["jiont"]}, {}, "no arm jiont; there are scratch"),
    ({}, {"name": "CIFAR-10", "fingerprint": "ab"}, "trained on CIFAR-10, not on this drawn.*run task2_classify.ipynb"),
])  # fmt: skip
def test_settings_and_classifiers_that_do_not_fit_are_named(tmp_path, monkeypatch, pretrained, changes, data, said):
    task2 = pretrained.runs["task2"]
    monkeypatch.setitem(pretrained.runs, "task2", dataclasses.replace(
        task2, info=task2.info | {"data": data or task2.info["data"]}))  # fmt: skip
    refuses(ValueError, said, lambda: build(tmp_path, **changes).train())


def test_what_is_tested_is_what_each_rung_s_own_network_returns(scores, trained):
    for rung in scores.rungs:
        restored, logits = training.predict(trained.network(rung), trained.test_images(rung))
        assert torch.equal(logits.argmax(1), scores.test(rung)["prediction"])
        torch.testing.assert_close(metrics.psnr(restored, trained.test_hr), scores.test(rung)["psnr_db"])
    images = trained.test_hr[:3]
    mirrored = ladder.view(images, True, 2, -1)
    assert torch.equal(ladder.view(mirrored, False, -2, 1)[..., 2:-2, 2:-2], images.flip(-1)[..., 2:-2, 2:-2])
    model, total = trained.network("frozen"), 0
    restored = training.predict(model.sr, trained.test_lr[:6])
    for flip, *shift in ladder.VIEWS:
        total = total + training.predict(model.classifier, ladder.view(restored, flip, *shift))
    assert torch.equal(scores.views("frozen")[-1], total.argmax(1) == trained.test_labels[:6])


def test_everything_is_recorded(scores, trained):
    scores.record()
    info = runs.read_info(trained.folder)
    assert [row["rung"] for row in info["summary"]] == ["degraded", "cascade", *ARMS, "clean"]
    assert list(ladder.weights_table(trained).index) == ["λ = 0", "λ = 1", "λ = 10", "frozen"]
    assert {epochs: len(values) for epochs, values in info["gaps"].items()} == {"1": 1, "2": 2}  # seed 7 has no arms
    assert len(info["unseen"]) == len(
        [rung for rung in ladder.UNSEEN if rung in scores.rungs])
    assert len(info["comparisons"]) == len(ladder.COMPARISONS)


def test_without_an_arm_nothing_is_tested_and_no_study_written_over(trained):
    untrained = copy.copy(trained)
    untrained.runs = {}
    refuses(ValueError, "no arm is trained: .*control", ladder.Scores, untrained)
    assert untrained.folder.parent == untrained.task.lab_folder


def test_a_new_arm_is_one_entry_also_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "half", Arm("srnet", trains_sr=True, lambda_sr=0.5))
    shown = {}
    monkeypatch.setattr("tools.plots.show", lambda fig, name="", *_, **__: shown.update({name: fig}))
    monkeypatch.setattr(runs, "start_device", lambda: torch.device("cpu"))
    names = notebooks.run_cells(ROOT / "multi_learning.ipynb", {
        "profile": "quick", "data_root": str(tmp_path), "results_root": str(tmp_path / "results"),
        "changes": CHANGES | {"arms": ["control", "half"], "seeds": [1, 2], "sweep": []}})
    rungs = names["rungs"]
    assert set(rungs.runs) == {(arm, seed) for arm in ("control", "half") for seed in (1, 2)}
    assert list(names["table"].index) == ["degraded", "cascade", "control", "half", "clean"]
    assert rungs.runs["half", 1].info["settings"]["lambda_sr"] == 0.5
    assert "Half" in {text.get_text() for text in shown["arms"].findobj(matplotlib.text.Text)}
    assert "Half" in ladder.arms_table().index and {"ladder", "stages"} <= set(shown)
    assert runs.read_info(rungs.folder)["over_control"][-1]["rung"] == "clean"


def test_with_few_labels_every_network_knows_the_same_ones_and_more_labels_hold_the_fewer(tmp_path, monkeypatch):
    labels = torch.arange(400) % 10
    few, more, other = (ladder.labeled(labels, *args) for args in ((10, 0), (40, 0), (10, 1)))
    assert labels[few].bincount().tolist() == [4] * 10 and labels[more].bincount().tolist() == [16] * 10
    assert set(few.tolist()) < set(more.tolist()) and set(few.tolist()) != set(other.tolist())

    rungs, seen = build(tmp_path, label_steps=0.004, labels={"10": [0, 1]}, adapt_images=150), {}

    def fit(task, network, loss, batches, *args, **options):
        batch = next(iter(batches(torch.Generator().manual_seed(0))))
        seen[args[-1]] = batch["img"]
        return original(task, network, loss, batches, *args, **options)

    original = training.fit
    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(datasets, "augment", lambda images, *_: images)
    table = ladder.labels_table(rungs)
    index = ladder.few_labels(rungs, 10, 0)["index"]
    for name, images in (("clean", rungs.images), ("control", rungs.upsampled("bicubic")[0]),
                         ("frozen", rungs.upsampled("srnet")[0])):  # fmt: skip
        batch = datasets.to_uint8(seen[f"labels/seed0/10/{name}"])
        assert keys(batch) <= keys(images[index]) and len(keys(batch)) > 5, name
    assert table.labels.tolist() == [len(index)] and len(table.by_seed[0]) == 2
    assert table.points[0] == pytest.approx(table.frozen[0] - table.control[0])
    infos = [info for path in tmp_path.rglob("run.json") if (info := runs.read_info(path.parent)).get("finished")]
    assert len(infos) == 6 and {info["best_epoch"] for info in infos} == {4}  # the last, whatever validation says
    again = build(tmp_path, report=never, label_steps=0.004, labels={"10": [0, 1]}, adapt_images=150)
    assert ladder.labels_table(again).equals(table)
