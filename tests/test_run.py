"""run.py: its commands, when it installs, what it prints at the end. No network, no package is installed."""
import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import run
from tools import notebooks
from tools.settings import choose

from .conftest import ROOT, code, random_image, refuses, save, write_notebook, write_run
from .test_training import never


def call(*args: str, cwd: Path, script: Path = ROOT / "run.py", encoding="utf-8") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(script), *args], cwd=cwd, capture_output=True, encoding=encoding,
                          env=os.environ | {"PYTHONIOENCODING": encoding}, stdin=subprocess.DEVNULL)  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of run.py with requirements that ask for nothing, in a folder with spaces and Chinese signs."""
    folder = tmp_path / "my project 超分辨率"
    (folder / "tools").mkdir(parents=True)
    for name in ("run.py", "tools/settings.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\n")
    for name in ("ROOT", "VENV", "VENV_PYTHON"):
        monkeypatch.setattr(run, name, folder / getattr(run, name).relative_to(ROOT))
    return folder


@pytest.fixture
def handed(monkeypatch) -> list[dict]:
    """The parameters that `train` hands to a notebook's cells."""
    parameters = []
    monkeypatch.setattr(notebooks, "run_cells", lambda path, given, until: parameters.append(given))
    return parameters


def test_help_and_unknown_commands_run_nothing(project):
    for args in (["test", "--help"], ["--no-venv", "list", "-h"]):
        done = call(*args, cwd=project, script=project / "run.py")
        assert done.returncode == 0 and all(f"  {name}" in done.stdout for name in run.COMMANDS)
    done = call("trian", cwd=project, script=project / "run.py")
    assert done.returncode == 2 and "unknown command 'trian'" in done.stderr and "quick [NOTEBOOK ...]" in done.stderr
    assert not (project / ".venv").exists()


ONE = {"sweep": [], "adapt_lengths": {}, "labels": {}}  # --seed also trains an arm that the study has at fewer seeds


@pytest.mark.parametrize("options, profile, changes", [
    (["multi_learning.ipynb", "--arm", "joint", "--seed", "1"], "study",
     [{"arms": ["joint"], "seeds": [1], "arm_seeds": {}, **ONE}]),
    (["multi_learning.ipynb", "--profile", "quick", "--seed", "0", "changes={'num_test': 50}"], "quick",
     [{"num_test": 50, "seeds": [0], "arm_seeds": {}, **ONE}]),
    (["task1_sr.ipynb", "--seed", "1", "num_blocks=3"], "study", [{"num_blocks": 3, "seed": 1}]),
    (["task1_sr.ipynb", "--sweep", "num_blocks=1,2"], "study", [{"num_blocks": 1}, {"num_blocks": 2}]),
    (["task1_sr.ipynb", "--sweep", "network=srnet,mine"], "study", [{"network": "srnet"}, {"network": "mine"}]),
    (["multi_learning.ipynb", "--sweep", "arms=[1,2],[3]"], "study", [{"arms": [1, 2]}, {"arms": [3]}]),
])  # fmt: skip
def test_train_hands_its_options_to_the_cells(handed, options, profile, changes):
    assert run.train([*options, "n=word"]) == 0
    assert handed == [{"profile": profile, "n": "word", "changes": each} for each in changes]


@pytest.mark.parametrize("options, message", [
    (["b.ipynb"], "no notebook b.ipynb; there are: "), (["task1_sr.ipynb", "quick"], "NAME=VALUE"),
    (["task1_sr.ipynb", "--arm", "joint"], "has no arms to choose from"),
    (["task1_sr.ipynb", "--sweep", "num_blocks"], "NAME=VALUE"),
    (["task1_sr.ipynb", "changes={"], "must be a dict of settings, found '{'"),
])  # fmt: skip
def test_train_says_what_is_wrong_in_a_sentence(handed, capsys, options, message):
    with pytest.raises(SystemExit) as caught:
        run.train(options)
    assert message in f"{caught.value} {capsys.readouterr().err}" and caught.value.code and not handed


