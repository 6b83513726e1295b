"""download.py: from a server on this machine: cut off, resumed, checked, unpacked or refused; asked for or not."""
import dataclasses
import hashlib
import http.server
import io
import re
import socket
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest

import datasets
from tools import download

from .conftest import refuses

BABY = {"Set5_HR/baby.png": np.random.default_rng(0).bytes(12_000)}


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in members.items():
            info, data = tarfile.TarInfo(name), isinstance(content, bytes)
            info.size, info.type, info.linkname = (len(content), tarfile.REGTYPE, "") if data else (0, *content)
            file.addfile(info, io.BytesIO(content) if data else None)
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
    state = {"content": b"", "cut": None, "ranges": True, "wait": 0, "status": 200, "kind": "binary/any", "log": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content, asked = state["content"], self.headers.get("Range")
            state["log"].append(asked)
            time.sleep(state["wait"])
            start = int(asked[6:].split("-")[0]) if asked and state["ranges"] else 0
            if start and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else state["status"])
            self.send_header("Content-Type", state["kind"])
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end, state["cut"] = (state["cut"], None) if asked != "bytes=0-0" else (1, state["cut"])
            self.wfile.write(content[start:end])

    Handler.log_message = lambda *_: None
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.handle_error = lambda *_: None  # a client that waits no longer
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.delenv("NO_DOWNLOAD", raising=False)
    monkeypatch.setattr(download, "_unreachable", {})

    def serve(content, checksum="", inner="Set5_HR", target="Set5/HR", **more):
        state.update(content=content, **more)
        url = f"http://127.0.0.1:{web.server_port}/Set5_HR.tar.gz"
        archive = download.Archive("1 kB", url, inner, target, checksum)
        monkeypatch.setitem(download.ARCHIVES, "set5", [archive])
        other = download.Archive("1 kB", url.replace("127.0.0.1", "localhost"), inner, "Set14/HR", checksum)
        monkeypatch.setitem(download.ARCHIVES, "set14", [other])
        return state["log"]

    yield serve
    web.shutdown()
    web.server_close()


def fetch(root):
    return datasets.main(["set5", "--root", str(root)])


