"""run.py: its commands, when it installs, what it prints at the end. No network, no package is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import notebooks
import run

ROOT = Path(__file__).resolve().parent.parent


def call(
    *args: str, cwd: Path = ROOT, script: Path = ROOT / "run.py", **env: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(script), *args],
        cwd=cwd,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of run.py with requirements that ask for nothing, in a folder with spaces and Chinese signs."""
    folder = tmp_path / "my project 超分辨率"
    folder.mkdir()
    for name in ("run.py", "notebooks.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / "requirements.txt").write_text("# nothing\n")
    (folder / "requirements-dev.txt").write_text("-r requirements.txt\n")
    for name, path in {"ROOT": folder, "VENV": folder / ".venv"}.items():
        monkeypatch.setattr(run, name, path)
    monkeypatch.setattr(run, "VENV_PYTHON", folder / run.VENV_PYTHON.relative_to(ROOT))
    return folder


def notebook(*cells: tuple[str, list[str]]) -> str:
    rows = [
        {
            "cell_type": "code",
            "metadata": {"tags": tags},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for source, tags in cells
    ]
    return json.dumps({"cells": rows, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})


@pytest.mark.parametrize(
    "args", [["--help"], ["-h"], ["test", "--help"], ["cells", "-h"], ["--no-venv", "study", "-h"]]
)
def test_help_names_every_command_and_runs_nothing(args, project):
    done = call(*args, script=project / "run.py")
    assert done.returncode == 0
    assert all(f"  {name}" in done.stdout for name in run.COMMANDS)
    assert not (project / ".venv").exists()


def test_unknown_command_exits_with_2_and_help(project):
    done = call("trian", script=project / "run.py")
    assert done.returncode == 2
    assert "unknown command 'trian'" in done.stderr and "quick [NOTEBOOK ...]" in done.stderr
    assert not (project / ".venv").exists()


def test_cells_works_from_another_folder_and_passes_parameters(project, tmp_path):
    cells = (
        ("profile, n, size = 'study', 1, 2", ["parameters"]),
        ("print(profile, n + 1, size)", ["training"]),
    )
    (project / "笔记.ipynb").write_text(notebook(*cells, ("1 / 0", [])), encoding="utf-8")
    options = ["笔记.ipynb", "profile=quick", "n=41", "--until", "training"]
    done = call("--no-venv", "cells", *options, cwd=tmp_path, script=project / "run.py")
    assert done.stdout == "quick 42 2\n" and done.returncode == 0
    silent = call("cells", *options, cwd=tmp_path, script=project / "run.py", NO_VENV="1", RANK="1")
    assert silent.stdout == "" and silent.returncode == 0


def test_cells_says_in_one_line_what_is_wrong(project):
    (project / "a.ipynb").write_text(notebook(("profile = 'study'", ["parameters"])))
    script = project / "run.py"
    assert call("--no-venv", "cells", script=script).returncode == 2
    assert call("--no-venv", "cells", "a.ipynb", "quick", script=script).returncode == 2
    for options, message in {
        ("b.ipynb",): "run.py: no notebook b.ipynb; there are: a.ipynb.\n",
        ("a.ipynb", "profil=quick"): "run.py: a.ipynb has no parameter profil; it has profile.\n",
    }.items():
        done = call("--no-venv", "cells", *options, script=script)
        assert (done.returncode, done.stderr) == (1, message)


def test_test_fails_when_ruff_or_pytest_fails(monkeypatch):
    codes, calls = {}, []

    def fake(command, **_):
        calls.append(command[2:])
        return subprocess.CompletedProcess(command, codes[command[2]])

    monkeypatch.setattr(run.subprocess, "run", fake)
    for ruff, pytest_code, failed in [(0, 0, False), (1, 0, True), (0, 1, True), (0, 5, True)]:
        codes.update(ruff=ruff, pytest=pytest_code)
        assert bool(run.test(["-k", "psnr"])) is failed
    assert calls[:2] == [["ruff", "check", "."], ["pytest", "-k", "psnr"]]


def test_a_study_trains_what_is_missing_then_runs_in_place(monkeypatch, tmp_path):
    calls, trains = [], True

    def run_cells(path, parameters):
        calls.append(("train", path.name, parameters))
        folder = tmp_path / "results" / run.STUDY_RUNS[path.name]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"finished": trains}))

    monkeypatch.setattr(run, "run_notebooks", lambda *args: calls.append(("execute", *args)))
    monkeypatch.setattr(notebooks, "run_cells", run_cells)
    monkeypatch.setattr(run, "find_notebook", Path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    for task, finished in (("task1", True), ("task1/longer", True), ("task2", False)):
        (tmp_path / "results" / task).mkdir(parents=True)
        (tmp_path / "results" / task / "run.json").write_text(json.dumps({"finished": finished}))
    (tmp_path / "DS" / "Set14").mkdir(parents=True)  # empty
    with pytest.raises(SystemExit, match="study needs CIFAR10 and Set14 and Set5 and one of DIV2K, CID22 in DS/"):
        run.study([])
    with pytest.raises(SystemExit, match="study needs Set14 and Set5 in DS/"):
        run.study(["task1_sr.ipynb"])
    (tmp_path / "DS" / "Set14" / "HR").mkdir()
    (tmp_path / "DS" / "Set5" / "HR").mkdir(parents=True)
    with pytest.raises(SystemExit, match="study needs CIFAR10 and one of DIV2K, CID22 in DS/"):
        run.study(["study_srgan_x4.ipynb"])  # neither its own run nor the classifier's is finished
    (tmp_path / "results" / "task1" / "longer" / "run.json").rename(tmp_path / "second.json")
    with pytest.raises(SystemExit, match="study needs one of DIV2K, CID22 in DS/"):
        run.study(["task1_sr.ipynb"])  # its second run is missing
    (tmp_path / "second.json").rename(tmp_path / "results" / "task1" / "longer" / "run.json")
    assert run.study(["mine.ipynb"]) == 2 and calls == []
    (tmp_path / "DS" / "CID22" / "train" / "more").mkdir(parents=True)
    (tmp_path / "DS" / "CIFAR10" / "cifar-10-batches-bin").mkdir(parents=True)
    trains = False
    with pytest.raises(SystemExit, match=r"task2_classify.ipynb left task2 in results/ unfinished"):
        run.study(["task2_classify.ipynb"])  # whose figures would stand in the committed notebook
    calls, trains = [], True
    assert run.study([]) == 0 and run.quick(["task1_sr.ipynb"]) == 0
    executed = [call[1:] for call in calls[:-1] if call[0] == "execute"]
    assert executed == [([name], None, None) for name in run.STUDY_RUNS]
    trained = [(call[1], call[2]) for call in calls if call[0] == "train"]
    assert trained == [(name, {"profile": "study"}) for name in run.STUDY_RUNS if name != "task1_sr.ipynb"]
    assert calls[-1] == ("execute", ["task1_sr.ipynb"], run.QUICK / "notebooks", {"profile": "quick"})


def test_requirements_are_installed_once_and_again_when_they_change(project, monkeypatch):
    installs, code = [], 0

    def fake(command, **_):
        if "install" in command:
            installs.append(Path(command[-1]).name)
        return subprocess.CompletedProcess(command, code)

    (project / ".venv").mkdir()
    monkeypatch.setattr(run, "python_version", lambda: "3.11")
    monkeypatch.setattr(run.subprocess, "run", fake)
    run.make_environment(dev=False)
    run.make_environment(dev=False)
    assert installs == ["requirements.txt"]
    run.make_environment(dev=True)
    run.make_environment(dev=True)
    run.make_environment(dev=False)
    assert installs == ["requirements.txt", "requirements-dev.txt"]
    (project / "requirements.txt").write_text("numpy\n")
    code = 1
    for _ in range(2):  # a failed install is not remembered as done
        with pytest.raises(SystemExit, match=r"installing requirements.txt failed"):
            run.make_environment(dev=False)
    code = 0
    run.make_environment(dev=False)
    run.make_environment(dev=True)
    monkeypatch.setattr(run, "python_version", lambda: "3.12")
    run.make_environment(dev=False)
    run.make_environment(dev=True)
    # two failures, the repair, which the dev requirements share, and a new Python that has nothing yet
    assert installs[2:] == [*["requirements.txt"] * 4, "requirements-dev.txt"]


def test_without_ensurepip_and_pip_the_message_names_the_package(project, monkeypatch):
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="apt install python3-venv"):
        run.make_environment(dev=False)


