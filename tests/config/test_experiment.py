"""One TOML file, checked: every fault of it in one go, with the line that wrote it."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import forks
import pytest
import tiny
from conftest import Call
from tiny import MINIMAL

from yeastexp.config import trust
from yeastexp.config.experiment import Experiment
from yeastexp.config.loading import IDLE, load_experiment
from yeastexp.config.settings import SCHEMAS, seconds
from yeastexp.data import hdf5_file
from yeastexp.errors import UserError
from yeastexp.registry import KINDS

Write = Callable[..., Path]

LINES = {text: number for number, text in reversed(list(enumerate(MINIMAL.splitlines(), 1)))}

PLUGIN = """\
from dataclasses import dataclass
from pathlib import Path
from yeastexp import BasicTransform2D, PerImageMetric, UserError, dataset, metric, transform

@metric("dead_cells")
class DeadCells(PerImageMetric):
    higher_is_better = False
    def counts(self, prediction, labels, *, dead):
        return (dead > 0).sum().reshape(1)
    def score(self, counts):
        return counts[0]

@metric("predicted_height")
class PredictedHeight(PerImageMetric):
    higher_is_better = True
    def counts(self, prediction, labels, *, predicted_height):
        return predicted_height.sum().reshape(1)

class Undirected(PerImageMetric):
    pass

@metric("undirected")
def undirected(classes: int):
    return Undirected(classes)

@metric("no_metric")
def no_metric(classes: int):
    return len

@transform("no_transform")
def no_transform():
    return abs

@transform("coarse")
@dataclass(frozen=True)
class Coarse(BasicTransform2D):
    def geometry(self, size, params):
        return None, size

@transform("fussy")
def fussy(odd: int = 1):
    if odd % 2 == 0:
        raise UserError(f"is odd, got {odd}", key="odd")
    return Same()

class Same(BasicTransform2D):
    def image(self, image, params):
        return image

@transform("of_the_whole")
class OfTheWhole(Same):
    def statistics(self, image):
        return None

@transform("misspelt")
@dataclass(frozen=True)
class Misspelt(BasicTransform2D):
    def images(self, image, params):
        return image

@dataset("empty")
class Empty:
    splits = {"train": [], "val": []}
    maps = ()
    normalization = shape = read = None
    def __init__(self, folder: Path | None = None):
        self.folder = folder

@dataset("damaged")
class Damaged(Empty):
    splits = {"train": ["a"], "val": ["b"]}
    def shape(self, name):
        raise UserError(f"image '{name}' cannot be read", key="folder")
