"""`doctor`: a page of this machine, and what is broken with its remedy."""

from __future__ import annotations

import configparser
import errno
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Call

from yeastexp.cli import commands
from yeastexp.inspection import doctor

HOME = Path(__file__).parents[2]


@pytest.fixture
def no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of its own that imports PyTorch."""
    monkeypatch.setattr(doctor, "TRIAL", "")


def test_the_page_of_this_machine(call: Call) -> None:
    status, out, err = call("doctor")
    assert (status, err) == (0, ""), "nothing is broken where the tests run"
    topics = [line.partition(":")[0] for line in out.splitlines()]
    assert topics[:3] == ["yeastexp", "Python", "packages"] and {"cores", "CPU", "memory", "working folder"} <= {
        *topics
    }
    assert f"torch {metadata.version('torch')}" in out and "computes" in out
    paths = (str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), sys.prefix)
    assert not any(path in out for path in paths if len(path) > 1)


def test_the_version_is_that_of_the_checkout(call: Call) -> None:
    parser = configparser.ConfigParser()
    parser.read(HOME / "setup.cfg")
    assert call("--version") == (0, f"yeastexp, version {parser['metadata']['version']}\n", "")


@pytest.mark.usefixtures("no_trial")
def test_an_installed_package_knows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = doctor.requirements()
    assert "torch" in needed[""] and {"formats", "sweep", "test"} <= needed.keys()
    monkeypatch.setattr(doctor, "_checkout", lambda: None)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "7.8")
    monkeypatch.setattr(
        doctor.importlib.metadata, "requires", lambda name: ["torch>=2.11", "zarr>=3.0; extra == 'formats'", "odd"]
    )
    assert doctor.version() == "7.8"
    assert doctor.requirements() == {"": {"torch": "2.11"}, "formats": {"zarr": "3.0"}}


@pytest.mark.usefixtures("no_trial")
@pytest.mark.parametrize(
    ("there", "line"),
    [
        (None, "packages:          broken: scipy is not installed; pip install 'scipy>=1.13'"),
        ("1.9.3", "packages:          broken: scipy 1.9.3 is older than 1.13; pip install 'scipy>=1.13'"),
    ],
)
def test_a_package_that_is_missing_or_too_old(
    there: str | None, line: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: there if name == "scipy" else installed(name))
    status, out, _ = call("doctor")
    assert status == 1 and line in out.splitlines()


@pytest.mark.usefixtures("no_trial")
def test_an_extra_that_is_missing_breaks_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "optuna" else installed(name))
    status, out, _ = call("doctor")
    assert status == 0
    assert "extra 'sweep':     note: optuna is not installed; pip install 'optuna>=5.0'" in out.splitlines()


def test_a_broken_pytorch_is_a_line_and_the_page_goes_on(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('/home/jo/lib/libcudart.so.12: no \x1b[31m file')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{HOME}"}
    done = subprocess.run(
        [sys.executable, "-m", "yeastexp", "doctor"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("packages:          broken: torch ")]
    assert "cannot be imported (OSError: …/libcudart.so.12: no \\x1b[31m file); pip install 'torch>=" in line
    assert "Traceback" not in done.stderr and "working folder:    writable" in done.stdout


def test_a_device_that_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TRIAL", "raise RuntimeError('no kernel image in /opt/cuda/lib/x.so')")
    assert str(doctor._trial("GPU 0", "cuda:0", "T4")) == (
        "GPU 0:             broken: T4; a convolution fails (RuntimeError: no kernel image in …/x.so); "
        "look at the driver, or set runtime.device = cpu"
    )
    monkeypatch.setattr(doctor, "TRIAL", "import os; os.abort()")
    assert "a convolution fails (ends with status -6); install PyTorch anew" in str(doctor._trial("CPU", "cpu", "x"))


@pytest.mark.usefixtures("no_trial")
def test_folders_without_room_or_permission(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "SHARED", tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=64_000_000))
    status, out, _ = call("doctor")
    assert status == 0
    assert "working folder:    note: writable, 64 MB free; make room: a run takes some hundred MB" in out.splitlines()
    assert (
        "shared memory:     note: 64 MB free; start the container with --shm-size=1g, or set runtime.workers = 0" in out
    )

    def closed(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "no", str(dir))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", closed)
    status, out, _ = call("doctor")
    assert status == 1 and "working folder:    broken: cannot be written (Permission denied); change to a" in out


@pytest.mark.usefixtures("no_trial")
def test_what_other_packages_add_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [metadata.EntryPoint(name, f"{name}.tool", "yeastexp.plugins") for name in ("json", "gone")]
    monkeypatch.setattr(doctor.importlib.metadata, "entry_points", lambda group: points if "plugins" in group else [])
    good, bad = map(str, doctor._plugins())
    assert good == "yeastexp.plugins:  json (json.tool)"
    remedy = "update or remove the package gone"
    assert bad == f"yeastexp.plugins:  broken: gone (gone.tool) cannot be loaded (No module named 'gone'); {remedy}"


@pytest.mark.parametrize(
    ("shell", "said"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "complete ")]
)
def test_shells_complete_commands(
    shell: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (HOME / "docs" / "install.md").read_text()
    assert f"_YEASTEXP_COMPLETE={shell}_source yeastexp" in page
    monkeypatch.setenv("COMP_WORDS", "yeastexp doc")
    monkeypatch.setenv("COMP_CWORD", "doc" if shell == "fish" else "1")
    for asked, shown in (("source", said), ("complete", "doctor")):
        monkeypatch.setenv("_YEASTEXP_COMPLETE", f"{shell}_{asked}")
        with pytest.raises(SystemExit, match=r"^0$"):
            commands.main([], prog_name="yeastexp")
        assert shown in capsys.readouterr().out
