"""download.py, from a server on this machine: cut off, resumed, checked, unpacked or refused; asked for or not."""
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


TAR = tar_of(BABY)


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine; `serve(content, ...)` points Set5 and Set14 at it and returns what it is asked."""
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

    def serve(content=TAR, checksum="", inner="Set5_HR", target="HR", port=web.server_port, **more):
        state.update(content=content, **more)
        for name, host in (("Set5", "127.0.0.1"), ("Set14", "localhost")):
            url = f"http://{host}:{port}/Set5_HR.tar.gz"
            archive = download.Archive("1 kB", url, inner, f"{name}/{target}", checksum)
            monkeypatch.setitem(download.ARCHIVES, name.lower(), [archive])
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
    log, root = server(pack(BABY)), tmp_path / "数据 set"
    for said in ("no checksum is published.*is ready", "already there"):
        assert fetch(root) == 0 and re.search(said, capsys.readouterr().out, re.DOTALL)
    assert log == [None] and leftovers(root) == ["Set5/HR/baby.png"]
    assert datasets.find_sr_test(root)[0].names == ["baby"]


def test_a_single_file_is_checked_by_how_its_checksum_begins(server, tmp_path):
    (tmp_path / "Set5").mkdir()
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    server(b"weights", f"sha256:{begins}", inner="", target="weights.pth")
    assert fetch(tmp_path) == 0
    server(b"other weights", f"sha256:{begins}", inner="", target="others.pth")
    refuses(ValueError, f"instead of {begins}", fetch, tmp_path)
    assert leftovers(tmp_path) == ["Set5/weights.pth"]


@pytest.mark.parametrize("have, trouble, asked", [
    (0, {"cut": 5000}, [None, "bytes=5000-"]), (len(TAR), {}, [f"bytes={len(TAR)}-"]),
    (6000, {"cut": 5000, "ranges": False}, ["bytes=6000-", "bytes=5000-"]),  # gets no further: kept for the next call
], ids=["cut", "whole", "no ranges"])  # fmt: skip
def test_a_download_goes_on_where_it_broke_off(server, tmp_path, have, trouble, asked):
    log = server(checksum="md5:" + hashlib.md5(TAR).hexdigest(), **trouble)
    (tmp_path / "Set5_HR.tar.gz.part").write_bytes(TAR[:have])
    if "ranges" in trouble:
        refuses(ConnectionError, "broke off at 5,000 of .* bytes, kept", fetch, tmp_path)
    assert fetch(tmp_path) == 0 and log == asked
    assert leftovers(tmp_path) == ["Set5/HR/baby.png"]


def test_missing_sets_are_fetched_without_being_asked_for(server, tmp_path, capsys):
    log = server(cut=5000)
    assert datasets.fetch_missing(["Set5", "DIV2K/valid"], tmp_path) == ["DIV2K/valid"]
    assert log == ["bytes=0-0", None, "bytes=5000-"] and leftovers(tmp_path) == ["Set5/HR/baby.png"]
    assert datasets.fetch_missing(["Set5"], tmp_path) == [] and len(log) == 3
    assert "not fetched" not in capsys.readouterr().out


def unknown(*_):
    raise socket.gaierror(-2, "Name not known")


@pytest.mark.parametrize("trouble, why", [
    ({"wait": 1}, "127.0.0.1:.*no answer in 0.2 seconds"), ({"kind": "text/html"}, "does this network want a login?"),
    ({"status": 503}, "was not fetched .the server answers 503"), ({"checksum": "md5:?"}, "instead of .: deleted"),
    ({"port": 9}, "refused"), ({"lookup": lambda *_: time.sleep(1)}, "no answer in 0.2 seconds"),
    ({"lookup": unknown}, "127.0.0.1:.* Name not known"),
    ({"allowed": False}, "downloads are off"), ({"NO_DOWNLOAD": "1"}, "downloads are off"),
    ({"content": tar_of(BABY | {"../evil": b"x"})}, "evil.* outside"),
    ({"content": tar_of(BABY | {"Set5_HR/link": (tarfile.SYMTYPE, "/etc")})}, "was not unpacked .*link"),
    ({"content": tar_of(BABY | {"Set5_HR/pipe": (tarfile.FIFOTYPE, "")})}, "was not unpacked .*pipe"),
    ({"content": tar_of({"other/a.png": b"x"})}, "no folder Set5_HR"), ({"content": TAR[:3000]}, "was not unpacked"),
    ({"content": b"<html>not found</html>"}, "was not unpacked"),
    ({"content": TAR[:6000] + b"?" + TAR[6001:]}, "was not unpacked .CRC"),
], ids=lambda case: str(case)[:20])  # fmt: skip
def test_what_did_not_come_is_said_in_one_line_and_leaves_nothing(server, tmp_path, capsys, monkeypatch, trouble, why):
    monkeypatch.setattr(download, "PROBE_SECONDS", 0.2)
    monkeypatch.setenv("NO_DOWNLOAD", trouble.pop("NO_DOWNLOAD", ""))
    monkeypatch.setattr("socket.getaddrinfo", trouble.pop("lookup", socket.getaddrinfo))
    allowed, root, start = trouble.pop("allowed", True), tmp_path / "DS", time.monotonic()
    log, _ = server(**trouble), root.mkdir()
    for _ in range(2):
        assert datasets.fetch_missing(["Set5", "Set14"], root, allowed) == ["Set5", "Set14"]
    assert time.monotonic() - start < 3 and leftovers(tmp_path) == [] and not datasets.entries(root)
    said = [line for line in capsys.readouterr().out.splitlines() if "not fetched:" in line]
    assert len(said) == 1 and re.search(f"Set5, Set14 .*{why}.*Images that need no download are used", said[0])
    if why.startswith(("downloads are off", "127.0.0.1:.*no answer")):
        assert len(log) == ("wait" in trouble)  # after a host that is silent no other is asked, not even later


def test_without_a_server_one_sentence_says_what_to_do(server, tmp_path):
    server(port=9)
    refuses(ConnectionError, r"^.*127.0.0.1:9.*unpack its folder Set5_HR as .*$", fetch, tmp_path)
