"""Files that are whole or absent, weights that load anywhere, kept answers, and a lock on every kind of drive."""
import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from tools import files

from .conftest import refuses, same
from .test_training import new_model


def named(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("change", [
    dict, lambda state: {"params": state}, lambda state: {"state_dict": named("module.", state), "epoch": 3},
    lambda state: {name: value.half() for name, value in named("module.", state).items()},
    lambda state: named("_orig_mod.", state), lambda state: named("module._orig_mod.", state),
    lambda state: {"epoch": 3, "model_state_dict": state}, lambda state: {"state_dict": named("model.", state)},
    lambda state: {"epoch": 3, "network": nn.Linear(2, 2).state_dict(), "best_weights": state},  # a checkpoint.pth
])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_load_from_every_usual_form(tmp_path, change, zipped):
    model = new_model().half().float()  # values that float16 holds
    torch.save(change(model.state_dict()), tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    loaded = files.load_weights(new_model(), tmp_path / "model.pth")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32} and same(loaded, model) and not loaded.training


def test_a_network_may_itself_be_named_like_a_wrapper(tmp_path):
    model = nn.ModuleDict({"model": nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert same(files.load_weights(nn.ModuleDict({"model": nn.Linear(2, 2)}), tmp_path / "model.pth"), model)


def test_files_that_hold_other_things_are_named_and_no_sound_one_is_to_be_deleted(tmp_path):
    path, model, wider = tmp_path / "model.pth", new_model(), new_model(num_channels=8).state_dict()
    for content, said in ((model, r"a whole pickled module.*state_dict\(\)"), (torch.ones(3), "no weights"),
                          ({"weight": torch.ones(3)}, "another network's weights"), ([1, 2], "no weights"),
                          (wider, r"encoder\.conv\.bias is \(8,\) there and \(4,\) here"),
                          ({"epoch": 3}, "another network's weights")):  # fmt: skip
        torch.save(content, path)
        with pytest.raises(ValueError, match=said) as caught:
            files.load_weights(model, path)
        assert str(path) in str(caught.value) and "elete" not in str(caught.value)
    torch.save(model.state_dict(), path)
    whole = bytearray(path.read_bytes())
    for damaged in (whole[:1000], b"", b"<html>", whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]):
        path.write_bytes(damaged)
        refuses(ValueError, r"model\.pth", files.load_weights, model, path)
    refuses(FileNotFoundError, "Run the notebook", files.load_weights, model, tmp_path / "none.pth")


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    return fail


def test_write_whole_leaves_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / ("结果 " + 82 * "果")  # a name of 255 bytes has room beside it
    files.write_json(path, {"a": 1})
    refuses(ZeroDivisionError, None, files.write_whole, path, lambda beside: beside.write_text("half") / 0)
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    refuses(OSError, r"结果 .* not be written \(No space left.*was there before is kept", files.write_json, path, 2)
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_an_answer_is_kept_for_its_key_alone_and_where_it_cannot_be_a_line_says_so(tmp_path, capsys):
    path, numbers = tmp_path / "deep" / "test.pth", iter(range(10))

    def cached(key, **options):
        return files.cached(path, lambda: {("answer", 1): torch.tensor(next(numbers))}, key, **options)[("answer", 1)]

    assert [cached(key).item() for key in ("a", "a", "b", "b", "a")] == [0, 0, 1, 1, 2]
    assert cached("c", restamp=True) == 2 == cached("c")  # taken for this key's
    path.write_bytes(path.read_bytes()[:100])
    refuses(ValueError, r"test\.pth cannot be read", cached, "c")
    path.unlink(), path.parent.rmdir(), path.parent.touch()  # no folder: as where nothing may be written
    assert cached("a") == 3 and capsys.readouterr().out.count("\n") == 1
    with pytest.raises(OSError, match="could not be written"), files.locked(path.parent):  # said before any wait
        pass


@pytest.mark.skipif(os.name == "nt", reason="flock is Unix's")
@pytest.mark.parametrize("number", [None, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_who_comes_second_waits_on_drives_without_locks_too(tmp_path, monkeypatch, capsys, number):
    import fcntl

    def second():
        with files.locked(tmp_path / "run"):
            return (tmp_path / "done").exists()

    if number:
        monkeypatch.setattr(fcntl, "flock", failing(number))
    for _ in range(2):  # what the first time leaves does not look held
        with ThreadPoolExecutor() as pool, files.locked(tmp_path / "run"):
            waiting = pool.submit(second)
            time.sleep(0.2)
            (tmp_path / "done").touch()
        assert waiting.result()
        (tmp_path / "done").unlink()
    assert capsys.readouterr().out.count("Another process is training in") == 2
