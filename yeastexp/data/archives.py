"""Zip and tar archives from strangers, unpacked whole or not at all."""

from __future__ import annotations

import bz2
import filecmp
import gzip
import io
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from yeastexp.errors import RUN_FAILED, UserError
from yeastexp.system.formatting import format_bytes

MAX_MEMBERS = 100_000
MAX_DEPTH = 50
HEADER_BYTES = 32 * 2**20
"""The most that one read may bring: headers and directories are read into memory as long as they say they are."""

CHUNK = 2**20
TAR_BLOCK = 512
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Bits of a zip member's flags: encrypted, strongly, with its header."""

ARCHIVE_NAME = re.compile(r"\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2?|txz)$", re.IGNORECASE)
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
SUFFIX = re.compile(r"\.[A-Za-z]\w*$")

NAME_FAULTS = (
    (re.compile(r"[\x00-\x1f\x7f-\x9f]"), "has a control character in its name"),
    (re.compile(r"\\"), "has a backslash in its name"),
    (re.compile(r"^/"), "has an absolute path"),
    (re.compile(r"^[./]*[A-Za-z]:"), "starts with a drive letter"),
    (re.compile(r"(^|/)\.\.(/|$)"), "leads out of the folder"),
)

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
    RecursionError,
)
"""What the standard library's readers raise where an archive is not what it says."""


class Untrusted(UserError):
    """An archive that is damaged, or that could do harm."""


class Refused(Exception):
    """Why an archive is not unpacked."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name and size as it claims them, and what makes its kind refused."""

    name: str
    folder: bool
    size: int
    fault: str | None
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Contents:
    """The files and folders of an archive under `root`, by their paths relative to it, and the bytes of the files."""

    root: Path
    files: tuple[PurePosixPath, ...]
    folders: tuple[PurePosixPath, ...]
    size: int

    def tops(self) -> tuple[str, ...]:
        """The names at the top, folders with a stroke, as can be shown (a tar may hold names that are no UTF-8)."""
        found = [f"{path}/" for path in self.folders if len(path.parts) == 1]
        found += [str(path) for path in self.files if len(path.parts) == 1]
        return tuple(name.encode("utf-8", "replace").decode() for name in sorted(found))


def is_archive(path: Path, name: str) -> bool:
    """Whether a file is to be unpacked: its name says so, or has no suffix and its content says so.

    So a file that is a zip inside (`.npz`, `.docx`) stays what it is.
    """
    if ARCHIVE_NAME.search(name):
        return True
    return not SUFFIX.search(name) and (_head(path).startswith(b"PK\x03\x04") or _is_tar(path))


