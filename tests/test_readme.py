"""The two READMEs: alike in structure, and everything that they name is there and works as written."""

import ast
import importlib
import re
import shlex
import xml.etree.ElementTree as ElementTree
from functools import lru_cache
from pathlib import Path

import pytest
from PIL import Image
from torch.distributed.run import get_args_parser

import datasets
import enhance
import NetSet
import run

ROOT = Path(__file__).resolve().parent.parent
EDITIONS = ["README.md", "README.zh.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
each_edition = pytest.mark.parametrize("edition", EDITIONS)


@lru_cache
def text_of(edition: str) -> str:
    return (ROOT / edition).read_text(encoding="utf-8")


def blocks(edition: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(text_of(edition)) if kind == language]


def prose(edition: str) -> str:
    return FENCE.sub("", text_of(edition))


def commands(edition: str) -> list[list[str]]:
    """Every command line: the lines of bash blocks, and what stands in backticks and begins as one does."""
    lines = [line for block in blocks(edition, "bash") for line in block.splitlines()]
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose(edition)) if " " in code]
    split = [shlex.split(line, comments=True) for line in lines if re.match(r"(python3?|py|torchrun) ", line)]
    assert split, f"{edition} names no command"
    return split


# --- the two editions ---


def test_editions_have_the_same_sections():
    levels = [re.findall(r"^(#+) ", prose(edition), re.M) for edition in EDITIONS]
    assert levels[0] == levels[1]
    assert levels[0].count("#") == 1 and levels[0].count("##") >= 8


def test_editions_link_to_each_other_at_the_top():
    for edition, other in zip(EDITIONS, reversed(EDITIONS), strict=True):
        assert f"]({other})" in "\n".join(text_of(edition).splitlines()[:4])


def test_editions_have_the_same_code_but_for_comments():
    kinds = [[kind for kind, _ in FENCE.findall(text_of(edition))] for edition in EDITIONS]
    assert kinds[0] == kinds[1]
    assert commands(EDITIONS[0]) == commands(EDITIONS[1])
    python = [[ast.dump(ast.parse(code)) for code in blocks(edition, "python")] for edition in EDITIONS]
    assert python[0] == python[1]
    assert blocks(EDITIONS[0], "bibtex") == blocks(EDITIONS[1], "bibtex")


def test_editions_have_the_same_tables_links_and_numbers():
    rows = [len(re.findall(r"^\|", prose(edition), re.M)) for edition in EDITIONS]
    assert rows[0] == rows[1]
    links = [re.findall(r"\]\(([^)]+)\)", prose(e).split("\n", 4)[4]) for e in EDITIONS]
    assert links[0] == links[1]
    numbers = [re.findall(r"\d+\.\d+|\d+,\d+", prose(edition)) for edition in EDITIONS]
    assert sorted(numbers[0]) == sorted(numbers[1])


# --- what they name is there ---


@each_edition
def test_relative_links_lead_to_files(edition):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(edition))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing, f"{edition} links to {missing}"


@each_edition
def test_files_named_exist(edition):
    spans = re.findall(r"`([^`\n]+)`", prose(edition)) + blocks(edition, "text")
    names = {name for span in spans for name in re.findall(r"[\w./-]+\.(?:py|ipynb|md|txt|toml)\b", span)}
    assert {"NetSet.py", "run.py", "multi_learning.ipynb"} <= names
    # README.md in the layout's line on DS/ is found too: the root has one
    missing = sorted(n for n in names if not n.startswith("results/") and not (ROOT / n).exists())
    assert not missing, f"{edition} names {missing}"


def test_layout_names_every_module():
    layout = "".join(blocks("README.md", "text"))
    assert all(path.name in layout for path in [*ROOT.glob("*.py"), *ROOT.glob("*.ipynb")])


@each_edition
def test_results_markers_stand_once_and_in_order(edition):
    text = text_of(edition)
    assert text.count("<!-- results:begin -->") == text.count("<!-- results:end -->") == 1
    begin, end = text.index("<!-- results:begin -->"), text.index("<!-- results:end -->")
    assert begin < end and "|" in text[begin:end]


