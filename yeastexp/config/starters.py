"""The experiments that come with the package, found from anywhere: `extends = "yeastexp:hdf5"`.

They are the files of `experiments/`: an installed package has them as its folder `starters` (see `setup.py`), and a
checkout beside the package.
"""

from __future__ import annotations

from pathlib import Path

from yeastexp.errors import UserError, did_you_mean

PREFIX = "yeastexp:"

_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where they are."""
    installed = _PACKAGE / "starters"
    return installed if installed.is_dir() else _PACKAGE.parent / "experiments"


def names() -> list[str]:
    """Their names, as they follow the prefix."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(address: str) -> Path | None:
    """The file of an address such as `yeastexp:hdf5`, or None for any other text; UserError if there is no such one."""
    if not address.startswith(PREFIX):
        return None
    name = address.removeprefix(PREFIX).removesuffix(".toml")
    if name not in names():
        raise UserError(f"no starter experiment '{name}'{did_you_mean(name, names())}")
    return folder() / f"{name}.toml"
