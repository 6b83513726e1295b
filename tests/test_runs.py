"""Runs: what a page shows and what it trains, the study that is never written over, checksums, faults."""
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import NetSet
from tools import notebooks, runs
from tools import settings as settings_tables

from . import faults
from .conftest import code, refuses, same, task_in, write_notebook, write_run
from .test_training import never, new_model

TABLE = {"learning_rate": (0.1, 0.2, 0.3, "peak"), "num_epochs": (1, 2, 3, ""), "steps_per_epoch": (2, 3, 2, ""),
         "dataset": (None, None, None, ""),
         "seeds": ([0], [0, 1], [0], ""), "seed": (0, 0, 0, "random seed")}  # fmt: skip
PAGE = '''
profile, data_root, results_root, changes = "auto", "DS", "results", {}


import torch
import training
from tools import runs
task = runs.begin("task2", profile, data_root, results_root, changes)
settings, steps, begun, first = task.settings, [], [], task.profile


SHARE = {"": 1.0, "arm": 2.0}
def scaled(share):
    def loss(model, batch):
        return share * (model(batch["x"]) - batch["y"]).square().mean(), {}
    return loss


def batches(generator):
    for _ in range(settings.steps_per_epoch):
        x = torch.rand(4, 2, generator=generator)
        yield {"x": x, "y": x.sum(1, keepdim=True)}


def validate(model):
    return {"accuracy": -(model(torch.eye(2)) - 1).square().mean()}


data, degradation = {"name": "CIFAR-10", "fingerprint": "00"}, lambda img: img


def train(part):
    return training.fit(task, lambda: torch.nn.Linear(2, 1), scaled(SHARE[part]), batches, validate, data,
                        degradation, part, report=lambda step, values, run: steps.append(task.profile))


found = runs.together(task, lambda: {part: train(part) for seed in settings.seeds
                                     for part in begun.append(seed) or SHARE})
'''


@pytest.fixture
def page(tmp_path, monkeypatch, capsys):
    """page(old, new, ...) runs the page with that edit; returns its names and what it printed, bars apart."""
    monkeypatch.setitem(settings_tables.TABLES, "task2", TABLE)
    monkeypatch.setattr(runs.folders, "is_there", lambda name, root: True)
    monkeypatch.setattr(runs, "fetch_missing", lambda *_: [])
    (tmp_path / "data").mkdir()

    def run(old="", new="", **parameters):
        assert old in PAGE
        first, *cells = PAGE.replace(old, new, 1).split("\n\n\n") if old else PAGE.split("\n\n\n")
        write_notebook(tmp_path / "page.ipynb", code(first, "parameters"), *map(code, cells))
        roots = {"data_root": str(tmp_path / "data"), "results_root": str(tmp_path / "results")}
        names = notebooks.run_cells(tmp_path / "page.ipynb", roots | parameters)
        lines = [line for line in capsys.readouterr().out.split("\n") if "\r" not in line]
        return names, [line for line in lines if "differs" in line]

    return run


