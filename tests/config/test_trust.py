"""What is received is executed only after its user allowed it; what was run here is known."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Call
from tiny import EXPERIMENT, quiet, write_data

from yeastexp import plugins
from yeastexp.config import trust
from yeastexp.errors import UserError
from yeastexp.evaluation.crossval import crossval
from yeastexp.prediction.predictor import load_predictor
from yeastexp.training.run import run

PLUGIN = """\
from pathlib import Path
from yeastexp import handler, loss, metric
from yeastexp.metrics.pixels import IoU

with Path({marker!r}).open("a") as file:
    file.write("executed ")

metric("mine")(IoU)

@loss("mine")
def mine(classes: int, weight: float = 1.0):
    return lambda outputs, labels: weight * outputs.square().mean()

@handler("mine")
class Mine:
    def __init__(self, context):
        pass

    def attach(self, trainer, validator):
        pass
"""
TEXT = EXPERIMENT.replace('"cross_entropy"', '"mine"') + '[[metric]]\nname = "mine"\n[[handler]]\nname = "mine"\n'
TEXT = f'plugins = ["mine.py"]\n{TEXT}'


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment with a plugin that was run; not to be written to."""
    folder = tmp_path_factory.mktemp("ran")
    write_data(folder / "data.h5")
    (folder / "mine.py").write_text(PLUGIN.format(marker=str(folder / "marker")))
    (folder / "mine.toml").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patched, plugins.preserved():
        patched.chdir(folder)
        run(Path("mine.toml"), console=quiet())
    return folder


@pytest.fixture
def sent(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run directory with another plugin, as somebody else sends it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ran / "runs" / "mine" / "001", tmp_path / "sent")
    (tmp_path / "sent" / "plugins" / "mine.py").write_text(PLUGIN.format(marker=str(tmp_path / "marker")))
    yield tmp_path / "sent"


def refused(sent: Path) -> str:
    plugin = sent / "plugins" / "mine.py"
    digest = hashlib.sha256(plugin.read_bytes()).hexdigest()
    return (
        f"{plugin} (sha256 {digest}): Python code in a run directory, which you have not run here; read it, and use "
        "--trust-plugins to have it executed"
    )


REFUSING = {
    "evaluate": ["sent"],
    "predict": ["sent", "image.png", "-o", "out"],
    "inspect": ["sent"],
    "inspect sent/experiment.toml": [],
    "check": ["sent/experiment.toml"],
    "check --data": ["sent/experiment.toml"],
    "preview": ["sent/experiment.toml"],
    "resume": ["sent"],
    "verify": ["sent"],
    "run": ["sent/experiment.toml"],
    "crossval": ["sent/experiment.toml"],
    "compare --metric mine": ["sent", "other"],
    "compare --checkpoint last": ["sent", "other"],
}


@pytest.mark.parametrize(("command", "words"), REFUSING.items())
def test_a_received_plugin_is_not_executed(sent: Path, call: Call, command: str, words: list[str]) -> None:
    shutil.copytree(sent, sent.with_name("other"))
    before = sorted(sent.parent.rglob("*"))
    status, _, stderr = call(*command.split(), *words)
    assert (status, stderr.splitlines()[:1]) == (2, [refused(sent)])
    assert sorted(sent.parent.rglob("*")) == before


