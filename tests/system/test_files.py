"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yeastexp.system import files


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with files.appearing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_a_file_is_forced_out_before_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a power failure leaves the old file or the whole new one."""
    path = tmp_path / "a.txt"
    forced: list[tuple[bool, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: forced.append((stat.S_ISDIR(os.fstat(number).st_mode), path.exists()))
    )
    files.write_text(path, "whole")
    assert forced == [(False, False), (True, True)]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.appearing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_nothing_written_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.appearing(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "µ.txt"
    for text in ("first, and longer", "zweite: größer\n"):
        files.write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [entry.name for entry in path.parent.iterdir()] == ["µ.txt"]


def test_a_thousand_directories_go_on(tmp_path: Path) -> None:
    (tmp_path / "999").mkdir()
    (tmp_path / "1003").write_text("a file takes its number too")
    assert files.claim_directory(tmp_path).name == "1004"
    assert files.claim_directory(tmp_path / "new" / "runs").name == "001"


def test_directories_are_claimed_once(tmp_path: Path) -> None:
    (tmp_path / "007").mkdir()
    (tmp_path / "notes").mkdir()
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(files.claim_directory, [tmp_path] * 40))
    assert sorted(path.name for path in claimed) == [f"{number:03d}" for number in range(8, 48)]


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"yeast" * 100_000)
    assert files.digest(tmp_path / "a") == hashlib.sha256(b"yeast" * 100_000).hexdigest()


def test_folders_that_were_made_for_nothing_go_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), files.appearing(tmp_path / "a" / "b" / "file"):
        raise ValueError("no")
    assert not list(tmp_path.iterdir())
    files.write_text(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"


LEAVE = """
import sys, os, pathlib
from yeastexp.system import files
path = pathlib.Path(sys.argv[2])
with getattr(files, sys.argv[1])(path, *sys.argv[3:]) as temporary:
    (temporary / "x" if temporary.is_dir() else temporary).write_text("half")
    os.kill(os.getpid(), 9)
"""


def killed_in(*words: object) -> None:
    done = subprocess.run([sys.executable, "-c", LEAVE, *map(str, words)], check=False)
    assert done.returncode == -9


def test_what_a_killed_process_left_goes_when_the_file_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a[b].txt"
    killed_in("appearing", path)
    assert len(list(tmp_path.iterdir())) == 1
    files.write_text(path, "whole")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a[b].txt", "whole")]


def test_what_a_killed_process_left_goes_when_a_folder_is_replaced_again(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    killed_in("replacing", folder)
    killed_in("staging", tmp_path, ".fetch-")
    for text in ("first", "second"):
        with files.replacing(folder) as temporary, files.staging(tmp_path, ".fetch-"):
            (temporary / "x").write_text(text)
            assert len(list(tmp_path.glob(".*.part"))) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["scores"]
    assert (folder / "x").read_text() == "second"


def test_what_a_living_process_writes_is_left_to_it(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.txt", tmp_path / "scores"
    with files.appearing(path) as first, files.appearing(path) as second, files.appearing(path) as third:
        assert len({first, second, third}) == 3
        for number, temporary in enumerate((first, second, third)):
            temporary.write_text(str(number))
    with files.replacing(folder) as first, files.replacing(folder) as second:
        (first / "x").write_text("first")
        (second / "x").write_text("second")
    assert (path.read_text(), (folder / "x").read_text()) == ("0", "first")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.txt", "scores"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(
    link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    link(tmp_path / ".a.txt.part", other)
    files.write_text(tmp_path / "a.txt", "text")
    assert (other.read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "text")


@pytest.mark.parametrize("name", ["m" * 251 + ".png", "é" * 125 + ".png"])
def test_a_name_may_be_as_long_as_a_file_system_takes(tmp_path: Path, name: str) -> None:
    files.write_text(tmp_path / name, "text")
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_an_error_names_the_file_that_was_to_appear(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, inner in ((tmp_path / "folder", ""), (tmp_path / ("n" * 300), ""), (tmp_path / "full", "full")):
        with pytest.raises(OSError) as caught, files.appearing(path) as temporary:
            temporary.write_text("text")
            if inner:
                raise OSError(errno.ENOSPC, "no space left")
        assert caught.value.filename == str(path)
    with pytest.raises(OSError) as caught, files.replacing(tmp_path / "scores") as temporary:
        files.write_text(temporary / "table.csv" / "x", "text")
        (temporary / "table.csv").write_text("a folder")
    assert caught.value.filename == str(tmp_path / "scores" / "table.csv")
    with pytest.raises(OSError) as caught, files.appearing(tmp_path / "a"):
        (tmp_path / "source").read_text()
    assert caught.value.filename in (tmp_path / "source", str(tmp_path / "source"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_nor_does_it_name_a_hidden_file_where_none_may_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that is read-only, which root may write into all the same."""

    def refused(path: Path, *flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files.os, "open", refused)
    with pytest.raises(PermissionError) as caught, files.appearing(tmp_path / "a"):
        pass
    assert caught.value.filename == str(tmp_path / "a")
    monkeypatch.setattr(Path, "mkdir", lambda self, *given, **named: refused(self))
    with pytest.raises(PermissionError) as caught, files.staging(tmp_path, ".a."):
        pass
    assert caught.value.filename == str(tmp_path)


def test_the_state_of_a_folder_is_that_of_all_files_in_it(tmp_path: Path) -> None:
    """Also of a file that is written into, which leaves its folder as it is."""
    chunk = tmp_path / "a.zarr" / "0" / "0.0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"before")
    (tmp_path / "a.zarr" / "link").symlink_to("gone")
    for path in (tmp_path / "a.zarr", chunk):
        first, status = files.state(path), chunk.stat()
        assert files.state(path) == first
        os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        later = files.state(path)
        chunk.write_bytes(b"longer than before")
        os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert len({first, later, files.state(path)}) == 3
        chunk.write_bytes(b"before")
    first = files.state(tmp_path / "a.zarr")
    chunk.rename(chunk.with_name("0.1"))
    assert files.state(tmp_path / "a.zarr") != first


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / ".left.txt.part").write_text("another process may write it")
    for name in ("a.txt", "left.txt"):
        with files.appearing(tmp_path / name) as first, files.appearing(tmp_path / name) as second:
            first.write_text("first")
            second.write_text("second")
        assert (tmp_path / name).read_text() == "first"
    with files.replacing(tmp_path / "folder") as temporary:
        (temporary / "x").write_text("text")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "left.txt", "folder", ".left.txt.part"}


@pytest.mark.parametrize("links", [True, False])
def test_the_first_of_several_processes_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    path = tmp_path / "a.txt"

    def linked(new: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(new))

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", linked)
    with files.appearing(path, unless_there=True) as temporary:
        temporary.write_text("late")
        files.write_text(path, "first", unless_there=True)
    assert path.read_text() == "first"
    files.write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
