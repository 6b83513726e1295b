"""What fetches and unpacks the data sets: `python datasets.py download NAME` is the command."""

import hashlib
import http.client
import shutil
import ssl
import stat
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

DATA_ROOT = Path(__file__).resolve().parent.parent / "DS"


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


def download(name: str, root: str | Path = DATA_ROOT) -> None:
    """Fetches and unpacks a set of ARCHIVES into `root`; what is there already is left alone.

    A cut download is kept as NAME.part, and the next call goes on from there. Raises ConnectionError without a
    network, ValueError on a wrong checksum or an unsafe archive.
    """
    root = Path(root)
    for archive in ARCHIVES[name]:
        target = root / archive.target
        if target.exists():
            print(f"{target} is already there; delete it to fetch it again.")
            continue
        root.mkdir(parents=True, exist_ok=True)
        part = root / (archive.url.rsplit("/", 1)[-1] + ".part")
        try:
            fetch(archive.url, part)
        except ConnectionError as error:
            unpack = f"unpack its folder {archive.inner} as" if archive.inner else "put it at"
            raise ConnectionError(f"{error}; run it again, or fetch the file by hand and {unpack} {target}") from error
        _verify(part, archive)
        if archive.inner:
            try:
                extract(part, archive.inner, target)
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
                part.unlink()
                raise ValueError(f"{archive.url} was not unpacked ({error}), and deleted again") from error
            part.unlink()
        else:
            part.replace(target)
        print(f"{target} is ready.")


_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError)


def fetch(url: str, part: Path) -> None:
    """Fetches `url` into the file `part`, going on behind the bytes that are there where the server can."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "Mozilla/5.0 (datasets.py)"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    total = None
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if resumed else 0
            if length := response.headers.get("Content-Length"):
                total = have + int(length)
            bar = tqdm(desc=part.stem, initial=have, total=total, unit="B", unit_scale=True, file=sys.stdout)
            with open(part, "ab" if resumed else "wb") as file, bar:
                while block := response.read(1 << 18):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing lies behind the bytes that are here
            raise ConnectionError(f"{url} was not fetched (the server answers {error.code})") from error
    except _NETWORK_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"{url} was not fetched ({reason})") from error
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