def content(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def places(names) -> list[str]:
    return [run.folder.relative_to(names["task"].results_root).parts[0] for run in names["found"].values()]


def test_a_study_is_shown_while_the_page_is_the_one_that_made_it_and_never_written_over(page, tmp_path):
    first, _ = page(profile="study")
    assert places(first) == ["task2", "task2"] and first["steps"]
    before = content(tmp_path / "results" / "task2")
    shown, lines = page()
    assert places(shown) == ["task2", "task2"] and not shown["steps"] and not lines
    assert shown["first"] == "study" and same(shown["found"]["arm"].network, first["found"]["arm"].network)

    edited, lines = page('"arm": 2.0', '"arm": 3.0')  # the first part does not differ: it trains along all the same
    words = "This page differs from the study: loss edited. It trains with the quick settings, in results/lab"
    assert len(lines) == 1 and lines[0].startswith(words)
    assert places(edited) == ["lab", "lab"] and {*edited["steps"]} == {"quick"}
    assert shown["begun"] == [0, 1] and edited["begun"] == [0, 0]  # not the study's second seed with quick settings
    assert edited["settings"] is edited["task"].settings == settings_tables.choose("task2", "quick")  # in place
    assert edited["found"]["arm"].info["settings"]["num_epochs"] == 1

    again, lines = page('"arm": 2.0', '"arm": 4.0', profile="study")
    assert places(again) == ["task2", "lab"] and len(again["found"]["arm"].history) == 2
    assert len(lines) == 1 and "the study's settings (6 steps; the study's: 0.0 h on CPU" in lines[0]
    assert not page('"arm": 2.0', '"arm": 3.0')[0]["steps"]  # going back finds what was trained
    assert not page('"arm": 2.0', '"arm": 4.0', profile="study")[0]["steps"]
    assert content(tmp_path / "results" / "task2") == before


@pytest.mark.parametrize("old, new, words", [
    ('"fingerprint": "00"', '"fingerprint": "01"', "data edited"),
    ('"name": "CIFAR-10"', '"name": "drawn shapes"', "data CIFAR-10 → drawn shapes"),
    ('{"name": "CIFAR-10", "fingerprint": "00"}', '{"name": "crops", "fingerprint": "9", "photographs": True}', "data"),
    ("lambda img: img", "lambda img: img // 2", "degradation edited"),
    ("Linear(2, 1)", "Linear(2, 1, bias=False)", "network edited"),
    ("x.sum(1, keepdim=True)", "x.mean(1, keepdim=True)", "batches edited"),
    ("eye(2)) - 1", "eye(2)) - 2", "validate edited"),
    ("degradation, part,", "degradation, part, mode='min',", "monitor accuracy max → accuracy min"),
    ("scaled(SHARE[part])", "lambda model, batch: scaled(1.0)(model, batch)", "loss edited"),
])  # fmt: skip
def test_whatever_differs_from_the_study_is_named(page, old, new, words):
    page(profile="study")
    edited, lines = page(old, new)
    assert len(lines) == 1 and f"differs from the study: {words}" in lines[0]
    assert places(edited) == ["lab", "lab"] and {*edited["steps"]} == {"quick"}


def test_photographs_need_not_be_here_to_show_a_study(page):
    photographs = '"fingerprint": "00", "photographs": True'
    page('"fingerprint": "00"', photographs, profile="study")
    shown, lines = page('"fingerprint": "00"', photographs.replace("00", "embedded sample"))
    assert places(shown) == ["task2", "task2"] and not lines and not shown["steps"]


def test_changes_under_auto_are_quick_with_that_change_and_under_study_a_run_of_the_lab(page):
    page(profile="study")
    quick, lines = page(changes={"learning_rate": 0.5})
    assert quick["first"] == "quick" and not lines and places(quick) == ["lab", "lab"]
    assert quick["settings"] == settings_tables.choose("task2", "quick", {"learning_rate": 0.5})
    assert quick["found"]["arm"].info["changed"] == ["learning_rate 0.1 → 0.5"]
    study, lines = page(changes={"learning_rate": 0.5}, profile="study")
    assert places(study) == ["lab", "lab"] and study["settings"].num_epochs == 2
    assert len(lines) == 1 and "learning_rate 0.2 → 0.5" in lines[0]
    for old, new, words in (('"arm": 2.0', '"arm": 4.0', "loss edited"), ("Linear(2, 1)", "Linear(2, 1, bias=False)",
                            "network() edited"), ("lambda img: img", "lambda img: img // 2", "degradation edited")):
        edited, _ = page(old, new, changes={"seed": 3})
        assert {*edited["found"]["arm"].info["changed"]} == {"seed 0 → 3", words}


def test_a_changed_run_of_a_study_that_is_not_there_does_not_become_it(page, tmp_path):
    names, _ = page(changes={"seed": 1}, profile="study")
    assert places(names) == ["lab", "lab"] and not (tmp_path / "results" / "task2").exists()
    names, _ = page(changes={"seeds": [0]}, profile="study")  # which says only what to train
    assert places(names) == ["task2", "task2"]


def test_rewritten_code_of_the_same_effect_is_accepted_on_request(page, tmp_path, monkeypatch):
    page(profile="study")
    weights = (tmp_path / "results" / "task2" / "model.pth").read_bytes()
    task = task_in(tmp_path / "results", {})
    task.cached(tmp_path / "test.pth", lambda: {"a": torch.ones(1)}, {"code": 1})
    monkeypatch.setenv(runs.ACCEPT, "1")
    accepted, lines = page("return share *", "return 1 * share *")
    assert task.cached(tmp_path / "test.pth", never, {"code": 2})["a"] == 1
    monkeypatch.delenv(runs.ACCEPT)
    shown, lines = page("return share *", "return 1 * share *")
    assert places(accepted) == places(shown) == ["task2", "task2"] and not lines
    assert not accepted["steps"] + shown["steps"]
    assert (tmp_path / "results" / "task2" / "model.pth").read_bytes() == weights
    assert task.cached(tmp_path / "test.pth", never, {"code": 2})["a"] == 1


def test_runs_are_listed_with_what_differs_the_newest_first(page, tmp_path):
    page(profile="study")
    page(changes={"learning_rate": 0.5})
    page(changes={"learning_rate": 0.7})
    table = runs.table("task2", tmp_path / "results")
    assert len(table) == 6 and table["what differs"].value_counts().to_dict() == {
        "–": 2, "learning_rate 0.1 → 0.5": 2, "learning_rate 0.1 → 0.7": 2}
    assert table.accuracy.dtype == float and table.epochs.tolist() == [1, 1, 1, 1, 2, 2]
    assert {"task2", "task2/arm"} <= set(table.index) and not len(runs.table("task1", tmp_path / "results"))


@pytest.mark.parametrize("asked, finished, data_is_there, changes, expected", [
    ("auto", True, True, {}, "study"), ("auto", True, False, {}, "quick"), ("auto", False, True, {}, "quick"),
    ("auto", None, True, {}, "quick"), ("auto", True, True, {"seed": 7}, "quick"), ("quick", True, True, {}, "quick"),
    ("reference", None, False, {}, "reference"), ("study", True, True, {}, "study"), ("study", None, True, {}, "study"),
    ("study", True, False, {}, None), ("auto", True, False, {"dataset": "mine"}, "quick"),
])  # fmt: skip
def test_begin(tmp_path, capsys, monkeypatch, asked, finished, data_is_there, changes, expected):
    fetched = []
    monkeypatch.setattr(runs, "fetch_missing", lambda *args: fetched.append(args) or args[0][data_is_there:])
    if finished is not None:
        write_run(tmp_path / "task2", {}, finished=finished)
    if expected is None:
        refuses(ValueError, r"needs CIFAR10 in .*run.py data", runs.begin, "task2", asked, tmp_path, tmp_path)
        return
    task = runs.begin("task2", asked, tmp_path, tmp_path, changes, download=False)
    own = "dataset" in changes  # one's own classes need no CIFAR-10
    assert fetched == [(() if own else ("CIFAR10",), tmp_path, False)]
    assert task.profile == expected and task.is_auto is (asked == "auto")
    assert task.settings == settings_tables.choose("task2", expected, changes)
    assert torch.initial_seed() == changes.get("seed", 0) and f"Profile {expected}" in capsys.readouterr().out


def test_a_run_loads_its_own_weights_alone(tmp_path):
    model = new_model()
    run = write_run(tmp_path, {}, model=model)
    assert same(model, run.load(new_model())) and run.identity == {"weights": run.info["weights"]}
    run.record(accuracy=0.5, niqe=float("nan"))
    assert runs.read_info(tmp_path)["accuracy"] == 0.5 and runs.read_info(tmp_path)["niqe"] is None
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "model.pth")
    refuses(ValueError, "not the file that its run", runs.read_run(tmp_path).load, new_model())
    (tmp_path / "model.pth").unlink()
    refuses(FileNotFoundError, "without its weights", runs.read_run(tmp_path).load, new_model())
    edited = (tmp_path / "run.json").read_text().replace("0.5", "0.6")
    for damaged in (edited, '{"finished": true}', "[]"):
        (tmp_path / "run.json").write_text(damaged)
        refuses(ValueError, r"run\.json .*Delete the folder", runs.read_run, tmp_path)


