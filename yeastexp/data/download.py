"""A file from the web: resumed where the connection broke, never more than it should be, never by unsafe ways."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urljoin, urlsplit

import requests
import urllib3

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system import files
from yeastexp.system.formatting import format_bytes

ATTEMPTS = 5
"""In a row that brought less than `CHEERING` bytes each."""

CHEERING = 1_000_000
WAIT = 0.5
"""Seconds before the second attempt; twice as many before each further one."""

TIMEOUT = (10.0, 30.0)
"""Seconds to connect in, and to wait for the next bytes."""

MAX_REDIRECTS = 10
CHUNK = 2**16
NAME_BYTES = 150
"""Of a file's name, so that those of the hidden files beside it fit into a file system too."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""The statuses that may be others a moment later."""

Advance = Callable[[int], object]
Progress = Callable[[int | None, int], AbstractContextManager[Advance]]
"""Called with the bytes of the whole (where known) and those that are there; gives what is told of each piece."""


PATIENCE = 120
"""Seconds: the longest wait that a server can ask for; with a longer one it is left to the user."""


class Broken(Exception):
    """Why an attempt failed that another one may mend, and the seconds that the server wants to be left alone."""

    def __init__(self, fault: str, wait: float = 0) -> None:
        super().__init__(f"{fault} and asks to wait {math.ceil(wait)} s" if wait else fault)
        self.wait = wait


@dataclass(frozen=True)
class Version:
    """What a server says of the file it sends: its bytes, and the marks by which a changed one is told."""

    size: int | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def mark(self) -> str | None:
        """What a request to go on is bound to; a weak ETag says nothing about bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def agrees(self, other: Version) -> bool:
        """Whether nothing that both know of differs."""
        pairs = ((self.size, other.size), (self.etag, other.etag), (self.modified, other.modified))
        return all(mine == theirs for mine, theirs in pairs if mine is not None and theirs is not None)


@dataclass(frozen=True)
class Part:
    """A download that may be broken off, under a hidden name beside its target, with what is known of the whole."""

    path: Path

    @property
    def note(self) -> Path:
        """The file that tells which version the part is of."""
        return self.path.with_suffix(".json")

    @property
    def folder(self) -> Path:
        """Where an archive is unpacked before it is put in place."""
        return self.path.with_suffix(".unpacked")

    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> Version:
        """What the last attempt noted; nothing where the note is missing or spoilt."""
        try:
            return Version(**json.loads(self.note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return Version()

    def begin(self, version: Version) -> None:
        """Empty the part and note the version that is about to come."""
        os.truncate(self.path, 0)
        self.note_version(version)

    def note_version(self, version: Version) -> None:
        """Write down the version that the part is of."""
        files.write_text(self.note, json.dumps(asdict(version)))

    def remove(self) -> None:
        """Leave nothing of it."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@contextmanager
def silent(total: int | None, there: int) -> Iterator[Advance]:
    """No progress."""
    yield lambda count: None


def file_name(url: str) -> str:
    """The last piece of an address's path, made harmless: letters, digits and ` -_.,+=@()~`, no dot in front."""
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    plain = re.sub(r"[^\w \-.,+=@()~]", "_", last)
    return plain.encode()[-NAME_BYTES:].decode(errors="ignore").lstrip(". ").rstrip() or "download"


def shown(url: str) -> str:
    """An address as messages name it, without what may be secret (a password, a key behind the question mark)."""
    pieces = urlsplit(url)
    plain = f"{pieces.scheme}://{pieces.netloc.rpartition('@')[2]}{pieces.path}" + ("?…" if pieces.query else "")
    return "".join(letter if letter.isprintable() else "�" for letter in plain)


def refuse_address(url: str) -> None:
    """UserError for what is not an address of the web."""
    try:
        url.encode()
        pieces = urlsplit(url)
        good = pieces.scheme in ("http", "https") and bool(pieces.hostname) and pieces.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"{url!r}: is no address of the web; it should begin with https:// or http://")


@contextmanager
def claimed(target: Path, url: str) -> Iterator[Part]:
    """The part of a file on its way to `target`, which no other process writes to meanwhile.

    Another address has another part. Where nothing came, nothing of it is left.
    """
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    part = Part(target.with_name(f".{target.name}.{key}.part"))
    with part.path.open("ab") as file:
        _lock(file, part.path)
        try:
            yield part
        finally:
            if not part.size():
                part.remove()


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another command is fetching it; wait until that one has ended") from None
    except OSError:
        return  # some network file systems know no locks