def test_a_console_that_lacks_a_letter_stops_no_command_and_an_error_is_one_sentence(tmp_path):
    save(tmp_path / "数据" / "Set5" / "a.png", random_image(8, 8))
    done = call("--no-venv", "data", "--root", "数据", cwd=tmp_path, encoding="cp1252")
    assert done.returncode == 0 and re.search(r"Set5 +\\u6570\\u636e/Set5, 1 images\n", done.stdout)
    for args, said in ((("data", "--root", "没有"), r"\\u6ca1\\u6709 is no folder"),
                       (("upscale", "数据/Set5", "--out", "没有.jpg"), "results are PNG files"),
                       (("train", str(ROOT / "task1_sr.ipynb"), "num_epochs=1.5"), "num_epochs must be a whole num")):
        done = call("--no-venv", *args, cwd=tmp_path, encoding="cp1252")
        assert done.returncode == 1 and re.fullmatch(f"run.py: .*{said}.*\n", done.stderr)


def test_what_could_not_be_written_is_said_before_the_work(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(run, "LAB", tmp_path / "file")
    monkeypatch.setattr(notebooks, "execute", never)
    refuses(OSError, "notebooks.* could not be written", run.quick, ["task1_sr.ipynb"])


def test_an_interrupt_is_one_line_and_130(tmp_path):
    stopped = code("profile = 1\nraise KeyboardInterrupt", "parameters")
    write_notebook(tmp_path / "a.ipynb", stopped, code("pass", "training"))
    done = call("--no-venv", "train", "a.ipynb", cwd=tmp_path)
    assert done.returncode == 130 and done.stderr.strip() == "interrupted; run the same command again, it resumes"


def test_test_fails_when_ruff_or_pytest_fails(monkeypatch):
    calls = []
    monkeypatch.setattr(run, "python", lambda *command: calls.append(command[1:]) or codes[command[1]])
    for codes in ({"ruff": 0, "pytest": 0}, {"ruff": 1, "pytest": 0}, {"ruff": 0, "pytest": 5}):
        assert bool(run.test(["-k", "psnr"])) is any(codes.values())
    assert calls[0] == ("ruff", "check", ".")
    assert calls[1][0] == "pytest" and calls[1][-2:] == ("-k", "psnr")


def test_a_study_trains_what_is_missing_then_runs_in_place(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(run, "run_notebooks", lambda *args: calls.append(("execute", *args)))
    monkeypatch.setattr(notebooks, "run_cells", lambda path, parameters, until: calls.append((path.name, parameters)))
    monkeypatch.setattr(run, "find_notebook", Path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "DS" / "Set14").mkdir(parents=True)  # empty
    for names in ([], ["multi_learning.ipynb"]):  # which builds on the first two
        refuses(SystemExit, "study needs CIFAR10 and Set14 and Set5 in DS/", run.study, names)
    for name in ("Set14", "Set5"):
        save(tmp_path / "DS" / name / "HR" / "a.png", random_image(8, 8))
    refuses(SystemExit, "found mine.ipynb", run.study, ["mine.ipynb"])
    assert not calls and run.study(["task1_sr.ipynb"]) == 0 and run.quick(["task1_sr.ipynb"]) == 0
    assert calls == [("task1_sr.ipynb", {"profile": "study"}), ("execute", ["task1_sr.ipynb"], None, None),
                     ("execute", ["task1_sr.ipynb"], run.LAB / "notebooks", {"profile": "quick"})]  # fmt: skip


def test_what_a_study_lacks_is_listed_with_its_cost_and_trained_several_at_a_time(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    multi = tmp_path / "results" / "multi"
    write_run(multi / "seed1" / "control", {}, time_seconds=7200, environment={"device": "CPU"})
    write_run(multi / "labels" / "seed0" / "4" / "frozen", {}, time_seconds=60, environment={"device": "CPU"})
    assert run.study(["multi_learning.ipynb", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    s = choose("multi", "study")
    num_runs = sum(len(s.seeds_of(arm)) for arm in s.arms) + len(s.sweep)
    num_runs += sum(map(len, [*s.adapt_lengths.values(), *s.labels.values()]))
    assert len(lines) == num_runs - 2 and "multi seed0/control: 2.0 h on CPU" in lines
    assert "multi seed0/joint: unknown" in lines and not any("seed1/control" in line for line in lines)
    assert run.study(["study_srgan_x4.ipynb", "--list"]) == 0  # two runs by one command, each listed
    assert capsys.readouterr().out.splitlines() == ["srgan_x4: unknown", "srgan_x4 srresnet: unknown"]
    refuses(SystemExit, "no task task3; there are task1, task2", run.list_runs, ["task3"])
    trained = []
    monkeypatch.setattr(run, "python", lambda *command, **_: trained.append(command) or int("joint" in command))
    monkeypatch.setattr("tools.folders.is_there", lambda *_: True)
    monkeypatch.setattr(run, "train", lambda args: trained.append(args))
    monkeypatch.setattr(run, "run_notebooks", lambda *_: None)
    refuses(SystemExit, "failed, see above: multi seed0/joint, ", run.study, ["multi_learning.ipynb", "--jobs", "2"])
    assert len(trained) == len(lines)
    run.train_at_once(run.missing_runs("study_srgan_x4.ipynb"), 2)
    assert len(trained) == len(lines) + 1
    assert ("run.py", "--no-venv", "train", "multi_learning.ipynb", "--arm", "joint", "--seed", "2") in trained


def test_requirements_are_installed_once_and_again_when_they_change(project, monkeypatch):
    installs, code = [], 0

    def fake(command, **_):
        if "install" in command:
            installs.append(Path(command[-1]).name)
        return subprocess.CompletedProcess(command, code)

    (project / ".venv").mkdir()
    monkeypatch.setattr(run, "python_version", lambda: "3.11")
    monkeypatch.setattr(run.subprocess, "run", fake)
    for dev in (False, False, True, True, False):
        run.make_environment(dev)
    assert installs == ["requirements.txt", "requirements-dev.txt"]
    (project / "requirements.txt").write_text("numpy\n")
    for code in (1, 0):  # noqa: B007, which `fake` reads; a failed install is not remembered as done
        for dev in (False, True):
            with contextlib.suppress(SystemExit):
                run.make_environment(dev)
    assert installs[2:] == ["requirements.txt", "requirements-dev.txt"] * 2
    monkeypatch.setattr(run, "python_version", lambda: "3.12")  # a new Python has nothing yet
    run.make_environment(dev=False)
    assert len(installs) == 7
    monkeypatch.setattr(run, "python_version", str)
    refuses(SystemExit, "apt install python3-venv", run.make_environment, dev=False)


def test_the_command_runs_in_the_environment_that_is_there(project, tmp_path):
    """The real thing, with pip left out so that it takes a second: the stamp says that all is installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")], check=True)
    stamp = project / ".venv" / "installed-requirements-dev.txt"
    stamp.write_text(f"{run.python_version()}\n# nothing\n\n-r requirements.txt\n")
    done = call("setup", cwd=tmp_path, script=project / "run.py")
    assert done.returncode == 0 and done.stdout.startswith(f"ready: {project / '.venv'}")


def test_list_and_summary_show_runs_with_their_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "LAB", tmp_path / "results" / "lab")
    rows = [{"rung": "clean", "accuracy": 0.9}, {"rung": "joint", "psnr_db": 28.126}]
    for age, summary in ((2e9, rows[:1]), (3e9, rows)):
        write_run(run.LAB / "multi" / str(age), {}, {"name": "CIFAR-10"}, summary=summary, test_data=["Set5", "Set14"])
        os.utime(run.LAB / "multi" / str(age) / "run.json", (age, age))
    write_run(run.LAB / "task1" / "a", {}, {"name": "sample"}, summary={"SSIM": 0.91}, changed=["loss edited"])
    write_run(run.LAB / "task2" / "no summary", {})
    shown = [" ".join(line.split()) for line in run.summarize(["multi", "task2", "task1"]).splitlines()]
    assert shown == ["multi, on Set5, Set14 (trained on CIFAR-10)", "rung accuracy psnr_db", "clean 0.9000 -",
                     "joint - 28.13", "", "task1, on sample (trained on sample)", "SSIM", "0.9100"]  # fmt: skip
    assert run.COMMANDS["list"](["task1"]) == 0 and "loss edited" in capsys.readouterr().out
