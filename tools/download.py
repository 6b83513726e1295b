"""What lists, fetches and unpacks the data sets: `python3 run.py data` and `python3 run.py data NAME`."""

import argparse
import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import ssl
import stat
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from filelock import FileLock
from tqdm import tqdm

from tools import cifar10, drawn
from tools.folders import DATA_ROOT, data_root, find, hr_files, is_there, say_once


@dataclass(frozen=True)
class Archive:
    """One file to fetch: its size, where it is, and which of its folders becomes which under DS/."""

    size: str
    url: str
    inner: str  # folder inside the archive; empty: the file itself
    target: str  # where that folder or file goes, below the root
    checksum: str = ""  # "md5:..." or "sha256:...", or how it begins; empty: none is published


_CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_{}_HR.zip"
_HUB = "https://huggingface.co/datasets/eugenesiow/{0}/resolve/main/data/{0}_HR.tar.gz"
_VGG = "https://download.pytorch.org/models/{}.pth"
_CIFAR10_MD5 = "md5:c32a1d4ab5d03f1284b67883e8d87530"  # on its makers' page
_TRAIN_MD5 = "md5:bdc2d9338d4e574fe81bf7d158758658"  # in several public loaders; its makers state none
_VALID_MD5 = "md5:9fcdda83005c5e5997799b69f955ff88"
ARCHIVES = {
    "cifar10": [Archive("162 MB", _CIFAR10, "cifar-10-batches-bin", "CIFAR10/cifar-10-batches-bin", _CIFAR10_MD5)],
    "set5": [Archive("0.9 MB", _HUB.format("Set5"), "Set5_HR", "Set5/HR")],
    "set14": [Archive("5 MB", _HUB.format("Set14"), "Set14_HR", "Set14/HR")],
    "b100": [Archive("not stated", _HUB.format("BSD100"), "BSD100_HR", "B100/HR")],
    "urban100": [Archive("135 MB", _HUB.format("Urban100"), "Urban100_HR", "Urban100/HR")],
    "div2k": [
        Archive("3.5 GB", _DIV2K.format("train"), "DIV2K_train_HR", "DIV2K/train", _TRAIN_MD5),
        Archive("0.4 GB", _DIV2K.format("valid"), "DIV2K_valid_HR", "DIV2K/valid", _VALID_MD5),
    ],
    "vgg16": [Archive("528 MB", _VGG.format("vgg16-397923af"), "", "vgg16-397923af.pth", "sha256:397923af")],
    "vgg19": [Archive("548 MB", _VGG.format("vgg19-dcbb9e9d"), "", "vgg19-dcbb9e9d.pth", "sha256:dcbb9e9d")],
}


SMALL_SETS = {"CIFAR10": "cifar10", "Set5": "set5", "Set14": "set14"}  # fetched without being asked for
SR_TEST_SETS = {"Set5": "set5", "Set14": "set14", "B100": "b100", "Urban100": "urban100", "DIV2K/valid": "div2k"}


def download(name: str, root: str | Path = DATA_ROOT) -> None:
    """Fetches and unpacks a set of ARCHIVES into `root`; what is there already is left alone.

    A download that breaks off goes on from there, now while it gets further, else with the next call. Raises
    ConnectionError without a network, ValueError on a wrong checksum or an unsafe archive.
    """
    root = Path(root).expanduser()
    for archive in ARCHIVES[name]:
        target = root / archive.target
        try:
            _get(archive, root, target)
        except ConnectionError as error:
            unpack = f"unpack its folder {archive.inner} as" if archive.inner else "put it at"
            raise ConnectionError(f"{error}; run it again, or fetch the file by hand and {unpack} {target}") from error


def _get(archive: Archive, root: Path, target: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    part = root / (archive.url.rsplit("/", 1)[-1] + ".part")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks goes without
            stack.enter_context(FileLock(root / ".download.lock"))  # two notebooks, or torchrun's processes
        if target.exists():
            print(f"{target} is already there; delete it to fetch it again.")
            return
        while True:
            have = _size(part)
            try:
                fetch(archive.url, part)
                break
            except ConnectionError:
                if _size(part) <= have:
                    raise
        _verify(part, archive)
        if archive.inner:
            try:
                extract(part, archive.inner, target)
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
                part.unlink()
                why = str(error).splitlines()[0].rstrip(":")
                raise ValueError(f"{archive.url} was not unpacked ({why}), and deleted again") from error
            part.unlink()
        else:
            part.replace(target)
        print(f"{target} is ready.")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError)


