"""notebooks.py on tiny notebooks; the committed notebooks as they lie here; and the real ones, run small."""
import ast
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from tools import notebooks, runs, settings
from tools.notebooks import NotebookError, execute, run_cells

from .conftest import ROOT, refuses, run_twice

SMALL = {"num_epochs": 2, "steps_per_epoch": 3, "num_channels": 8}
# settings small enough for one core and a minute, by task; 8 channels: with 4, a strided convolution of oneDNN never
# ends on CPUs without AVX-512 (torch 2.14)
SMOKE_CHANGES: dict[str, dict] = {
    "task1": SMALL | {"num_blocks": 1, "batch_size": 2, "crop_size": 32, "num_channels": 64},
    "task2": SMALL | {"steps_per_epoch": 40},  # enough to learn something, so that the rungs differ
    "multi": {"batch_size": 8, "num_test": 100, "num_unseen": 20, "adapt_epochs": 2, "adapt_steps": 20,
              "adapt_images": 200, "steps_per_epoch": 1, "arms": ["control", "capacity", "frozen", "joint"]},
    "srgan_x4": SMALL | {"num_blocks": 1},
    "resshuffle_x4": SMALL | {"num_blocks": 1},
    "joint_restoration": SMALL | {"num_test": 100},
    "colorization": SMALL | {"num_test": 100, "num_images": 400, "num_valid": 40},
}  # fmt: skip


def code(source: str, *tags: str, **fields):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, **fields)


