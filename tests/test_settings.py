"""The tables of settings: complete, of one kind in a row, and read as a dict with attributes."""
import copy
import pickle

import pytest

from tools import settings


@pytest.mark.parametrize("task", settings.TABLES)
def test_rows_hold_one_kind_of_value(task):
    for name, (*values, _) in settings.TABLES[task].items():
        kinds = {float if isinstance(value, int) and not isinstance(value, bool) else type(value) for value in values}
        assert len(values) == 3 and len(kinds - {type(None)}) <= 1, name


def test_choose_takes_one_column_and_refuses_unknown_names():
    assert settings.choose("task1", "quick").num_blocks == 2 and settings.choose("task1", "study").num_blocks == 8
    assert settings.choose("task1", "reference").scale_factor == 2
    assert settings.choose("task2", "study", {"flip": False}).flip is False
    with pytest.raises(ValueError, match=r"no task 'task1' with a profile 'seed'.*quick, study, reference"):
        settings.choose("task1", "seed")
    with pytest.raises(ValueError, match="no setting is called epochs; there are num_valid, "):
        settings.choose("task2", "quick", {"epochs": 2})


def test_settings_are_a_dict_with_attributes():
    chosen = settings.choose("multi", "quick")
    assert copy.deepcopy(chosen) == pickle.loads(pickle.dumps(chosen)) == chosen
    assert not hasattr(chosen, "none") and getattr(chosen, "none", 3) == 3
    with pytest.raises(AttributeError, match="no setting is called none"):
        _ = chosen.none


def test_every_task_of_a_notebook_has_a_table_and_names_its_test_data():
    assert set(settings.NEEDS) == set(settings.NOTEBOOKS) <= set(settings.TABLES)