def test_a_study_s_results_are_not_written_over_by_an_edited_test(tmp_path, capsys):
    run = write_run(tmp_path / "task2", {}, model=new_model())
    assert run.record(summary={"clean": 0.9, "rows": [1]}) == run.folder
    before = content(run.folder)
    assert run.record(summary={"clean": 0.90001, "rows": [1]}) == run.folder and not capsys.readouterr().out  # rounding
    folder = run.record(summary={"clean": 0.8, "rows": [1]})
    assert content(run.folder) == before and "differs from the study's (summary)" in capsys.readouterr().out
    assert folder.parent == tmp_path / "lab" / "task2" and runs.read_info(folder)["summary"]["clean"] == 0.8
    assert runs.record(run.folder, runs.read_info(run.folder), environment={"torch": "9"}) == run.folder
    for name in ("lab", "lab/results"):  # a folder of results of one's own may be called so
        study = tmp_path / name / "task2"
        assert runs.record(study, {"finished": True, "a": 1}, a=2).parent == study.parent / "lab" / "task2"
    in_lab = write_run(tmp_path / "lab" / "task2" / "0123456789ab", {}, model=new_model())
    assert in_lab.record(accuracy=0.1) == in_lab.record(accuracy=0.2) == in_lab.folder
    assert runs.read_info(in_lab.folder)["accuracy"] == 0.2
    for folder, is_newer in ((in_lab.folder, True), (run.folder, False)):  # `run.py` prints what ran last
        os.utime(folder / "run.json", (0, 0))
        runs.record(folder, runs.read_info(folder))
        assert bool((folder / "run.json").stat().st_mtime) == is_newer


