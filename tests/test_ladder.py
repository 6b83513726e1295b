"""The ladder on drawn images and tiny networks: what each arm trains, how rungs are paired, what is kept."""
import copy

import pytest
import torch

import ladder
import NetSet
import training
from ladder import Arm, Ladder
from tools import runs

from .conftest import refuses, same, write_run

CHANGES = {"num_valid": 40, "num_test": 60, "num_unseen": 20, "batch_size": 8, "adapt_epochs": 1, "adapt_lengths": [],
           "adapt_steps": 2, "adapt_images": 40, "steps_per_epoch": 2, "seeds": [0, 1], "sweep": [10.0]}  # fmt: skip


def build(tmp_path, **changes) -> Ladder:
    torch.manual_seed(0)
    begun = runs.begin("multi", "quick", tmp_path / "no data", tmp_path, CHANGES | changes)
    sr_settings = {"scale_factor": 2, "num_channels": 64, "num_blocks": 1}
    sr = NetSet.SRNet.from_settings(sr_settings)
    torch.nn.init.normal_(sr.blocks[0].conv2.weight, std=0.05)  # a trained network differs from an untrained one
    settings = {"num_channels": 4, "dropout": [0.1, 0.1], "num_valid": 40, "batch_size": 8, "cutout": 0,
                "learning_rate": 1e-2, "label_smoothing": 0.0}  # fmt: skip
    classifier = NetSet.ClassifyNet.from_settings(settings, init="pytorch")
    sr_run = write_run(tmp_path / "sr", sr_settings, model=sr)
    return Ladder(begun, sr_run, write_run(tmp_path / "classifier", settings, model=classifier))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Ladder:
    rungs = build(tmp_path_factory.mktemp("ladder"))
    rungs.train()
    return rungs


def test_an_arm_trains_what_its_entry_says_and_nothing_else(trained):
    for name, arm in ladder.ARMS.items():
        model = trained.network(name)
        assert same(model.sr, trained.upsamplers[arm.upsampler]) is not arm.trains_sr, name
        assert not same(model.classifier, trained.classifier), name
    info = {name: trained.runs[name, 0].info for name in ("control", "joint", "task_only")}
    assert [info[name]["settings"]["lambda_sr"] for name in ("task_only", "joint")] == [0, 1]
    assert trained.sweep[10.0].info["settings"]["lambda_sr"] == 10
    pretrained = [set(info[name]["data"]["pretrained"]) for name in ("control", "joint")]
    assert pretrained == [{"task2"}, {"task1", "task2"}]


def test_the_loss_weighs_its_terms(trained):
    batch = next(iter(trained.batches(torch.Generator().manual_seed(0))))
    settings = {"lambda_cls": 2.0, "lambda_teacher": 3.0, "label_smoothing": 0.0}
    total, parts = ladder.joint_loss(trained.network("joint"), batch, settings, 0.5, lambda *_: torch.tensor(5.0))
    torch.testing.assert_close(total, 0.5 * parts["l1"] + 2 * parts["cross_entropy"] + 15)


def test_a_second_ladder_reads_what_the_first_trained(trained, monkeypatch):
    again = copy.copy(trained)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("trained again"))
    again.train()
    assert again.runs.keys() == trained.runs.keys()


def test_rungs_are_compared_at_the_seeds_that_both_have(trained):
    partial = copy.copy(trained)
    partial.runs = {key: run for key, run in trained.runs.items() if key != ("joint", 1)}
    read = lambda rung, seed: torch.tensor([float(seed)])  # noqa: E731
    for pair, seeds in ((("frozen", "control"), [0, 1]), (("joint", "control"), [0]), (("joint", "degraded"), [0])):
        assert partial.paired(*pair, read)[0].flatten().tolist() == seeds
    above, below = trained.paired("frozen", "degraded", read)
    assert above.flatten().tolist() == [0, 1] and below.flatten().tolist() == [0, 0]  # what is not trained has no seed


def test_a_difference_is_above_less_below(trained):
    correct = {("frozen", 0): [1, 1, 1, 0], ("frozen", 1): [1, 1, 1, 1], ("control", 0): [1, 0, 0, 0],
               ("control", 1): [1, 1, 1, 0]}  # fmt: skip
    fake = copy.copy(trained)
    fake.test_labels = torch.ones(4)
    fake.test = lambda rung, seed: {"prediction": torch.tensor(correct[rung, seed])}
    gain = fake.compare("frozen", "control")
    assert (gain["points"], gain["by_seed"]) == (37.5, [50.0, 25.0]) and gain["low"] <= 37.5 <= gain["high"]
    # the first degradation, which all were trained on, does not count
    fake.unseen = lambda rung, seed: torch.tensor([[rung == "control"] * 4, correct[rung, seed]]).bool()
    gain = fake.compare_unseen("frozen", "control")
    assert (gain["points"], gain["by_seed"]) == (37.5, [50.0, 25.0])


def test_disagreements_hold_gains_then_losses(trained, monkeypatch):
    right = {"joint": torch.tensor([1, 1, 1, 0, 1, 0]).bool(), "control": torch.tensor([0, 0, 1, 1, 0, 0]).bool()}
    monkeypatch.setattr(Ladder, "correct", lambda self, rung, seeds: right[rung][None])
    fake = copy.copy(trained)
    fake.test = lambda rung, seed: {"probability": torch.tensor([0.1, 0.9, 0.5, 0.5, 0.4, 0.5])}
    assert ladder.disagreements(fake, "joint", "control", 4).tolist() == [1, 4, 0, 3]
    assert ladder.disagreements(fake, "joint", "joint", 3).tolist() == [1, 2, 3]  # none: the surest


def test_a_new_arm_is_one_entry(tmp_path, monkeypatch):
    monkeypatch.setitem(ladder.ARMS, "half", Arm("srnet", trains_sr=True, lambda_sr=0.5))
    monkeypatch.setattr(ladder, "RUNGS", (*ladder.RUNGS, "half"))
    rungs = build(tmp_path, arms=["half"], seeds=[0], sweep=[])
    rungs.train()
    assert rungs.runs["half", 0].info["settings"]["lambda_sr"] == 0.5
    assert "half" in rungs.table().index


@pytest.mark.parametrize("changes, said", [
    ({"num_valid": 20}, "num_valid must be task 2's"), ({"arms": ["jiont"]}, "no arm jiont; there are control"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_named(tmp_path, changes, said):
    refuses(ValueError, said, lambda: build(tmp_path, **changes).train())


def test_everything_is_recorded(trained):
    trained.record()
    info = runs.read_info(trained.folder)
    assert [row["rung"] for row in info["summary"]] == list(ladder.RUNGS)
    assert list(trained.weights_table().index) == ["λ = 0", "λ = 1", "λ = 10", "frozen"]
    assert info["gaps"].keys() == {"1"} and len(info["unseen"]) == 6 and len(info["comparisons"]) == 13
