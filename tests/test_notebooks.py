"""notebooks.py on tiny notebooks; the committed notebooks as they lie here; and the real ones, run small."""
import ast
import itertools
import re
import sys
from pathlib import Path

import nbformat
import pytest
import torch

import datasets
import NetSet
import training
from tools import drawn, notebooks, plots, runs, settings
from tools.notebooks import execute, run_cells

from .conftest import ROOT, code, random_image, refuses, run_twice, save, task_in, write_notebook, write_run

# settings small enough for one core and seconds, by task; 8 channels: with 4, a strided convolution of oneDNN never
# ends on CPUs without AVX-512 (torch 2.14)
SMALL = {"num_epochs": 1, "steps_per_epoch": 2, "num_channels": 8}
PHOTOGRAPHS = SMALL | {"num_blocks": 1, "batch_size": 2, "crop_size": 32, "valid_size": 96}
TINY: dict[str, dict] = {
    "task1": PHOTOGRAPHS | {"num_channels": 64, "num_blocks": 0},
    "task2": SMALL | {"batch_size": 16, "num_epochs": 2, "steps_per_epoch": 8},
    "multi": {"batch_size": 8, "num_test": 40, "num_unseen": 10, "adapt_epochs": 1, "adapt_steps": 2, "seeds": [0],
              "adapt_images": 40, "num_epochs": 1, "steps_per_epoch": 1, "arms": ["control", "frozen", "joint"],
              "adapt_lengths": {}, "sweep": []},
    "srresnet_x4": PHOTOGRAPHS, "srgan_x4": PHOTOGRAPHS, "resshuffle_x4": PHOTOGRAPHS,
    "joint_restoration": SMALL | {"num_test": 40, "batch_size": 24},
    "colorization": SMALL | {"num_test": 40, "num_images": 200, "num_valid": 20, "batch_size": 8,
                             "arms": ["mse", "perceptual", "regularized", "fast", "unet", "chroma"]},
}  # fmt: skip
SHOWN = {  # figures that a page keeps, and how many it shows in all
    "task1": ("curves psnr_per_image panels photographs", 5), "task2": ("degradation", 5),
    "multi": ("ladder arms stages change unseen gap hero", 8), "srgan_x4": ("curves panels", 2),
    "resshuffle_x4": ("curves panels", 3), "joint_restoration": ("cat", 4), "colorization": ("", 3),
}  # fmt: skip


def text_of(path: Path) -> list[str]:
    """Each cell's stdout."""
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(o.text for o in cell.get("outputs", []) if o.get("name") == "stdout") for cell in cells]


def test_execute_runs_here_injects_parameters_and_leaves_plain_text(tmp_path):
    folder = tmp_path / "a b 超分辨率"
    path = write_notebook(
        folder / "sr 笔记.ipynb",
        code("profile = 'study'\nnum_epochs: int = 90", "parameters"),
        code("import sys, os; print(profile, num_epochs, sys.executable, os.getcwd(), sep='\\n')"),
        code("import tqdm, sys\nfor _ in tqdm.tqdm(range(4), file=sys.stdout, leave=False): pass"),
        code("import matplotlib.pyplot as plt\nplt.plot([0, 1]);"),
    )
    before = path.read_bytes()
    out = execute(path, tmp_path / "out" / "copy.ipynb", {"profile": "quick", "num_epochs": 2})
    assert path.read_bytes() == before and [p.name for p in out.parent.iterdir()] == ["copy.ipynb"]
    cells = nbformat.read(out, as_version=4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5]
    assert text_of(out)[2].splitlines() == ["quick", "2", sys.executable, str(folder)]
    assert cells[3].outputs == [] and "image/png" in cells[4].outputs[-1].data


