"""The two READMEs and docs/: alike in structure, and everything that they name is there and works as written."""
import ast
import re
import shlex
from xml.etree import ElementTree

import pytest
from PIL import Image
from torch.distributed.run import get_args_parser

import datasets
import NetSet
import run
from tools import download, notebooks, settings

from .conftest import ROOT

EDITIONS = ("README.md", "README.zh.md")
DOCUMENTS = (*EDITIONS, "DS/README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
each_document = pytest.mark.parametrize("name", DOCUMENTS)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text_of(name)) if kind == language]


def commands(name: str) -> list[list[str]]:
    """Every command line: the lines of bash blocks, and what stands in backticks and begins as one does."""
    lines = [line for block in blocks(name, "bash") for line in block.splitlines()]
    lines += [code for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text_of(name))) if " " in code]
    lines = [line.replace("$ARM", "joint").replace("$SEED", "1") for line in lines]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(python3?|py|torchrun) ", line)]


def test_editions_are_alike():
    english, chinese = map(text_of, EDITIONS)
    for pattern in (r"^(#+) ", r"^<!-- .+? -->$", r"^(\|)"):  # headings, markers, rows
        assert re.findall(pattern, english, re.M) == re.findall(pattern, chinese, re.M), pattern
    links = [re.findall(r"\]\(([^)]+)\)", text) for text in (english, chinese.replace("_zh.", "."))]
    assert set(links[0]) - set(EDITIONS) == set(links[1]) - set(EDITIONS)
    assert commands(EDITIONS[0]) == commands(EDITIONS[1])
    assert blocks(EDITIONS[0], "bibtex") == blocks(EDITIONS[1], "bibtex")
    trees = [[ast.dump(ast.parse(code)) for code in blocks(edition, "python")] for edition in EDITIONS]
    assert trees[0] == trees[1]


@pytest.mark.parametrize("name", ["architecture.svg", "architecture_zh.svg"])
def test_the_diagram_names_every_layer_in_readable_letters(name):
    drawing = ElementTree.parse(ROOT / "docs" / name).getroot()
    words, width = set(map(str.strip, drawing.itertext())), int(drawing.get("viewBox").split()[2])
    sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", ElementTree.tostring(drawing, "unicode"))]
    assert len(sizes) > 3 and min(sizes) * 860 / width >= 14  # pixels, as wide as a README is shown
    networks = NetSet.SRNet(num_blocks=1), NetSet.ClassifyNet()
    assert {layer for network in networks for layer, _ in network.named_children()} <= words


@each_document
def test_links_lead_to_files_and_headings(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(name))):
        if "://" not in link:
            target, _, anchor = link.partition("#")
            path = (ROOT / name).parent / target if target else ROOT / name
            assert path.exists(), link
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.M) if anchor else []
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in anchors, link


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_module_notebook_and_data_set_is_named(edition):
    names = {path.name for path in [*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")]}
    assert names <= set(re.findall(r"`([\w.]+\.(?:py|ipynb))`", text_of(edition)))
    assert all(name in "".join(blocks(edition, "bash")) for name in download.ARCHIVES)


@each_document
def test_commands_are_accepted(name, monkeypatch, capsys):
    """Every command runs, but for its work: no cell, test, upscaling or download."""
    for work in ("upscale.upscale_files", "sr.show_test_sets", "tables.main"):
        monkeypatch.setattr(f"tools.{work}", lambda *_: 0)
    monkeypatch.setattr("tools.folders.is_there", lambda *_: True)
    monkeypatch.setattr(run, "python", lambda *_, **__: 0)
    monkeypatch.setattr(run, "run_notebooks", lambda names, *_: [run.find_notebook(name) for name in names])
    monkeypatch.setattr(datasets, "main", lambda names: {*names} - {*download.ARCHIVES, "NAME"})
    monkeypatch.setattr(notebooks, "run_cells", lambda path, parameters, until: settings.choose(
        run.TASKS[path.name], parameters["profile"], parameters.get("changes", {})))
    for words in commands(name):
        if words[0] == "torchrun":
            options = get_args_parser().parse_args(words[1:])
            assert "--no-venv" in options.training_script_args
            words = ["", options.training_script, *options.training_script_args]
        if words[1] == "run.py":
            command, *rest = [word for word in words[2:] if word != "--no-venv"] or ["quick"]
            assert not run.COMMANDS[command](rest), words
        else:
            assert (ROOT / words[1]).exists(), words


def test_snippet_restores_and_classifies(tmp_path, monkeypatch, capsys):
    """With the study's weights, on the photograph of a cat that comes with scikit-image."""
    head = datasets.embedded_photographs("test")[0][0][:, :288, 75:363]
    Image.fromarray(head.permute(1, 2, 0).numpy()).save(tmp_path / "photo.jpg")
    for name in ("results", "hubconf.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile("".join(blocks("README.md", "python")), "README.md", "exec"), found)
    assert found["lr_img"].shape == (3, 16, 16) and found["restored"].shape == (1, 3, 32, 32)
    assert capsys.readouterr().out.split()[-1] in datasets.CLASSES