def write(path: Path, *cells) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def text_of(path: Path) -> list[str]:
    """Each code cell's stdout."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return ["".join(o.text for o in cell.outputs if o.get("name") == "stdout") for cell in cells]


def test_execute_runs_here_injects_parameters_and_leaves_plain_text(tmp_path):
    folder = tmp_path / "a b 超分辨率"
    path = write(
        folder / "sr 笔记.ipynb",
        code("profile = 'study'\nnum_epochs: int = 90", "parameters"),
        code("import sys, os; print(profile, num_epochs, sys.executable, os.getcwd(), sep='\\n')"),
        code("print('\\r 50%', end='\\rlong line\\rshort')\nprint('\\ndone')"),
        code("import tqdm, sys\nfor _ in tqdm.tqdm(range(4), file=sys.stdout, leave=False): pass"),
        code("import matplotlib.pyplot as plt\nplt.plot([0, 1]);"),
    )
    before = path.read_bytes()
    out = execute(path, tmp_path / "out" / "copy.ipynb", {"profile": "quick", "num_epochs": 2})
    assert path.read_bytes() == before and [p.name for p in out.parent.iterdir()] == ["copy.ipynb"]
    cells = nbformat.read(out, as_version=4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5, 6]
    assert cells[1].source == "profile = 'quick'\nnum_epochs = 2"
    assert text_of(out)[2].splitlines() == ["quick", "2", sys.executable, str(folder)]
    assert text_of(out)[3] == "short\ndone\n" and cells[4].outputs == []
    assert "image/png" in cells[5].outputs[-1].data and not any("execution" in cell.metadata for cell in cells)


def test_in_place_is_rewritten_whole_and_a_failure_changes_nothing(tmp_path):
    path = write(tmp_path / "a.ipynb", code("n = 3", "parameters", execution_count=9), code("print(n)"))
    refuses(NotebookError, "runs in place without parameters", execute, path, None, {"n": 4})
    assert execute(path) == path and text_of(path) == ["", "3\n"]
    book = json.loads(path.read_text())
    assert [cell["execution_count"] for cell in book["cells"]] == [1, 2]
    book["cells"][1]["source"] = "1 / 0"
    path.write_text(json.dumps(book))
    before = path.read_bytes()
    refuses(NotebookError, "The file is as it was", execute, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("source, error, said", [
    ("print('before')\n1 / 0", NotebookError, r"a\.ipynb failed: code cell 2, ZeroDivisionError.*out\.ipynb"),
    ("import os; os._exit(9)", NotebookError, "its Python process died"),
    ("import time; time.sleep(60)", NotebookError, "a cell took longer than 5 s"),
    ("raise KeyboardInterrupt", KeyboardInterrupt, None),
])  # fmt: skip
def test_a_failure_is_told_in_a_sentence_and_leaves_a_readable_copy(tmp_path, source, error, said):
    path, out = write(tmp_path / "a.ipynb", code("print('first')"), code(source)), tmp_path / "out.ipynb"
    refuses(error, said, execute, path, out, timeout=5)
    if error is NotebookError:
        assert text_of(out)[0] == "first\n"


@pytest.mark.parametrize("runner", [lambda path, p: execute(path, path.with_name("out.ipynb"), p), run_cells])
def test_parameters_are_refused_before_anything_runs(tmp_path, runner):
    write(tmp_path / "a.ipynb", code("raise SystemError"), code("profile, n = 'study', 0", "parameters"))
    write(tmp_path / "b.ipynb", code("profile = 'study'"))
    (tmp_path / "d.ipynb").write_text("{}")
    for name, parameters, error, said in (
        ("a", {"profil": "quick", "n": 1}, NotebookError, r"a\.ipynb has no parameter profil; it has profile, n\."),
        ("a", {"n": object()}, NotebookError, r"n of a\.ipynb must be text, a number"),
        ("b", {"profile": "quick"}, NotebookError, "has 0 cells tagged 'parameters'"),
        ("c", {}, FileNotFoundError, r"No notebook at .*c\.ipynb"),
        ("d", {}, NotebookError, r"d\.ipynb is not a notebook"),
    ):
        refuses(error, said, runner, tmp_path / f"{name}.ipynb", parameters)


def test_run_cells_stops_after_the_tag_and_returns_the_namespace(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a b 超分辨率"
    path = write(
        folder / "a.ipynb",
        code("num_epochs, data_root = 90, 'DS'", "parameters"),
        code("import helper_beside\nimport os\nhere = os.getcwd()\nnum_epochs"),
        code("display(helper_beside.VALUE)\n'quiet';", "training"),
        code("1 / 0"),
    )
    (folder / "helper_beside.py").write_text("VALUE = 7\n")
    monkeypatch.chdir(tmp_path)
    paths = list(sys.path)
    names = run_cells(path, {"num_epochs": 2, "data_root": tmp_path}, until="training")
    assert (names["num_epochs"], names["here"], names["data_root"]) == (2, str(folder), str(tmp_path))
    assert capsys.readouterr().out == "2\n7\n"
    assert Path.cwd() == tmp_path and sys.path == paths
    refuses(NotebookError, "no code cell tagged 'evaluation'", run_cells, path, until="evaluation")
    with pytest.raises(ZeroDivisionError) as caught:
        run_cells(path)
    assert str(caught.traceback[-1].frame.code.raw.co_filename) == "a.ipynb cell 4"


def test_a_run_of_another_notebook_is_read_or_trained_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "tools" / "notebooks.py"))
    source = ("import torch\nfrom tools import runs\nfrom tests.conftest import write_run\n"
              "folder = runs.run_folder(results_root, profile, 'task2')\n"
              "write_run(folder, {}, {'name': data_root}, torch.nn.Linear(1, 1))")  # fmt: skip
    write(tmp_path / settings.NOTEBOOKS["task2"], code("profile = data_root = results_root = ''", "parameters"),
          code(source, "training"), code("1 / 0"))  # fmt: skip
    begun = runs.Begun("multi", "quick", {}, torch.device("cpu"), tmp_path, "A", str(tmp_path / "results"))
    for data, trains in ((None, True), (None, False), ({"name": "A"}, False), ({"name": "B"}, True)):
        run = notebooks.require_run("task2", begun, data)
        assert run.folder == tmp_path / "results" / "quick" / "task2" and run.info["data"] == {"name": "A"}
        assert ("its training cells run here" in capsys.readouterr().out) is trains


@pytest.mark.parametrize("name", settings.NOTEBOOKS.values())
def test_a_committed_notebook_is_plain_and_as_it_ran_from_top_to_bottom(name):
    cells = nbformat.read(ROOT / name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert cells[0].source.startswith("# ") and all(cell.source.strip() for cell in cells)
    tags = [tag for cell in code for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1 and "injected-parameters" not in tags
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/" in kind for kind in kinds) and not any("widget" in kind for kind in kinds)
    for cell in code:
        ast.parse(cell.source)  # no magics: run.py train reads it as plain Python
        assert len([line for line in cell.source.splitlines() if line.strip(" #")]) <= 15, "belongs in a module"
        assert "get_ipython(" not in cell.source
    assert (ROOT / name).stat().st_size < 1e6, "code hosts stop rendering notebooks above a megabyte"
    texts = [cell.source for cell in cells] + [str(o.get("text", "")) + str(o.get("evalue", "")) for o in outputs]
    texts += [str(content) for o in outputs for kind, content in o.get("data", {}).items() if kind.startswith("text/")]
    folders = rf"/(home|Users|root|tmp|var/folders)/\w|[A-Z]:\\+Users|{re.escape(str(ROOT))}\b"
    assert not re.findall(rf"(?<![\w.~-])(?:{folders})", "\n".join(texts)), "names a folder of one machine"


@pytest.fixture(scope="module")
def smoke_folder(tmp_path_factory) -> Path:
    """An empty data folder, and results that hold the study's runs, as a fresh clone does."""
    folder = tmp_path_factory.mktemp("smoke")
    for name in ("no data", "results"):
        (folder / name).mkdir()
    for task in settings.NOTEBOOKS:
        (folder / "results" / task).symlink_to(ROOT / "results" / task)
    return folder