@contextmanager
def unpacked(
    archive: Path, folder: Path, *, place: str, limit: int, reserved: Collection[str] = ()
) -> Iterator[Contents]:
    """The contents of an archive in the new folder `folder`, which is removed when the block ends.

    Untrusted, beginning with `place`, for an archive that is damaged, that holds more than `limit` bytes (as written,
    not as claimed), or that has a member that could do harm: a path out of the folder, a link, a device, a name twice
    or among those `reserved`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield _unpack(archive, folder, limit, place, reserved)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(contents: Contents, directory: Path, *, force: bool = False) -> int:
    """Move unpacked files into `directory`, and return how many were not there with the same content before.

    UserError, and nothing moved, where one would replace another file (unless `force`) or go through a link.
    """
    for folder in contents.folders:
        there = directory / folder
        if there.is_symlink() or (there.exists() and not there.is_dir()):
            raise UserError(f"{there}: is a link or a file where the archive has a folder; move it away, or change -o")
    new = [path for path in contents.files if not _same(contents.root / path, directory / path)]
    _refuse_replacing([directory / path for path in new], force)
    for folder in contents.folders:
        (directory / folder).mkdir(exist_ok=True)
    for path in new:
        (contents.root / path).replace(directory / path)
    return len(new)


def _unpack(archive: Path, folder: Path, limit: int, place: str, reserved: Collection[str]) -> Contents:
    try:
        with _members(archive, folder, limit) as members:
            return _write(members, folder, limit, _Names(reserved))
    except Refused as refusal:
        fault = str(refusal)
    except DAMAGE as error:
        fault = f"is damaged ({error or type(error).__name__})"
    except OSError as error:
        if error.errno is not None:
            raise
        fault = f"is damaged ({error})"  # the decompressors of gzip and bz2 raise it so
    raise Untrusted(f"{place}: {fault}; nothing was unpacked", status=RUN_FAILED)


def _write(members: Iterator[Member], folder: Path, limit: int, names: _Names) -> Contents:
    files, size = [], 0
    for count, member in enumerate(members, 1):
        if count > MAX_MEMBERS:
            raise Refused(f"has more than {MAX_MEMBERS:,} members")
        path = _checked(member)
        if not path.parts:
            continue
        names.claim(path, member.folder)
        target = folder / path
        if member.folder:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            size += _copy(member, target, limit, limit - size)
            files.append(path)
    return Contents(folder, tuple(files), names.folders(), size)


def _checked(member: Member) -> PurePosixPath:
    """The path of a member, made of plain names alone."""
    faults = [fault for pattern, fault in NAME_FAULTS if pattern.search(member.name)]
    path = PurePosixPath(member.name)
    if not path.parts and not member.folder:
        faults.append("has no name")
    if len(path.parts) > MAX_DEPTH:
        raise Refused(f"has a member in more than {MAX_DEPTH} folders")
    for fault in (*faults, *filter(None, [member.fault])):
        raise Refused(f"member {member.name!r} {fault}")
    return path


def _copy(member: Member, target: Path, limit: int, room: int) -> int:
    """Write a member, and return its bytes as they came; what it claims is believed only where it is too much."""
    written = 0
    if member.size > room:
        raise _too_large(limit)
    with member.open() as source, target.open("xb") as output:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > room:
                raise _too_large(limit)
            output.write(chunk)
    return written


def _too_large(limit: int) -> Refused:
    return Refused(f"unpacks to more than {format_bytes(limit)}, which --max-size can raise")


class _Names:
    """The names of an archive so far, as a file system that ignores case would tell them apart."""

    def __init__(self, reserved: Collection[str]) -> None:
        self._reserved = {_key(name) for name in reserved}
        self._seen: dict[str, tuple[PurePosixPath, bool]] = {}

    def claim(self, path: PurePosixPath, folder: bool) -> None:
        """Take a name, and those of the folders above it; only a folder may be named again."""
        if _key(path.parts[0]) in self._reserved:
            raise Refused(f"member {str(path)!r} has the name of the download itself")
        for part in (*reversed(path.parents[:-1]), path):
            is_folder, known = folder or part != path, _key(str(part)) in self._seen
            first, was_folder = self._seen.setdefault(_key(str(part)), (part, is_folder))
            if first != part:
                raise Refused(f"members {str(first)!r} and {str(part)!r} differ in case or accents alone")
            if known and not (is_folder and was_folder):
                raise Refused(f"member {str(part)!r} is there twice")

    def folders(self) -> tuple[PurePosixPath, ...]:
        """All folders, each after those above it."""
        return tuple(path for path, folder in self._seen.values() if folder)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class _Guarded:
    """A binary file that refuses to be read far into memory in one go, or deep beyond `limit` bytes."""

    def __init__(self, file: IO[bytes], limit: int | None = None) -> None:
        self._file = file
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        most = HEADER_BYTES + 1
        found = self._file.read(most if size is None or size < 0 else min(size, most))
        if len(found) == most:
            raise Refused(f"has a header of more than {format_bytes(HEADER_BYTES)}")
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET and offset < 0:
            raise ValueError("it points before its beginning")
        if whence == io.SEEK_SET and self._limit is not None and offset > self._limit + HEADER_BYTES:
            raise _too_large(self._limit)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def _members(archive: Path, folder: Path, limit: int) -> Iterator[Iterator[Member]]:
    """The members of an archive, one after the other, each to be read before the next."""
    with archive.open("rb") as file:
        head = file.read(CHUNK)
        file.seek(0)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(cast(IO[bytes], _Guarded(file))) as opened:
                yield _zip_members(opened)
        elif WEB_PAGE.match(head):
            raise Refused("is a web page, not an archive: copy the address of the download itself")
        else:
            with _decompressed(file, head) as stream:
                yield _tar_members(_Guarded(stream, limit), folder)


def _zip_members(opened: zipfile.ZipFile) -> Iterator[Member]:
    for info in opened.infolist():
        # `filename` is what zipfile made of the name: it ends at a null byte, where another reader may go on.
        yield Member(info.orig_filename, info.is_dir(), info.file_size, _zip_fault(info), partial(opened.open, info))


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    # zipfile bounds what comes out of one read of deflate alone: of bzip2 it can be gigabytes.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed otherwise than by deflate"
    return None


def _tar_members(guarded: _Guarded, folder: Path) -> Iterator[Member]:
    with tarfile.open(fileobj=cast(IO[bytes], guarded), mode="r:") as opened:
        for info in opened:
            open_member = partial(_open_tar_member, opened, info, folder)
            yield Member(info.name, info.isdir(), info.size, _tar_fault(info), open_member)
        # tarfile takes a header that is damaged or missing for the end.
        guarded.seek(opened.offset)
        if guarded.read(TAR_BLOCK) != bytes(TAR_BLOCK):
            raise EOFError("it breaks off")


def _open_tar_member(opened: tarfile.TarFile, info: tarfile.TarInfo, folder: Path) -> IO[bytes]:
    if hasattr(tarfile, "data_filter"):  # a second opinion, from Python 3.11.4 on
        try:
            tarfile.data_filter(info, str(folder))
        except tarfile.FilterError as error:
            raise Refused(str(error)) from None
    return cast(IO[bytes], opened.extractfile(info))


def _tar_fault(info: tarfile.TarInfo) -> str | None:
    if info.issym():
        return "is a symbolic link"
    if info.islnk():
        return "is a hard link"
    return None if info.isreg() or info.isdir() else "is a device"


def _decompressed(file: IO[bytes], head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(file))
    if head.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(file))
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast(IO[bytes], lzma.open(file))
    return file


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(TAR_BLOCK)


def _is_tar(path: Path) -> bool:
    """Whether a tar archive begins here, compressed or not."""
    try:
        with path.open("rb") as file, _decompressed(file, _head(path)) as stream:
            return stream.read(TAR_BLOCK)[257:262] == b"ustar"
    except (EOFError, OSError, zlib.error, lzma.LZMAError):
        return False


def _same(new: Path, there: Path) -> bool:
    return there.is_file() and not there.is_symlink() and filecmp.cmp(new, there, shallow=False)


def _refuse_replacing(targets: list[Path], force: bool) -> None:
    found = [path for path in targets if path.is_dir() or (not force and (path.exists() or path.is_symlink()))]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        remedy = "move it away, or change -o" if found[0].is_dir() else "--force replaces it, another -o keeps both"
        raise UserError(f"{found[0]}{more}: exists, and differs from the archive's; {remedy}")
