"""The experiments that come with the package, found from anywhere: `extends = "yeastexp:hdf5"`.

They are the files of `experiments/`: an installed package has them as its folder `starters` (see `setup.py`), and a
checkout beside the package.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from yeastexp.errors import UserError, did_you_mean
from yeastexp.system import files

PREFIX = "yeastexp:"

_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Return the folder of the starters."""
    installed = _PACKAGE / "starters"
    return installed if installed.is_dir() else _PACKAGE.parent / "experiments"


def names() -> list[str]:
    """Return the names of the starters, without the prefix."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(address: str) -> Path | None:
    """Return the file of an address such as `yeastexp:hdf5`, None for other text. UserError for an unknown starter."""
    if not address.startswith(PREFIX):
        return None
    name = address.removeprefix(PREFIX).removesuffix(".toml")
    if name not in names():
        raise UserError(f"no starter experiment '{name}'{did_you_mean(name, names())}")
    return folder() / f"{name}.toml"


def copy(starter: Path, output: Path, *, force: bool = False) -> list[Path]:
    """Copy a starter and the plugin files that it names to the user's folder, and return the files written.

    Files that it extends stay in the package, so `extends` gets the prefix. Raises UserError if a file exists, unless
    `force` replaces it.
    """
    text = starter.read_text(encoding="utf-8")
    plugins = tomllib.loads(text).get("plugins", [])
    text = re.sub(r'^extends = "(\w+)\.toml"', rf'extends = "{PREFIX}\1"', text, flags=re.MULTILINE)
    text = text.replace(f"experiments/{starter.name}", str(output))
    written = {output: text}
    written |= {output.parent / name: (starter.parent / name).read_text(encoding="utf-8") for name in plugins}
    for path in () if force else written:
        if path.exists():
            raise UserError(f"{path}: exists; add --force to replace it, or name another file")
    for path, content in written.items():
        try:
            files.write_text(path, content)
        except OSError as error:
            raise files.unwritten(path, error) from error
    return list(written)