def test_in_place_is_rewritten_whole_and_a_failure_changes_nothing(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", code("n = 3", "parameters", execution_count=9), code("print(n)"))
    refuses(ValueError, "runs in place without parameters", execute, path, None, {"n": 4})
    assert execute(path) == path and text_of(path) == ["", "3\n"]
    before = path.read_text().replace("print(n)", "1 / 0")
    path.write_text(before)
    refuses(ValueError, "The file is as it was", execute, path)
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("source, error, said", [
    ("1 / 0", ValueError, r"a\.ipynb failed: code cell 2, ZeroDivisionError.*out\.ipynb"),
    ("import os; os._exit(9)", ValueError, "its Python process died"),
    ("raise KeyboardInterrupt", KeyboardInterrupt, None),
])  # fmt: skip
def test_a_failure_is_told_in_a_sentence_and_leaves_a_readable_copy(tmp_path, source, error, said):
    path, out = write_notebook(tmp_path / "a.ipynb", code("print('first')"), code(source)), tmp_path / "out.ipynb"
    refuses(error, said, execute, path, out)
    assert error is KeyboardInterrupt or text_of(out)[0] == "first\n"


@pytest.mark.parametrize("name, parameters, error, said", [
    ("a", {"profil": "quick", "n": 1}, ValueError, r"a\.ipynb has no parameter profil; it has profile, n\."),
    ("b", {"profile": "quick"}, ValueError, "has 0 cells tagged 'parameters'"),
    ("c", {}, FileNotFoundError, r"No notebook at .*c\.ipynb"), ("d", {}, ValueError, r"d\.ipynb is not a notebook"),
])  # fmt: skip
def test_parameters_are_refused_before_anything_runs(tmp_path, name, parameters, error, said):
    write_notebook(tmp_path / "a.ipynb", code("raise SystemError"), code("profile, n = 'study', 0", "parameters"))
    write_notebook(tmp_path / "b.ipynb", code("profile = 'study'"))
    (tmp_path / "d.ipynb").write_text("{}")
    refuses(error, said, run_cells, tmp_path / f"{name}.ipynb", parameters)


def test_run_cells_stops_after_the_tag_and_returns_the_namespace(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a b 超分辨率"
    path = write_notebook(
        folder / "a.ipynb",
        code("num_epochs, data_root = 90, 'DS'", "parameters"),
        code("import helper_beside\nimport os\nhere = os.getcwd()\nnum_epochs"),
        code("1 / 0", "lesson"),
        code("display(helper_beside.VALUE)\n'quiet';", "training"),
        code("1 / 0"),
    )
    (folder / "helper_beside.py").write_text("VALUE = 7\n")
    monkeypatch.chdir(tmp_path)
    names = run_cells(path, {"num_epochs": 2, "data_root": tmp_path}, until="training")
    assert (names["num_epochs"], names["here"], names["data_root"]) == (2, str(folder), str(tmp_path))
    assert capsys.readouterr().out == "2\n7\n" and Path.cwd() == tmp_path and str(folder) not in sys.path
    refuses(ValueError, "no code cell tagged 'evaluation'", run_cells, path, until="evaluation")
    for source, made in (("def f(x):\n    return taught(x)\nanswer = f(3)", 6), ("taught = 4\nanswer = taught", 4)):
        taught = "def taught(x):\n    return 2 * x"
        lesson = write_notebook(folder / "b.ipynb", code("a = 1", "parameters"), code(taught, "lesson"),
                                code("seen = 5", "lesson"), code(source, "training"))  # fmt: skip
        names = run_cells(lesson, until="training")
        assert names["answer"] == made and ("seen" in names) is (made == 6)  # the lesson runs where a cell builds on it
    with pytest.raises(ZeroDivisionError) as caught:
        run_cells(path)
    assert str(caught.traceback[-1].frame.code.raw.co_filename) == "a.ipynb cell 3"  # the lesson, too


def test_another_notebooks_run_is_the_studys_or_what_its_cells_find_or_train_now(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "tools" / "notebooks.py"))
    write_notebook(tmp_path / settings.NOTEBOOKS["task2"],
                   code("profile = data_root = results_root = changes = ''", "parameters"),
                   code("run = profile, data_root, results_root, changes", "training"), code("1 / 0"))  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = str(tmp_path / "elsewhere" / "results")  # a relative path counts from where one stands
    task = task_in(Path("results"), {}, "multi", changes={"dataset": "mine", "lambda_sr": 10.0})
    write_run(task.results_root / "task2", {})  # without weights it does not serve
    assert notebooks.require_run("task2", task) == ("study", here, here, {"dataset": "mine"})
    write_run(task.results_root / "task2", {}, model=torch.nn.Linear(1, 1))
    assert notebooks.require_run("task2", task).has_weights
    task.profile = "quick"
    assert notebooks.require_run("task2", task) == ("quick", here, here, {"dataset": "mine"})


@pytest.mark.parametrize("name", settings.NOTEBOOKS.values())
def test_a_committed_notebook_is_plain_and_as_it_ran_from_top_to_bottom(name):
    cells = nbformat.read(ROOT / name, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    kinds = " ".join(kind for output in outputs for kind in output.get("data", {}))
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    tags = [tag for cell in code for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1 and "injected-parameters" not in tags
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert "image/" in kinds and "widget" not in kinds
    for cell in code:
        ast.parse(cell.source)  # no magics: run.py train reads it as plain Python
        assert len(cell.source.splitlines()) <= 15, "belongs in a module"
    lines = sum(bool(line.strip()) for cell in code for line in cell.source.splitlines())
    assert len(cells) <= 40 and lines <= (150 if name.startswith("study_") else 200)
    page = (ROOT / name).read_text(encoding="utf-8")
    assert len(page.encode()) < 1e6, "code hosts stop rendering notebooks above a megabyte"
    folders = rf"/(home|Users|root|tmp|var/folders)/\w|[A-Z]:\\\\+Users|{re.escape(str(ROOT))}\b"
    assert not re.search(rf"(?<![\w.~-])(?:{folders})", page), "names a folder of one machine"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """page(task, profile) runs a notebook with the settings of TINY on an empty data folder; returns its names, and the
    figures that it shows by name.
    """
    folder, photographs, all_drawn = tmp_path_factory.mktemp("pages"), drawn.embedded_photographs, datasets.DrawnDataset
    (folder / "no data").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for task, table in settings.TABLES.items():
            rows = {name: (value, value, value, "") for name, value in TINY[task].items() if name in table}
            rows["seed"] = (0, 0, 1, "")  # else both profiles would be one
            if task == "multi":
                rows |= {"adapt_epochs": (1, 1, 0, ""), "arms": (TINY[task]["arms"],) * 2 + (["joint"], "")}
            patch.setitem(settings.TABLES, task, table | rows)

        def cut(part):
            images, names = photographs(part)
            return [img[:, 40:232, 60:324] for img in images], names

        for module in (drawn, datasets):
            patch.setattr(module, "embedded_photographs", cut)
        patch.setattr(datasets, "DrawnDataset", lambda train: all_drawn(train, 240 if train else 60))

        def run(task, profile, until=None):
            shown = {}
            patch.setattr(plots, "show", lambda fig, name="", *_, **__: shown.update({name or len(shown): fig}))
            parameters = {"profile": profile, "data_root": str(folder / "no data"), "results_root": str(folder)}
            return run_cells(ROOT / settings.NOTEBOOKS[task], parameters, until), shown

        yield run


@pytest.mark.parametrize("task", settings.NOTEBOOKS)
def test_a_page_runs_in_small_on_the_embedded_sample(task, page):
    names, shown = page(task, "quick")
    kept, num_shown = SHOWN[task]
    assert set(kept.split()) <= set(shown) and len(shown) >= num_shown
    found = runs.find_runs(names["task"].results_root, task)
    assert found and all(run.folder.parts[-3:-1] == ("lab", task) for run in found)  # the study is left alone
    recorded = [runs.read_info(path.parent) for path in names["task"].lab_folder.rglob("run.json")]
    assert len([info for info in recorded if info.get("summary")]) == 1
    if task == "joint_restoration":  # mixes its damages within each batch: batch norm learns their common statistics
        for batch in names["batches"](torch.Generator().manual_seed(0)):
            noise = (batch["img"] != batch["truth"]).any(1).float().mean((1, 2)) > 0.5  # nearly every pixel is moved
            mask = (batch["img"] == 0).all(1).sum((1, 2)) >= 8 * 8
            kinds = torch.stack([noise & ~mask, mask & ~noise, noise & mask]).sum(1)
            assert (noise | mask).all() and kinds.min() >= len(noise) // 8  # a third each, but for chance


@pytest.mark.parametrize("task", settings.NOTEBOOKS)
def test_no_image_of_test_or_validation_is_trained_on(task, page, monkeypatch):
    """By content: what is handed to `fit` or, of photographs, a row of pixels from the middle of each."""
    handed, original = [], training._place
    monkeypatch.setattr(datasets, "augment", lambda images, *_, **__: images)
    monkeypatch.setattr(training, "_place", lambda *args: handed.append((args[0].name, args[3])) or original(*args))
    names, _ = page(task, "quick", until="training")
    if "data" in names and hasattr(names["data"], "valid_set"):
        data = names["data"]
        pixels = data.train_set.pixels.numpy().tobytes()
        held_back = [part.pair(k)[1] for part in (data.valid_set, *data.test_sets) for k in range(len(part))]
        rows = [img[0, img.shape[1] // 2, img.shape[2] // 2 - 24 :][:48].numpy() for img in held_back]
        assert len(rows) > 2 and not [row for row in rows if row.std() == 0 or row.tobytes() in pixels]
        return
    test = names["rungs"].test_set if task == "multi" else names["test_set"]
    valid = names["rungs"].valid_hr if task == "multi" else names["split"]("valid")
    valid = valid[0] if isinstance(valid, tuple) else valid
    def uint8(img):
        return datasets.to_uint8(img) if img.is_floating_point() else img

    held_back = {img.numpy().tobytes() for part in (test.images, valid) for img in uint8(part)}
    trained = {img.numpy().tobytes() for name, given in handed if name == task
               for batch in given["batches"](torch.Generator().manual_seed(0))
               for img in uint8(batch.get("truth", batch.get("hr_img", batch.get("img"))))}
    assert len(trained) > 10 and not trained & held_back


@pytest.mark.parametrize("task", settings.NOTEBOOKS)
def test_the_documents_own_recipe_runs_up_to_its_training(task, page):
    names, _ = page(task, "reference", until=None if task == "multi" else "training")  # of whose arms there is but one
    assert names["settings"] == settings.choose(task, "reference")
    trained = runs.find_runs(names["task"].results_root, task)
    assert any(run.info["profile"] == "reference" for run in trained)
    if task == "task2":
        assert names["model"].normalize.std.flatten().tolist() == pytest.approx(NetSet.REFERENCE_STD)
    if task == "multi":
        assert [*names["rungs"].runs] == [("joint", 0)] and "joint" in names["table"].index


def test_a_page_in_a_kernel_shows_images_and_no_errors_and_takes_classes_of_ones_own(tmp_path):
    for number, (part, name) in enumerate(itertools.product(("train", "test"), ("cat", "dog", "empty"))):
        (tmp_path / "mine" / part / name).mkdir(parents=True)
        for k in range(0 if (part, name) == ("test", "empty") else 20):
            save(tmp_path / "mine" / part / name / f"{k}.png", random_image(32, 32, 20 * number + k))
    out = execute(ROOT / settings.NOTEBOOKS["task2"], tmp_path / "out.ipynb", {
        "profile": "quick", "data_root": str(tmp_path), "results_root": str(tmp_path / "results"),
        "changes": TINY["task2"] | {"dataset": "mine"}})  # fmt: skip
    outputs = [o for cell in nbformat.read(out, as_version=4).cells for o in cell.get("outputs", [])]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
    kinds = [kind for o in outputs for kind in o.get("data", {})]
    assert sum(kind.startswith("image/") for kind in kinds) >= 6 and "text/html" in kinds  # figures, tables
    assert "mine: 54 training, 6 validation, 40 test images" in "".join(text_of(out))
    [run] = runs.find_runs(tmp_path / "results", "task2")
    assert run.info["data"]["name"] == "mine" and set(run.info["summary"]) >= {"clean", "degraded"}


def test_a_notebook_trains_on_two_processes(tmp_path):
    options = ["--profile", "quick", f"data_root={tmp_path}", f"results_root={tmp_path}", f"changes={TINY['task1']}"]
    out = run_twice(ROOT / "run.py", "--no-venv", "--offline", "train", "task1_sr.ipynb", *options, cwd=tmp_path)
    assert out.count(f"torch {torch.__version__}") == 1 and "2 processes" in out
    assert [run.info["processes"] for run in runs.find_runs(tmp_path, "task1")] == [2]