def test_results_of_several_runs_lie_in_the_study_or_in_a_folder_of_their_own(tmp_path):
    task = task_in(tmp_path, {})
    study, lab = tmp_path / "task2", tmp_path / "lab" / "task2"
    of_study, first, second = (SimpleNamespace(folder=place) for place in (study / "a", lab / "1", lab / "2"))
    assert runs.shared_folder(task, [of_study], "both") == study
    places = {runs.shared_folder(task, found, "both", *parts) for found, *parts in (
        [[of_study, first]], [[first, second]], [[second]], [[second], 3], [[]])}  # fmt: skip
    assert len(places) == 5 and {place.parent for place in places} == {lab}, "none would write over another's"


def test_trained_networks_load_by_name(tmp_path):
    sr, classifier = {"num_channels": 64, "num_blocks": 0}, {"num_channels": 8}
    pair = NetSet.MultiTaskNet(NetSet.make(sr, "srnet"), NetSet.make(classifier, "classifynet"))
    write_run(tmp_path / "task1", sr, model=pair.sr)
    write_run(tmp_path / "task2", classifier, model=pair.classifier)
    write_run(tmp_path / "multi" / "seed0" / "frozen", {}, model=pair)
    assert same(runs.load_network("srnet_x2", tmp_path), pair.sr) and same(runs.load_network("frozen", tmp_path), pair)
    assert not runs.load_network("classifier", tmp_path).training
    refuses(FileNotFoundError, "run study_colorization.ipynb first", runs.load_network, "colorize", tmp_path)
    refuses(ValueError, "no trained network 'mine'; there are srnet_x2, ", runs.load_network, "mine")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then refuses
@pytest.mark.parametrize("name", faults.FAULTS)
def test_faults_are_survived(name, tmp_path):
    survived_of, _, few = faults.FAULTS[name]
    assert survived_of(few, tmp_path) == few > 0