def leftovers(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_download_unpacks_and_is_not_repeated(server, tmp_path, capsys, pack):
    content, root = pack(BABY), tmp_path / "数据 set"
    log = server(content, "sha256:" + hashlib.sha256(content).hexdigest())
    for said in ("is ready", "already there"):
        assert fetch(root) == 0 and said in capsys.readouterr().out
    assert log == [None] and leftovers(root) == ["Set5/HR/baby.png"]
    assert datasets.find_sr_test(root)[0].names == ["baby"]
    (tmp_path / "packed").write_bytes(content)
    place = tmp_path / "packed", "Set5_HR", tmp_path / "too large"
    refuses(ValueError, "unpacks to", download.extract, *place, max_bytes=10)
    assert not place[2].exists()


def test_a_cut_download_goes_on(server, tmp_path):
    content = tar_of(BABY)
    log = server(content, "md5:" + hashlib.md5(content).hexdigest(), cut=5000)
    assert fetch(tmp_path) == 0
    assert log == [None, "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]


def test_a_download_that_gets_no_further_is_kept_for_the_next_call(server, tmp_path, capsys):
    content = tar_of(BABY)
    log = server(content, "md5:" + hashlib.md5(content).hexdigest(), cut=5000, ranges=False)
    (tmp_path / "Set5_HR.tar.gz.part").write_bytes(content[:6000])
    assert fetch(tmp_path) == 1
    assert "broke off at 5,000 of" in capsys.readouterr().err and leftovers(tmp_path) == ["Set5_HR.tar.gz.part"]
    assert fetch(tmp_path) == 0
    assert log == ["bytes=6000-", "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]


def test_a_part_that_is_already_whole_is_unpacked(server, tmp_path, capsys):
    server(tar_of(BABY))
    (tmp_path / "Set5_HR.tar.gz.part").write_bytes(tar_of(BABY))
    assert fetch(tmp_path) == 0 and leftovers(tmp_path) == ["Set5/HR/baby.png"]
    assert "no checksum is published" in capsys.readouterr().out


def test_a_single_file_is_checked_by_how_its_checksum_begins(server, tmp_path, capsys):
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    server(b"weights", f"sha256:{begins}", inner="", target="weights.pth")
    assert fetch(tmp_path) == 0
    server(b"other weights", f"sha256:{begins}", inner="", target="others.pth")
    assert fetch(tmp_path) == 1 and f"instead of {begins}" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["weights.pth"] and (tmp_path / "weights.pth").read_bytes() == b"weights"


@pytest.mark.parametrize("content, message", [
    (tar_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
    (tar_of({"/tmp/evil-absolute": b"x"}), "leads outside"),
    (tar_of({"Set5_HR/link": (tarfile.SYMTYPE, "/etc")}), "link or a device"),
    (tar_of({"Set5_HR/pipe": (tarfile.FIFOTYPE, "")}), "link or a device"),
    (zip_of({"Set5_HR/a.png": b"x", "../evil": b"x"}), "evil leads outside"),
    (zip_of({"Set5_HR\\..\\..\\evil": b"x"}), "leads outside"),
    (tar_of({"other/a.png": b"x"}), "no folder Set5_HR"),
    (tar_of(BABY)[:3000], "was not unpacked"), (b"<html>not found</html>", "was not unpacked"),
    (tar_of(BABY)[:6000] + b"?" + tar_of(BABY)[6001:], "was not unpacked (CRC"),
], ids=["up", "absolute", "symlink", "pipe", "zip up", "backslash", "other", "cut", "html", "one byte"])  # fmt: skip
def test_unsafe_and_broken_archives_leave_nothing(server, tmp_path, capsys, content, message):
    server(content)
    root = tmp_path / "deep" / "DS"
    assert fetch(root) == 1 and message in capsys.readouterr().err
    assert leftovers(tmp_path) == [] and not datasets.entries(root)


def test_without_a_server_one_sentence_says_what_to_do(tmp_path, capsys, monkeypatch):
    archive = download.Archive("1 kB", "http://127.0.0.1:9/Set5_HR.tar.gz", "Set5_HR", "Set5/HR")
    monkeypatch.setitem(download.ARCHIVES, "set5", [archive])
    assert fetch(tmp_path) == 1
    assert re.fullmatch(r"error: .*127.0.0.1:9.*unpack its folder Set5_HR as .*\n", capsys.readouterr().err)


def test_missing_sets_are_fetched_without_being_asked_for(server, tmp_path, capsys):
    log = server(tar_of(BABY), cut=5000)
    assert datasets.fetch_missing(["Set5", "DIV2K/valid"], tmp_path) == ["DIV2K/valid"]
    assert log == ["bytes=0-0", None, "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]
    assert datasets.fetch_missing(["Set5"], tmp_path) == [] and len(log) == 3
    assert "not fetched" not in capsys.readouterr().out


def unknown(*_):
    raise socket.gaierror(-2, "Name not known")


@pytest.mark.parametrize("trouble, why", [
    ({"wait": 1}, "127.0.0.1:.*no answer in 0.2 seconds"), ({"kind": "text/html"}, "does this network want a login?"),
    ({"status": 503}, "was not fetched .the server answers 503"), ({"content": b"else"}, "was not unpacked"),
    ({"checksum": "md5:0"}, "instead of 0: deleted"), ({"host": "127.0.0.1:9"}, "refused"),
    ({"lookup": lambda *_: time.sleep(1)}, "no answer in 0.2 s"), ({"lookup": unknown}, "127.0.0.1:.* Name not known"),
    ({"allowed": False}, "downloads are off"), ({"NO_DOWNLOAD": "1"}, "downloads are off"),
], ids=lambda case: str(case)[:20])  # fmt: skip
def test_what_did_not_come_is_said_in_one_line_and_leaves_nothing(server, tmp_path, capsys, monkeypatch, trouble, why):
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.2)
    monkeypatch.setenv("NO_DOWNLOAD", trouble.pop("NO_DOWNLOAD", ""))
    monkeypatch.setattr("socket.getaddrinfo", trouble.pop("lookup", socket.getaddrinfo))
    host, allowed = trouble.pop("host", None), trouble.pop("allowed", True)
    log = server(**{"content": tar_of(BABY)} | trouble)
    if host:
        for name, (archive,) in {name: download.ARCHIVES[name] for name in ("set5", "set14")}.items():
            url = f"http://{host}/{name}.tar.gz"
            monkeypatch.setitem(download.ARCHIVES, name, [dataclasses.replace(archive, url=url)])
    start = time.monotonic()
    for _ in range(2):
        assert datasets.fetch_missing(["Set5", "Set14"], tmp_path, allowed) == ["Set5", "Set14"]
    assert time.monotonic() - start < 3 and leftovers(tmp_path) == []
    said = [line for line in capsys.readouterr().out.splitlines() if "not fetched:" in line]
    assert len(said) == 1 and re.search(f"Set5, Set14 .*{why}.*Images that need no download are used", said[0])
    if why.startswith(("downloads are off", "127.0.0.1:.*no answer")):
        assert len(log) == ("wait" in trouble)  # after a host that is silent no other is asked, not even later