"""


@pytest.fixture
def write(experiment_file: Write, tmp_path: Path) -> Write:
    """`write({line: other line})` writes `tiny.MINIMAL` with lines changed; `plugin` stands beside it."""

    def changed(changes: Mapping[str, str] | None = None, name: str = "study.toml", plugin: str = PLUGIN) -> Path:
        (tmp_path / "mine.py").write_text(plugin)
        return experiment_file(changes, name, MINIMAL)

    return changed


def faults(path: Path, settings: Sequence[str] = ()) -> list[str]:
    """All faults of a file, with its folder left out of them; loading one writes nothing, wherever it is."""
    places = (Path.cwd(), path.parent)
    before = [sorted(place.iterdir()) for place in places]
    with pytest.raises(UserError) as error:
        load_experiment(path, settings)
    assert error.value.status == 2
    assert [sorted(place.iterdir()) for place in places] == before
    return [fault.replace(f"{path.parent}/", "") for fault in error.value.faults]


def known(kind: str) -> str:
    return f"(known: {', '.join(KINDS[kind])})"


def keys(kind: str, name: str) -> str:
    return f"(known: {', '.join(sorted(KINDS[kind].find(name).schema.keys))})"


TABLES = (
    "augment, dataset, extends, handler, loss, metric, model, name, optimizer, patches, plugins, runtime, scheduler, "
    "task, train, transform, validation"
)
TRAIN_KEYS = "(known: " + ", ".join(sorted(SCHEMAS["train"].keys)) + ")"
UNET_KEYS = keys("model", "unet")
SPELT = {
    "table": (
        {"[scheduler]": "[schedular]"},
        f"23:1: schedular: unknown table or key; did you mean 'scheduler'? (known: {TABLES})",
    ),
    "array of tables": (
        {"[[transform]]": "[[transfrom]]"},
        f"8:1: transfrom: unknown table or key; did you mean 'transform'? (known: {TABLES})",
    ),
    "key at the top": (
        {"plugins = []": "plugin = []"},
        f"1:1: plugin: unknown table or key; did you mean 'plugins'? (known: {TABLES})",
    ),
    "subtable of an unknown table": (
        {"[scheduler]": "[schedular.more]"},
        f"23:1: schedular: unknown table or key; did you mean 'scheduler'? (known: {TABLES})",
    ),
    "key of a part": (
        {"width = 2": "widht = 2"},
        f"17:1: [model] widht: unknown key; did you mean 'width'? {UNET_KEYS}",
    ),
    "key of a part in an array": (
        {"x = 0.25": "  xx = 0.25"},
        f"12:3: [[augment]] xx: unknown key; did you mean 'x'? {keys('transform', 'reflect')}",
    ),
    "key of task": (
        {"channels = 1": "channels = 1\nclases = 1"},
        "4:1: [task] clases: unknown key; did you mean 'classes'? (known: channels, classes, views)",
    ),
    "key of train": (
        {"epochs = 2": "epochs = 2\nbatchs = 2"},
        f"29:1: [train] batchs: unknown key; did you mean 'batch_size'? {TRAIN_KEYS}",
    ),
    "name": (
        {'name = "unet"': 'name = "u-net"'},
        f"16:1: [model] name: unknown model 'u-net'; did you mean 'unet'? {known('model')}",
    ),
    "name in an array": (
        {'name = "rotate90"': 'name = "rotate80"'},
        f"14:1: [[augment]] name: unknown transform 'rotate80'; did you mean 'rotate90'? {known('transform')}",
    ),
    "value": (
        {"width = 2": 'norm = "bach"'},
        "17:1: [model] norm: should be 'batch', 'group', 'instance' or 'none', got \"bach\"; did you mean 'batch'? "
        "(known: batch, group, instance, none)",
    ),
    "value of train": (
        {"epochs = 2": 'epochs = 2\n[runtime]\ndevice = "gpu"'},
        "30:1: [runtime] device: should be 'auto', 'cpu' or 'cuda', got \"gpu\"; did you mean 'cpu'? "
        "(known: auto, cpu, cuda)",
    ),
    "precision": (
        {"epochs = 2": 'epochs = 2\nprecision = "float61"'},
        "29:1: [train] precision: should be 'float32', 'bfloat16', 'float16' or 'auto', got \"float61\"; "
        "did you mean 'float16'? (known: auto, bfloat16, float16, float32)",
    ),
    "monitor": (
        {"epochs = 2": 'epochs = 2\n[validation]\nmonitor = "iuo"'},
        "30:1: [validation] monitor: no metric 'iuo'; did you mean 'iou'? (known: iou, loss)",
    ),
    "former name": (
        {"epochs = 2": "epochs = 2\nwindow = 16\nbatch = 4"},
        ["29:1: [train] window: is now [patches] size", "30:1: [train] batch: is now [train] batch_size"],
    ),
    "former name of a part's key": ({"width = 2": "patch = 2"}, "17:1: [model] patch: is now space_to_depth"),
    "wrong table": ({"epochs = 2": 'epochs = 2\ndevice = "cpu"'}, "29:1: [train] device: belongs to [runtime] device"),
    "option of a part in another table": (
        {"epochs = 2": "epochs = 2\nlearning_rate = 0.1"},
        "29:1: [train] learning_rate: belongs to [optimizer] learning_rate",
    ),
    "setting among options of a part": (
        {"width = 2": "width = 2\nbatch_size = 4"},
        "18:1: [model] batch_size: belongs to [train] batch_size",
    ),
    "former name at the top": (
        {"plugins = []": "batch = 3"},
        "1:1: batch: unknown table or key; it belongs to [train] batch_size",
    ),
}
MISSING = {
    "required key of a part": (
        {'path = "data.h5"': ""},
        "5:1: [dataset] path: missing; add 'path = …'",
    ),
    "name": (
        {'name = "unet"': ""},
        f"15:1: [model] name: missing; add 'name = …' {known('model')}",
    ),
    "name in an array": (
        {'name = "rotate90"': ""},
        f"13:1: [[augment]] name: missing; add 'name = …' {known('transform')}",
    ),
    "key of task": ({"channels = 1": ""}, "2:1: [task] channels: missing; add 'channels = …'"),
    "table": ({'[loss]\nname = "cross_entropy"': ""}, "1:1: [loss]: missing; every experiment needs it"),
    "train": ({"[train]\nepochs = 2": ""}, "1:1: [train]: missing; every experiment needs it"),
    "metric": ({'[[metric]]\nname = "iou"': ""}, "1:1: [[metric]]: missing; every experiment needs one"),
    "metric emptied": (
        {'[[metric]]\nname = "iou"': "", "plugins = []": "metric = []"},
        "1:1: [[metric]]: missing; every experiment needs one",
    ),
    "length": ({"epochs = 2": ""}, "27:1: [train]: needs one of 'epochs', 'steps' and 'budget'"),
    "data file": ({'path = "data.h5"': '  path = "dat.h5"'}, "7:3: [dataset] path: no file 'dat.h5'"),
    "plugin": ({"plugins = []": 'plugins = ["gone.py"]'}, "1:12: plugins: no file 'gone.py'"),
}
TYPES = {
    "float for int": ({"width = 2": "width = 2.0"}, "17:1: [model] width: should be a valid integer, got 2.0"),
    "string for int": ({"width = 2": 'width = "8"'}, '17:1: [model] width: should be a valid integer, got "8"'),
    "boolean for int": ({"width = 2": "width = true"}, "17:1: [model] width: should be a valid integer, got true"),
    "boolean for float": ({"x = 0.25": "x = true"}, "12:1: [[augment]] x: should be a valid number, got true"),
    "int for boolean": (
        {"epochs = 2": "epochs = 2\n[runtime]\ndeterministic = 1"},
        "30:1: [runtime] deterministic: should be a valid boolean, got 1",
    ),
    "number for a name": (
        {'name = "unet"': "name = 3"},
        f"16:1: [model] name: should be a string, got 3 {known('model')}",
    ),
    "name that is an array, and an unknown key": (
        {'name = "unet"': 'name = ["unet"]', "epochs = 2": "epochs = 2\nwidht = 3"},
        [
            f"16:1: [model] name: should be a string, got ['unet'] {known('model')}",
            f"29:1: [train] widht: unknown key {TRAIN_KEYS}",
        ],
    ),
    "number for a path": ({'path = "data.h5"': "path = 3"}, "7:1: [dataset] path: should be a valid string, got 3"),
    "array for a table": (
        {'[model]\nname = "unet"\nwidth = 2': '[[model]]\nname = "unet"'},
        "15:1: model: should be a table, got [{'name': 'unet'}]",
    ),
    "table for an array": (
        {'[[metric]]\nname = "iou"': '[metric]\nname = "iou"'},
        "25:1: metric: should be an array of tables, [[metric]], got {'name': 'iou'}",
    ),
    "value for a table": (
        {"plugins = []": "scheduler = 1", '[scheduler]\nname = "one_cycle"': ""},
        "1:1: scheduler: should be a table, got 1",
    ),
    "element": (
        {'classes = ["background", "cell"]': 'classes = ["background", 3]'},
        "4:26: [task] classes.1: should be a valid string, got 3",
    ),
    "element on a line of its own": (
        {'name = "adamw"': 'name = "adamw"\nbetas = [\n  0.9,\n  "x",\n]'},
        '24:3: [optimizer] betas.1: should be a valid number, got "x"',
    ),
    "plugins": (
        {"plugins = []": "plugins = 'mine.py'"},
        "1:1: plugins: should be an array of file names, got 'mine.py'",
    ),
    "experiment name": ({"plugins = []": "name = 3"}, "1:1: name: should be a plain name for a folder, got 3"),
}
RANGES = {
    "epochs": ({"epochs = 2": "epochs = -1"}, "28:1: [train] epochs: should be greater than or equal to 1, got -1"),
    "steps": ({"epochs = 2": "steps = 0"}, "28:1: [train] steps: should be greater than or equal to 1, got 0"),
    "probability": ({"x = 0.25": "x = 1.5"}, "12:1: [[augment]] x: should be less than or equal to 1, got 1.5"),
    "not a number": ({"x = 0.25": "x = nan"}, "12:1: [[augment]] x: should be a finite number, got NaN"),
    "budget": (
        {"epochs = 2": 'budget = "5 weeks"'},
        "28:1: [train] budget: wants wall-clock time of the whole command, as in '5m' or '90 s', got \"5 weeks\"",
    ),
    "seed": (
        {"epochs = 2": "epochs = 2\nseed = -1"},
        "29:1: [train] seed: should be greater than or equal to 0, got -1",
    ),
    "early stopping": (
        {"epochs = 2": "epochs = 2\n[validation]\npatience = 0"},
        "30:1: [validation] patience: should be greater than or equal to 1, got 0",
    ),
    "accumulate": (
        {"epochs = 2": "epochs = 2\naccumulation_steps = 0"},
        "29:1: [train] accumulation_steps: should be greater than or equal to 1, got 0",
    ),
    "too few values": (
        {'name = "adamw"': 'name = "adamw"\nbetas = [0.9]'},
        "22:1: [optimizer] betas.1: missing; give 2 values",
    ),
    "clipping": (
        {"epochs = 2": "epochs = 2\nmax_grad_norm = 0"},
        "29:1: [train] max_grad_norm: should be greater than 0, got 0",
    ),
    "average of nothing": (
        {"epochs = 2": "epochs = 2\nema_decay = 0"},
        "29:1: [train] ema_decay: should be greater than 0, got 0",
    ),
    "average that never moves": (
        {"epochs = 2": "epochs = 2\nema_decay = 1.0"},
        "29:1: [train] ema_decay: should be less than 1, got 1.0",
    ),
    "nothing to share": (
        {"epochs = 2": "epochs = 2\ninit_share = 0.5"},
        "29:1: [train] init_share: has no effect without 'init_from'",
    ),
    "nothing to augment with": (
        {
            '[[augment]]\nname = "reflect"\nx = 0.25\n[[augment]]\nname = "rotate90"\n': "",
            "epochs = 2": "epochs = 2\nplain_steps = 3",
        },
        "24:1: [train] plain_steps: has no effect without [[augment]]",
    ),
    "nothing but initial weights": (
        {"epochs = 2": "epochs = 2\ninit_share = 1"},
        "29:1: [train] init_share: should be less than 1, got 1",
    ),
    "channels": ({"channels = 1": "channels = 0"}, "3:1: [task] channels: should be greater than or equal to 1, got 0"),
    "one class": (
        {'classes = ["background", "cell"]': 'classes = ["cell"]'},
        '4:1: [task] classes: should have at least 2 items, got ["cell"]',
    ),
    "class name": (
        {'classes = ["background", "cell"]': 'classes = ["background", "a cell"]'},
        '4:26: [task] classes.1: wants no spaces, slashes or control characters in a name, got "a cell"',
    ),
    "class name that a terminal obeys": (
        {'classes = ["background", "cell"]': 'classes = ["background", "\\u001b[31mcell"]'},
        '4:26: [task] classes.1: wants no spaces, slashes or control characters in a name, got "\\u001b[31mcell"',
    ),
    "experiment name": (
        {"plugins = []": 'name = "../up"'},
        "1:1: name: should be a plain name for a folder, got '../up'",
    ),
    "hidden experiment name": (
        {"plugins = []": 'name = ".x"'},
        "1:1: name: should be a plain name for a folder, got '.x'",
    ),
    "two-line experiment name": (
        {"plugins = []": 'name = "a\\nb"'},
        "1:1: name: should be a plain name for a folder, got 'a\\nb'",
    ),
    "empty experiment name": ({"plugins = []": 'name = ""'}, "1:1: name: should be a plain name for a folder, got ''"),
}
FOREIGN = {
    "date": (
        {'path = "data.h5"': "path = 2024-01-02"},
        "7:1: [dataset] path: should be no date or time, got 2024-01-02; put text in quotes",
    ),
    "time for a name among names": (
        {"epochs = 2": "epochs = 2\nprecision = 07:32:00"},
        "29:1: [train] precision: should be no date or time, got 07:32:00; put text in quotes",
    ),
    "beyond 64 bits": (
        {"epochs = 2": "epochs = 9223372036854775808"},
        "28:1: [train] epochs: should fit into 64 bits, got 9223372036854775808",
    ),
    "two dates in an array": (
        {'classes = ["background", "cell"]': 'classes = [2024-01-02, "cell", 07:32:00]'},
        [
            "4:12: [task] classes.0: should be no date or time, got 2024-01-02; put text in quotes",
            "4:32: [task] classes.2: should be no date or time, got 07:32:00; put text in quotes",
        ],
    ),
    "budget of ages": (
        {"epochs = 2": 'budget = "9999999h"'},
        "28:1: [train] budget: wants wall-clock time of the whole command, as in '5m' or '90 s', got \"9999999h\"",
    ),
    "window": (
        {"epochs = 2": "epochs = 2\n[patches]\nsize = 1000000000000"},
        "30:1: [patches] size: should be less than or equal to 32768, got 1000000000000",
    ),
    "path too long": (
        {'path = "data.h5"': f'path = "{"x" * 300}"'},
        f"7:1: [dataset] path: no file '{'x' * 300}'",
    ),
    "plugin too long": ({"plugins = []": f'plugins = ["{"x" * 300}"]'}, f"1:12: plugins: no file '{'x' * 300}'"),
    "plugin with a null character": ({"plugins = []": 'plugins = ["a\\u0000"]'}, "1:12: plugins: no file 'a\0'"),
}
TOGETHER = {
    "fewer patches than shards": (
        {"epochs = 2": "epochs = 2\nbatch_size = 4\n[runtime]\nshards = 6"},
        "31:1: [runtime] shards: a batch of 4 has no 6 parts; set [train] batch_size = 6",
    ),
    "two lengths": (
        {"epochs = 2": "epochs = 2\nsteps = 3"},
        "29:1: [train] steps: stands beside 'epochs'; keep one of them",
    ),
    "three lengths": (
        {"epochs = 2": "budget = '1m'\nepochs = 2\nsteps = 3"},
        "28:1: [train] budget: stands beside 'epochs' and 'steps'; keep one of them",
    ),
    "metric twice": (
        {'name = "iou"': 'name = "iou"\n[[metric]]\nname = "iou"'},
        ["26:1: [[metric]] name: 'iou' stands 2 times", "28:1: [[metric]] name: 'iou' stands 2 times"],
    ),
    "class twice": (
        {'classes = ["background", "cell"]': 'classes = ["cell", "cell"]'},
        "4:1: [task] classes: a name stands twice in ['cell', 'cell']",
    ),
    "sliding and counted windows": (
        {"epochs = 2": "epochs = 2\n[patches]\nper_image = 3\nstride = 8"},
        "31:1: [patches] stride: is for sliding patches, 'per_image' for random ones; keep one of them",
    ),
    "sliding and centred windows": (
        {"epochs = 2": "epochs = 2\n[patches]\nforeground_fraction = 0.5\nstride = 8"},
        "31:1: [patches] stride: is for sliding patches, 'foreground_fraction' for random ones; keep one of them",
    ),
    "workers and the device's memory": (
        {"epochs = 2": 'epochs = 2\n[runtime]\nworkers = 2\ncache = "device"'},
        "31:1: [runtime] cache: worker processes cut patches from memory; set 'workers = 0', or another cache",
    ),
    "drawing transform": (
        {'[[augment]]\nname = "reflect"\nx = 0.25': '[[transform]]\nname = "reflect"'},
        "11:1: [[transform]] name: 'reflect' draws random numbers; it belongs under [[augment]]",
    ),
    "fitted augmentation": (
        {'[[augment]]\nname = "reflect"\nx = 0.25': '[[augment]]\nname = "zscore"\nper = "dataset"'},
        "11:1: [[augment]] name: 'zscore' is for whole images; it belongs under [[transform]]",
    ),
    "augmentation of whole images": (
        {'[[augment]]\nname = "reflect"\nx = 0.25': '[[augment]]\nname = "crop"\ntop = 2'},
        "11:1: [[augment]] name: 'crop' is for whole images; it belongs under [[transform]]",
    ),
    "weights of another number of classes": (
        {'name = "cross_entropy"': 'name = "cross_entropy"\nweights = [1, 2, 3]'},
        "20:1: [loss] weights: needs 2 weights, not all zero; got [1.0, 2.0, 3.0]",
    ),
    "figures nobody asked for": (
        {'name = "zscore"': 'name = "zscore"\nmean = 1\nstd = 2'},
        "9:1: [[transform]] per: 'mean' and 'std' are for per = 'dataset'; omit them or change 'per'",
    ),
    "channels of the data": (
        {"channels = 1": "channels = 3"},
        "3:1: [task] channels: is 3, but image 'square_0' has 1 (and 5 more)",
    ),
}
WITH_PLUGIN = {
    "map that the data lacks": (
        {'name = "iou"': 'name = "dead_cells"'},
        "26:1: [[metric]] name: 'dead_cells' needs the map 'dead'; the data has no further maps; it can be left "
        "out: [[metric]] tables of your file replace those that it extends",
    ),
    "ids of cells that the data lacks": (
        {'classes = ["background", "cell"]': 'name = "instances"\nclasses = ["background", "cell"]'},
        "4:1: [task] name: 'instances' needs the map 'instances'; the data has no further maps; pack label files that "
        "give each cell an id, with --labels instance",
    ),
    "map that the task does not predict": (
        {'name = "iou"': 'name = "predicted_height"'},
        "26:1: [[metric]] name: 'predicted_height' needs predicted height; the task 'semantic' predicts classes alone",
    ),
    "a metric that does not say its direction": (
        {'name = "iou"': 'name = "undirected"'},
        "26:1: [[metric]] name: 'undirected' does not say whether 'higher_is_better', as True or False; add it to the "
        "class",
    ),
    "no metric": ({'name = "iou"': 'name = "no_metric"'}, "26:1: [[metric]] name: 'no_metric' is no PerImageMetric"),
    "no transform": (
        {'name = "zscore"': 'name = "no_transform"'},
        "9:1: [[transform]] name: 'no_transform' is no BasicTransform2D",
    ),
    "no augmentation": (
        {'name = "rotate90"': 'name = "no_transform"'},
        "14:1: [[augment]] name: 'no_transform' is no BasicTransform2D",
    ),
    "augmentation whose hook is misspelt": (
        {'name = "rotate90"': 'name = "misspelt"'},
        f"14:1: [[augment]] name: 'misspelt' {IDLE}",
    ),
    "augmentation with statistics of the whole image": (
        {'name = "rotate90"': 'name = "of_the_whole"'},
        "14:1: [[augment]] name: 'of_the_whole' is for whole images; it belongs under [[transform]]",
    ),
    "transform whose hook is misspelt": (
        {'name = "zscore"': 'name = "misspelt"'},
        f"9:1: [[transform]] name: 'misspelt' {IDLE}",
    ),
    "grid without a way back": (
        {'name = "zscore"': 'name = "coarse"'},
        "9:1: [[transform]] name: 'coarse' changes the grid and has no 'restore'; scores are on the original pixels",
    ),
    "option that the factory refuses": (
        {'name = "zscore"': 'name = "fussy"\nodd = 2'},
        "10:1: [[transform]] odd: is odd, got 2",
    ),
    "data set without images": (
        {'name = "hdf5"\npath = "data.h5"': 'name = "empty"'},
        [
            "6:1: [dataset] name: 'empty' has no images to train on",
            "6:1: [dataset] name: 'empty' has no images to validate on",
        ],
    ),
    "data set that finds out late": (
        {
            'name = "hdf5"\npath = "data.h5"': 'name = "damaged"\nfolder = "x"',
            "epochs = 2": "epochs = 2\n[validation]\nmonitor = 'x'",
        },
        [
            "7:1: [dataset] folder: image 'a' cannot be read",
            "30:1: [validation] monitor: no metric 'x' (known: iou, loss)",
        ],
    ),
    "home of nobody": (
        {'name = "hdf5"\npath = "data.h5"': 'name = "empty"\nfolder = "~no_such_user_/x"'},
        '7:1: [dataset] folder: no path (Could not determine home directory.), got "~no_such_user_/x"',
    ),
    "null character": (
        {'name = "hdf5"\npath = "data.h5"': 'name = "empty"\nfolder = "a\\u0000"'},
        '7:1: [dataset] folder: no path (embedded null byte), got "a\\u0000"',
    ),
}
GROUPS = {
    "spelt": SPELT,
    "missing": MISSING,
    "types": TYPES,
    "ranges": RANGES,
    "foreign": FOREIGN,
    "together": TOGETHER,
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [pytest.param(*case, id=f"{group}-{name}") for group, cases in GROUPS.items() for name, case in cases.items()],
)
def test_a_fault(write: Write, changes: dict[str, str], expected: str | list[str]) -> None:
    path = write(changes)
    wanted = [expected] if isinstance(expected, str) else expected
    found = [fault.replace(f"{path.parent.resolve()}/", "") for fault in faults(path)]
    assert found == [f"study.toml:{fault}" for fault in wanted]


@pytest.mark.parametrize(("changes", "expected"), [pytest.param(*case, id=name) for name, case in WITH_PLUGIN.items()])
def test_a_fault_of_a_plugins_part(write: Write, changes: dict[str, str], expected: str | list[str]) -> None:
    wanted = [expected] if isinstance(expected, str) else expected
    assert faults(write({"plugins = []": 'plugins = ["mine.py"]', **changes})) == [
        f"study.toml:{one}" for one in wanted
    ]


def test_an_int_is_a_float_and_the_experiment_as_it_stands_is_right(write: Write) -> None:
    loaded = load_experiment(write({"x = 0.25": "x = 1"}))
    assert loaded.augmentations[0].options == {"x": 1.0}
    assert (loaded.name, loaded.task.classes, loaded.train.epochs) == ("study", ("background", "cell"), 2)
    assert [part.name for part in loaded.parts] == [
        "hdf5", "zscore", "reflect", "rotate90", "unet", "cross_entropy", "adamw", "one_cycle", "iou",
    ]  # fmt: skip
    assert loaded.monitor == "iou"


def test_a_map_that_the_data_has(write: Write, tmp_path: Path) -> None:
    path = write({"plugins = []": 'plugins = ["mine.py"]', 'name = "iou"': 'name = "dead_cells"'})
    names = {"train": ["square_0"], "val": ["square_1"]}

    def read(name: str) -> dict[str, object]:
        arrays = tiny.image(int(name.removeprefix("square_")))
        return {**arrays, "dead": arrays["gt"]}

    hdf5_file.write(tmp_path / "data.h5", names, read, provenance={}, force=True)
    assert load_experiment(path).metrics[0].name == "dead_cells"


@pytest.mark.parametrize(
    ("plugin", "fault"),
    [
        ("x = 1\ndef f(:\n", "mine.py:2:7: invalid syntax"),
        ("x = 1\n\nraise ValueError('no')\n", "mine.py:3: ValueError: no"),
        (
            "from yeastexp import model\n\n@model('unet')\ndef net(channels: int, classes: int): ...\n",
            "mine.py:3: model 'unet' is taken by {unet}; choose another name",
        ),
    ],
    ids=["syntax error", "raises", "taken name"],
)
def test_a_faulty_plugin_is_named_with_its_line_beside_the_other_faults(write: Write, plugin: str, fault: str) -> None:
    path = write({"plugins = []": 'plugins = [\n  "mine.py",\n]', "width = 2": "width = 0"}, plugin=plugin)
    assert faults(path) == [
        f"study.toml:2:3: plugins: {fault.format(unet=KINDS['model'].find('unet').place)}",
        "study.toml:19:1: [model] width: should be greater than or equal to 1, got 0",
    ]


PARTLY = """\
from yeastexp import loss, metric, task, transform

