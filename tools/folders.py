"""Where the data sets lie in their folder, and what lies there unread."""

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from tools import cifar10
from tools.images import IMAGE_SUFFIXES, list_images

DATA_ROOT = Path(__file__).resolve().parent.parent / "DS"
_JUNK = ("thumbs.db", "desktop.ini", "__macosx", "icon\r")
_OTHER_KINDS = (".bin", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_SETS = ("CIFAR10", "DIV2K", "photographs", "CID22", "Set5", "Set14", "B100", "Urban100")


@cache
def say_once(line: str) -> None:
    print(line)


def data_root(root: str | Path) -> Path:
    """The folder of the data sets, `~` expanded; FileNotFoundError where it is not there, but for the default."""
    folder = Path(root).expanduser()
    if not folder.is_dir() and folder != DATA_ROOT:
        raise FileNotFoundError(f"{os.path.abspath(folder)} is no folder: expected the folder of the data sets")
    return folder


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files and what file managers leave there."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(f for f in found if not f.name.startswith(".") and f.name.lower() not in _JUNK)


def say_unread(folder: Path, read: Collection[str], advice="DS/README.md has the layout") -> None:
    """Says once which images, archives and folders with such in `folder` are none of those that are read."""
    kinds, names = IMAGE_SUFFIXES + _OTHER_KINDS, []
    for entry in entries(folder):
        if entry.name not in read and any(file.suffix.lower() in kinds for file in (entry, *entry.rglob("*"))):
            names.append(entry.name)
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        say_once(f"{folder}: {', '.join(names[:3])}{more} not read; {advice}")


def find(name: str, root: str | Path) -> Path | None:
    """The folder of "CIFAR10", "Set14" or "DIV2K/train" if it is not empty, else None; says what is not read."""
    root, (top, _, part) = data_root(root), name.partition("/")
    places = [cifar10.find(root)] if name == "CIFAR10" else [root / name, root / top / f"{top}_{part}_HR"]
    if folder := next((place for place in places if place and entries(place)), None):
        return folder
    say_unread(root, _SETS)
    say_unread(root / top, ("train", "valid", f"{top}_train_HR", f"{top}_valid_HR"))
    return None


def is_there(name: str, root: str | Path = DATA_ROOT) -> bool:
    """Whether `root` holds the real data set: "CIFAR10", or a folder such as "Set14" that is not empty."""
    return find(name, root) is not None


def set_name(folder: Path) -> str:
    folder = Path(os.path.abspath(folder))  # not resolved: a link to a set is called as the set is here
    if part := re.fullmatch("DIV2K_(train|valid)_HR", folder.name):
        return f"DIV2K/{part[1]}"
    return f"{folder.parent.name}/{folder.name}" if folder.name in ("train", "valid", "test") else folder.name


def hr_files(root: Path) -> list[Path]:
    """The images in `root`/HR where that is a folder, else in `root`; ValueError where LR files lie among them."""
    files = list_images(root / "HR" if (root / "HR").is_dir() else root)
    say_unread(root, {"HR", "LR_bicubic", *(file.name for file in files if file.parent == root)})
    stems = {file.stem for file in files}
    for stem in stems:
        lr = re.fullmatch(r"(.+?)_?(LR|x[2348]|SRF_\d+)", stem)
        if lr and (hr := {lr[1], f"{lr[1]}_HR"} & stems):
            advice = "put HR into HR/ and LR into LR_bicubic/X2/, see DS/README.md, or rename one"
            raise ValueError(f"{files[0].parent} holds {hr.pop()} and {stem}, which seem to be HR and LR: {advice}")
    return files


def names_of(files: Sequence[Path]) -> list[str]:
    """The files' names without suffix, or with it where two would be the same."""
    count = Counter(file.stem for file in files)
    return [file.stem if count[file.stem] == 1 else file.name for file in files]
