"""Zip and tar archives from strangers, unpacked whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import pytest

from yeastexp.data import archives
from yeastexp.data.archives import Contents, Untrusted, is_archive, put_in_place, unpacked
from yeastexp.errors import INPUT_WRONG, RUN_FAILED, UserError

FILES = {"images/001.png": b"one" * 1000, "images/002.png": b"two", "masks/deep/001.png": b"", "read me.txt": b"words"}
GZIP, BZIP2, XZ = partial(gzip.compress, mtime=0), bz2.compress, lzma.compress
LIMIT = 10**6


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of names (or more about a member) and contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def tarred(*members: tuple[str | tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive of names (or more about a member) and contents."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def linked(kind: bytes, name: str = "link", target: str = "/etc/passwd") -> tuple[tarfile.TarInfo, bytes]:
    """A tar member of another kind than a file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def moded(name: str, mode: int, data: bytes = b"x") -> tuple[zipfile.ZipInfo, bytes]:
    """A zip member that claims a kind of Unix file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, data


def renamed(archive: bytes, old: str, new: str) -> bytes:
    """An archive in which a name was overwritten by one of the same length, as no library would write it."""
    assert len(old) == len(new) and old.encode() in archive
    return archive.replace(old.encode(), new.encode("latin-1"))


def contents(path: Path) -> dict[str, bytes | None]:
    """All that lies under a folder: the bytes of files, None for folders."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


Unpack = Callable[..., Contents]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """`unpack(data)` gives what came of an archive, in `tmp_path/new`; nothing else may be left behind."""
    (tmp_path / "new").mkdir()

    def run(data: bytes, limit: int = LIMIT, force: bool = False) -> Contents:
        (tmp_path / "x").write_bytes(data)
        try:
            with unpacked(tmp_path / "x", tmp_path / "hidden", place="x.zip", limit=limit, reserved=["Own"]) as found:
                put_in_place(found, tmp_path / "new", force=force)
        finally:
            assert {path.name for path in tmp_path.iterdir()} == {"x", "new"}
        return found

    return run


@pytest.mark.parametrize(
    "data",
    [
        zipped(*FILES.items()),
        zipped(*FILES.items(), method=zipfile.ZIP_STORED),
        zipped(("images/", b""), ("./", b""), *FILES.items()),
        tarred(*FILES.items()),
        tarred(*FILES.items(), form=tarfile.GNU_FORMAT),
        tarred(*((f"./{name}", data) for name, data in FILES.items())),
        GZIP(tarred(*FILES.items())),
        BZIP2(tarred(*FILES.items())),
        XZ(tarred(*FILES.items())),
    ],
)
def test_archives_are_unpacked(unpack: Unpack, tmp_path: Path, data: bytes) -> None:
    found = unpack(data)
    folders = {"images": None, "masks": None, "masks/deep": None}
    assert contents(tmp_path / "new") == {**FILES, **folders}
    assert {str(path) for path in found.files} == set(FILES)
    assert {str(path) for path in found.folders} == set(folders)
    assert found.size == sum(map(len, FILES.values()))
    assert found.tops() == ("images/", "masks/", "read me.txt")


def test_unpacked_files_belong_to_who_unpacks_them_and_run_nothing(unpack: Unpack, tmp_path: Path) -> None:
    info = tarfile.TarInfo("program")
    info.mode, info.uid = 0o6777, 12345
    unpack(tarred((info, b"x"), ("plain", b"")))
    program, plain = (tmp_path / "new" / name for name in ("program", "plain"))
    assert program.stat().st_mode == plain.stat().st_mode and not program.stat().st_mode & 0o111
    assert program.stat().st_uid == plain.stat().st_uid


@pytest.mark.parametrize("data", [zipped(), tarred(), zipped(("empty/", b"")), GZIP(tarred())])
def test_empty_archives_bring_no_file(unpack: Unpack, data: bytes) -> None:
    assert unpack(data).files == ()


def test_a_long_name_and_a_foreign_one_are_kept(unpack: Unpack, tmp_path: Path) -> None:
    name = "/".join(["Größe µm 細胞" * 3] * 5) + "/a: b?.png"
    for data in (zipped((name, b"1")), tarred((name, b"1")), tarred((name, b"1"), form=tarfile.GNU_FORMAT)):
        assert unpack(data).files == (PurePosixPath(name),)
    latin = tarred(("zelle_gr\udcfcn.png", b"1"), form=tarfile.GNU_FORMAT)
    assert unpack(latin).tops() == ("zelle_gr?n.png",)