@transform("sound")
def sound(strength: float = 1.0): ...

@transform("wrong")
def wrong(strength): ...
"""
USED = {
    "plugins = []": 'plugins = ["mine.py"]',
    'name = "zscore"': 'name = "sound"\nstrnegth = 2.0',
    'name = "rotate90"': 'name = "wrong"',
    'name = "reflect"': 'name = "refelct"',
}


def test_a_fault_in_one_part_of_a_plugin_leaves_the_others_and_none_follows_from_it(write: Write) -> None:
    hint = "the hint is the schema of the TOML key, and it is called as f(**table)"
    known = ", ".join(sorted([*KINDS["transform"], "sound"]))
    assert faults(write(USED, plugin=PARTLY)) == [
        f"study.toml:1:12: plugins: mine.py:6: transform 'wrong' option 'strength' has no type hint; {hint}",
        "study.toml:10:1: [[transform]] strnegth: unknown key; did you mean 'strength'? (known: strength)",
        f"study.toml:12:1: [[augment]] name: unknown transform 'refelct'; did you mean 'reflect'? (known: {known})",
    ]


@pytest.mark.parametrize("broken", ["raise ValueError('no')\n", "import no_such_module\n", "x = (\n"])
def test_parts_that_a_broken_plugin_may_have_are_not_called_unknown(write: Write, broken: str) -> None:
    text = PARTLY[: PARTLY.index("@transform")] + broken + PARTLY[PARTLY.index("@transform") :]
    changes = {
        "plugins = []": 'plugins = ["mine.py"]',
        "[task]": '[task]\nname = "depth"',
        'name = "rotate90"': 'name = "wrong"',
        '[loss]\nname = "cross_entropy"\n': "",
        'name = "iou"': 'name = "depth_error"',
        "epochs = 2": "epochs = 2\n[validation]\nmonitor = 'depth_error'",
    }
    text += "task('depth'), metric(\"depth_error\")\n"
    (fault,) = faults(write(changes, plugin=text))
    assert fault.startswith("study.toml:1:12: plugins: mine.py:3: ") or "was never closed" in fault


def test_the_monitored_metric_is_known_though_its_table_has_a_fault(write: Write) -> None:
    changes = {'name = "iou"': 'name = "iou"\nodd = 1', "epochs = 2": "epochs = 2\n[validation]\nmonitor = 'iou'"}
    assert faults(write(changes)) == ["study.toml:27:1: [[metric]] odd: unknown key (known: none)"]


RAISING = """\
import functools, torch
from yeastexp import BasicTransform2D, PerImageMetric, Sample, dataset, handler, loss, model, transform

