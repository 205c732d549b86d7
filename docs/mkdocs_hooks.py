"""What the site has beside the pages of this folder: files from elsewhere in the repository, and pages written anew.

Pages keep the links that lead somewhere in the repository; here they are turned to where things are in the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from yeastexp.cli import commands
from yeastexp.config import catalogue

HOME = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md")},
}
"""Pages of the site, and their files in the repository."""

LINKED = ("experiments/*", "notebooks/*.ipynb", "LICENSE", "CITATION.cff")
"""Files that pages lead to."""

PYTHON = {
    "Train, load, predict": ("training.run.train", "prediction.trained.load", "prediction.trained.TrainedModel"),
    "Results": ("prediction.trained.Result", "prediction.trained.CellTable"),
    "Experiments and data": ("config.loading.experiment", "data.packed.open_packed", "data.packed.PackedData"),
    "Contracts of parts": ("contracts", "data.transforms.base.BasicTransform2D", "sample.Sample"),
    "Errors": ("errors.UserError",),
}
"""By heading, what the page of the Python interface documents."""


def on_files(files: Files, config: Any) -> Files:
    """Called by MkDocs with the files of this folder."""
    for name, place in PAGES.items():
        files.append(File.generated(config, name, content=(HOME / place).read_text(encoding="utf-8")))
    for name, lines in (("commands.md", _commands()), ("keys.md", _keys()), ("python.md", _python())):
        files.append(File.generated(config, name, content="\n".join(lines) + "\n"))
    for pattern in LINKED:
        for path in sorted(HOME.glob(pattern)):
            if path.is_file():
                name = path.relative_to(HOME).as_posix()
                files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page: links by the places of the site, and images as Markdown has them."""
    # Python-Markdown takes what follows a tag for HTML, and knows one word behind the beginning of a block.
    markdown = re.sub(r'^<img src="(\S+)" width="(\d+)" alt="(.*?)">$', r"![\3](\1){ width=\2 }", markdown, flags=re.M)
    markdown = markdown.replace("<details>", '<details markdown="1">').replace("```console recorded", "```console")
    if page.file.src_uri in PAGES:
        return markdown.replace("](docs/", "](").replace("](README.md", "](index.md")
    return markdown.replace("](../README.md", "](index.md").replace("](../", "](")


def _commands() -> Iterator[str]:
    """The help of every command."""
    yield "# Commands\n\n`yeastexp` and `python -m yeastexp` are the same.\n"
    context = click.Context(commands, info_name="yeastexp")
    for name, command in sorted(commands.commands.items()):
        inner = click.Context(command, info_name=name, parent=context, max_content_width=100, terminal_width=100)
        yield f"## {name}\n\n```text\n{command.get_help(inner)}\n```\n"


def _keys() -> Iterator[str]:
    """The keys of all tables that name no part."""
    yield "# Keys of the experiment file\n\nTables that name a part have the keys of that [part](parts.md)."
    properties = catalogue.json_schema()["else"]["properties"]
    for table in ("task", "patches", "train", "validation", "runtime"):
        yield f"\n## [{table}]\n\n| key | values | default | |\n| --- | --- | --- | --- |"
        for key, schema in properties[table].get("properties", {}).items():
            default = "" if schema.get("default") is None else f"`{schema['default']}`"
            cells = (f"`{key}`", catalogue.shape(schema), default, schema.get("description", ""))
            yield "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def _python() -> Iterator[str]:
    """Pages of docstrings."""
    yield "# Python\n\n```python\nimport yeastexp as yx\n```\n"
    for heading, names in PYTHON.items():
        yield f"## {heading}\n"
        yield from (f"::: yeastexp.{name}\n" for name in names)
