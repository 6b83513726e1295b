"""A run's folder: weights that load anywhere, files that are whole or absent, settings compared as training reads."""
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import NetSet
from tools import runs

from .conftest import refuses, same, write_run
from .test_training import DATA, SETTINGS, fit, never, new_model


class OnAnotherDevice(torch.Tensor):
    """Stands in for a tensor on a GPU: only `cpu` brings a plain one."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def detach(self):
        return super().detach().as_subclass(OnAnotherDevice)


def test_what_is_saved_is_plain_and_on_the_cpu_at_every_depth(tmp_path):
    far = torch.arange(3.0).as_subclass(OnAnotherDevice)
    runs.save_tensors(tmp_path / "a.pth", {"state": {0: {"m": far}}, "groups": [{"p": far}], "pair": (far, 3)})
    content = torch.load(tmp_path / "a.pth", weights_only=True)  # as on a machine without CUDA, no map_location
    found = [content["state"][0]["m"], content["groups"][0]["p"], content["pair"][0]]
    assert all(type(value) is torch.Tensor and value.tolist() == [0, 1, 2] for value in found)
    assert content["pair"][1] == 3


def parallel(state):
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("change", [
    dict, lambda state: {"params": state}, lambda state: {"state_dict": parallel(state)},
    lambda state: {name: value.half() for name, value in parallel(state).items()},
])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_load_from_every_usual_form(tmp_path, change, zipped):
    model = new_model().half().float()  # values that float16 holds
    torch.save(change(model.state_dict()), tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    loaded = runs.load_weights(NetSet.ClassifyNet(num_classes=2, num_channels=4), tmp_path / "model.pth")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32} and same(loaded, model)


def test_files_that_hold_other_things_are_named_and_no_sound_one_is_to_be_deleted(tmp_path):
    path, model = tmp_path / "model.pth", new_model()

    wider = NetSet.ClassifyNet(num_classes=2, num_channels=8).state_dict()
    for content, said in ((model, r"a whole pickled module.*state_dict\(\)"), (torch.ones(3), "no weights"),
                          ({"weight": torch.ones(3)}, "another network's weights"), ([1, 2], "no weights"),
                          (wider, r"encoder\.conv\.bias is \(8,\) there and \(4,\) here")):  # fmt: skip
        torch.save(content, path)
        with pytest.raises(ValueError, match=said) as caught:
            runs.load_weights(model, path)
        assert str(path) in str(caught.value) and "elete" not in str(caught.value)
    torch.save(model.state_dict(), path)
    whole = bytearray(path.read_bytes())
    for damaged in (whole[:1000], b"", b"<html>", whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        path.write_bytes(damaged)
        refuses(ValueError, r"model\.pth", runs.load_weights, model, path)
    refuses(FileNotFoundError, "Run the notebook", runs.load_weights, model, tmp_path / "none.pth")


def test_a_run_loads_its_own_weights_alone(tmp_path):
    model, run = fit(tmp_path)
    assert same(model, runs.read_run(tmp_path).load(new_model()))
    run.record(accuracy=0.5, niqe=float("nan"))
    assert runs.read_info(tmp_path)["accuracy"] == 0.5 and runs.read_info(tmp_path)["niqe"] is None
    torch.save(new_model().state_dict(), tmp_path / "model.pth")
    refuses(ValueError, "not the file that its run", runs.read_run(tmp_path).load, new_model())
    (tmp_path / "model.pth").unlink()
    refuses(FileNotFoundError, "without its weights", runs.read_run(tmp_path).load, new_model())


def test_numbers_without_a_value_become_null(tmp_path):
    write_run(tmp_path, {}, scores={"a": math.inf, "b": [math.nan, torch.tensor(2.0)], "c": {1: -math.inf}})
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text, parse_constant=never)["scores"] == {"a": None, "b": [None, 2.0], "c": {"1": None}}


@pytest.mark.parametrize("name, damage", [
    ("run.json", lambda text: text[:20]), ("run.json", lambda text: text.replace("0.003", "0.004")),
    ("run.json", lambda text: '{"finished": true}'), ("run.json", lambda text: "[]"),
    ("history.csv", lambda text: text.replace("4", "5", 1)), ("history.csv", lambda text: ""),
])  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, name, damage):
    fit(tmp_path)
    path = tmp_path / name
    path.write_text(damage(path.read_text()))
    refuses(ValueError, rf"{name} .*[Dd]elete the folder", runs.read_run, tmp_path)


def test_write_whole_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "结果 file.json"
    runs.write_json(path, {"a": 1})
    refuses(ZeroDivisionError, None, runs.write_whole, path, lambda beside: beside.write_text("half") / 0)
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("settings, data, difference", [
    ({}, {}, None),
    ({"num_test": 10, "seeds": (0, 1), "arms": ["joint"]}, {}, None),  # no training reads them
    ({"cutout": 0, "weight_decay": 0.0, "patience": None, "momentum": 0.9, "rate_factors": {}}, {}, None),  # neutral
    ({"shape": (1, 2)}, {}, None),  # a tuple is a list to JSON
    ({"gone": ...}, {}, None),  # a setting of the stored run that there is no more
    ({}, {"name": "other data"}, None),
    ({"learning_rate": 0.1}, {}, r"learning_rate 0\.003 -> 0\.1"),
    ({"cutout": 8}, {}, "cutout None -> 8"),
    ({"optimizer": "sgd"}, {}, "optimizer None -> 'sgd'"),
    ({}, {"pretrained": {"task1": "cd"}}, r"pretrained .*ab.* -> .*cd.*"),
    ({}, {"pretrained": ...}, r"pretrained .*ab.* -> None"),
])  # fmt: skip
def test_find_run_compares_what_training_reads(tmp_path, settings, data, difference):
    stored = SETTINGS | {"shape": [1, 2], "gone": 3}, DATA | {"pretrained": {"task1": "ab"}}
    write_run(tmp_path, *stored)
    settings, data = ({name: value for name, value in (old | new).items() if value is not ...}
                      for old, new in zip(stored, (settings, data), strict=True))  # fmt: skip
    if difference is None:
        run = runs.find_run(tmp_path, settings, data)
        assert run.history.loss_valid.tolist() == [0.5] and not run.has_weights
    else:
        with pytest.raises(ValueError, match=rf"other settings \({difference}\).*delete that folder"):
            runs.find_run(tmp_path, settings, data)
    stays = difference is None and data["name"] == DATA["name"]
    assert (runs.find_run(tmp_path, settings, data, restart_on_change=True) is not None) is stays
    assert (tmp_path / "run.json").exists() is stays


def test_cached_computes_once_for_each_key(tmp_path):
    path, numbers = tmp_path / "deep" / "test.pth", iter([4, 5])
    for key, answer in ((["abc", 10], 4), (("abc", 10), 4), (["other", 10], 5)):  # a tuple is a list to JSON
        found = runs.cached(path, lambda: {"answer": torch.tensor([next(numbers)])}, key)
        assert found == {"answer": torch.tensor([answer])}


@pytest.mark.parametrize("asked, finished, data_is_there, expected", [
    ("auto", True, True, "study"), ("auto", True, False, "quick"), ("auto", False, True, "quick"),
    ("auto", None, True, "quick"), ("quick", True, True, "quick"), ("reference", None, False, "reference"),
    ("study", True, True, "study"), ("study", None, False, "study"), ("study", False, False, "study"),
    ("study", True, False, None),
])  # fmt: skip
def test_begin(tmp_path, capsys, monkeypatch, asked, finished, data_is_there, expected):
    asked_for = []
    monkeypatch.setattr(runs.datasets, "is_there", lambda name, root: asked_for.append(name) or data_is_there)
    if finished is not None:
        write_run(tmp_path / "task2", {}, finished=finished)
    if expected is None:
        refuses(ValueError, r"CIFAR10 is not in .*another results_root", runs.begin, "task2", asked, "none", tmp_path)
        return
    begun = runs.begin("task2", asked, "none", tmp_path, {"seed": 7})
    folder = {"study": "task2", "quick": "quick/task2", "reference": "reference/task2"}[expected]
    assert (begun.profile, begun.folder) == (expected, tmp_path / folder) and asked_for == ["CIFAR10"]
    assert begun.settings == runs.settings_tables.choose("task2", expected, {"seed": 7})
    assert begun.restart_on_change is (expected == "quick") and torch.initial_seed() == 7
    assert f"Profile {expected}" in capsys.readouterr().out
    assert begun.table().data.loc["learning_rate", "meaning"] == "peak"


def test_a_run_begun_meanwhile_with_other_settings_is_refused(tmp_path, capsys):
    with ThreadPoolExecutor() as pool:
        with runs.locked(tmp_path):
            second = pool.submit(fit, tmp_path, batches=never)
            time.sleep(0.5)  # it has found an empty folder, and waits
            write_run(tmp_path, SETTINGS | {"learning_rate": 1.0}, model=nn.Linear(1, 1))
        refuses(ValueError, r"learning_rate 1\.0 -> 0\.003", second.result)
    assert "Another process is training" in capsys.readouterr().out