NAMES = {
    "/etc/passwd": "has an absolute path",
    "//host/share": "has an absolute path",
    "../evil": "leads out of the folder",
    "a/../../evil": "leads out of the folder",
    "a/..": "leads out of the folder",
    "..": "leads out of the folder",
    "..\\evil": "has a backslash in its name",
    "a\\b": "has a backslash in its name",
    "\\\\host\\share": "has a backslash in its name",
    "C:/evil": "starts with a drive letter",
    "c:evil": "starts with a drive letter",
    "./C:/evil": "starts with a drive letter",
    "a\nb": "has a control character in its name",
    "\x1b[2Jfree": "has a control character in its name",
    "a\x9bb": "has a control character in its name",
}


@pytest.mark.parametrize("form", [zipped, tarred, lambda *members: GZIP(tarred(*members))])
@pytest.mark.parametrize(("name", "fault"), NAMES.items())
def test_names_that_could_do_harm_are_refused(
    unpack: Unpack, tmp_path: Path, form: Callable[..., bytes], name: str, fault: str
) -> None:
    data = form(("good.png", b"1"), (name, b"2"))
    with pytest.raises(Untrusted) as caught:
        unpack(data)
    assert caught.value.faults == (f"x.zip: member {name!r} {fault}; nothing was unpacked",)
    assert caught.value.status == RUN_FAILED
    assert contents(tmp_path / "new") == {}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (tarred(linked(tarfile.SYMTYPE)), "member 'link' is a symbolic link"),
        (tarred(linked(tarfile.SYMTYPE, target="good.png")), "member 'link' is a symbolic link"),
        (tarred(linked(tarfile.LNKTYPE)), "member 'link' is a hard link"),
        (tarred(("a", b""), linked(tarfile.LNKTYPE, target="a")), "member 'link' is a hard link"),
        (tarred(linked(tarfile.CHRTYPE)), "member 'link' is a device"),
        (tarred(linked(tarfile.BLKTYPE)), "member 'link' is a device"),
        (tarred(linked(tarfile.FIFOTYPE)), "member 'link' is a device"),
        (tarred(linked(tarfile.SYMTYPE, "d", "/tmp"), ("d/x", b"")), "member 'd' is a symbolic link"),
        (zipped(moded("link", stat.S_IFLNK | 0o777, b"/etc/passwd")), "member 'link' is a symbolic link"),
        (zipped(moded("pipe", stat.S_IFIFO)), "member 'pipe' is a device"),
        (zipped(moded("tty", stat.S_IFCHR)), "member 'tty' is a device"),
        (zipped(("a", b"1"), method=zipfile.ZIP_BZIP2), "member 'a' is compressed otherwise than by deflate"),
        (zipped(("a", b"1"), method=zipfile.ZIP_LZMA), "member 'a' is compressed otherwise than by deflate"),
        (renamed(zipped(("ab", b"1")), "ab", "a\0"), "member 'a\\x00' has a control character in its name"),
        (renamed(zipped(("aa", b"1"), ("ab", b"2")), "ab", "aa"), "member 'aa' is there twice"),
        (tarred(("a", b"1"), ("a", b"2")), "member 'a' is there twice"),
        (tarred(("a", b"1"), ("./a", b"2")), "member 'a' is there twice"),
        (tarred(("a", b"1"), ("a/b", b"2")), "member 'a' is there twice"),
        (tarred(("a/b", b"1"), ("a", b"2")), "member 'a' is there twice"),
        (zipped(("a", b"1"), ("a/", b"")), "member 'a' is there twice"),
        (zipped(("a.PNG", b"1"), ("A.png", b"2")), "members 'a.PNG' and 'A.png' differ in case or accents alone"),
        (zipped(("a/1", b"1"), ("A/2", b"2")), "members 'a' and 'A' differ in case or accents alone"),
        (tarred(("é", b"1"), ("e\u0301", b"2")), "members 'é' and 'e\u0301' differ in case or accents alone"),
        (zipped(("own", b"1")), "member 'own' has the name of the download itself"),
        (zipped(("OWN/deep/x", b"1")), "member 'OWN/deep/x' has the name of the download itself"),
        (zipped(("/".join("a" * 51), b"")), "has a member in more than 50 folders"),
        (b"  <!DOCTYPE html><p>log in", "is a web page, not an archive: copy the address of the download itself"),
        (b"", "is damaged (empty file)"),
        (b"neither", "is damaged (truncated header)"),
        (GZIP(b"neither"), "is damaged (truncated header)"),
        (b"PK\x03\x04 but no more", "is damaged (File is not a zip file)"),
        (zipped(*FILES.items())[:-30], "is damaged (File is not a zip file)"),
        (tarred(*FILES.items())[:1000], "is damaged (unexpected end of data)"),
        (tarred(*FILES.items())[: 512 + 3072], "is damaged (it breaks off)"),
        (tarred(("a", b"1"))[:1024] + b"garbage" * 2000, "is damaged (it breaks off)"),
    ],
)
def test_archives_that_could_do_harm_are_refused(unpack: Unpack, tmp_path: Path, data: bytes, fault: str) -> None:
    with pytest.raises(Untrusted) as caught:
        unpack(data)
    assert caught.value.faults == (f"x.zip: {fault}; nothing was unpacked",)
    assert contents(tmp_path / "new") == {}


