"""The same files from a folder, a zip and a tar file; what is broken or unsafe is refused."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packing import make_tar, make_zip

from dpmedbench import archives
from dpmedbench.archives import open_tree
from dpmedbench.errors import UserError

LAYOUT = r"(?:a|b)/[^/]+\.x"
FILES = {"b/2.x": b"two", "a/1.x": b"", "a/10.x": b"ten" * 400, "a/note.txt": b"no", "1.x": b"no"}
FOUND = {"a/1.x": b"", "a/10.x": b"ten" * 400, "b/2.x": b"two"}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def below(top: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {top + name: content for name, content in files.items()}


def contents(path: Path) -> dict[str, bytes]:
    tree = open_tree(path, LAYOUT, "files")
    assert {name: len(tree.read(name)) for name in tree.sizes} == tree.sizes
    return {name: tree.read(name) for name in tree.sizes}


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        contents(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.mark.parametrize("top", ["", "top/", "one/two/"])
def test_the_same_files_in_the_same_order_wherever_they_lie(tmp_path, top):
    files = below(top)
    places = [
        folder(tmp_path / "folder", files),
        make_zip(tmp_path / "a.zip", files),
        make_tar(tmp_path / "a.tar", below("./", files)),
        make_zip(tmp_path / "with_zip" / "a.zip", files).parent,
        make_tar(tmp_path / "with_tar" / "a.TAR", files).parent,
    ]
    for place in places:
        assert list(contents(place).items()) == list(FOUND.items())


def test_a_folder_that_is_a_link_counts(tmp_path):
    folder(tmp_path / "real", FILES)
    (tmp_path / "top").mkdir()
    for part in "ab":
        os.symlink(tmp_path / "real" / part, tmp_path / "top" / part)
    assert contents(tmp_path / "top") == FOUND
    os.symlink(tmp_path / "top", tmp_path / "top" / "again")  # it ends all the same
    assert contents(tmp_path / "top") == FOUND


def test_unpacked_files_come_before_the_archive_beside_them(tmp_path):
    folder(tmp_path, FILES)
    make_zip(tmp_path / "a.zip", {"a/1.x": b"another"})
    assert contents(tmp_path) == FOUND


def test_the_same_tree_twice_counts_once_and_a_different_one_is_refused(tmp_path):
    files = below("top/") | below("top/top/") | below("__MACOSX/top/", {"a/._1.x": b"apple"})
    path = make_zip(tmp_path / "a.zip", files)
    assert open_tree(path, LAYOUT, "files").copies == 1
    assert contents(path) == FOUND
    for change in ({"top/top/a/1.x": b"other"}, {"top/top/a/3.x": b"more"}):
        message = refused(make_zip(tmp_path / "b.zip", files | change))
        assert "found two versions of the dataset that differ, in top/ and in top/top/" in message


def test_hidden_files_are_passed_over(tmp_path):
    hidden = {"__MACOSX/a/1.x": b"no", "a/._1.x": b"no", ".old/a/1.x": b"no", "a/.b/a/1.x": b"no"}
    assert contents(folder(tmp_path / "f", FILES | hidden)) == FOUND
    assert contents(make_zip(tmp_path / "a.zip", FILES | hidden)) == FOUND


def test_a_folder_that_cannot_be_listed_is_not_left_out_in_silence(tmp_path, monkeypatch):
    listed = os.scandir

    def scandir(path):
        if str(path).endswith(("/b", "lost+found")):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    place = folder(tmp_path / "f", FILES | {"lost+found/a/1.x": b"no"})
    assert "/b but no way to list it (Permission denied)" in refused(place)
    assert "Permission denied" in refused(place / "b")
    (place / "b" / "2.x").unlink()
    (place / "b").rmdir()
    assert list(contents(place)) == ["a/1.x", "a/10.x"]


def test_nothing_there_gets_one_sentence(tmp_path):
    assert "found no file or folder, expected files." in refused(tmp_path / "nowhere")
    assert "found no file of this dataset" in refused(folder(tmp_path / "f", {"c/1.x": b""}))
    deep = folder(tmp_path / "g", below("1/2/3/4/5/"))
    assert "found no file of this dataset" in refused(deep)
    folder(tmp_path / "h", {"one.zip": b"", "two.tar": b""})
    assert "found 2 archives (one.zip, two.tar), expected one" in refused(tmp_path / "h")
    assert "damaged" in refused(folder(tmp_path / "i", {"notes.zip": b"text" * 99}) / "notes.zip")
    assert "damaged" in refused(make_tar(tmp_path / "a.tar.gz", FILES, "w:gz"))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_cut_short_or_changed_is_never_read_as_if_whole(tmp_path, make):
    whole = make(tmp_path / "whole", FILES).read_bytes()
    path = tmp_path / "cut"
    end = len(whole) if make is make_zip else whole.rstrip(b"\0").__len__()
    for length in range(0, end, 64):
        path.write_bytes(whole[:length])
        assert "damaged" in refused(path)


def test_a_tar_file_with_a_broken_header_is_refused(tmp_path):
    path = make_tar(tmp_path / "a.tar", FILES)
    whole = bytearray(path.read_bytes())
    whole[1024 + 100] ^= 1  # the mode of the second member: its checksum is wrong now
    path.write_bytes(whole)
    assert "damaged" in refused(path)


def test_a_zip_file_with_broken_content_is_refused(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a/1.x": os.urandom(999)})
    whole = bytearray(path.read_bytes())
    whole[500] ^= 1
    path.write_bytes(whole)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("name", ["../a/1.x", "/a/1.x", "a/../../1.x", "C:/a/1.x", "..\\a\\1.x"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_lead_out_are_refused(tmp_path, make, name):
    assert "would leave the folder" in refused(make(tmp_path / "archive", {name: b"", **FILES}))


def test_links_and_devices_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        member = tarfile.TarInfo("a/1.x")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(member)
    assert "a link, a device" in refused(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "sparse.tar", "w") as file:  # 1 TB of nothing
        member = tarfile.TarInfo("a/1.x")
        member.type, member.size = tarfile.GNUTYPE_SPARSE, 0
        file.addfile(member)
    assert "sparse" in refused(tmp_path / "sparse.tar")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        member = zipfile.ZipInfo("a/1.x")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(member, "/etc/passwd")
    assert "a link, a device" in refused(tmp_path / "a.zip")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_many_threads_may_read_at_once(tmp_path, make):
    files = {f"a/{k}.x": bytes([k]) * (999 + 7 * k) for k in range(64)}
    tree = open_tree(make(tmp_path / "archive", files), LAYOUT, "files")
    names = list(files) * 20
    with ThreadPoolExecutor(8) as pool:
        assert all(
            data == files[name]
            for name, data in zip(names, pool.map(tree.read, names), strict=True)
        )


def test_a_file_that_is_gone_meanwhile_gets_one_sentence(tmp_path):
    tree = open_tree(folder(tmp_path, FILES), LAYOUT, "files")
    (tmp_path / "b/2.x").unlink()
    with pytest.raises(UserError, match=r"b/2\.x but no way to read it"):
        tree.read("b/2.x")


@pytest.mark.parametrize("make", [folder, make_zip, make_tar])
def test_a_file_of_absurd_size_is_not_read(tmp_path, make, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1000)
    assert "found a/10.x of 1200 bytes, expected at most 1000" in refused(
        make(tmp_path / "place", FILES)
    )
