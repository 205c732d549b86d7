"""Runs of several processes: they end in the bytes of one, and they end together."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import kills
import pytest
import tiny
from together import Launcher, finish, srun, start, together, torchrun, torchrun_on_two_machines

from yeastexp.registry import KINDS
from yeastexp.system import process_group

PLUGIN = """\
import os
import random
import signal
import torch
from ignite.engine import Events
from torch import nn
from yeastexp import handler, loss
from yeastexp.errors import UserError


@loss("soft")
class Soft(nn.Module):
    \"\"\"One that says nothing of how it adds up, and draws from PyTorch's generator.\"\"\"

    def __init__(self, classes: int) -> None:
        super().__init__()

    def forward(self, logits, labels):
        return nn.functional.cross_entropy(logits + 0.1 * torch.rand_like(logits), labels, ignore_index=-1)


@handler("decay")
class Decay:
    \"\"\"One with a state, which changes the learning rate.\"\"\"

    def __init__(self, context) -> None:
        self.context, self.steps = context, 0
        kind, step, rank = os.environ.get("STOP", "nothing 0 0").split()
        self.kind, self.step = kind, int(step) if rank == os.environ.get("RANK", "0") else 0

    def attach(self, trainer, validator) -> None:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.count)

    def count(self, trainer) -> None:
        self.steps += 1
        self.context.optimizer.param_groups[0]["lr"] *= 1 - 0.01 * self.steps
        if trainer.state.iteration == self.step:
            if self.kind == "fault":
                raise UserError("a fault of this process alone")
            if self.kind == "bug":
                raise ValueError("a bug of this process alone")
            os.kill(os.getpid(), getattr(signal, self.kind))

    def state_dict(self) -> dict:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
"""

TEXT = (
    'plugins = ["parts.py"]\n'
    + tiny.changed(
        {
            "epochs = 2": "epochs = 3\naccumulation_steps = 2\nema_decay = 0.9\nmax_grad_norm = 0.5\nplain_steps = 1",
            'name = "rotate90"': 'name = "rotate90"\n[[augment]]\nname = "gaussian_noise"\np = 1.0',
            "levels = 2": 'levels = 2\ndropout = 0.2\nnorm = "batch"',
            "batch_size = 4": "batch_size = 6",
            "threads = 1": "threads = 1\nshards = 4\ncheckpoint_minutes = 1e-9",
            'name = "one_cycle"': 'name = "constant"',
        },
        tiny.EXPERIMENT,
    )
    + '[[handler]]\nname = "decay"\n'
)
"""Two batches of six patches and one of four an epoch: shards of two and of one, and batches that count together.

The last step adds no noise.
"""


def prepared(folder: Path, text: str = TEXT) -> Path:
    (folder / "parts.py").write_text(PLUGIN)
    tiny.write_experiment(folder, text, val=3)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment, and the run of it by one process that was started without a launcher, 001."""
    folder = prepared(tmp_path_factory.mktemp("alone"))
    code = (
        "import sys; from yeastexp.__main__ import main; main(); print('yeastexp.system.process_group' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "run", "tiny.toml"]
    ended = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), "one process takes no part of torch.distributed"
    return folder


def run_of(folder: Path, name: str = "tiny") -> Path:
    return sorted((folder / "runs" / name).iterdir())[-1]


@pytest.mark.parametrize(
    "count, launcher, workers",
    [(2, torchrun, 2), (4, srun, 0), pytest.param(4, torchrun_on_two_machines, 0, marks=pytest.mark.fuzz)],
)
def test_they_end_in_the_bytes_of_one(alone: Path, count: int, launcher: Launcher, workers: int) -> None:
    ended = together(count, "run", "tiny.toml", "--set", f"runtime.workers={workers}", folder=alone, launcher=launcher)
    assert ended.statuses == [0] * count, ended.said
    assert ended.said[1:] == [""] * (count - 1)
    assert ended.said[0].splitlines()[-1] == str(run_of(alone).relative_to(alone))
    assert kills.differences(run_of(alone).with_name("001"), run_of(alone)) == []


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["soft", *(name for name in KINDS["loss"] if name != "cross_entropy")])
def test_so_they_do_with_each_loss(tmp_path: Path, name: str) -> None:
    folder = prepared(
        tmp_path, tiny.changed({'name = "cross_entropy"': f'name = "{name}"', "epochs = 3": "epochs = 1"}, TEXT)
    )
    for count in (1, 2):
        ended = together(count, "run", "tiny.toml", folder=folder)
        assert ended.statuses == [0] * count, ended.said
    assert kills.differences(run_of(folder).with_name("001"), run_of(folder)) == []


def test_a_run_goes_on_with_any_number_of_them(alone: Path) -> None:
    """Interrupted in one process, then in four of which one is told, then by the death of one of two."""
    run = Path()
    for count, stop in {1: "SIGTERM 2 0", 4: "SIGINT 4 3", 2: "SIGKILL 7 1"}.items():
        words = ("run", "tiny.toml") if count == 1 else ("resume", run)
        ended = together(count, *words, folder=alone, told={"STOP": stop})
        run = run_of(alone)
        alive = [status for status in ended.statuses if status != -signal.SIGKILL]
        assert {*alive} == {1 if "KILL" in stop else 130}, ended.said
        end = "'resume' continues the run from its last checkpoint" if "KILL" in stop else "continues from there"
        assert sum(text.count(end) for text in ended.said) == 1, ended.said
    ended = together(2, "resume", run, folder=alone)
    assert ended.statuses == [0, 0], ended.said
    assert kills.differences(run.with_name("001"), run) == []


