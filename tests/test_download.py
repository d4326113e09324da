"""Downloads from a server on this machine that can drop connections; archives that misbehave."""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from packing import make_tar, make_zip

from dpmedbench import datasets, download, locks, pretrained
from dpmedbench.datasets.base import Download
from dpmedbench.errors import UserError

BODY = bytes(range(256)) * 9000  # 2.3 MB
DIGEST = hashlib.sha256(BODY).hexdigest()
make_tgz = partial(make_tar, mode="w:gz")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        plan = self.server.plan
        asked = self.headers.get("Range")
        plan.requests.append(asked)
        status = plan.statuses.pop(0) if plan.statuses else 200
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked[6:-1]) if asked and plan.ranges else 0
        if start >= len(plan.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(plan.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(plan.body) - 1}/{len(plan.body)}"
            )
        self.send_header("Content-Length", str(len(plan.body) - start))
        self.end_headers()
        stop = start + plan.drops.pop(0) if plan.drops else len(plan.body)
        self.wfile.write(plan.body[start:stop])
        self.close_connection = True

    def log_message(self, *_):
        pass


class Plan:
    def __init__(self):
        self.body, self.ranges = BODY, True
        self.drops: list[int] = []  # bytes sent before the connection closes, per request
        self.statuses: list[int] = []
        self.requests: list[str | None] = []


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TRIES", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.plan = Plan()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        running.plan.url = f"http://127.0.0.1:{running.server_port}/data.zip"
        yield running.plan
        running.shutdown()
        thread.join()


def wanted(plan, **known) -> Download:
    return Download(plan.url, "data.zip", **known)


