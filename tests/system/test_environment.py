"""What a run depended on: here, the revisions of its code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from yeastexp.system import environment


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_source_is_that_of_the_package_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that lies in somebody else's repository, as in its virtual environment, has no revision there."""
    module = tmp_path / "package" / "environment.py"
    module.parent.mkdir()
    module.touch()
    monkeypatch.setattr(environment, "__file__", str(module))
    assert environment.source() is None
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "a")
    assert environment.source() is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "b")
    assert environment.source() == {"revision": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    module.write_text("changed")
    assert environment.source() == environment.revision(tmp_path)
    assert environment.source() == {"revision": git(tmp_path, "rev-parse", "HEAD"), "dirty": True}


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHONPATH=. python -m yeastexp run …` works without the package's metadata."""
    assert environment.installed("torch") and environment.installed("no-such-package") is None