@pytest.mark.parametrize("bit", [0x1, 0x40, 0x2000])
def test_encrypted_members_are_refused(unpack: Unpack, bit: int) -> None:
    data = bytearray(zipped(("a", b"1")))
    directory = data.index(b"PK\x01\x02")
    data[directory + 8 : directory + 10] = struct.pack("<H", bit)
    with pytest.raises(Untrusted, match=r"^x\.zip: member 'a' is encrypted; nothing was unpacked$"):
        unpack(bytes(data))


@pytest.mark.parametrize("pack", [GZIP, BZIP2, XZ])
def test_a_compressed_archive_that_breaks_off_is_refused(
    unpack: Unpack, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(tarred(("noise", random.Random(0).randbytes(5000)), ("b", b"")))
    with pytest.raises(Untrusted, match="is damaged"):
        unpack(data[: len(data) // 2])
    assert contents(tmp_path / "new") == {}


def bomb(claimed: int) -> bytes:
    """A zip member of 2 MB zeros in 2 kB that claims another size."""
    data = bytearray(zipped(("zeros", bytes(2 * 10**6))))
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(mark) + place
        data[start : start + 4] = struct.pack("<I", claimed)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        zipped(("zeros", bytes(2 * 10**6))),
        zipped(*((f"zeros{number}", bytes(10**5)) for number in range(11))),
        GZIP(tarred(("zeros", bytes(2 * 10**6)))),
        BZIP2(tarred(*((f"zeros{number}", bytes(10**5)) for number in range(11)))),
        XZ(tarred(("zeros", bytes(10**6 + 1)))),
    ],
)
def test_bombs_are_refused(unpack: Unpack, tmp_path: Path, data: bytes) -> None:
    assert len(data) < 20_000
    message = "x.zip: unpacks to more than 1 MB, which --max-size can raise; nothing was unpacked"
    with pytest.raises(Untrusted) as caught:
        unpack(data)
    assert caught.value.faults == (message,)
    assert contents(tmp_path / "new") == {}
    assert unpack(data, limit=2 * 10**6).size >= 10**6


def test_a_bomb_that_claims_to_be_small_is_damaged(unpack: Unpack, tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match=r"is damaged \(Bad CRC-32 for file 'zeros'\)"):
        unpack(bomb(100))
    assert contents(tmp_path / "new") == {}


def test_what_is_written_counts_not_what_is_claimed(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    believed = archives._zip_members
    monkeypatch.setattr(
        archives, "_zip_members", lambda opened: (replace(member, size=0) for member in believed(opened))
    )
    with pytest.raises(Untrusted, match="unpacks to more than 1 MB"):
        unpack(zipped(("zeros", bytes(2 * 10**6))))


def test_a_tar_member_that_hides_gigabytes_is_not_skipped(unpack: Unpack) -> None:
    info = tarfile.TarInfo("sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 10**9
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"00000000012\0"  # ten bytes of it are said to be the file
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    with pytest.raises(Untrusted, match=r"^x\.zip: unpacks to more than 1 MB"):
        unpack(GZIP(bytes(header) + bytes(10**5)))


def test_headers_are_not_read_without_bound(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "HEADER_BYTES", 10**5)
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 * 10**5
    message = r"^x\.zip: has a header of more than 100 kB; nothing was unpacked$"
    with pytest.raises(Untrusted, match=message):
        unpack(GZIP(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2 * 10**5))
    with pytest.raises(Untrusted, match=message):
        unpack(zipped(*((f"{number:0200}", b"") for number in range(500))))


def test_members_are_counted(unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    members = [(str(number), b"") for number in range(4)]
    for form in (zipped, tarred):
        with pytest.raises(Untrusted, match=r"^x\.zip: has more than 3 members; nothing was unpacked$"):
            unpack(form(*members))
        assert contents(tmp_path / "new") == {}
        assert len(unpack(form(*members[:3])).files) == 3
        for path in (tmp_path / "new").iterdir():
            path.unlink()


def test_headers_that_nest_without_end_are_damage(unpack: Unpack) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    with pytest.raises(Untrusted, match="is damaged"):
        unpack(GZIP((info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 5000))


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="comes with Python 3.11.4")
def test_the_standard_library_has_a_second_say(unpack: Unpack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "NAME_FAULTS", ())
    with pytest.raises(Untrusted, match="outside the destination"):
        unpack(tarred(("a/../../new/evil", b"1")))
    assert contents(tmp_path / "new") == {}


@pytest.mark.parametrize(
    "data", [zipped(*FILES.items()), tarred(*FILES.items())[:8000], *(p(tarred(*FILES.items())) for p in (GZIP, XZ))]
)
def test_whatever_is_changed_is_unpacked_or_refused(unpack: Unpack, tmp_path: Path, data: bytes) -> None:
    draws = random.Random(data[0])
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(draws.choice((1, 1, 2, 8))):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        before = contents(tmp_path / "new")
        try:
            unpack(bytes(changed[: draws.choice((len(data), draws.randrange(len(data))))]), force=True)
        except UserError:
            assert contents(tmp_path / "new") == before


def test_files_that_are_there_are_not_replaced(unpack: Unpack, tmp_path: Path) -> None:
    new = tmp_path / "new"
    (new / "images").mkdir()
    (new / "images" / "001.png").write_bytes(FILES["images/001.png"])
    (new / "images" / "002.png").write_bytes(b"mine")
    (new / "read me.txt").write_bytes(b"mine")
    before = contents(new)
    with pytest.raises(UserError) as caught:
        unpack(zipped(*FILES.items()))
    fault = "exists, and differs from the archive's; --force replaces it, another -o keeps both"
    assert caught.value.faults == (f"{new}/images/002.png and 1 more: {fault}",)
    assert caught.value.status == INPUT_WRONG and not isinstance(caught.value, Untrusted)
    assert contents(new) == before
    unpack(zipped(*FILES.items()), force=True)
    assert {name: data for name, data in contents(new).items() if data is not None} == FILES


def test_files_of_the_same_content_are_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(zipped(*FILES.items()))
    (tmp_path / "new").mkdir()
    for expected, removed in ((4, None), (0, None), (1, "images/001.png")):
        if removed:
            (tmp_path / "new" / removed).unlink()
        with unpacked(tmp_path / "x", tmp_path / "hidden", place="x", limit=LIMIT) as found:
            assert put_in_place(found, tmp_path / "new") == expected


@pytest.mark.parametrize("force", [False, True])
def test_links_and_folders_that_are_there_are_not_followed_or_replaced(
    unpack: Unpack, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, force: bool
) -> None:
    new, elsewhere = tmp_path / "new", tmp_path_factory.mktemp("elsewhere")
    (new / "images").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"new/images: is a link or a file where the archive has a folder; move"):
        unpack(zipped(*FILES.items()), force=force)
    assert contents(elsewhere) == {}
    (new / "images").unlink()
    (new / "read me.txt").mkdir()
    with pytest.raises(UserError, match=r"new/read me.txt: exists, and differs from the archive's; move it away"):
        unpack(zipped(*FILES.items()), force=force)
    assert contents(new) == {"read me.txt": None}


def test_a_link_in_a_files_place_is_replaced_itself(unpack: Unpack, tmp_path: Path) -> None:
    mine, link = tmp_path / "new" / "mine", tmp_path / "new" / "read me.txt"
    mine.write_bytes(b"mine")
    link.symlink_to("mine")
    with pytest.raises(UserError, match="exists, and differs"):
        unpack(zipped(*FILES.items()))
    unpack(zipped(*FILES.items()), force=True)
    assert mine.read_bytes() == b"mine" and link.read_bytes() == b"words" and not link.is_symlink()


def test_a_folder_left_by_a_killed_command_is_no_hindrance(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "read me.txt").write_bytes(b"half")
    assert len(unpack(zipped(*FILES.items())).files) == 4


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("x.zip", b"", True),
        ("x.ZIP", b"", True),
        ("x.tar", b"", True),
        ("x.tar.gz", b"", True),
        ("x.tgz", b"", True),
        ("x.tar.bz2", b"", True),
        ("x.tbz", b"", True),
        ("x.tar.xz", b"", True),
        ("x.txz", b"", True),
        ("1234", zipped(("a", b"")), True),
        ("v1.0", zipped(("a", b"")), True),
        ("1234", tarred(("a", b"")), True),
        ("1234", GZIP(tarred(("a", b""))), True),
        ("1234", XZ(tarred(("a", b""))), True),
        ("1234", GZIP(b"a"), False),
        ("1234", GZIP(b"a" * 1000)[:15], False),
        ("1234", b"\x1f\x8b nonsense", False),
        ("1234", b"", False),
        ("x.npz", zipped(("a", b"")), False),
        ("x.docx", zipped(("a", b"")), False),
        ("x.tif.gz", GZIP(tarred(("a", b""))), False),
        ("x.tif", b"II*\0", False),
    ],
)
def test_what_is_an_archive(tmp_path: Path, name: str, data: bytes, expected: bool) -> None:
    (tmp_path / "x").write_bytes(data)
    assert is_archive(tmp_path / "x", name) is expected
