"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
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