@pytest.mark.parametrize("gone", ["environment.json", "checkpoints"])
def test_nor_is_one_whose_directory_lacks_files(sent: Path, call: Call, gone: str) -> None:
    path = sent / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for words in (["check", "sent/experiment.toml"], ["inspect", "sent"]):
        assert refused(sent) in call(*words)[2]
    for path in sent.iterdir():
        if path.name not in ("experiment.toml", "plugins"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for words in (["check", "sent/experiment.toml"], ["run", "sent/experiment.toml"], ["inspect", "sent"]):
        assert refused(sent) in call(*words)[2]
    assert not (sent.parent / "marker").exists()


@pytest.mark.parametrize("where", ["beside", "extended"])
def test_nor_is_one_that_another_file_leads_to(sent: Path, call: Call, where: str) -> None:
    if where == "extended":
        (sent.parent / "mine.toml").write_text('extends = "sent/experiment.toml"\n')
    else:
        (sent.parent / "mine.toml").write_text(TEXT.replace("mine.py", "sent/plugins/mine.py"))
    assert refused(sent) in call("check", "mine.toml")[2]


def test_what_needs_no_plugin_works(sent: Path, ran: Path, call: Call) -> None:
    status, _, stderr = call("report", "sent")
    assert status == 0 and f"warning: sent: {refused(sent)}" in stderr
    text = (sent / "report.html").read_text()
    assert "No overlays" in text and "iou" in text and "mine" in text and "data:image" in text
    status, stdout, stderr = call("compare", "sent", ran / "runs" / "mine" / "001")
    assert (status, stderr) == (0, "") and "cell" in stdout
    status, stdout, stderr = call("list", "loss", "--experiment", "sent/experiment.toml")
    assert status == 0 and "cross_entropy" in stdout and "mine" not in stdout
    assert stderr == f"warning: {refused(sent)}\n"
    assert not (sent.parent / "marker").exists()


def test_it_is_executed_where_it_is_trusted_and_known_from_then_on(sent: Path, call: Call) -> None:
    status, stdout, _ = call("list", "loss", "--experiment", "sent/experiment.toml", "--trust-plugins")
    assert status == 0 and "mine" in stdout and (sent.parent / "marker").read_text() == "executed "
    with plugins.preserved():
        assert call("inspect", "sent")[0] == 0
    (sent / "plugins" / "mine.py").write_text(PLUGIN.format(marker=str(sent.parent / "again")))
    assert refused(sent) in call("inspect", "sent")[2]


def test_what_was_run_here_is_known_anywhere(ran: Path, tmp_path: Path, call: Call, state_directory: Path) -> None:
    shutil.copytree(ran / "runs" / "mine" / "001", tmp_path / "moved")
    digest = hashlib.sha256((ran / "mine.py").read_bytes()).hexdigest()
    assert (state_directory / "yeastexp" / "plugins" / digest).read_text() == f"{ran}/mine.py\n"
    trust._remembered.clear()
    assert call("inspect", tmp_path / "moved")[0] == 0


def test_a_file_of_ones_own_is_executed_before_it_was_run(ran: Path, tmp_path: Path, call: Call) -> None:
    write_data(tmp_path / "data.h5")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN.format(marker=str(tmp_path / "marker")))
    (tmp_path / "experiment.toml").write_text(TEXT.replace("mine.py", "plugins/mine.py"))
    assert call("check", tmp_path / "experiment.toml")[0] == 0
    assert (tmp_path / "marker").exists()


def test_one_may_be_allowed_in_a_notebook(sent: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_predictor(sent)
    assert str(caught.value) == refused(sent)
    with trust.trusting():
        predictor = load_predictor(sent)
    assert predictor.notes == (f"{sent}: '{sent}/plugins/mine.py' has changed and holds other code now",)


@pytest.mark.parametrize("state", ["file/within", "relative"])
def test_a_state_directory_that_cannot_be_written_breaks_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, state: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / state) if state == "file/within" else state)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    write_data(tmp_path / "data.h5")
    (tmp_path / "mine.py").write_text(PLUGIN.format(marker=str(tmp_path / "marker")))
    (tmp_path / "mine.toml").write_text(TEXT)
    with pytest.warns(UserWarning, match="cannot be written .Not a directory.*will ask for --trust-plugins"):
        folder = crossval(tmp_path / "mine.toml", folds=2, console=quiet())
    load_predictor(folder / "seed_0_fold_1")
    trust._remembered.clear()
    with pytest.raises(UserError, match="--trust-plugins"):
        load_predictor(folder / "seed_0_fold_1")
    status, _, stderr = call("report", folder)
    assert status == 0 and f"{folder / 'seed_0_fold_1' / 'plugins' / 'mine.py'} (sha256 " in stderr
    assert not (tmp_path / "relative").exists()
