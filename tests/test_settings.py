"""The tables of settings: complete, of one kind in a row, read as a dict with attributes; wrong values are named."""
import copy
import pickle

import numpy as np
import pytest

from tools import settings

from .conftest import refuses


@pytest.mark.parametrize("task", settings.TABLES)
def test_rows_hold_one_kind_of_value_and_every_value_may_be_set(task):
    for name, (*values, _) in settings.TABLES[task].items():
        kinds = {float if isinstance(value, int) and not isinstance(value, bool) else type(value) for value in values}
        assert len(values) == 3 and len(kinds - {type(None)}) <= 1, name
        for value in values:
            assert settings.choose(task, "quick", {name: value})[name] == value
    assert settings.OPTIMIZATION.keys() <= settings.TABLES[task].keys()  # what every training reads


def test_choose_takes_one_column_and_refuses_unknown_names():
    assert settings.choose("task1", "quick").num_blocks == 2 and settings.choose("task1", "study").num_blocks == 8
    assert settings.choose("task1", "reference").scale_factor == 2
    assert settings.choose("task2", "study", {"flip": False}).flip is False
    others = {"learning_rate": 1, "momentum": np.float32(0.5), "patience": 3}  # of kinds that the column does not show
    assert others.items() <= settings.choose("task2", "quick", others).items()
    for task, profile in (("task1", "seed"), ("task3", "quick")):
        refuses(ValueError, rf"no task '{task}' with a profile '{profile}'.*quick, study, reference", settings.choose,
                task, profile)  # fmt: skip
    refuses(ValueError, r"no setting is called epochs; there are .*num_valid, ", settings.choose, "task2", "quick",
            {"epochs": 2})  # fmt: skip


@pytest.mark.parametrize("name, value, said", [
    ("learning_rate", "1e-3", "learning_rate must be a number, found '1e-3'"),
    ("learning_rate", -1.0, "finite number of 0 or more, found -1"),
    ("learning_rate", float("nan"), "finite number of 0 or more, found nan"),
    ("num_epochs", 1.5, r"num_epochs must be a whole number, found 1\.5"),
    ("num_epochs", True, "num_epochs must be a whole number, found True"),
    ("batch_size", 0, "batch_size must be 1 or more, found 0"), ("step_epochs", 0, "step_epochs must be 1 or more"),
    ("flip", "no", "flip must be True or False, found 'no'"), ("num_epochs", None, "whole number, found None"),
    ("patience", "3", "patience must be a whole number, found '3'"),
])  # fmt: skip
def test_a_wrong_value_is_one_sentence(name, value, said):
    refuses(ValueError, said, settings.choose, "task2", "quick", {name: value})


def test_settings_are_a_dict_with_attributes():
    chosen = settings.choose("multi", "quick")
    assert copy.deepcopy(chosen) == pickle.loads(pickle.dumps(chosen)) == chosen
    assert not hasattr(chosen, "none") and getattr(chosen, "none", 3) == 3
    refuses(AttributeError, "no setting is called none", getattr, chosen, "none")
    trained = chosen.trained(seed=5)
    assert trained["seed"] == 5 and "num_test" not in trained and "arms" not in trained
    assert set(chosen) - set(trained) <= settings.NOT_TRAINED