@dataclass(frozen=True)
class Download:
    """A file on its way into a part, of at most `limit` bytes; `say` is told of what is tried again."""

    url: str
    part: Part
    limit: int
    progress: Progress = silent
    say: Callable[[str], object] = lambda line: None

    def run(self) -> None:
        """Attempt it until all of it is there; UserError after some attempts in a row that brought next to nothing."""
        failures, most = 0, self.part.size()
        with _Session() as session:
            while True:
                try:
                    return self.attempt(session)
                except Broken as broken:
                    failures = 1 if self.part.size() >= most + CHEERING else failures + 1
                    most = max(most, self.part.size())
                    if failures >= ATTEMPTS or broken.wait > PATIENCE:
                        raise UserError(self.outlook(broken, failures), status=RUN_FAILED) from None
                    self.say(f"{shown(self.url)}: {broken}; trying again")
                    time.sleep(max(WAIT * 2 ** (failures - 1), broken.wait))

    def outlook(self, broken: Broken, attempts: int) -> str:
        """The message for one who gives up for now."""
        there, version = self.part.size(), self.part.version()
        whole = f" of {format_bytes(version.size)}" if version.size else ""
        if there and version.mark:
            hope = f"{format_bytes(there)}{whole} are there, and the same command continues"
        elif there:
            hope = f"{format_bytes(there)}{whole} came, but nothing tells their version: the same command begins again"
        else:
            hope = "nothing came; the same command tries again"
        return f"{shown(self.url)}: {broken} ({attempts} attempt{'s' * (attempts > 1)}); {hope}"

    def attempt(self, session: requests.Session) -> None:
        """Ask for what is missing and take it; Broken where another attempt may go better."""
        known, there = self.part.version(), self.part.size()
        if there and known.size == there:
            return self.refuse_size(there)
        headers = {"Accept-Encoding": "identity"}
        if there and known.mark:
            headers |= {"Range": f"bytes={there}-", "If-Range": known.mark}
        with _answer(session, self.url, headers) as response:
            _refuse_status(self.url, response, ranged="Range" in headers)
            found = _version(response)
            if response.status_code == http.HTTPStatus.OK:
                self.part.begin(found)
                return self.receive(response, found, 0)
            if _first_byte(response) != there or not found.agrees(known):
                self.part.begin(Version())
                raise Broken("what is there fits the server's file no more")
            self.say(f"{shown(self.url)}: continues after {format_bytes(there)}")
            return self.receive(response, replace(known, size=found.size or known.size), there)

    def receive(self, response: requests.Response, version: Version, size: int) -> None:
        """Append a response's body to the part, which has `size` bytes."""
        self.refuse_size(version.size or 0)
        with self.part.path.open("ab") as file, self.progress(version.size, size) as advance:
            for piece in _body(response):
                size += len(piece)
                self.refuse_size(size)
                if version.size is not None and size > version.size:
                    self.part.begin(Version())
                    raise Broken(f"the server sent more than the {format_bytes(version.size)} that it announced")
                file.write(piece)
                advance(len(piece))
        if version.size is not None and size < version.size:
            raise Broken("the server sent less than it announced")
        self.part.note_version(replace(version, size=size))

    def refuse_size(self, size: int) -> None:
        """UserError, and nothing left, where there are more bytes than allowed."""
        if size > self.limit:
            self.part.remove()
            fault = f"has more than {format_bytes(self.limit)}; --max-size allows more"
            raise UserError(f"{shown(self.url)}: {fault}", status=RUN_FAILED)


class _Session(requests.Session):
    """A session that leaves redirects to us: on its own it reads their bodies into memory, however long they are."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """No address, whatever was answered."""
        return


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """The response at the end of the redirects, its body not yet read; no body on the way is read at all."""
    start = url
    for _ in range(MAX_REDIRECTS + 1):
        with _get(session, url, headers) as response:
            if not response.is_redirect:
                yield response
                return
            url = _redirected(url, response.headers["Location"])
    raise UserError(f"{shown(start)}: redirects more than {MAX_REDIRECTS} times; check the address", status=RUN_FAILED)


def _get(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError):
        raise UserError(f"{shown(url)}: is no address of the web; check how it is written") from None
    except requests.exceptions.SSLError as error:
        fault = f"no safe connection ({_cause(error)}); check the address, and this computer's clock and certificates"
        raise UserError(f"{shown(url)}: {fault}", status=RUN_FAILED) from None
    except requests.exceptions.Timeout:
        raise Broken("the server does not answer") from None
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Broken(f"no connection ({_cause(error)})") from None


def _body(response: requests.Response) -> Iterator[bytes]:
    """The bytes as the server sends them, compressed or not: those that a digest is of."""
    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.ReadTimeoutError:
        raise Broken("the server fell silent") from None
    except urllib3.exceptions.HTTPError:
        raise Broken("the connection broke off") from None


def _cause(error: BaseException) -> str:
    """What lies at the bottom of an exception, in the words of the system where it has some."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _redirected(url: str, location: str) -> str:
    """The address that a redirect leads to, unless it leaves the web or, once safe, safety."""
    with suppress(UnicodeError):
        location = location.encode("latin-1").decode("utf-8")  # header lines are read as Latin-1, and written as UTF-8
    try:
        target = urljoin(url, location)
        refuse_address(target)
    except (ValueError, UserError):
        fault = f"redirects to {location!r}, which is no address of the web"
        raise UserError(f"{shown(url)}: {fault}", status=RUN_FAILED) from None
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        fault = f"redirects to {shown(target)}, which is not encrypted; if you trust it, give that address"
        raise UserError(f"{shown(url)}: {fault}", status=RUN_FAILED)
    return target


def _refuse_status(url: str, response: requests.Response, *, ranged: bool) -> None:
    """Broken or UserError for an answer that brings no file; part of one is good where a range was asked for."""
    status = response.status_code
    partial = (http.HTTPStatus.PARTIAL_CONTENT, http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    if status == http.HTTPStatus.OK or (ranged and status in partial):
        return
    answer = f"the server answered {status} {http.client.responses.get(status, '')}".rstrip()
    if status in PASSING:
        raise Broken(answer, _wanted_wait(response))
    closed = status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)
    remedy = "it may need a login, or another link for downloads" if closed else "check the address"
    raise UserError(f"{shown(url)}: {answer}; {remedy}", status=RUN_FAILED)


def _wanted_wait(response: requests.Response) -> float:
    """The seconds that a server asks to be left alone, as a number or a date; none where it says neither."""
    try:
        return urllib3.Retry().parse_retry_after(response.headers.get("Retry-After", "0"))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0


def _version(response: requests.Response) -> Version:
    if response.status_code == http.HTTPStatus.OK:
        size = response.headers.get("Content-Length", "")
    else:
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
    known = int(size) if re.fullmatch("[0-9]{1,18}", size) else None
    return Version(known, response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _first_byte(response: requests.Response) -> int | None:
    found = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None