def test_environment_is_made_and_the_command_runs_in_it(project, tmp_path):
    """The real thing, with pip left out so that it takes a second: the stamp says that all is installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")], check=True)
    stamp = project / ".venv" / "installed.json"
    stamp.write_text(json.dumps(run.fingerprint(run.python_version(), dev=True)))
    done = call("setup", cwd=tmp_path, script=project / "run.py")
    assert done.returncode == 0, done.stderr
    assert str(project / ".venv") in done.stdout and done.stdout.startswith("ready: ")


def test_summary_shows_data_tables_and_unfinished_runs(tmp_path):
    runs = {
        "joint": {
            "finished": True,
            "data": {"name": "CIFAR-10"},
            "summary": [
                {"rung": "clean 32x32", "accuracy": 0.9},
                {"rung": "joint", "psnr_db": 28.126, "n": 10000},
            ],
        },
        "sr": {
            "finished": False,
            "data": {"name": "embedded sample"},
            "test_data": ["Set5 (5 images)", "Set14 (14 images)"],
            "summary": {"PSNR (dB)": 30.0, "SSIM": 0.91},
        },
        "no summary": {"finished": True},
    }
    for name, content in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(content))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"summary": ')
    assert run.summarise(tmp_path).splitlines() == [
        "joint, on CIFAR-10 (trained on CIFAR-10)",
        "  rung         accuracy  psnr_db      n",
        "  clean 32x32    0.9000                ",
        "  joint                    28.13  10000",
        "sr (unfinished), on Set5 (5 images), Set14 (14 images) (trained on embedded sample)",
        "  PSNR (dB)   30.00",
        "  SSIM       0.9100",
    ]
    assert run.summarise(tmp_path / "none").startswith("no summary in")


def test_an_interrupt_is_one_line_and_130(project):
    (project / "a.ipynb").write_text(notebook(("raise KeyboardInterrupt", [])))
    done = call("--no-venv", "cells", "a.ipynb", script=project / "run.py")
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted; run the same command again, it resumes"
