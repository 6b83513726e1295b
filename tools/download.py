"""What lists, fetches and unpacks the data sets: `python3 run.py data` and `python3 run.py data NAME`."""

import argparse
import contextlib
import gzip
import hashlib
import http.client
import multiprocessing
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from urllib.parse import urlsplit

import torch
from filelock import FileLock
from tqdm import tqdm

from tools import drawn
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
_MIRROR = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
_HUB = _MIRROR + "/datasets/eugenesiow/{0}/resolve/main/data/{0}_HR.tar.gz"
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


def download(name: str, root: str | Path = DATA_ROOT) -> None:
    """Fetches and unpacks a set of ARCHIVES into `root`; what is there already is left alone.

    A download that breaks off goes on from there with the next call. Raises ConnectionError without a network,
    ValueError on a wrong checksum or a broken archive.
    """
    root = Path(root).expanduser()
    for archive in ARCHIVES[name]:
        try:
            _get(archive, root)
        except ConnectionError as error:
            unpack = f"unpack its folder {archive.inner} as" if archive.inner else "put it at"
            advice = f"run it again, or fetch the file by hand and {unpack} {root / archive.target}"
            raise ConnectionError(f"{error}; {advice}") from error


def _get(archive: Archive, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    target, part = root / archive.target, root / (archive.url.rsplit("/", 1)[-1] + ".part")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks goes without
            stack.enter_context(FileLock(root / ".download.lock"))  # two notebooks, or torchrun's processes
        if target.exists():
            print(f"{target} is already there; delete it to fetch it again.")
            return
        fetch(archive.url, part)
        _verify(part, archive)
        if archive.inner:
            _extract(part, archive, target)
        else:
            part.replace(target)
        print(f"{target} is ready.")


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
    host, silent = urlsplit(url).netloc, f"no answer in {PROBE_SECONDS} seconds"
    if host in _unreachable or silent in _unreachable.values():
        return _unreachable.get(host, silent)
    try:
        with ThreadPool(1) as pool:  # a thread, since the search for a host's address knows no time limit
            pool.apply_async(_request, (url, {"Range": "bytes=0-0"}, PROBE_SECONDS)).get(PROBE_SECONDS).close()
        _unreachable[host] = ""
    except urllib.error.HTTPError:
        _unreachable[host] = ""  # the host is there; what is wrong with the file is said when it is fetched
    except Exception as error:
        timed_out = isinstance(getattr(error, "reason", error), (TimeoutError, multiprocessing.TimeoutError))
        _unreachable[host] = silent if timed_out else _reason(error)
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
            (archive,) = ARCHIVES[SMALL_SETS[name]]
            if reason := probe(archive.url):
                raise ConnectionError(f"{urlsplit(archive.url).netloc}: {reason}")
            _get(archive, root)
        except (OSError, ValueError) as error:
            reasons[name] = str(error)
    if reasons:
        why = "; ".join(dict.fromkeys(reasons.values()))
        say_once(f"Not in {root} and not fetched: {', '.join(reasons)} ({why}). Images that need no download are used "
                 f"instead; `python3 run.py data NAME` fetches a set.")  # fmt: skip
    return [name for name in names if not is_there(name, root)]


def fetch(url: str, part: Path) -> None:
    """Fetches `url` into the file `part`, going on behind the bytes that are there where the server can, and once more
    where it breaks off, as long as it gets further.
    """
    before = have = part.stat().st_size if part.exists() else 0
    total = None
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
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if getattr(error, "code", 0) != 416 or not have:  # 416: nothing lies behind the bytes that are here
            raise ConnectionError(f"{url} was not fetched ({_reason(error)})") from error
    if total is not None and (size := part.stat().st_size) < total:
        if size <= before:
            raise ConnectionError(f"{url} broke off at {size:,} of {total:,} bytes, kept")
        fetch(url, part)


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


def _extract(part: Path, archive: Archive, target: Path) -> None:
    """Unpacks the folder `archive.inner` as `target`, which appears whole or not at all. Python itself keeps what is
    unpacked inside the folder, and refuses devices and links that lead out of it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=part.parent) as temporary:
            if zipfile.is_zipfile(part):
                with zipfile.ZipFile(part) as file:
                    file.extractall(temporary)
            else:
                with tarfile.open(part) as file:
                    file.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.10.12
                    file.extractall(temporary)
                    while file.fileobj.read(1 << 20):  # up to the end, where gzip compares its checksum
                        pass
            folder = Path(temporary, archive.inner)
            if not folder.is_dir():
                raise ValueError(f"it holds no folder {archive.inner}")
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
        part.unlink()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
        part.unlink()
        why = str(error).splitlines()[0].rstrip(":")
        raise ValueError(f"{archive.url} was not unpacked ({why}), and deleted again") from error


# --- what there is ----------------------------------------------------------------------------------------------------


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
        name = target.removesuffix("/HR").removesuffix("/cifar-10-batches-bin")
        try:
            place = find_vgg(name.split("-")[0], root) if name.endswith(".pth") else find(name, root)
            count = f", {len(hr_files(place))} images" if place and place.is_dir() and name != "CIFAR10" else ""
            state = f"{place}{count}" if place else f"missing: {hint}"
        except (OSError, ValueError) as error:
            state = f"BROKEN: {error}"
        print(f"{name:19} {state}")
    for part, files in drawn.PHOTOGRAPHS.items():
        print(f"{'embedded':19} {part}: {', '.join(Path(f).stem for f in files)} ({drawn.PHOTOGRAPHS_NAME})")


def main(argv: Sequence[str] | None = None) -> int:
    """`run.py data`."""
    parser = argparse.ArgumentParser(prog="run.py data", description="Lists the data sets, or fetches one.")
    parser.add_argument("name", nargs="?", choices=list(ARCHIVES), help="what to fetch; without it: list what is there")
    parser.add_argument("--root", default=DATA_ROOT, help="the folder of the data sets (default: DS beside run.py)")
    args = parser.parse_args(argv)
    if args.name:
        download(args.name, args.root)
    else:
        show(args.root)
    return 0
