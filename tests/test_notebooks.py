"""notebooks.py on tiny notebooks; the committed notebooks as they lie here; and the real ones, run small."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest
import torch
import torchvision
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import datasets
import NetSet
import notebooks
import run
import training
from notebooks import NotebookError, check, execute, run_cells

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = sorted(path.name for path in ROOT.glob("*.ipynb"))

# settings small enough for one core and a minute, by notebook
SMOKE_CHANGES: dict[str, dict] = {
    "task1_sr.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_blocks": 1, "batch_size": 2, "crop_size": 32},
    "task2_classify.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_channels": 8},
    "multi_learning.ipynb": {
        "batch_size": 16, "num_test": 100, "num_elsewhere": 20, "adapt_epochs": 1, "adapt_steps": 2,
        "steps_per_epoch": 2, "seeds": [0, 1], "repeated": ["control"],
    },
    "study_srgan_x4.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_blocks": 1, "num_channels": 8},
    "study_resshuffle_x4.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_blocks": 1, "num_channels": 8},
    # 8 channels: with 4, a strided convolution of oneDNN never ends on CPUs without AVX-512 (torch 2.14)
    "study_joint_restoration.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_channels": 8, "num_test": 100},
    "study_colorization.ipynb": {"num_epochs": 2, "steps_per_epoch": 3, "num_channels": 4, "num_test": 100},
}


def code(source: str, *tags: str, **fields):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, **fields)


def write(path: Path, *cells) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def text_of(path: Path) -> list[str]:
    """Each code cell's stdout."""
    book = json.loads(path.read_text(encoding="utf-8"))
    outputs = [cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code"]
    return ["".join("".join(o["text"]) for o in cell if o.get("name") == "stdout") for cell in outputs]


# --- execute ----------------------------------------------------------------------------------------------


def test_execute_runs_here_injects_parameters_and_leaves_plain_text(tmp_path, capsys):
    folder = tmp_path / "a b 超分辨率"
    path = write(
        folder / "sr 笔记.ipynb",
        new_markdown_cell("# Title"),
        code("profile = 'study'\nnum_epochs: int = 90", "parameters"),
        code("import sys, os; print(profile, num_epochs, sys.executable, os.getcwd(), sep='\\n')"),
        code(
            "import sys\nfor i in range(3):\n    print(f'\\r{i * 50:>3}%', end='')\n    sys.stdout.flush()\n"
            "print('\\rlong line\\rshort')\nprint('done')"
        ),
        code("import tqdm\nfor _ in tqdm.tqdm(range(4), file=sys.stdout, leave=False): pass"),
        code("import matplotlib.pyplot as plt\nplt.plot([0, 1]);"),
    )
    before = path.read_bytes()
    out = execute(path, tmp_path / "out" / "copy.ipynb", {"profile": "quick", "num_epochs": 2})
    assert out == tmp_path / "out" / "copy.ipynb" and path.read_bytes() == before
    assert [p.name for p in out.parent.iterdir()] == ["copy.ipynb"]
    book = nbformat.read(out, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5, 6]
    assert cells[1].source == "profile = 'quick'\nnum_epochs = 2"
    assert cells[1].metadata.tags == ["injected-parameters"]
    assert text_of(out)[2].splitlines() == ["quick", "2", sys.executable, str(folder)]
    assert text_of(out)[3] == "shortline\ndone\n"
    assert cells[4].outputs == []
    assert "image/png" in cells[5].outputs[-1].data
    assert not any("execution" in cell.metadata for cell in cells)
    assert book.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert "version" not in book.metadata.language_info and "widgets" not in book.metadata
    assert [line[:8] for line in capsys.readouterr().out.splitlines()] == [f"  [ {i}/6]" for i in range(1, 7)]
    assert any("injected-parameters" in finding for finding in check(out))


def test_in_place_is_rewritten_whole_and_a_failure_changes_nothing(tmp_path):
    path = write(tmp_path / "a.ipynb", code("n = 3", "parameters", execution_count=9), code("print(n)"))
    with pytest.raises(NotebookError, match="runs in place without parameters"):
        execute(path, None, {"n": 4})
    assert execute(path) == path
    assert text_of(path) == ["", "3\n"]
    book = json.loads(path.read_text())
    assert [cell["execution_count"] for cell in book["cells"]] == [1, 2] and len(book["cells"]) == 2
    book["cells"][1]["source"] = "1 / 0"
    path.write_text(json.dumps(book))
    before = path.read_bytes()
    with pytest.raises(NotebookError, match="The file is as it was"):
        execute(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_failed_cell_leaves_a_readable_copy(tmp_path, capsys):
    path = write(
        tmp_path / "a.ipynb", code("print('before')"), code("boats = 1\nboats / 0"), code("print('after')")
    )
    out = tmp_path / "out.ipynb"
    with pytest.raises(NotebookError, match=r"a\.ipynb failed: code cell 2, ZeroDivisionError.*out\.ipynb"):
        execute(path, out)
    assert text_of(out) == ["before\n", "", ""]
    said = capsys.readouterr().out
    assert "----> 2 boats / 0" in said and "\x1b[" not in said


def test_a_dead_kernel_and_a_slow_cell_are_told_in_a_sentence(tmp_path):
    with pytest.raises(NotebookError, match="its Python process died"):
        execute(write(tmp_path / "a.ipynb", code("import os; os._exit(9)")), tmp_path / "out.ipynb")
    with pytest.raises(NotebookError, match="a cell took longer than 1 s"):
        execute(
            write(tmp_path / "b.ipynb", code("import time; time.sleep(60)")),
            tmp_path / "out.ipynb",
            timeout=1,
        )


def test_an_interrupted_cell_is_an_interrupt_here(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        execute(write(tmp_path / "a.ipynb", code("raise KeyboardInterrupt")), tmp_path / "out.ipynb")


@pytest.mark.parametrize("runner", [lambda path, p: execute(path, path.with_name("out.ipynb"), p), run_cells])
def test_parameters_are_refused_before_anything_runs(tmp_path, runner):
    path = write(
        tmp_path / "a.ipynb", code("raise SystemError"), code("profile, seed = 'study', 0", "parameters")
    )
    with pytest.raises(NotebookError, match=r"a\.ipynb has no parameter profil; it has profile, seed\."):
        runner(path, {"profil": "quick", "seed": 1})
    with pytest.raises(NotebookError, match=r"seed of a\.ipynb must be text, a number"):
        runner(path, {"seed": object()})
    with pytest.raises(NotebookError, match="has 0 cells tagged 'parameters'"):
        runner(write(tmp_path / "b.ipynb", code("profile = 'study'")), {"profile": "quick"})
    with pytest.raises(FileNotFoundError, match=r"No notebook at .*c\.ipynb"):
        runner(tmp_path / "c.ipynb", {})
    (tmp_path / "d.ipynb").write_text("{}")
    with pytest.raises(NotebookError, match=r"d\.ipynb is not a notebook"):
        runner(tmp_path / "d.ipynb", {})


# --- run_cells --------------------------------------------------------------------------------------------


def test_run_cells_stops_after_the_tag_and_returns_the_namespace(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a b 超分辨率"
    path = write(
        folder / "a.ipynb",
        new_markdown_cell("# Title"),
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
    with pytest.raises(NotebookError, match="no code cell tagged 'evaluation'"):
        run_cells(path, until="evaluation")


def test_run_cells_traceback_shows_the_cell(tmp_path):
    path = write(tmp_path / "a.ipynb", code("n = 0", "parameters"), code("n = 1\nn / 0"))
    with pytest.raises(ZeroDivisionError) as caught:
        run_cells(path, {"n": 5})
    last = caught.traceback[-1]
    assert str(last.frame.code.raw.co_filename) == "a.ipynb cell 2" and last.lineno == 1


def test_run_cells_draws_off_screen_and_closes_figures(tmp_path):
    import matplotlib.pyplot as plt

    run_cells(write(tmp_path / "a.ipynb", code("import matplotlib.pyplot as plt\nplt.figure()\nplt.show()")))
    assert plt.get_fignums() == []


# --- check ------------------------------------------------------------------------------------------------

FIGURE = new_output("display_data", data={"image/png": "iVBORw0KGgo="})


def clean_cells() -> list:
    return [
        new_markdown_cell("# Title\nA sentence."),
        code("profile = 'study'", "parameters", execution_count=1),
        code("draw()", execution_count=2, outputs=[FIGURE]),
    ]


def stream(text: str, name: str = "stdout"):
    return new_output("stream", name=name, text=text)


def test_check_finds_nothing_in_a_clean_notebook(tmp_path):
    cells = clean_cells()
    cells[2].outputs.append(stream("see https://host/home/x and ../root/x, results/tmp/x\n"))
    assert check(write(tmp_path / "a.ipynb", *cells)) == []


@pytest.mark.parametrize(
    ("fault", "finding"),
    {
        "counts": (lambda c: c[2].update(execution_count=5), r"execution counts are \[1, 5\]"),
        "not run": (lambda c: c[2].update(execution_count=None), r"execution counts are \[1, None\]"),
        "title": (lambda c: c.pop(0), "not a markdown title"),
        "no parameters": (lambda c: c[1].metadata.pop("tags"), "0 cells are tagged 'parameters'"),
        "injected": (lambda c: c[2].metadata.update(tags=["injected-parameters"]), "run with other settings"),
        "empty": (lambda c: c.append(new_markdown_cell(" ")), "cell 4 is empty"),
        "magic": (lambda c: c[2].update(source="%matplotlib inline"), "code cell 2 is not plain Python"),
        "shell": (lambda c: c[2].update(source="!pip install x"), "code cell 2 is not plain Python"),
        "ipython": (lambda c: c[2].update(source="get_ipython()"), "calls get_ipython"),
        "long": (lambda c: c[2].update(source="x = 1\n" * 26), "code cell 2 has 26 lines of code"),
        "error": (lambda c: c[2].outputs.append(new_output("error", ename="OSError")), "an error: OSError"),
        "stderr": (
            lambda c: c[2].outputs.append(stream("UserWarning: x", "stderr")),
            "stderr: 'UserWarning: x'",
        ),
        "no figure": (lambda c: c[2].update(outputs=[]), "no figure"),
        "home": (lambda c: c[2].outputs.append(stream("saved to /home/eve/sr.pth")), "/home/eve/sr.pth"),
        "temp": (lambda c: c[2].update(source="open('/tmp/x.pth')"), "one machine: /tmp/x.pth"),
        "windows": (lambda c: c[2].outputs.append(stream(r"C:\Users\eve\sr.pth")), r"C:\\Users\\eve"),
        "size": (lambda c: c[2].outputs.append(stream("x" * 1_600_000)), "1.6 MB, expected at most 1.5"),
        "widget": (
            lambda c: c[2].outputs.append(
                new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})
            ),
            "shows a widget",
        ),
    }.values(),
)
def test_check_finds_each_planted_fault_and_it_alone(tmp_path, fault, finding):
    cells = clean_cells()
    fault(cells)
    findings = check(write(tmp_path / "a.ipynb", *cells))
    assert len(findings) == 1, findings
    assert pytest.raises(ValueError, match=finding).matches(ValueError(findings[0]))


def test_check_finds_the_folder_it_lies_in_and_widget_state(tmp_path):
    cells = clean_cells()
    cells[2].outputs.append(stream(f"read {tmp_path}/DS"))
    path = write(tmp_path / "a.ipynb", *cells)
    book = json.loads(path.read_text())
    book["metadata"]["widgets"] = {}
    path.write_text(json.dumps(book))
    findings = check(path)
    assert "widget state in its metadata" in findings
    assert any(str(tmp_path) in finding for finding in findings)


# --- report -----------------------------------------------------------------------------------------------

PROBE = """<script>window.onload = () => {
  document.body.style.width = "390px";
  const images = [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.getBoundingClientRect().width]);
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  const links = [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1));
  document.title = JSON.stringify({
    images: images.length, seen: images.filter(([whole, width]) => whole && width > 50 && width <= 390).length,
    width: document.body.scrollWidth, twice: ids.filter((id, k) => ids.indexOf(id) != k).length,
    broken: links.filter(link => !document.getElementById(decodeURIComponent(link))),
    sections: document.querySelectorAll("section").length, formulas: document.querySelectorAll("math").length,
  });
};</script>"""


def test_the_report_is_whole_in_a_browser_and_on_a_phone(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: `apt install chromium`")
    page = notebooks.report([ROOT / name for name in run.STUDY_RUNS], tmp_path / "report.html")
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)|src=\"(?!data:)|@import|url\(", html), "it fetches something, or runs code"
    page.write_text(html + PROBE, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}/browser",
               "--enable-logging=stderr", "--dump-dom"]  # fmt: skip
    done = subprocess.run([chromium, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = json.loads(unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert found["images"] == found["seen"] > 30, "every figure, and none wider than a phone"
    assert found["width"] <= 390 and not found["twice"] and not found["broken"]
    assert found["sections"] == len(run.STUDY_RUNS) and found["formulas"] >= 5


def test_a_notebook_that_has_not_run_is_not_reported(tmp_path):
    with pytest.raises(NotebookError, match=r"a\.ipynb has not been run"):
        notebooks.report([write(tmp_path / "a.ipynb", new_markdown_cell("# A"), code("1"))], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


# --- the classifier that other notebooks read -------------------------------------------------------------


def test_features_are_the_classifiers_or_vggs_and_say_so(tmp_path, monkeypatch):
    run_folder, settings = tmp_path / "results" / "task2", {"num_channels": 8, "dropout": [0.0, 0.0]}
    run_folder.mkdir(parents=True)
    torch.save(NetSet.ClassifyNet.from_settings(settings).state_dict(), run_folder / "model.pth")
    (run_folder / "history.csv").write_text("epoch\n1\n")
    info = {"finished": True, "settings": settings, "data": {"name": "ten classes"}}
    (run_folder / "run.json").write_text(json.dumps(info))
    parameters = {"profile": "study", "data_root": str(tmp_path), "results_root": str(tmp_path / "results")}
    monkeypatch.setattr(datasets, "find_vgg", lambda network, root: None)
    features, words = notebooks.find_features("vgg19", [5, 4], [2, 1], parameters)
    assert features(torch.rand(1, 3, 32, 32)).shape == (1, 8, 16, 16)
    digest = training.file_fingerprint(run_folder / "model.pth")
    assert words == f"ClassifyNet, ten classes, phi(2, 1), weights {digest}"

    small = torchvision.models.vgg.make_layers([4, 4, "M", 4, 4, "M"])  # laid out as VGG19's, which weighs 548 MB
    monkeypatch.setattr(torchvision.models, "vgg19", lambda weights: torch.nn.ModuleDict({"features": small}))
    torch.save({f"features.{name}": value for name, value in small.state_dict().items()}, tmp_path / "weights")
    vgg = (tmp_path / "weights").rename(tmp_path / f"vgg19-{training.file_fingerprint(tmp_path / 'weights')[:8]}.pth")
    monkeypatch.setattr(datasets, "find_vgg", lambda network, root: vgg if network == "vgg19" else None)
    features, words = notebooks.find_features("vgg19", [1, 2], [2, 1], parameters)
    assert len(features.layers) == 4 and words.startswith("vgg19, ImageNet, phi(1, 2), weights ")
    _, words = notebooks.find_features("vgg19", [1, 2], [2, 1], parameters | {"profile": "quick"})
    assert words.startswith("ClassifyNet")


# --- the real ones ----------------------------------------------------------------------------------------


def test_the_main_notebooks_are_there():
    assert set(run.STUDY_RUNS) == set(COMMITTED)


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_notebook_is_clean(name):
    assert check(ROOT / name) == []


@pytest.mark.parametrize("name, task", run.STUDY_RUNS.items())
def test_committed_notebook_opens_with_its_conclusion(name, task):
    conclusion = training.read_info(ROOT / "results" / task)["conclusion"]
    outputs = [o for cell in nbformat.read(ROOT / name, as_version=4).cells for o in cell.get("outputs", [])]
    first, *rest = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert first.endswith(conclusion) and any(conclusion in text for text in rest)


@pytest.mark.parametrize("task, untrained", [("multi", ("clean", "degraded", "cascade")), ("joint_restoration", ())])
def test_kept_answers_are_those_of_the_run_beside_them(task, untrained):
    """Of every run that the test set is read for; else a clone, which lacks some weights, would have to train again."""
    folders = [path.parent for path in (ROOT / "results" / task).glob("seed*/*/run.json")
               if not path.parent.name.startswith(("lambda_", "adapted_"))]  # fmt: skip
    wanted = {folder: training.read_info(folder)["weights"] for folder in folders}
    pretrained = {name: training.file_fingerprint(ROOT / "results" / name / "model.pth") for name in ("task1", "task2")}
    wanted |= {ROOT / "results" / task / "seed0" / name: pretrained for name in untrained}
    assert len(wanted) >= 12
    assert {folder: training.read_tensors(folder / "test.pth")["key"][0] for folder in wanted} == wanted


def test_committed_weights_stay_small():
    """20 MB a file; 60 MB for the three main notebooks, which a clone fetches before anything can be seen."""
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    sizes = {path: (ROOT / path).stat().st_size / 1e6 for path in listed.stdout.split("\0") if path.endswith(".pth")}
    main = [size for path, size in sizes.items() if path.split("/")[1] in ("task1", "task2", "multi")]
    assert len(main) > 10 and max(sizes.values()) <= 20 and sum(main) <= 60


def test_super_resolution_keeps_the_scores_of_its_committed_weights():
    folder = ROOT / "results" / "task1"
    parts = {"srnet": folder, "srnet_longer": folder / "longer"}
    weights = {name: training.file_fingerprint(part / "model.pth") for name, part in parts.items()}
    assert training.read_run(folder).info["summary_of"] == weights
    for name, part in parts.items():
        assert training.read_run(part).info["weights"] == weights[name]
        assert training.read_tensors(part / "self_ensemble.pth")["key"][0] == weights[name]


def test_colorization_keeps_the_scores_of_its_committed_weights():
    results, order = ROOT / "results", ["mse", "perceptual", "regularised", "fast", "slow", "unet", ".", "../task2"]
    kept = training.read_tensors(results / "colorization" / "test.pth")
    weights = [training.file_fingerprint(results / "colorization" / name / "model.pth") for name in order]
    assert kept["key"][0] == weights and len(kept["named"]["chroma"]) == 9_894


@pytest.fixture(scope="module")
def smoke_folder(tmp_path_factory) -> Path:
    """An empty data folder, and results that hold the study's runs, as a fresh clone does."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "no data").mkdir()
    (folder / "results").mkdir()
    for task in ("task1", "task2", "multi"):
        (folder / "results" / task).symlink_to(ROOT / "results" / task)
    return folder


@pytest.mark.parametrize(
    "name", run.STUDY_RUNS
)  # in this order: those of the later ones build on the runs of the first
def test_notebook_runs_on_the_embedded_sample(name, smoke_folder):
    parameters = {
        "profile": "quick",
        "data_root": str(smoke_folder / "no data"),
        "results_root": str(smoke_folder / "results"),
        "changes": SMOKE_CHANGES[name],
    }
    if name == "study_srgan_x4.ipynb":
        parameters["gan_changes"] = {"num_epochs": 1, "steps_per_epoch": 1}
    out = execute(ROOT / name, smoke_folder / name, parameters, timeout=600)
    outputs = [o for cell in nbformat.read(out, as_version=4).cells for o in cell.get("outputs", [])]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
    assert any(mime.startswith("image/") for o in outputs for mime in o.get("data", {}))
    texts = "".join(o.get("text", "") for o in outputs)
    shown = {"task1_sr.ipynb": "SRNet: ", "multi_learning.ipynb": "The network's answers: "}
    assert shown.get(name, "") in texts  # the study's networks at work, without any data


def test_joint_restoration_mixes_its_damages_within_each_batch(tmp_path):
    """Else batch norm learns under the statistics of one damage at a time, and is judged under their mean."""
    parameters = {"profile": "quick", "data_root": str(tmp_path / "none"), "results_root": str(tmp_path),
                  "changes": {"steps_per_epoch": 2}}  # fmt: skip
    names = run_cells(ROOT / "study_joint_restoration.ipynb", parameters, until="batches")
    batches = list(names["training_batches"](torch.Generator().manual_seed(0)))
    assert len(batches) == 2
    for batch in batches:
        noise = (batch["img"] != batch["truth"]).any(1).float().mean((1, 2)) > 0.5  # nearly every pixel is moved
        hole = (batch["img"] == 0).all(1).sum((1, 2)) >= 8 * 8
        assert {(True, False), (False, True), (True, True)} == set(zip(noise.tolist(), hole.tolist(), strict=True))
        kinds = torch.stack([noise & ~hole, hole & ~noise, noise & hole]).sum(1)
        assert kinds.min() >= len(noise) // 6  # a third each, but for chance


def test_a_notebook_runs_on_two_processes(smoke_folder, tmp_path):
    settings = ["profile=quick", f"data_root={smoke_folder / 'no data'}", f"results_root={tmp_path}"]
    settings.append(f"changes={SMOKE_CHANGES['task1_sr.ipynb']}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, str(ROOT / "run.py"), "--no-venv", "cells", "task1_sr.ipynb", *settings]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"torch {torch.__version__}") == 1 and "2 processes" in done.stdout
    info = training.read_run(tmp_path / "quick" / "task1").info
    assert info["processes"] == 2 and info["summary"]
    second = training.read_run(tmp_path / "quick" / "task1" / "longer").info
    # the ladder starts from the first network, as it was
    assert training.file_fingerprint(tmp_path / "quick" / "task1" / "model.pth") == info["weights"]
    assert second["data"]["starts_from"] == info["weights"] and second["settings"]["seed"] != info["settings"]["seed"]
    assert {"srnet", "srnet_longer"} <= {row["method"] for row in info["summary"]}
