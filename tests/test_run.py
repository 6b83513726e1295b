"""run.py: its commands, when it installs, what it prints at the end. No network, no package is installed."""
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import run
from tools import notebooks

from .conftest import ROOT, random_image, refuses, save, write_run


def call(*args: str, cwd: Path, script: Path = ROOT / "run.py", **env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(script), *args], cwd=cwd, capture_output=True, encoding="utf-8",
                          env=os.environ | {"PYTHONIOENCODING": "utf-8"} | env, stdin=subprocess.DEVNULL)  # fmt: skip


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


def notebook(path: Path, *cells: tuple[str, list[str]]) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(source, metadata={"tags": tags}) for source, tags in cells]), path)
    return path


def test_help_and_unknown_commands_run_nothing(project):
    for args in (["test", "--help"], ["--no-venv", "study", "-h"]):
        done = call(*args, cwd=project, script=project / "run.py")
        assert done.returncode == 0 and all(f"  {name}" in done.stdout for name in run.COMMANDS)
    done = call("trian", cwd=project, script=project / "run.py")
    assert done.returncode == 2 and "unknown command 'trian'" in done.stderr and "quick [NOTEBOOK ...]" in done.stderr
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("name, options, shown", [
    ("multi_learning.ipynb", ["--arm", "joint", "--seed", "1", "n=41"],
     ("study", {"arms": ["joint"], "seeds": [1], "sweep": [], "adapt_lengths": []}, 41)),
    ("multi_learning.ipynb", ["--profile", "quick", "--seed", "1", "changes={'num_test': 50}", "n=word"],
     ("quick", {"num_test": 50, "seeds": [1], "sweep": [], "adapt_lengths": []}, "word")),
    ("study_colorization.ipynb", ["--arm", "unet"], ("study", {"arms": ["unet"]}, 1)),
    ("mine.ipynb", [], ("study", {}, 1)),
])  # fmt: skip
def test_train_runs_the_cells_up_to_training_with_the_arm_and_seed(tmp_path, capsys, monkeypatch, name, options, shown):
    cells = (("profile, changes, n = 'auto', {}, 1", ["parameters"]), ("profile, changes, n", ["training"]))
    path = str(notebook(tmp_path / name, *cells, ("1 / 0", [])))
    assert run.train([path, *options]) == 0 and capsys.readouterr().out == f"{shown}\n"
    monkeypatch.setenv("RANK", "1")  # of torchrun's processes the first alone prints
    assert run.train([path, *options]) == 0 and not capsys.readouterr().out


PARAMETERS = "profile, data_root, results_root, changes = 'auto', 'DS', 'results', {}"
BEGIN = """from tools import runs
task = runs.begin("task1", profile, data_root, results_root, changes, download=False)"""


@pytest.mark.parametrize("options, message", [
    (["b.ipynb"], "no notebook b.ipynb; there are: "), (["a.ipynb", "quick"], "NAME=VALUE"),
    (["a.ipynb", "profil=quick"], "no parameter profil"), (["a.ipynb", "--arm", "joint"], "has no arms to choose from"),
    (["a.ipynb", "changes={"], "must be a dict of settings, found '{'"),
    (["a.ipynb", "--sweep", "num_blocks"], "NAME=VALUE"),
    (["task1_sr.ipynb", "--sweep", "blocks=1,2"], "no setting is called blocks"),
    (["task1_sr.ipynb", "num_epochs=1.5"], "num_epochs must be a whole number, found 1.5"),
    (["task1_sr.ipynb", "data_root=none"], "none is no folder"),
])  # fmt: skip
def test_train_says_what_is_wrong_in_a_sentence(tmp_path, monkeypatch, capsys, options, message):
    notebook(tmp_path / "a.ipynb", ("profile, changes = 'study', {}", ["parameters", "training"]))
    notebook(tmp_path / "task1_sr.ipynb", (PARAMETERS, ["parameters"]), (BEGIN, ["training"]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run.train(options)
    assert message in f"{caught.value} {capsys.readouterr().err}" and caught.value.code


@pytest.mark.parametrize("sweep, values", [
    ("num_blocks=1,2", [1, 2]), ("network=srnet,resshuffle", ["srnet", "resshuffle"]), ("network=[1,2]", [[1, 2]]),
])  # fmt: skip
def test_a_sweep_trains_a_run_for_each_value_and_lists_them(tmp_path, monkeypatch, capsys, sweep, values):
    def cells(path, parameters, until):
        value = parameters["changes"][sweep.split("=")[0]]
        write_run(tmp_path / "results/lab/task1" / str(value), {}, {"name": "A"}, changed=[f"{value} is new"])

    monkeypatch.setattr(notebooks, "run_cells", cells)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    (tmp_path / "task1_sr.ipynb").touch()
    assert run.train(["task1_sr.ipynb", "--sweep", sweep, "seed=3"]) == 0
    listed = capsys.readouterr().out
    assert all(f"lab/task1/{value} " in listed and f"{value} is new" in listed for value in values)
    assert listed.count("is new") == len(values)


def test_an_interrupt_is_one_line_and_130(tmp_path):
    notebook(tmp_path / "a.ipynb", ("profile = 1", ["parameters"]), ("raise KeyboardInterrupt", ["training"]))
    done = call("--no-venv", "train", "a.ipynb", cwd=tmp_path)
    assert done.returncode == 130 and done.stderr.strip() == "interrupted; run the same command again, it resumes"


def test_test_fails_when_ruff_or_pytest_fails(monkeypatch):
    calls = []
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: calls.append(command[2:]) or next(codes))
    for pair, failed in (((0, 0), False), ((1, 0), True), ((0, 1), True), ((0, 5), True)):
        codes = (subprocess.CompletedProcess([], code) for code in pair)
        assert bool(run.test(["-k", "psnr"])) is failed
    assert calls[:2] == [["ruff", "check", "."], ["pytest", "-k", "psnr"]]


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


def test_summary_shows_the_newest_runs_data_and_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "LAB", tmp_path)
    rows = [{"rung": "clean", "accuracy": 0.9}, {"rung": "joint", "psnr_db": 28.126}]
    for age, summary in ((2e9, rows[:1]), (3e9, rows)):
        write_run(tmp_path / "multi" / str(age), {}, {"name": "CIFAR-10"}, summary=summary, test_data=["Set5", "Set14"])
        os.utime(tmp_path / "multi" / str(age) / "run.json", (age, age))
    write_run(tmp_path / "task1" / "a", {}, {"name": "embedded sample"}, summary={"PSNR (dB)": 30.0, "SSIM": 0.91})
    write_run(tmp_path / "task2" / "no summary", {})
    shown = [" ".join(line.split()) for line in run.summarize(["multi", "task2", "task1"]).splitlines()]
    assert shown == ["multi, on Set5, Set14 (trained on CIFAR-10)", "rung accuracy psnr_db", "clean 0.9000 -",
                     "joint - 28.13", "", "task1, on embedded sample (trained on embedded sample)", "PSNR (dB) SSIM",
                     "30.00 0.9100"]  # fmt: skip