@transform("raising")
class Raising(BasicTransform2D):
    def draw(self, generator):
        return {}["strength"]
    def image(self, image, params):
        return image

@loss("raising")
def raising(classes):
    return 1 / 0

@loss("nothing")
def nothing(classes): ...

@loss("number")
def number(classes):
    return 3

@dataset("bare")
class Bare:
    splits = {"train": ["a"], "val": ["b"]}
    maps = ()
    def read(self, name):
        return None

@dataset("listed")
class Listed(Bare):
    splits = [["a"], ["b"]]
    normalization = None
    def shape(self, name):
        return 1, 32, 32

@dataset("wrong_image")
class WrongImage(Listed):
    splits = Bare.splits
    def read(self, name):
        return Sample(torch.zeros(1, 32, 32, dtype=torch.float64), torch.zeros(32, 32, dtype=torch.int64), name)

@dataset("no_sample")
class NoSample(Listed):
    splits = Bare.splits
    def read(self, name):
        return torch.zeros(1, 32, 32), torch.zeros(32, 32)

@dataset("forgotten")
def forgotten(): ...

@handler("deaf")
class Deaf:
    def __init__(self, context): ...

partly = functools.partial(raising)
loss("partly")(partly)
"""
HDF5 = 'name = "hdf5"\npath = "data.h5"'
WHOLE = "splits, maps, normalization, shape(name) and read(name)"
RAISED = {
    "a hook raises": (
        {'name = "zscore"': 'name = "raising"'},
        "9:1: [[transform]] name: 'raising' fails: mine.py:7: KeyError: 'strength'",
    ),
    "a factory raises": (
        {'name = "cross_entropy"': 'name = "raising"'},
        "19:1: [loss] name: 'raising' fails: mine.py:13: ZeroDivisionError: division by zero",
    ),
    "a factory of another form raises": (
        {'name = "cross_entropy"': 'name = "partly"'},
        "19:1: [loss] name: 'partly' fails: mine.py:13: ZeroDivisionError: division by zero",
    ),
    "a handler that hears nothing": (
        {"[train]": '[[handler]]\nname = "deaf"\n[train]'},
        "28:1: [[handler]] name: 'deaf' has no 'attach'",
    ),
    "a factory gives nothing": (
        {'name = "cross_entropy"': 'name = "nothing"'},
        "19:1: [loss] name: 'nothing' makes None",
    ),
    "a loss that cannot be called": (
        {'name = "cross_entropy"': 'name = "number"'},
        "19:1: [loss] name: 'number' is no Loss",
    ),
    "a data set without shape and normalization": (
        {HDF5: 'name = "bare"'},
        f"6:1: [dataset] name: 'bare' has no normalization and no shape; a data set has {WHOLE}",
    ),
    "a data set of another form": (
        {HDF5: 'name = "listed"'},
        "6:1: [dataset] name: 'listed': splits is a list; give the names of the images of each, as in "
        "{'train': ['a', 'b'], 'val': ['c']}",
    ),
    "a data set that gives no sample": (
        {HDF5: 'name = "no_sample"'},
        "6:1: [dataset] name: 'no_sample': read('a') gives a tuple of a float32 tensor (1, 32, 32), a float32 tensor "
        "(32, 32), not a Sample",
    ),
    "a data set of another type": (
        {HDF5: 'name = "wrong_image"'},
        "6:1: [dataset] name: 'wrong_image': read('a').image is a float64 tensor (1, 32, 32), not a tensor "
        "(1, 32, 32) of float32",
    ),
    "a data set that is forgotten": ({HDF5: 'name = "forgotten"'}, "6:1: [dataset] name: 'forgotten' makes None"),
}


@pytest.mark.parametrize(("changes", "expected"), RAISED.values(), ids=RAISED)
def test_what_goes_wrong_in_a_users_part_is_one_line(write: Write, changes: dict[str, str], expected: str) -> None:
    path = write({"plugins = []": 'plugins = ["mine.py"]', **changes}, plugin=RAISING)
    assert faults(path) == [f"study.toml:{expected}"]


def test_two_plugins_of_one_name(write: Write, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("x = 1")
    assert faults(write({"plugins = []": 'plugins = ["mine.py", "other/mine.py"]'})) == [
        "study.toml:1:1: plugins: two files of one name; a run keeps its copies side by side"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            MINIMAL.replace("epochs = 2", "epochs = 2\nepochs = 3\n# end"),
            "study.toml:29:11: Cannot overwrite a value",
        ),
        (MINIMAL.replace("[loss]", "[loss"), "study.toml:18:6: Expected ']' at the end of a table declaration"),
        (MINIMAL.replace("[loss]", "[model]"), "study.toml:18:7: Cannot declare ('model',) twice"),
        (
            "\n\nextends = 'study.toml'",
            "study.toml:3:1: extends: 'study.toml' extends this file in turn; break the circle",
        ),
    ],
    ids=["key twice", "syntax error", "table twice", "extends itself"],
)
def test_a_file_that_cannot_be_read(write: Write, text: str, fault: str) -> None:
    path = write()
    path.write_text(text)
    assert faults(path) == [fault]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, meant in {tmp_path / "none.toml": "", tmp_path: "; it is a folder; name a file"}.items():
        with pytest.raises(UserError) as error:
            load_experiment(path)
        assert str(error.value) == f"{path}: no such experiment file{meant}"


def test_all_faults_are_told_in_the_order_of_the_file(write: Write) -> None:
    path = write(
        {
            "plugins = []": 'plugins = ["gone.py"]\nnmae = "x"',
            "channels = 1": "channels = '1'",
            'path = "data.h5"': 'path = "gone.h5"\nvla = 1',
            "x = 0.25": "x = 2",
            'name = "unet"': 'name = "unett"',
            "learning_rate = 0.01": "learning_rate = -1\nweight_decay = 'x'",
            'name = "iou"': 'name = "iuo"',
            "epochs = 2": "epochs = 0\nsteps = 0",
        }
    )
    assert [fault.split(": ", 2)[:2] for fault in faults(path)] == [
        ["study.toml:1:12", "plugins"],
        ["study.toml:2:1", "nmae"],
        ["study.toml:4:1", "[task] channels"],
        ["study.toml:8:1", "[dataset] path"],
        ["study.toml:9:1", "[dataset] vla"],
        ["study.toml:14:1", "[[augment]] x"],
        ["study.toml:18:1", "[model] name"],
        ["study.toml:24:1", "[optimizer] learning_rate"],
        ["study.toml:25:1", "[optimizer] weight_decay"],
        ["study.toml:29:1", "[[metric]] name"],
        ["study.toml:31:1", "[train] epochs"],
        ["study.toml:32:1", "[train] steps"],
        ["study.toml:32:1", "[train] steps"],
    ]


def test_faults_of_a_parent_name_the_parent(write: Write, tmp_path: Path) -> None:
    write({"width = 2": "width = 0"}, name="base.toml")
    child = tmp_path / "child.toml"
    child.write_text("extends = 'base.toml'\n[train]\nbatch_size = 0\n")
    assert faults(child) == [
        "base.toml:17:1: [model] width: should be greater than or equal to 1, got 0",
        "child.toml:3:1: [train] batch_size: should be greater than or equal to 1, got 0",
    ]


def test_a_missing_table_of_a_family_names_the_child(write: Write, tmp_path: Path) -> None:
    write({'[loss]\nname = "cross_entropy"': ""}, name="base.toml")
    child = tmp_path / "child.toml"
    child.write_text("extends = 'base.toml'\n")
    assert faults(child) == ["child.toml:1:1: [loss]: missing; every experiment needs it"]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("train.epochs=-1", "[train] epochs: should be greater than or equal to 1, got -1"),
        ("train.epoch=1", f"[train] epoch: unknown key; did you mean 'epochs'? {TRAIN_KEYS}"),
        ("augment.0.x=1.5", "[[augment]] x: should be less than or equal to 1, got 1.5"),
        ("augment.1={name='reflect', x=7}", "[[augment]] x: should be less than or equal to 1, got 7"),
        ("model.name=unett", f"[model] name: unknown model 'unett'; did you mean 'unet'? {known('model')}"),
        ("dataset.path=gone.h5", "[dataset] path: no file '{cwd}/gone.h5'"),
        ("steps=3", "steps: unknown table or key; it belongs to [train] steps"),
        ("trian.epochs=1", f"trian: unknown table or key; did you mean 'train'? (known: {TABLES})"),
        ("train.stepz", "should be key=value, as in train.epochs=2"),
        ("augment.1=1", "'augment.1' is a table; set a key of it, as in augment.1.name"),
        ("augment.5.x=1", "'augment' has 2 elements, counted from 0"),
        ("metric=[]", None),
    ],
)
def test_a_fault_of_a_setting_names_the_setting(write: Write, setting: str, fault: str | None) -> None:
    found = faults(write(), [setting])
    if fault is None:
        assert found == ["study.toml:1:1: [[metric]]: missing; every experiment needs one"]
    else:
        assert found == [f"--set {setting}: {fault.format(cwd=Path.cwd())}"]


def test_a_setting_that_mends_a_fault(write: Write) -> None:
    path = write({"epochs = 2": "epochs = -1"})
    assert load_experiment(path, ["train.steps=5"]).train.steps == 5


# Paths


def test_paths_start_from_the_file_that_wrote_them_and_from_here_for_settings(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({"plugins = []": 'plugins = ["mine.py"]'}, name="base.toml")
    for folder in ("study/runs/base/001", "elsewhere/x"):
        (tmp_path / folder / "checkpoints").mkdir(parents=True)
        (tmp_path / folder / "checkpoints" / "best.pt").touch()
    child = tmp_path / "study" / "child.toml"
    child.write_text("extends = '../base.toml'\n[train]\ninit_from = 'runs/base/001'\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load_experiment(Path("../study/child.toml"))
    assert loaded.dataset.options["path"] == tmp_path / "data.h5"
    assert loaded.plugins == (tmp_path / "mine.py",)
    assert loaded.train.init_from == tmp_path / "study" / "runs/base/001"
    assert loaded.name == "child"
    shutil.copy(tmp_path / "data.h5", tmp_path / "elsewhere" / "other.h5")
    shutil.copy(tmp_path / "mine.py", tmp_path / "elsewhere" / "here.py")
    loaded = load_experiment(child, ["dataset.path=other.h5", "train.init_from=x", "plugins=['here.py']"])
    assert loaded.dataset.options["path"] == tmp_path / "elsewhere" / "other.h5"
    assert loaded.train.init_from == tmp_path / "elsewhere" / "x"
    assert loaded.plugins == (tmp_path / "elsewhere" / "here.py",)


MANY_FILES = """\
from pathlib import Path
from yeastexp import InputFile, dataset

