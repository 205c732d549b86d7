"""A file from the web: downloaded, checked, and unpacked if it is an archive. All of it appears, or nothing."""

from __future__ import annotations

import filecmp
import http.client
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from yeastexp.data import archives
from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files
from yeastexp.system.console import console
from yeastexp.system.formatting import format_bytes

CHUNK = 2**16
NAME_BYTES = 150
TIMEOUT = (10.0, 30.0)
"""Seconds to connect in, and to wait for the next bytes."""


@dataclass(frozen=True)
class Fetched:
    """A file and its SHA-256, and whether it was downloaded just now; `unpacked` has paths relative to its folder.

    `written` counts the unpacked files that were not there before with the same content.
    """

    file: Path
    sha256: str
    downloaded: bool
    unpacked: list[Path]
    written: int


def fetch(url: str, directory: Path, sha256: str | None = None, limit: int = 4 * 10**9, force: bool = False) -> Fetched:
    """Download a file into `directory`, check its SHA-256, and unpack it there if it is a zip or tar archive.

    A file that is there already with that digest is not downloaded again. `limit` bounds the bytes of the download and
    of what it unpacks to. Raises UserError, and leaves the files in `directory` as they were, if anything fails.
    """
    name, expected = file_name(url), _parse_digest(sha256)
    target = directory / name
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is a file; name a folder")
    try:
        present = _is_present(target, expected, force)
        with files.folder(directory), files.staging(directory, ".fetch-") as staging:
            if not present:
                _download(url, staging / name, limit)
            archive = target if present else staging / name
            digest = files.digest(archive)
            if expected and digest != expected:
                raise _failure(url, f"has the SHA-256 {digest}, not {expected}; nothing was kept, check URL and digest")
            if archives.is_archive(archive):
                _unpack(url, archive, staging, limit)
            paths = {path.relative_to(staging) for path in staging.rglob("*") if path.is_file()}
            new = _move(paths, staging, directory, force)
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror or error}", status=RUN_FAILED) from None
    unpacked = sorted(paths - {Path(name)})
    return Fetched(target, digest, not present, unpacked, len(new.intersection(unpacked)))


def file_name(url: str) -> str:
    """The last piece of a URL's path, made harmless: letters, digits and ` -_.,+=@()~`, no dot in front."""
    try:
        url.encode()
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{url!r}: is not a valid URL; it should begin with https:// or http://")
    last = unquote(parts.path).rstrip("/").rpartition("/")[2]
    plain = re.sub(r"[^\w \-.,+=@()~]", "_", last)
    return plain.encode()[-NAME_BYTES:].decode(errors="ignore").lstrip(". ").rstrip() or "download"


def _parse_digest(text: str | None) -> str | None:
    digest = text and text.strip().lower().removeprefix("sha256:")
    if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(f"--sha256: {text!r} is not a SHA-256; it has 64 hexadecimal digits")
    return digest


def _is_present(target: Path, expected: str | None, force: bool) -> bool:
    """Whether a file need not be downloaded; raises UserError if another one is in its place, unless `force`."""
    if target.is_dir():
        raise UserError(f"{target}: is a folder; move it away, or change -o")
    digest = files.digest(target) if expected and target.is_file() else None
    if digest and digest == expected:
        return True
    if digest and not force:
        raise UserError(f"{target}: exists with the SHA-256 {digest}, not {expected}; --force fetches it again")
    if not force and (target.exists() or target.is_symlink()):
        raise UserError(f"{target}: exists; --force fetches it again, --sha256 checks whether that is needed")
    return False


def _download(url: str, path: Path, limit: int) -> None:
    """Write what a URL gives, byte for byte as it is sent, to a new file."""
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn()
    progress = Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty())
    try:
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response, path.open("xb") as file:
            _check_response(url, response)
            length = response.headers.get("Content-Length", "")
            task = progress.add_task("", total=int(length) if re.fullmatch("[0-9]{1,18}", length) else None)
            with progress:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    progress.advance(task, file.write(chunk))
                    if file.tell() > limit:
                        raise _failure(url, f"has more than {format_bytes(limit)}; --max-gb allows more")
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        # requests lets through what urllib3 says of a body, and what Python says of a URL that a server redirects to.
        raise _failure(url, f"the download failed ({_cause(error)}); nothing was kept, try again") from None


def _check_response(url: str, response: requests.Response) -> None:
    if response.status_code != requests.codes.ok:
        answer = f"{response.status_code} {http.client.responses.get(response.status_code, '')}".rstrip()
        raise _failure(url, f"the server answered {answer}; check the URL, and whether it needs a login")
    schemes = [urlsplit(visited.url).scheme for visited in (*response.history, response)]
    if "https" in schemes and "http" in schemes[schemes.index("https") :]:
        raise _failure(url, "redirects to a URL without encryption; if you trust it, give that URL")


def _unpack(url: str, archive: Path, folder: Path, limit: int) -> None:
    try:
        archives.unpack(archive, folder, limit)
    except archives.Refused as refusal:
        raise _failure(url, f"{refusal}; nothing was kept") from None


def _failure(url: str, fault: str) -> UserError:
    """An error that names a URL without a password, a key behind its question mark, or control characters."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")
    line = "".join(letter if letter.isprintable() else "�" for letter in f"{shown}: {fault}")
    return UserError(line, status=RUN_FAILED)


def _cause(error: BaseException) -> str:
    """The innermost exception, in the operating system's words if it has any; the outer ones repeat the whole URL."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _move(paths: set[Path], staging: Path, directory: Path, force: bool) -> set[Path]:
    """Move files from one folder into another, and return the paths that were not there with the same content.

    Raises UserError, and moves nothing, if one would replace another file (unless `force`) or go through a link.
    """
    new = {path for path in paths if not _same(staging / path, directory / path)}
    for place in {directory / parent for path in paths for parent in path.parents[:-1]}:
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise UserError(f"{place}: is a link or a file, and a folder in the archive; move it away, or change -o")
    for place in sorted(directory / path for path in new):
        if place.is_dir() or (not force and (place.exists() or place.is_symlink())):
            remedy = "move it away" if place.is_dir() else "--force replaces it"
            raise UserError(f"{place}: exists and differs from the archive's; {remedy}, another -o keeps both")
    for path in new:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (staging / path).replace(directory / path)
    return new


def _same(new: Path, old: Path) -> bool:
    return old.is_file() and not old.is_symlink() and filecmp.cmp(new, old, shallow=False)
