"""A file from the web, checked, and unpacked where it is an archive."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from yeastexp.data import archives, download
from yeastexp.data.download import Download, Part
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files

LIMIT = 4 * 1000**3
"""Bytes that a download may have, and that an archive may unpack to, where nothing else is said."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did: the file and its digest, whether it came just now, and what was unpacked from it.

    `written` counts the unpacked files that were not there before with the same content.
    """

    file: Path
    size: int
    sha256: str
    downloaded: bool
    contents: archives.Contents | None = None
    written: int = 0


def parse_size(text: str) -> int:
    """Bytes from what a `--max-size` says: "500MB", "4 GB" (powers of 1000), or a plain number of bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if not found or not float(found[1]):
        raise UserError(f"--max-size: {text!r} is no size; write it as 500MB or 4GB")
    return int(float(found[1]) * UNITS[found[2]])


def fetch(
    url: str,
    directory: Path,
    *,
    sha256: str | None = None,
    limit: int = LIMIT,
    force: bool = False,
    progress: download.Progress = download.silent,
    say: Callable[[str], object] = lambda line: None,
) -> Fetched:
    """Download a file into `directory`, check its SHA-256, and unpack it there if it is a zip or tar archive.

    A file that is there already with that digest is not downloaded again. `limit` bounds the bytes of the download and
    of what it unpacks to. UserError for whatever fails; a broken download stays hidden in `directory`, to be continued.
    """
    download.refuse_address(url)
    wanted = _parse_digest(sha256)
    target = directory / download.file_name(url)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is a file; name a folder")
    try:
        there = _digest_there(target, wanted, force)
        with files.folder(directory), download.claimed(target, url) as part:
            if there:
                found = Fetched(target, target.stat().st_size, there, downloaded=False)
                return _unpack(found, target, part, limit, force)
            Download(url, part, limit, progress, say).run()
            return _keep(target, part, wanted, limit, force)
    except OSError as error:
        fault = f"{error.filename or directory}: {error.strerror}; the same command continues when that is mended"
        raise UserError(fault, status=RUN_FAILED) from None


def _parse_digest(text: str | None) -> str | None:
    if text is None:
        return None
    found = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise UserError(f"--sha256: {text!r} is no SHA-256; it has 64 hexadecimal digits")
    return found


def _digest_there(target: Path, wanted: str | None, force: bool) -> str | None:
    """The digest of a file that need not be downloaded; UserError where another is in its place, unless `force`."""
    if target.is_dir():
        raise UserError(f"{target}: is a folder; move it away, or change -o")
    if not target.exists() and not target.is_symlink():
        return None
    found = files.digest(target) if wanted and target.is_file() else None
    if found and found == wanted:
        return found
    if force:
        return None
    if found:
        raise UserError(f"{target}: exists with the SHA-256 {found}, not {wanted}; --force fetches it again")
    raise UserError(f"{target}: exists; --force fetches it again, --sha256 checks whether that is needed")


def _keep(target: Path, part: Part, wanted: str | None, limit: int, force: bool) -> Fetched:
    """Check a finished part, unpack it where it is an archive, and give it its name; a bad one is removed."""
    found = Fetched(target, part.size(), files.digest(part.path), downloaded=True)
    if wanted and found.sha256 != wanted:
        part.remove()
        fault = f"came with the SHA-256 {found.sha256}, not {wanted}, and was removed; check address and digest"
        raise UserError(f"{target}: {fault}", status=RUN_FAILED)
    try:
        found = _unpack(found, part.path, part, limit, force)
    except archives.Untrusted:
        part.remove()
        raise
    except UserError as error:
        raise UserError(*error.faults, f"{part.path}: keeps the download; the same command goes on from it") from None
    with files.appearing(target) as temporary:
        part.path.replace(temporary)
    part.remove()
    return found


def _unpack(found: Fetched, archive: Path, part: Part, limit: int, force: bool) -> Fetched:
    """Put the contents of an archive beside it; another file is left alone."""
    if not archives.is_archive(archive, found.file.name):
        return found
    own = (found.file.name, part.path.name, part.note.name, part.folder.name)
    with archives.unpacked(archive, part.folder, place=str(found.file), limit=limit, reserved=own) as contents:
        written = archives.put_in_place(contents, found.file.parent, force=force)
    return replace(found, contents=contents, written=written)
