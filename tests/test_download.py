"""download.py: from a server on this machine, cut off, resumed, checked, and unpacked or refused."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets
import download
from datasets import main
from download import extract


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                file.addfile(info)
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; `serve(content, ...)` points the set "set5" at it and returns its log."""
    state = {"content": b"", "cut": None, "ranges": True, "log": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content, asked = state["content"], self.headers.get("Range")
            state["log"].append(asked)
            start = int(asked[6:-1]) if asked and state["ranges"] else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end, state["cut"] = state["cut"], None
            self.wfile.write(content[start:end])

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)

    def serve(content, checksum="", inner="Set5_HR", target="Set5/HR", **more):
        state.update(content=content, **more)
        url = f"http://127.0.0.1:{web.server_port}/Set5_HR.tar.gz"
        archive = download.Archive("1 kB", url, inner, target, checksum)
        monkeypatch.setitem(download.ARCHIVES, "set5", [archive])
        return state["log"]

    yield serve
    web.shutdown()
    web.server_close()


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def leftovers(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_download_unpacks_and_shows_progress(server, tmp_path, capsys, pack):
    content = pack({"Set5_HR/baby.png": png(), "Set5_HR/._baby.png": b"mac"})
    server(content, "sha256:" + hashlib.sha256(content).hexdigest())
    assert main(["download", "set5", "--root", str(tmp_path / "数据 set")]) == 0
    assert leftovers(tmp_path) == ["数据 set/Set5/HR/._baby.png", "数据 set/Set5/HR/baby.png"]
    out = capsys.readouterr().out
    assert "100%" in out and "is ready" in out
    assert datasets.find_sr_test(tmp_path / "数据 set")[0].names == ["baby"]
    assert main(["download", "set5", "--root", str(tmp_path / "数据 set")]) == 0
    assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server, tmp_path, capsys, ranges):
    content = tar_of({"Set5_HR/baby.png": png()})
    log = server(content, "md5:" + hashlib.md5(content).hexdigest(), cut=5000, ranges=ranges)
    assert main(["download", "set5", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "broke off at 5,000 of" in error and "run the command again" in error
    assert leftovers(tmp_path) == ["Set5_HR.tar.gz.part"]
    assert main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert log == [None, "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]


def test_a_part_that_is_already_whole_is_unpacked(server, tmp_path, capsys):
    content = tar_of({"Set5_HR/baby.png": png()})
    server(content)
    (tmp_path / "Set5_HR.tar.gz.part").write_bytes(content)
    assert main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert leftovers(tmp_path) == ["Set5/HR/baby.png"]
    out = capsys.readouterr().out
    assert "no checksum is published" in out and hashlib.sha256(content).hexdigest() in out


def test_a_single_file_is_put_in_its_place_and_checked_by_how_its_checksum_begins(server, tmp_path, capsys):
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    server(b"weights", f"sha256:{begins}", inner="", target="weights.pth")
    assert main(["download", "set5", "--root", str(tmp_path)]) == 0
    assert leftovers(tmp_path) == ["weights.pth"] and (tmp_path / "weights.pth").read_bytes() == b"weights"
    server(b"other weights", f"sha256:{begins}", inner="", target="others.pth")
    assert main(["download", "set5", "--root", str(tmp_path)]) == 1
    assert leftovers(tmp_path) == ["weights.pth"] and f"instead of {begins}" in capsys.readouterr().err


def test_a_wrong_checksum_deletes_the_download(server, tmp_path, capsys):
    server(tar_of({"Set5_HR/baby.png": png()}), "md5:" + "0" * 32)
    assert main(["download", "set5", "--root", str(tmp_path)]) == 1
    assert "instead of 000" in capsys.readouterr().err and leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tar_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
        (tar_of({"/tmp/evil-absolute": b"x"}), "leads outside"),
        (tar_of({"Set5_HR/link": (tarfile.SYMTYPE, "/etc")}), "link or a device"),
        (tar_of({"Set5_HR/hard": (tarfile.LNKTYPE, "/etc/passwd")}), "link or a device"),
        (tar_of({"Set5_HR/pipe": (tarfile.FIFOTYPE, "")}), "link or a device"),
        (zip_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
        (zip_of({"Set5_HR\\..\\..\\evil": b"x"}), "leads outside"),
        (tar_of({"other/a.png": b"x"}), "no folder Set5_HR"),
        (tar_of({"Set5_HR/a.png": png()})[:3000], "was not unpacked"),
        (b"<html>not found</html>", "was not unpacked"),
    ],
    ids=["up", "absolute", "symlink", "hard link", "pipe", "zip up", "backslash", "other", "cut", "html"],
)
def test_unsafe_and_broken_archives_leave_nothing(server, tmp_path, capsys, content, message):
    server(content)
    root = tmp_path / "deep" / "DS"
    assert main(["download", "set5", "--root", str(root)]) == 1
    assert message in capsys.readouterr().err
    assert leftovers(tmp_path) == [] and not (root / "Set5").exists() and not list(root.iterdir())


def test_an_archive_too_large_is_refused(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of({"x/a": bytes(2000)}))
    with pytest.raises(ValueError, match="unpacks to"):
        extract(archive, "x", tmp_path / "x", max_bytes=1000)
    assert leftovers(tmp_path) == ["a.zip"]


def test_no_server_and_no_right_to_write_are_one_sentence(server, tmp_path, capsys, monkeypatch):
    server(b"")
    refused = download.Archive("1 kB", "http://127.0.0.1:9/Set5_HR.tar.gz", "Set5_HR", "Set5/HR")
    monkeypatch.setitem(download.ARCHIVES, "set5", [refused])
    assert main(["download", "set5", "--root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "127.0.0.1:9" in error and "unpack its folder Set5_HR as" in error and len(error.splitlines()) == 1

    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "DS"))

    monkeypatch.setattr(Path, "mkdir", forbidden)
    assert main(["download", "set5", "--root", str(tmp_path / "DS")]) == 1
    error = capsys.readouterr().err
    assert "Permission denied" in error and "DS" in error and len(error.splitlines()) == 1