@pytest.mark.parametrize("task", settings.NOTEBOOKS)  # in this order: later ones build on the runs of the first
def test_notebook_runs_on_the_embedded_sample(task, smoke_folder):
    name = settings.NOTEBOOKS[task]
    parameters = {"profile": "quick", "data_root": str(smoke_folder / "no data"),
                  "results_root": str(smoke_folder / "results"), "changes": SMOKE_CHANGES[task]}  # fmt: skip
    out = execute(ROOT / name, smoke_folder / name, parameters, timeout=600)
    outputs = [o for cell in nbformat.read(out, as_version=4).cells for o in cell.get("outputs", [])]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
    assert any(mime.startswith("image/") for o in outputs for mime in o.get("data", {}))
    assert runs.read_info(smoke_folder / "results" / "quick" / task)["finished"]


def test_joint_restoration_mixes_its_damages_within_each_batch(tmp_path):
    """Else batch norm learns under the statistics of one damage at a time, and is judged under their mean."""
    parameters = {"profile": "quick", "data_root": str(tmp_path / "none"), "results_root": str(tmp_path),
                  "changes": {"steps_per_epoch": 2}}  # fmt: skip
    names = run_cells(ROOT / settings.NOTEBOOKS["joint_restoration"], parameters, until="batches")
    first, second = names["training_batches"](torch.Generator().manual_seed(0))
    for batch in (first, second):
        noise = (batch["img"] != batch["truth"]).any(1).float().mean((1, 2)) > 0.5  # nearly every pixel is moved
        mask = (batch["img"] == 0).all(1).sum((1, 2)) >= 8 * 8
        assert (noise | mask).all()
        kinds = torch.stack([noise & ~mask, mask & ~noise, noise & mask]).sum(1)
        assert kinds.min() >= len(noise) // 6  # a third each, but for chance


def test_a_notebook_trains_on_two_processes(smoke_folder, tmp_path):
    options = ["--profile", "quick", f"data_root={smoke_folder / 'no data'}", f"results_root={tmp_path}",
               f"changes={SMOKE_CHANGES['task1']}"]  # fmt: skip
    out = run_twice(ROOT / "run.py", "--no-venv", "train", "task1_sr.ipynb", *options, cwd=tmp_path)
    assert out.count(f"torch {torch.__version__}") == 1 and "2 processes" in out
    assert runs.read_run(tmp_path / "quick" / "task1").info["processes"] == 2