def refused(function, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seen(folder: Path) -> list[str]:
    """What there is, but for locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_whole_download(server, tmp_path):
    path = download.fetch(wanted(server, size=len(BODY), sha256=DIGEST), tmp_path / "raw")
    assert path == tmp_path / "raw" / "data.zip"
    assert path.read_bytes() == BODY
    assert seen(path.parent) == ["data.zip"]
    download.fetch(wanted(server, size=len(BODY)), tmp_path / "raw")
    assert server.requests == [None]  # what is there is not fetched again


def test_two_datasets_of_one_archive_fetch_it_once(server, tmp_path):
    lock = tmp_path / ".data.zip.lock"
    with ThreadPoolExecutor(2) as pool:
        with locks.held([lock], "a test"):
            both = [pool.submit(download.fetch, wanted(server), tmp_path) for _ in range(2)]
            time.sleep(0.1)
            assert server.requests == []
        assert {one.result().read_bytes() for one in both} == {BODY}
    assert server.requests == [None]
    assert seen(tmp_path) == ["data.zip"]


def test_it_goes_on_from_the_part_file(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(BODY[:1_500_000])
    path = download.fetch(wanted(server, sha256=DIGEST), tmp_path)
    assert path.read_bytes() == BODY
    assert server.requests == ["bytes=1500000-"]


def test_it_starts_over_where_the_server_cannot_go_on(server, tmp_path):
    server.ranges = False
    (tmp_path / "data.zip.part").write_bytes(b"x" * 1_500_000)
    assert download.fetch(wanted(server), tmp_path).read_bytes() == BODY


def test_a_part_file_that_is_whole_is_taken(server, tmp_path):
    part = tmp_path / "data.zip.part"
    part.write_bytes(BODY)
    assert download.fetch(wanted(server, size=len(BODY)), tmp_path).read_bytes() == BODY
    assert server.requests == []
    (tmp_path / "data.zip").rename(part)
    assert download.fetch(wanted(server), tmp_path).read_bytes() == BODY
    assert server.requests == [f"bytes={len(BODY)}-"]


def test_a_part_file_longer_than_the_source_is_thrown_away(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(BODY + b"more")
    assert download.fetch(wanted(server), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 2


def test_dropped_connections_are_resumed(server, tmp_path):
    server.drops = [1_200_000, 0, 1_100_000]
    assert download.fetch(wanted(server, sha256=DIGEST), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 4
    assert int(server.requests[-1][6:-1]) > 1_200_000


def test_dropped_connections_without_resuming_still_end(server, tmp_path):
    server.ranges = False
    server.drops = [1_200_000] * 50
    message = refused(download.fetch, wanted(server), tmp_path)
    assert f"no answer in {download.ATTEMPTS} attempts" in message
    assert len(server.requests) <= download.ATTEMPTS + 1


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 429, 500]
    assert download.fetch(wanted(server), tmp_path).read_bytes() == BODY


def test_what_fails_for_good_gets_one_sentence(server, tmp_path):
    server.statuses = [404]
    assert "HTTP status 404" in refused(download.fetch, wanted(server), tmp_path)
    assert len(server.requests) == 1
    server.statuses = [503] * 20
    assert "HTTP status 503" in refused(download.fetch, wanted(server), tmp_path)
    nobody = Download("http://127.0.0.1:9/data.zip", "data.zip")
    assert "check the network" in refused(download.fetch, nobody, tmp_path)
    wrong = Download("no-address", "data.zip")
    assert "check the address" in refused(download.fetch, wrong, tmp_path)


@pytest.mark.parametrize("known", [{"size": 5}, {"sha256": "0" * 64}])
def test_wrong_bytes_are_removed_so_that_a_rerun_starts_clean(server, tmp_path, known):
    message = refused(download.fetch, wanted(server, **known), tmp_path)
    assert next(iter(map(str, known.values()))) in message
    assert seen(tmp_path) == []
    (tmp_path / "data.zip").write_bytes(b"mine")
    assert str(tmp_path / "data.zip") in refused(
        download.fetch, wanted(server, sha256=DIGEST), tmp_path
    )
    assert (tmp_path / "data.zip").read_bytes() == b"mine"


def test_every_official_address_is_encrypted_and_a_redirect_to_http_is_not_followed(
    server, tmp_path, monkeypatch
):
    modules = [datasets.load(name).SPEC.download for name in datasets.names()]
    for official in [pretrained.OFFICIAL, *filter(None, modules)]:
        assert official.url.startswith("https://")
    send = requests.adapters.HTTPAdapter.send

    def over_tls(self, request, **options):
        if not request.url.startswith("https:"):
            return send(self, request, **options)
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = 302, request.url, request
        answer.headers["Location"] = onward
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", over_tls)
    onward = server.url
    secure = Download("https://example.org/data.zip", "data.zip")
    assert "redirect to http://127.0.0.1" in refused(download.fetch, secure, tmp_path)
    assert server.requests == []
    onward = "/again"  # for ever: it stays on https, and is refused for another reason
    assert "redirects" in refused(download.fetch, secure, tmp_path)


def test_a_full_disk_is_named(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download.os, "fsync", full)
    assert "disk full" in refused(download.fetch, wanted(server), tmp_path)
    assert not (tmp_path / "data.zip").exists()


FILES = {"2015/a.mat": b"aaa", "2015/deep/b.mat": b"b" * 100_000, "top.txt": b""}


def content_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])
def test_unpacking(tmp_path, make):
    archive = make(tmp_path / "archive", FILES)
    target = tmp_path / "raw" / "duke"
    assert download.unpack(archive, target) == target
    assert content_of(target) == FILES
    assert seen(target.parent) == ["duke"]
    assert "files in it" in refused(download.unpack, archive, target)
    assert content_of(target) == FILES


def test_what_a_killed_job_left_half_unpacked_goes(tmp_path):
    half = tmp_path / "raw" / ".duke.tmp"
    half.mkdir(parents=True)
    (half / "half.mat").touch()
    download.unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "raw" / "duke")
    assert content_of(tmp_path / "raw" / "duke") == FILES
    assert seen(tmp_path / "raw") == ["duke"]


def test_who_waited_takes_what_another_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TRIES", 0.01)
    archive, target = make_zip(tmp_path / "a.zip", FILES), tmp_path / "raw" / "duke"
    with ThreadPoolExecutor(1) as pool:
        with locks.held([tmp_path / "raw" / ".duke.lock"], "a test"):
            waits = pool.submit(download.unpack, archive, target)
            time.sleep(0.1)
            target.mkdir()
            (target / "other.mat").touch()
        assert list(content_of(waits.result())) == ["other.mat"]


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "raw").mkdir()
    download.unpack(make_zip(tmp_path / "a.zip", FILES), tmp_path / "raw")
    assert content_of(tmp_path / "raw") == FILES


def test_a_dataset_of_one_file_is_copied(tmp_path):
    (tmp_path / "UMN.mat").write_bytes(b"MATLAB")
    folder = download.unpack(tmp_path / "UMN.mat", tmp_path / "raw")
    assert [path.name for path in folder.iterdir()] == ["UMN.mat"]
    assert (folder / "UMN.mat").read_bytes() == b"MATLAB"


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tgz])
@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_members_may_not_leave_the_folder(tmp_path, make, name):
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    assert "leave the folder" in refused(download.unpack, archive, tmp_path / "raw" / "x")
    assert not (tmp_path / "raw" / "x").exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        with tarfile.open(tmp_path / f"a{kind!r}.tar", "w") as file:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = kind, "/etc/passwd"
            file.addfile(member)
    for archive in [*tmp_path.glob("*.zip"), *tmp_path.glob("*.tar")]:
        assert "a link, a device" in refused(download.unpack, archive, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("make", [make_zip, make_tgz])
def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path, make, monkeypatch
):
    bomb = make(tmp_path / "bomb", {"good": b"1", "zeros": bytes(20 << 20)})
    download.unpack(bomb, tmp_path / "small")  # 20 MiB do no harm
    monkeypatch.setattr(download, "UNPACKED", 1 << 20)
    assert "do not trust" in refused(download.unpack, bomb, tmp_path / "raw" / "x")
    assert seen(tmp_path / "raw") == []


def test_damaged_archives_get_one_sentence_and_leave_nothing(tmp_path):
    random = os.urandom(200_000)
    for whole in (make_zip(tmp_path / "z", {"a": random}), make_tgz(tmp_path / "t", {"a": random})):
        content = bytearray(whole.read_bytes())
        for broken in (b"", content[:-50_000], content[:3000] + b"??" + content[3002:]):
            archive = tmp_path / "broken"
            archive.write_bytes(broken)
            assert str(archive) in refused(download.unpack, archive, tmp_path / "raw" / "x")
            assert seen(tmp_path / "raw") == []