def _request(url: str, headers: dict[str, str], timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "Mozilla/5.0 (datasets.py)"} | headers
    response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise ConnectionError("a web page came in its place: does this network want a login?")
    return response


def _reason(error: Exception) -> str:
    if code := getattr(error, "code", None):
        return f"the server answers {code}"
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)


PROBE_SECONDS = 5
_unreachable: dict[str, str] = {}  # host: why it cannot be reached, "" where it can


def probe(url: str) -> str:
    """Why the host of `url` cannot be reached, "" where it can: asked once a process, for at most five seconds. After a
    host that gives no answer no other is asked: this machine is offline.
    """
    host, silent, answers = urlsplit(url).netloc, f"no answer in {PROBE_SECONDS} seconds", []
    if host in _unreachable or silent in _unreachable.values():
        return _unreachable.get(host, silent)

    def ask() -> None:  # in a thread, since the search for a host's address knows no time limit
        try:
            _request(url, {"Range": "bytes=0-0"}, PROBE_SECONDS).close()
            answers.append("")
        except urllib.error.HTTPError:
            answers.append("")  # the host is there; what is wrong with the file is said when it is fetched
        except Exception as error:
            answers.append(silent if isinstance(getattr(error, "reason", error), TimeoutError) else _reason(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    _unreachable[host] = answers[0] if answers else silent
    return _unreachable[host]


def fetch_missing(names: Sequence[str], root: str | Path = DATA_ROOT, download: bool = True) -> list[str]:
    """Fetches those of CIFAR10, Set5 and Set14 among `names` that `root` lacks; returns what is still missing.

    download=False, or NO_DOWNLOAD=1 in the environment, forbids it. Where a set did not come, one line says why and
    what is used instead.
    """
    root, reasons = data_root(root), {}
    for name in [name for name in names if name in SMALL_SETS and not is_there(name, root)]:
        try:
            if not download or os.environ.get("NO_DOWNLOAD"):
                raise ConnectionError("downloads are off")
            for archive in ARCHIVES[SMALL_SETS[name]]:
                if reason := probe(archive.url):
                    raise ConnectionError(f"{urlsplit(archive.url).netloc}: {reason}")
                _get(archive, root, root / archive.target)
        except (OSError, ValueError) as error:
            reasons[name] = str(error)
    if reasons:
        why = "; ".join(dict.fromkeys(reasons.values()))
        say_once(f"Not in {root} and not fetched: {', '.join(reasons)} ({why}). Images that need no download are used "
                 f"instead; `python3 run.py data NAME` fetches a set.")  # fmt: skip
    return [name for name in names if not is_there(name, root)]


def fetch(url: str, part: Path) -> None:
    """Fetches `url` into the file `part`, going on behind the bytes that are there where the server can."""
    have, total = _size(part), None
    try:
        with _request(url, {"Range": f"bytes={have}-"} if have else {}, timeout=10) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if resumed else 0
            if length := response.headers.get("Content-Length"):
                total = have + int(length)
            bar = tqdm(desc=part.stem, initial=have, total=total, unit="B", unit_scale=True, file=sys.stdout)
            with open(part, "ab" if resumed else "wb") as file, bar:
                while block := response.read(1 << 18):
                    file.write(block)
                    bar.update(len(block))
    except _NETWORK_ERRORS as error:
        if getattr(error, "code", 0) != 416 or not have:  # 416: nothing lies behind the bytes that are here
            raise ConnectionError(f"{url} was not fetched ({_reason(error)})") from error
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"{url} broke off at {part.stat().st_size:,} of {total:,} bytes, kept")


def _verify(part: Path, archive: Archive) -> None:
    kind, _, expected = (archive.checksum or "sha256:").partition(":")
    digest = hashlib.new(kind)
    with open(part, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if not expected:
        print(f"{part.stem}: no checksum is published; the sha256 of what came is {found}")
    elif not found.startswith(expected):
        part.unlink()
        raise ValueError(f"{archive.url} came with {kind} {found} instead of {expected}: deleted, fetch it again")


def extract(archive: Path, inner: str, target: Path, max_bytes: float = 20e9) -> None:
    """Unpacks the folder `inner` of a tar or zip archive as `target`, which appears whole or not at all.

    ValueError where a member is absolute, climbs out, is a link or a device, or all weigh over `max_bytes`.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=archive.parent))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                kinds = (0, stat.S_IFREG, stat.S_IFDIR)
                found = [(m.filename, m.file_size, stat.S_IFMT(m.external_attr >> 16) in kinds) for m in file.filelist]
                _check_members(found, max_bytes)
                file.extractall(temporary)
        else:
            with tarfile.open(archive) as file:
                _check_members([(m.name, m.size, m.isreg() or m.isdir()) for m in file.getmembers()], max_bytes)
                file.extractall(temporary, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
                while file.fileobj.read(1 << 20):  # up to the end, where gzip compares its checksum
                    pass
        if not (temporary / inner).is_dir():
            raise ValueError(f"it holds no folder {inner}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary / inner).rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_members(members: list[tuple[str, int, bool]], max_bytes: float) -> None:  # (name, bytes, is plain)
    for name, _, plain in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise ValueError(f"unsafe archive: {name} leads outside its folder")
        if not plain:
            raise ValueError(f"unsafe archive: {name} is a link or a device")
    if (total := sum(size for _, size, _ in members)) > max_bytes:
        raise ValueError(f"unsafe archive: it unpacks to {total / 1e9:.0f} GB")


# --- what there is ----------------------------------------------------------------------------------------------------


def absent_sr_test(root: str | Path = DATA_ROOT) -> dict[str, str]:
    """The five test sets that are not there: {name: how to get it}."""
    return {k: f"python3 run.py data {v}" for k, v in SR_TEST_SETS.items() if not is_there(k, root)}


def find_vgg(network: str = "vgg19", root: str | Path = DATA_ROOT) -> Path | None:
    """VGG16's or VGG19's ImageNet weights: torchvision's file in `root` or its cache, else VGG19's first blocks."""
    name, root = ARCHIVES[network][0].target, Path(root).expanduser()
    places = root / name, Path(torch.hub.get_dir(), "checkpoints", name), root / f"{network}_blocks1to3.pth"
    return next((place for place in places if place.is_file()), None)


def show(root: str | Path = DATA_ROOT) -> None:
    """Prints every data set: where it lies and how many images, how to get it, or that it is broken."""
    root = data_root(root)
    hints = {a.target: f"{a.size}, python3 run.py data {name}" for name in ARCHIVES for a in ARCHIVES[name]}
    hints |= dict.fromkeys(("photographs/train", "photographs/valid", "CID22/train", "CID22/valid"), "see DS/README.md")
    for target, hint in hints.items():
        name, state = target.removesuffix("/HR").removesuffix("/cifar-10-batches-bin"), f"missing: {hint}"
        try:
            if place := find_vgg(name.split("-")[0], root) if name.endswith(".pth") else find(name, root):
                state = str(place)
            if place and name == "CIFAR10" and not (place / "train").is_dir():
                state += f", {sum(len(cifar10.read(place, train)) for train in (True, False)):,} images"
            elif place and place.is_dir() and name != "CIFAR10":
                state += f", {len(hr_files(place))} images"
        except (OSError, ValueError) as error:
            state = f"BROKEN: {error}"
        print(f"{name:19} {state}")
    for part, files in drawn.PHOTOGRAPHS.items():
        print(f"{'embedded':19} {part}: {', '.join(Path(f).stem for f in files)} ({drawn.PHOTOGRAPHS_NAME})")


def in_one_line(command: Callable[[], object], stopped: str) -> int:
    """Run a command; say what it raises in one line on stderr, `stopped` on Ctrl-C. Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="backslashreplace")  # a file's name never stops a command
    try:
        command()
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`run.py data`."""
    parser = argparse.ArgumentParser(prog="run.py data", description="Lists the data sets, or fetches one.")
    parser.add_argument("name", nargs="?", choices=list(ARCHIVES), help="what to fetch; without it: list what is there")
    parser.add_argument("--root", default=DATA_ROOT, help="the folder of the data sets (default: DS beside run.py)")
    args = parser.parse_args(argv)
    command = (lambda: download(args.name, args.root)) if args.name else (lambda: show(args.root))
    return in_one_line(command, stopped="stopped; the same command goes on from here.")
