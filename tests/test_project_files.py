"""What stands beside the package: one version in all places, a licence, and forms that ask for `doctor`."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

HOME = Path(__file__).parent.parent


def test_all_say_one_version() -> None:
    parser = configparser.ConfigParser()
    parser.read(HOME / "setup.cfg")
    version = parser["metadata"]["version"]
    assert f"\nversion: {version}\n" in (HOME / "CITATION.cff").read_text()
    released = re.findall(r"^## (.*)$", (HOME / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == "Unreleased" and version.startswith(f"{released[1]}.")
    assert parser["metadata"]["license"] == "MIT" and (HOME / "LICENSE").read_text().startswith("MIT License")


def test_a_bug_report_asks_for_the_page_of_doctor() -> None:
    form = (HOME / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    asked = form.partition("id: doctor")[2].partition("- type")[0]
    assert "`yeastexp doctor`" in asked and "required: true" in asked


def test_the_site_has_every_page() -> None:
    named = re.findall(r"^ +- (?:[^:\n]*: )?(\S+\.md)$", (HOME / "mkdocs.yml").read_text(), re.MULTILINE)
    written = {path.name for path in (HOME / "docs").glob("*.md")}
    generated = re.findall(r'"(\w+\.md)", _', (HOME / "docs" / "mkdocs_hooks.py").read_text())
    elsewhere = {"index.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/RESULTS.md"}
    assert len(generated) == 3 and len(named) == len(set(named))
    assert set(named) == written | {*generated} | elsewhere
