"""Zip and tar archives from strangers: looked through, then unpacked by the standard library, or refused."""

from __future__ import annotations

import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from yeastexp.system.formatting import format_bytes

MAX_MEMBERS = 100_000
ARCHIVE_NAME = re.compile(r"\.(zip|tar|tar\.(gz|bz2|xz)|tgz|tbz2?|txz)$", re.IGNORECASE)
ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Bits of a zip member's flags: encrypted, strongly, with its header."""

UNSAFE_PATH = re.compile(r"^/|^[./]*[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Absolute, with a drive letter, out of the folder, or with characters that only mislead programs and terminals."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError),
    *(struct.error, ValueError, RuntimeError),
)
"""What the standard library raises for damaged archives, beside OSErrors without a number."""

Entry = tuple[str, int, bool]
"""A member's name and size as it claims them, and whether it is a plain file or folder."""


class Refused(Exception):
    """Why an archive is not unpacked."""


def is_archive(path: Path) -> bool:
    """Whether to unpack: by the suffix, or by the content if there is none, so that an `.npz` stays what it is."""
    if ARCHIVE_NAME.search(path.name):
        return True
    return not re.search(r"\.[A-Za-z]\w*$", path.name) and (_is_zip(path) or _is_tar(path))


def _is_zip(path: Path) -> bool:
    # Not by its end, as zipfile tells it: a tar archive may end with a member that is a zip.
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _is_tar(path: Path) -> bool:
    with suppress(*DAMAGE, OSError):
        return tarfile.is_tarfile(path)
    return False


def unpack(archive: Path, folder: Path, limit: int) -> None:
    """Unpack into an empty folder, which may hold the archive itself.

    Raises Refused if the archive is damaged (some members may have been written then), has more than `limit` bytes or
    `MAX_MEMBERS` members, or a member that could do harm: a path out of the folder, a link, a device.
    """
    try:
        if _is_zip(archive):
            with zipfile.ZipFile(archive) as opened:
                _check(_zip_entries(opened), archive.name, limit)
                opened.extractall(folder)
        else:
            with tarfile.open(archive) as opened_tar:
                _check(_tar_entries(opened_tar), archive.name, limit)
                opened_tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
                opened_tar.extractall(folder)
    except DAMAGE as error:
        raise Refused(f"is damaged, or not an archive ({error or type(error).__name__})") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise Refused(f"is damaged ({error})") from None  # the decompressors of gzip and bz2 raise it so


def zip_members(archive: Path, limit: int, member_limit: int) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files in a zip, all of which were looked through first.

    Raises Refused as `unpack` does, and if a member has more than `member_limit` bytes.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            _check(_zip_entries(opened), "", limit, "take members out")
            for info in opened.infolist():
                if info.file_size > member_limit:
                    raise Refused(f"member {info.filename!r} has {format_bytes(info.file_size)}")
                if not info.is_dir():
                    yield info.filename, opened.read(info)
    except DAMAGE as error:
        raise Refused(f"is damaged ({error or type(error).__name__})") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise Refused(f"is damaged ({error})") from None


def _check(entries: Iterable[Entry], archive_name: str, limit: int, remedy: str = "--max-gb allows more") -> None:
    """No reader of the standard library gives more bytes of a member than the size that is added up here."""
    total = 0
    for count, (name, size, plain) in enumerate(entries, 1):
        total += size
        if count > MAX_MEMBERS:
            raise Refused(f"has more than {MAX_MEMBERS:,} members")
        if total > limit:
            raise Refused(f"unpacks to more than {format_bytes(limit)}; {remedy}")
        if UNSAFE_PATH.search(name):
            raise Refused(f"member {name!r} has an unsafe path")
        if not plain:
            raise Refused(f"member {name!r} is a link, a device, encrypted, or compressed in an unusual way")
        if PurePosixPath(name).parts[:1] == (archive_name,):
            raise Refused(f"member {name!r} would replace the archive itself")


def _zip_entries(opened: zipfile.ZipFile) -> Iterator[Entry]:
    for info in opened.infolist():
        # One read of deflated bytes is bounded; of other compressions it may bring gigabytes at once.
        plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        plain = (
            plain
            and not info.flag_bits & ENCRYPTED
            and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        )
        yield info.orig_filename, info.file_size, plain  # `filename` ends at a null byte


def _tar_entries(opened: tarfile.TarFile) -> Iterator[Entry]:
    for info in opened:
        yield info.name, info.size, info.isreg() or info.isdir()
    # tarfile takes a damaged or missing header for the end.
    assert opened.fileobj is not None
    opened.fileobj.seek(opened.offset)
    if opened.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it breaks off")