# --- commands are accepted ---


def check_run_py(arguments: list[str]) -> None:
    """What follows `run.py` is a command of its, and a setting handed to `cells` is a plain NAME=VALUE."""
    command, *rest = [word for word in arguments if word != "--no-venv"] or ["quick"]
    assert command in run.COMMANDS
    if command == "cells":
        assert rest[0] in run.NOTEBOOKS
        for pair in rest[1:]:
            name, value = pair.split("=", 1)
            assert name in ("profile", "data_root", "results_root", "changes") and value


@each_edition
def test_commands_are_accepted(edition):
    seen = set()
    for words in commands(edition):
        if words[0] == "torchrun":
            options = get_args_parser().parse_args(words[1:])
            seen.add("nnodes" if "--nnodes" in words else "standalone")
            if options.module:
                assert options.training_script == "IPython"
                assert options.training_script_args == ["task1_sr.ipynb"]
            else:
                assert options.training_script == "run.py" and "--no-venv" in options.training_script_args
                check_run_py(options.training_script_args)
        elif words[1] == "run.py":
            seen.add("run")
            check_run_py(words[2:])
        elif words[1] == "enhance.py":
            enhance.make_parser().parse_args(words[2:])
            seen.add("enhance")
        else:
            assert words[1] == "datasets.py"
            assert words[2:] == [] or (words[2] == "download" and words[3] in datasets.ARCHIVES)
            seen.add("datasets")
    assert seen == {"run", "datasets", "enhance", "standalone", "nnodes"}


def test_every_data_set_to_download_is_named():
    for edition in EDITIONS:
        assert all(name in "".join(blocks(edition, "bash")) for name in datasets.ARCHIVES)


# --- the snippet runs ---


@each_edition
def test_snippets_name_what_the_modules_hold(edition):
    for code in blocks(edition, "python"):
        tree = ast.parse(code)
        imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        modules = {name: importlib.import_module(name) for name in imported}
        assert imported
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in modules:
                    assert hasattr(modules[name], attribute), f"{name}.{attribute}"


def test_snippet_restores_and_classifies(tmp_path, monkeypatch, capsys):
    """With the study's weights, on the photograph of a cat that comes with scikit-image."""
    code = "".join(blocks("README.md", "python"))
    head = datasets.embedded_photographs("test")[0][0][:, :288, 75:363]
    Image.fromarray(head.permute(1, 2, 0).numpy()).save(tmp_path / "photo.jpg")
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(code, "README.md", "exec"), found)
    assert found["lr_img"].shape == (3, 16, 16) and found["restored"].shape == (1, 3, 32, 32)
    assert capsys.readouterr().out.split()[-1] in datasets.CLASSES


# --- the figure ---


@lru_cache
def figure() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "docs" / "architecture.svg").getroot()


def test_figure_names_the_boxes_of_both_forwards():
    words = {"".join(node.itertext()) for node in figure().iter("{http://www.w3.org/2000/svg}text")}
    networks = [NetSet.SRNet(), NetSet.ClassifyNet()]
    boxes = [name for network in networks for name, _ in network.named_children()]
    assert len(boxes) == 10
    assert set(boxes) <= words
    for name in ("Fuzz", "SRNet", "ClassifyNet", "L1", "cross-entropy"):
        assert any(name in text for text in words), name


def test_figure_is_self_contained():
    """No script, no font or picture from elsewhere: code hosts refuse or drop them."""
    tags = {node.tag.rsplit("}", 1)[-1] for node in figure().iter()}
    assert not tags & {"script", "image", "foreignObject"}
    source = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert not re.search(r"@import|@font-face|url\((?!#)|href=\"(?!#)", source)
    assert figure().get("viewBox").split()[2] == "1000" and figure().get("role") == "img"


def test_licence_is_mit():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.startswith("MIT License\n\nCopyright (c) 2026 the authors")