@dataset("many_files")
def many_files(paths: tuple[InputFile, ...], weights: dict[str, tuple[Path, float]] | None = None):
    ...
"""


def test_paths_in_arrays_and_tables_start_from_their_file_too(write: Write, tmp_path: Path) -> None:
    many = 'name = "many_files"\npaths = ["data.h5", "../data.h5"]\nweights = {a = ["b.h5", 0.5]}'
    changes = {'name = "hdf5"\npath = "data.h5"': many, "plugins = []": 'plugins = ["mine.py"]'}
    (tmp_path / "study").mkdir()
    shutil.copy(tmp_path / "data.h5", tmp_path / "study" / "data.h5")
    (tmp_path / "study" / "mine.py").write_text(MANY_FILES)
    path = write(changes, name="study/study.toml")
    options = {
        "paths": (tmp_path / "study" / "data.h5", tmp_path / "data.h5"),
        "weights": {"a": (tmp_path / "study" / "b.h5", 0.5)},
    }
    loaded = load_experiment(path, data=False)
    assert loaded.dataset.options == options
    (tmp_path / "resolved.toml").write_text(loaded.resolved("study"))
    assert load_experiment(tmp_path / "resolved.toml", data=False).dataset.options == options
    (tmp_path / "data.h5").unlink()
    assert faults(path) == [f"study.toml:7:21: [dataset] paths.1: no file '{tmp_path}/data.h5'"]


def test_without_data_nothing_is_asked_of_it(write: Write) -> None:
    path = write({'path = "data.h5"': 'path = "gone.h5"', "channels = 1": "channels = 3"})
    assert load_experiment(path, data=False).dataset.options["path"] == path.parent / "gone.h5"


# The resolved file


def written_out(experiment: Experiment) -> Experiment:
    """An experiment with its defaults among its options and without the folders of its plugins."""

    def full(part):  # type: ignore[no-untyped-def]
        if part is None:
            return None
        parameters = KINDS[part.kind].find(part.name).schema.parameters
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return dataclasses.replace(part, options={**defaults, **part.options})

    single = {name: full(getattr(experiment, name)) for name in ("dataset", "model", "loss", "optimizer", "scheduler")}
    lists = {name: tuple(map(full, getattr(experiment, name))) for name in ("transforms", "augmentations", "metrics")}
    plugins = tuple(Path(path.name) for path in experiment.plugins)
    task = dataclasses.replace(experiment.task, part=full(experiment.task.part))
    return dataclasses.replace(experiment, plugins=plugins, task=task, **single, **lists)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({}, []),
        ({'[scheduler]\nname = "one_cycle"': ""}, ["augment=[]", "transform=[]"]),
        ({"plugins = []": 'plugins = ["mine.py"]\nname = "ä \\"quoted\\" #"'}, ["transform.0.name=fussy"]),
        ({"plugins = []": 'plugins = ["mine.py"]'}, ["augment=[{name='fussy', odd=7}]", "metric.0.name=accuracy"]),
        (
            {},
            ["train.budget=1.5h", "train.seed=9223372036854775807", "train.init_from=.", "runtime.deterministic=false"],
        ),
        ({}, ["dataset.val=['square_1', 'square_[34]']", "loss.weights=[1, 0.5]"]),
        ({}, ["dataset.val=2", "optimizer.betas=[0.1, 0.2]", "optimizer.learning_rate=1e-7"]),
        ({}, ["task.classes=['Zelle\"', 'ü#']"]),
        ({}, ["train.ema_decay=0.999", "train.max_grad_norm=1", "train.accumulation_steps=3", "validation.patience=4"]),
        ({}, ["train.precision=float16"]),
    ],
)
def test_the_resolved_file_is_the_experiment(
    write: Write, tmp_path: Path, changes: dict[str, str], settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").touch()
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(write(changes), settings)
    run = tmp_path / "runs" / "elsewhere"
    (run / "plugins").mkdir(parents=True)
    trust.remember(experiment.plugins)
    for plugin in experiment.plugins:
        shutil.copy(plugin, run / "plugins")
    resolved = experiment.resolved()
    (run / "experiment.toml").write_text(resolved, encoding="utf-8")
    monkeypatch.chdir(run)
    again = load_experiment(run / "experiment.toml")
    assert again.resolved() == resolved
    assert written_out(again) == written_out(experiment)
    assert all(path.parent == run / "plugins" for path in again.plugins)


def test_the_resolved_file_writes_every_default_out(write: Write) -> None:
    experiment = load_experiment(write())
    values = tomllib.loads(experiment.resolved())
    assert values["name"] == "study"
    assert values["train"]["seed"] == 0 and values["train"]["batch_size"] == experiment.train.batch_size
    for part in experiment.parts:
        table = values[part.table]
        table = next(one for one in table if one["name"] == part.name) if isinstance(table, list) else table
        parameters = KINDS[part.kind].find(part.name).schema.parameters
        wanted = {p.name for p in parameters if p.default not in (p.empty, None)} | set(part.options) | {"name"}
        assert set(table) == wanted


def test_seconds() -> None:
    for text, expected in {"90s": 90, "90": 90, "5m": 300, "5 min": 300, "5 minutes": 300, "1.5 hours": 5400}.items():
        typed, problems = SCHEMAS["train"].check({"budget": text})
        assert not problems and seconds(typed["budget"]) == expected
    for number in (90, 0.5):
        assert seconds(SCHEMAS["train"].check({"budget": number})[0]["budget"]) == number
    for wrong in ("5 weeks", "min", "-5", -5, True, "5 m s", 0, "0", "0.0 h", "\N{ARABIC-INDIC DIGIT THREE}"):
        assert SCHEMAS["train"].check({"budget": wrong})[1]


# At the command line


@pytest.mark.parametrize("name", ["semantic", "instances"])
def test_another_task_keeps_the_keys_that_every_task_has(write: Write, name: str) -> None:
    path = write({})
    before = load_experiment(path, data=False).task
    after = load_experiment(path, [f"task.name={name}"], data=False).task
    assert (after.channels, after.classes, after.part.name) == (before.channels, before.classes, name)
    with pytest.raises(UserError) as caught:
        load_experiment(path, ["task.name=auto", "task.channels=0"], data=False)
    assert len(caught.value.faults) == 2 and "missing" not in str(caught.value)


def test_a_task_that_a_parent_means_without_its_name_keeps_its_options(write: Write) -> None:
    write({'["background", "cell"]': '["background", "cell"]\nviews = 4'}, name="base.toml")
    path = (write().parent / "child.toml").resolve()
    path.write_text("extends = 'base.toml'\n[task]\nname = 'semantic'\n")
    for loaded in (load_experiment(path), load_experiment(path, ["task.name=semantic"])):
        assert loaded.task.part.options == {"views": 4}
    assert load_experiment(path, ["task.name=instances"], data=False).task.part.options == {}


@pytest.mark.parametrize("command", ["run", "check"])
def test_faults_at_the_command_line(write: Write, command: str, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    path = write({"epochs = 2": "epochs = -1", "width = 2": "widht = 2"})
    monkeypatch.chdir(path.parent)
    before = sorted(path.parent.iterdir())
    status, out, err = call(command, "study.toml", "--set", "train.batch_size=0")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "--set train.batch_size=0: [train] batch_size: should be greater than or equal to 1, got 0",
        f"study.toml:17:1: [model] widht: unknown key; did you mean 'width'? {UNET_KEYS}",
        "study.toml:28:1: [train] epochs: should be greater than or equal to 1, got -1",
    ]
    assert sorted(path.parent.iterdir()) == before, "nothing is written"


def test_faults_of_a_process_of_its_own(write: Write, tmp_path: Path) -> None:
    path = write({"plugins = []": 'plugins = ["mine.py"]'}, plugin="x = (\n")
    before = sorted(tmp_path.iterdir())
    done = forks.run([sys.executable, "-m", "yeastexp", "run", path.name], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"study.toml:1:12: plugins: {tmp_path}/mine.py:1:5: '(' was never closed\n"
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"