@pytest.mark.parametrize(
    "kind, rank, status, end",
    [("fault", 1, 2, "a fault of this process alone\n"), ("bug", 0, 1, "ValueError: a bug of this process alone\n")],
)
def test_what_goes_wrong_in_one_of_them_ends_all_and_is_said_once(
    alone: Path, kind: str, rank: int, status: int, end: str
) -> None:
    ended = together(2, "run", "tiny.toml", folder=alone, told={"STOP": f"{kind} 3 {rank}"})
    assert ended.statuses[rank] == status and ended.statuses[1 - rank] in (1, status), ended.said
    assert "".join(ended.said).count(end) == 1 and ended.said[rank].endswith(end)
    assert ended.said[1 - rank].count("Traceback") == 0


@pytest.mark.parametrize(
    "setting, fault",
    [
        (
            "runtime.shards=3",
            "[runtime] shards: 3 cannot be shared by 2 processes; set it to 2, or to a ",
        ),
        ("runtime.shards=8", "[runtime] shards: a batch of 6 has no 8 parts; set [train] batch_size = 8\n"),
    ],
)
def test_what_is_wrong_in_all_of_them_is_said_once(alone: Path, setting: str, fault: str) -> None:
    before = list((alone / "runs" / "tiny").iterdir())
    ended = together(2, "run", "tiny.toml", "--set", setting, folder=alone)
    assert ended.statuses == [2, 2], ended.said
    assert "".join(ended.said).count(fault) == 1 and "" in ended.said
    assert list((alone / "runs" / "tiny").iterdir()) == before


def test_other_files_in_one_of_them_are_named(tmp_path: Path) -> None:
    folders = [prepared(tmp_path / name) for name in ("here", "there") if (tmp_path / name).mkdir() is None]
    (folders[1] / "data.h5").unlink()
    tiny.write_data(folders[1] / "data.h5", val=2)
    ended = together(2, "run", "tiny.toml", folder=folders[0], told={"ELSEWHERE": str(folders[1])})
    assert ended.statuses == [1, 1]
    assert "data 'data.h5' differs" in "".join(ended.said)


def test_one_whose_partner_never_starts_says_so_and_ends(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "SAID_SECONDS", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {**torchrun(0, 2, free.getsockname()[1]), process_group.MEET: "1"}
    ended = together(1, "run", "tiny.toml", folder=alone, told=told)
    waiting, *_, fault = ended.said[0].splitlines()
    assert ended.statuses == [1] and waiting == "waiting for all of 2 processes to start, for 1 s at most"
    assert fault.startswith("not all of 2 processes started within 1 s (Timed out after ")
    assert fault.endswith("start all of them again; YEASTEXP_MEET_SECONDS=2 waits longer")


def test_commands_that_share_nothing_are_not_done_twice(alone: Path) -> None:
    ended = together(2, "verify", run_of(alone), folder=alone)
    fault = "verify: is not shared by processes, and 2 of them would each do all of it; start it without torchrun or"
    assert ended.statuses == [2, 2] and all(fault in text for text in ended.said)


def test_they_share_the_images_of_an_evaluation(alone: Path) -> None:
    run, written = run_of(alone).with_name("001"), []
    for count in (1, 2):
        ended = together(count, "evaluate", run, "--split", "all", "--json", folder=alone)
        assert ended.statuses == [0] * count, ended.said
        written.append([path.read_bytes() for path in sorted((run / "evaluations").rglob("*.*"))])
        assert ended.said[1:] == [""] * (count - 1)
    assert written[0] == written[1] and len(written[0]) == 2


def test_they_share_folds_end_if_one_fails_and_go_on(alone: Path) -> None:
    words = ("crossval", "tiny.toml", "--folds", 2, "--set", "train.epochs=1", "-o")
    assert together(1, *words, "one", folder=alone).statuses == [0]
    ended = together(2, *words, "two", folder=alone, told={"STOP": "fault 2 1"})
    assert ended.statuses[1] == 2 and ended.statuses[0] in (1, 130), ended.said
    assert ended.said[1].count("a fault of this process alone\ntwo: seed 0, fold 2 is not finished; the same") == 1
    assert "continues it" not in ended.said[0]
    ended = together(2, *words, "two", folder=alone)
    assert ended.statuses == [0, 0] and ended.said[1] == "", ended.said
    for fold in sorted((alone / "one").glob("seed_*")):
        assert kills.differences(fold, alone / "two" / fold.name) == []
    for name in ("crossval.json", "per_image.csv"):
        assert (alone / "one" / name).read_bytes() == (alone / "two" / name).read_bytes()


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(20))
def test_one_that_is_killed_ends_all_and_the_run_goes_on(alone: Path, seed: int) -> None:
    source = random.Random(seed)
    before = run_of(alone)
    processes = start(2, "run", "tiny.toml", folder=alone)
    while run_of(alone) == before:  # a busy machine takes long until they have met
        time.sleep(0.01)
    time.sleep(source.uniform(0.0, 3.0))
    victim = source.randrange(2)
    os.kill(processes[victim].pid or 0, signal.SIGKILL)
    ended = finish(processes, alone, seconds=20)
    assert ended.statuses[victim] in (-signal.SIGKILL, 0) and ended.statuses[1 - victim] in (0, 1), ended.said
    run = run_of(alone)
    words = ("resume", run) if (run / "experiment.toml").is_file() else ("run", "tiny.toml")
    assert together(2, *words, folder=alone).statuses == [0, 0]
    assert kills.differences(run.with_name("001"), run_of(alone)) == []
