"""Folders: what they list, what they show of themselves, and how they fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.storage.folder import Folder, check_target, local_path

NOBODY = "s3://key:secret@b/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
"""A store that refuses connections."""


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (Folder.exists, "cannot look at the folder"),
        (Folder.listing, "cannot list the folder"),
        (lambda f: f.size("a"), "cannot look at the file"),
        (lambda f: f.read("a"), "cannot read the file"),
        (lambda f: f.open("a"), "cannot read the file"),
        (lambda f: f.sha256("a"), "cannot read the file"),
        (lambda f: f.write("a", b""), "cannot write the file"),
        (lambda f: f.remove("a"), "cannot delete the file"),
        (Folder.folders, "cannot list the folder"),
        (Folder.clear, "cannot delete the folder"),
    ],
)
def test_a_store_that_does_not_answer_is_one_clear_line(
    ask: Callable[[Folder], object], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("When doing HeadObject: curlCode: 7,\nCouldn't connect to server")

    class Silent:
        get_file_info = open_input_file = open_output_stream = refuse
        delete_file = delete_dir = refuse

    monkeypatch.setattr(Folder, "_system", (Silent(), "b/x"))
    with pytest.raises(DataFormatError, match=f"{what}.*Couldn't connect") as caught:
        ask(Folder.at(NOBODY))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    assert folder.size("none") is None
    folder.remove("none")
    for ask in (folder.read, folder.open, folder.sha256):
        with pytest.raises(DataFormatError, match=r"cannot read the file.*none.*No such file"):
            ask("none")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataFormatError, match="cannot make the folder"):
        folder.write("file/below", b"")


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("s3://KEY:secret@b/x", "s3://b/x"),
        ("s3://KEY:secret/pw@b/x?endpoint_override=h", "s3://b/x"),
        ("s3://KEY:secret/p@w/z@b/x", "s3://b/x"),
        ("s3://b/a@2/x", "s3://b/a@2/x"),
        ("wh?at", "wh?at"),
        ("file:///a/wh?at", "/a/wh?at"),
    ],
)
def test_a_place_shows_no_secret_and_keeps_the_rest(where: str, shown: str) -> None:
    assert str(Folder.at(where)) == shown


def test_refusals_keep_the_reason_and_not_the_secret() -> None:
    with pytest.raises(DataFormatError, match=r"Cannot parse URI.*%2F") as caught:
        Folder.at("s3://KEY:secret/pw@b/x").exists()
    assert "secret" not in str(caught.value) and "pw" not in str(caught.value)
    with pytest.raises(DataFormatError, match="Protocol not known: foo"):
        Folder.at("foo://b/x").exists()


def test_what_is_written_here_only(tmp_path: Path) -> None:
    assert local_path(f"file://{tmp_path}", "it") == local_path(tmp_path, "it") == tmp_path
    with pytest.raises(ConfigError, match="object store") as caught:
        local_path("s3://K:secret@b/x", "it")
    assert "secret" not in str(caught.value)
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file/below/page.html"):
        with pytest.raises(ConfigError, match="cannot write the file"):
            check_target(path)
    check_target(tmp_path / "file")
    check_target(tmp_path / "new/page.html")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_bytes(b"1")
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert list(Folder.at(tmp_path).listing()) == ["a/b/file", "link/b/file"]
    assert list(Folder.at(tmp_path).listing("a")) == ["a/b/file"]


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xe9.png", "wb"):
        pass
    with pytest.raises(DataFormatError, match=r"not UTF-8 \[.*udce9\.png"):
        Folder.at(tmp_path).listing()


def test_empty_folders(tmp_path: Path) -> None:
    for name in ("full/below", "empty/below", ".hidden/below", "full/.hidden", "full/ba"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full/below/file").write_bytes(b"")
    (tmp_path / "empty/.file").write_bytes(b"")
    assert Folder.at(tmp_path).empty_folders() == ["empty", "empty/below", "full/ba"]


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return a folder that is not there yet, on this machine and in an object store."""
    if request.param == "disk":
        return Folder.at(tmp_path / "new")
    return Folder.at(request.getfixturevalue("bucket").format(tmp_path.name))


def test_folders_below_a_folder(folder: Folder) -> None:
    assert folder.folders() == [] and not folder.exists()
    folder.clear()
    folder.below("b b").write("c/file", b"1")
    folder.write("a/file", b"2")
    folder.write("file", b"3")
    folder.write(".hidden/file", b"4")
    assert folder.folders() == ["a", "b b"] and folder.below("b b").folders() == ["c"]
    assert folder.below("b b/c").read("file") == b"1"
    folder.below("b b").clear()
    assert folder.folders() == ["a"] and list(folder.listing()) == ["a/file", "file"]
    folder.clear()
    assert folder.folders() == [] and not folder.exists()


def test_a_stream_writes_all_or_nothing(folder: Folder) -> None:
    with folder.stream("a/file") as sink:
        sink.write(b"12")
        sink.write(memoryview(b"345"))
    assert folder.read("a/file") == b"12345"
    for size in (3, 12 << 20):
        with pytest.raises(RuntimeError, match="stop"), folder.stream("a/new") as sink:
            sink.write(bytes(size))
            raise RuntimeError("stop")
        assert list(folder.listing()) == ["a/file"]
    # On a disk what was there before stays; a store has deleted it.
    with (
        pytest.raises(DataFormatError, match="cannot write the file"),
        folder.stream("a/file") as s,
    ):
        s.write(b"7")
        raise OSError("the disk is full")
    assert folder.remote or folder.read("a/file") == b"12345"
    if not folder.remote:
        assert [path.name for path in (folder.path / "a").iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("where", "folder", "name"),
    [
        ("a/b.bin", "a", "b.bin"),
        ("b.bin", ".", "b.bin"),
        ("/b.bin", "/", "b.bin"),
        ("a?b/c", "a?b", "c"),
        ("s3://k:s@b/a/c.bin?region=x/y", "s3://k:s@b/a?region=x/y", "c.bin"),
        ("s3://b/a%20b/c%20d", "s3://b/a%20b", "c d"),
    ],
)
def test_a_file_by_its_folder(where: str, folder: str, name: str) -> None:
    assert Folder.of_file(where) == (Folder(folder), name)
    if folder not in (".", "/"):
        assert Folder(folder).below(name) == Folder(where)
