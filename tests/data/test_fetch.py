"""A file from the web, from a server that breaks off, lies and redirects; archives from strangers."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import loopback
import pytest
import requests
from conftest import Call
from loopback import Server, answer, chunked, redirect

from yeastexp.data import archives, fetch
from yeastexp.errors import INPUT_WRONG, RUN_FAILED, UserError

FILES = {"images/001.png": b"one" * 1000, "images/002.png": b"two", "masks/deep/001.png": b"", "read me.txt": b"words"}
MINE = {"images/mine.png": b"mine"}
PICTURE = b"II*\0" + bytes(1000)
LIMIT = 10**6


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive of names (or more about a member) and contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            if isinstance(name, str):  # not dated now: workers have to collect the same tests
                archive.writestr(zipfile.ZipInfo(name), data, method)
            else:
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


def moded(name: str, mode: int) -> tuple[zipfile.ZipInfo, bytes]:
    """A zip member that claims a kind of Unix file."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info, b"/etc/passwd"


ZIP, TAR = zipped(*FILES.items()), tarred(*FILES.items())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with something in it."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "mine.png").write_bytes(b"mine")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files under a folder, hidden ones too; nothing else may be left in the folder above it."""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(url: str, folder: Path, status: int = RUN_FAILED, **options: object) -> str:
    """The line that it ends in, without the URL before it; the folder has to stay as it is."""
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        fetch.fetch(url, folder, **options)
    assert caught.value.status == status and contents(folder) == before
    (line,) = caught.value.faults
    return line.removeprefix(f"{url}: ")


# Downloads


@pytest.mark.parametrize("route", [answer(PICTURE), chunked(PICTURE), answer(PICTURE, Content_Encoding="gzip")])
def test_bytes_come_as_they_are_sent(server: Server, folder: Path, route: loopback.Route) -> None:
    fetched = fetch.fetch(server.at("/cells.tif", route), folder, sha256(PICTURE))
    assert contents(folder) == {**MINE, "cells.tif": PICTURE}
    assert fetched == fetch.Fetched(folder / "cells.tif", sha256(PICTURE), True, [], 0)
    assert server.asked("Accept-Encoding") == ["identity"]


@pytest.mark.parametrize(
    "route", [answer(PICTURE[:10], length=1004), chunked(PICTURE, whole=False), answer(PICTURE, length=5000)]
)
def test_a_broken_download_leaves_nothing(server: Server, folder: Path, route: loopback.Route) -> None:
    url = server.at("/cells.tif", route)
    for place in (folder, folder / "new" / "deep"):
        with pytest.raises(UserError, match=r"cells.tif: the download failed \(.*\); nothing was kept, try again$"):
            fetch.fetch(url, place)
    assert contents(folder) == MINE and not (folder / "new").exists()


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"])
def test_what_is_not_http_is_refused(server: Server, folder: Path, reply: bytes) -> None:
    url = server.at("/x", lambda request: request.wfile.write(reply) and None)
    assert refused(url, folder).startswith("the download failed (")


def test_nobody_there(server: Server, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    assert refused(url, folder) == "the download failed (Connection refused); nothing was kept, try again"


def test_a_silent_server(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", (1, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        line = refused(f"http://127.0.0.1:{mute.getsockname()[1]}/x", folder)
    assert line == "the download failed (timed out); nothing was kept, try again"


def test_no_safe_connection(server: Server, folder: Path) -> None:
    url = server.at("/x", answer(PICTURE)).replace("http:", "https:")
    assert refused(url, folder).startswith("the download failed (")


@pytest.mark.parametrize(("status", "text"), [(404, "404 Not Found"), (403, "403 Forbidden"), (204, "204 No Content")])
def test_other_answers_end_it(server: Server, folder: Path, status: int, text: str) -> None:
    line = refused(server.at("/x", answer(b"\x1b[2J", status=status)), folder)
    assert line == f"the server answered {text}; check the URL, and whether it needs a login"


@pytest.mark.parametrize("route", [answer(PICTURE * 1000), chunked(PICTURE * 1000)])
def test_what_is_too_large_is_not_kept(server: Server, folder: Path, route: loopback.Route) -> None:
    assert refused(server.at("/x", route), folder, limit=LIMIT) == "has more than 1 MB; --max-gb allows more"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_the_name_is_that_of_the_url(server: Server, folder: Path, status: int) -> None:
    server.at("/store/8f3a.zip", answer(PICTURE))
    fetch.fetch(server.at("/cells.tif", redirect("/store/8f3a.zip?key=1", status)), folder)
    assert contents(folder) == {**MINE, "cells.tif": PICTURE}


@pytest.mark.parametrize("location", ["/x", "file:///etc/passwd", "gopher:\x1b[2J"])
def test_redirects_without_end_or_out_of_the_web_are_refused(server: Server, folder: Path, location: str) -> None:
    line = refused(server.at("/x", redirect(location)), folder)
    assert line.startswith("the download failed (") and line.isprintable()


@pytest.mark.parametrize(
    ("schemes", "good"), [("http https", True), ("https https", True), ("https http https", False)]
)
def test_a_redirect_out_of_safety_is_refused(schemes: str, good: bool) -> None:
    steps = [requests.Response() for _ in schemes.split()]
    for step, scheme in zip(steps, schemes.split(), strict=True):
        step.url, step.status_code, step.history = f"{scheme}://a.org/x", 200, steps[:-1]
    if good:
        fetch._check_response("http://a.org/x", steps[-1])
    else:
        with pytest.raises(UserError, match=r"^https://a.org/x\?…: redirects to a URL without encryption; if you"):
            fetch._check_response("https://name:password@a.org/x?key=secret", steps[-1])


def test_a_proxy_of_the_environment_is_asked(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["http://yeast.invalid/x"] = answer(PICTURE)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert fetch.fetch("http://yeast.invalid/x", folder).sha256 == sha256(PICTURE)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/b/yeast.zip?download=1#x", "yeast.zip"),
        ("https://a.org/files/1234/", "1234"),
        ("https://a.org", "download"),
        ("https://a.org/%2e%2e", "download"),
        ("https://a.org/%2e%2e%2fevil", "evil"),
        ("https://a.org/..%5Cevil", "_evil"),
        ("https://a.org/.bashrc", "bashrc"),
        ("https://a.org/a%00b%0a%1b.zip", "a_b__.zip"),
        ("https://a.org/my%20cells%20(2).tif", "my cells (2).tif"),
        ("https://a.org/Gr%C3%B6%C3%9Fe.tif", "Größe.tif"),
        ("https://a.org/" + "é" * 300 + ".zip", "é" * 73 + ".zip"),
    ],
)
def test_file_names_are_harmless(url: str, name: str) -> None:
    assert fetch.file_name(url) == name


@pytest.mark.parametrize(
    "url",
    ["yeast.zip", "file:///etc/passwd", "ftp://a.org/x", "http://", "http://[", "http://a.org:99999/", "\udcff", ""],
)
def test_other_urls_are_refused(folder: Path, url: str) -> None:
    line = refused(url, folder, INPUT_WRONG)
    assert line.endswith("is not a valid URL; it should begin with https:// or http://")


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "*"])
def test_hosts_that_cannot_be_are_refused(server: Server, folder: Path, host: str) -> None:
    assert refused(f"http://{host}/x", folder).startswith("the download failed (")


# What is there


@pytest.mark.parametrize("digest", [sha256(ZIP), sha256(ZIP).upper(), f" sha256:{sha256(ZIP)}\n"])
def test_what_is_there_is_not_fetched_again(server: Server, folder: Path, digest: str) -> None:
    url = server.at("/yeast.zip", answer(ZIP))
    assert fetch.fetch(url, folder).written == 4
    (folder / "images" / "001.png").unlink()
    again = fetch.fetch(url, folder, digest)
    assert (again.downloaded, again.written, len(again.unpacked)) == (False, 1, 4)
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}
    assert len(server.requests) == 1


def test_what_is_there_is_not_replaced(server: Server, folder: Path) -> None:
    url, target = server.at("/x.tif", answer(PICTURE)), folder / "x.tif"
    target.write_bytes(b"old")
    line = refused(url, folder, INPUT_WRONG)
    assert line == f"{target}: exists; --force fetches it again, --sha256 checks whether that is needed"
    line = refused(url, folder, INPUT_WRONG, sha256=sha256(PICTURE))
    assert line.endswith(f"exists with the SHA-256 {sha256(b'old')}, not {sha256(PICTURE)}; --force fetches it again")
    assert not server.requests
    refused(url, folder, sha256="0" * 64, force=True)
    fetch.fetch(url, folder, force=True)
    assert contents(folder) == {**MINE, "x.tif": PICTURE}


def test_a_wrong_digest_leaves_nothing(server: Server, folder: Path) -> None:
    line = refused(server.at("/yeast.zip", answer(ZIP)), folder, sha256="0" * 64)
    assert line == f"has the SHA-256 {sha256(ZIP)}, not {'0' * 64}; nothing was kept, check URL and digest"
    assert refused(server.at("/x", answer(ZIP)), folder, INPUT_WRONG, sha256="12") == (
        "--sha256: '12' is not a SHA-256; it has 64 hexadecimal digits"
    )


def test_folders_and_files_are_told_apart(server: Server, folder: Path) -> None:
    url, mine = server.at("/images", answer(PICTURE)), folder / "images" / "mine.png"
    line = refused(url, folder, INPUT_WRONG, force=True)
    assert line == f"{folder}/images: is a folder; move it away, or change -o"
    for place, status, fault in ((mine, INPUT_WRONG, "is a file; name a folder"), (mine / "x", 1, "Not a directory")):
        with pytest.raises(UserError) as caught:
            fetch.fetch(url, place)
        assert (caught.value.faults, caught.value.status) == ((f"{place}: {fault}",), status)


def test_files_in_the_way_are_kept(server: Server, folder: Path) -> None:
    url = server.at("/yeast.zip", answer(ZIP))
    (folder / "images" / "001.png").write_bytes(b"mine")
    line = refused(url, folder, INPUT_WRONG)
    fault = "exists and differs from the archive's; --force replaces it, another -o keeps both"
    assert line == f"{folder}/images/001.png: {fault}"
    fetch.fetch(url, folder, force=True)
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}


@pytest.mark.parametrize("force", [False, True])
def test_links_and_folders_in_the_way_are_not_followed_or_replaced(
    server: Server, folder: Path, tmp_path_factory: pytest.TempPathFactory, force: bool
) -> None:
    url, elsewhere = server.at("/yeast.zip", answer(ZIP)), tmp_path_factory.mktemp("elsewhere")
    (folder / "masks").symlink_to(elsewhere)
    assert "masks: is a link or a file, and a folder in the archive" in refused(url, folder, INPUT_WRONG, force=force)
    assert not list(elsewhere.iterdir())
    (folder / "masks").unlink()
    (folder / "read me.txt").mkdir()
    assert "read me.txt: exists and differs" in refused(url, folder, INPUT_WRONG, force=force)


def test_a_link_in_a_files_place_is_replaced_itself(server: Server, folder: Path) -> None:
    url, link = server.at("/yeast.zip", answer(ZIP)), folder / "read me.txt"
    link.symlink_to("images/mine.png")
    assert "exists and differs" in refused(url, folder, INPUT_WRONG)
    fetch.fetch(url, folder, force=True)
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP} and not link.is_symlink()


# Archives


GZIP: Callable[[bytes], bytes] = partial(gzip.compress, mtime=0)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("yeast.zip", ZIP),
        ("YEAST.ZIP", zipped(*FILES.items(), method=zipfile.ZIP_STORED)),
        ("yeast.zip", zipped(("images/", b""), ("./", b""), *FILES.items())),
        ("yeast.tar", TAR),
        ("yeast.tar", tarred(*((f"./{name}", data) for name, data in FILES.items()), form=tarfile.GNU_FORMAT)),
        ("yeast.tgz", GZIP(TAR)),
        ("yeast.tar.bz2", bz2.compress(TAR)),
        ("yeast.tar.xz", lzma.compress(TAR)),
        ("1234", ZIP),
        ("v1.0", GZIP(TAR)),
    ],
)
def test_archives_are_unpacked_beside_themselves(server: Server, folder: Path, name: str, data: bytes) -> None:
    fetched = fetch.fetch(server.at(f"/{name}", answer(data)), folder, limit=LIMIT)
    assert contents(folder) == {**MINE, **FILES, name: data}
    assert fetched.unpacked == sorted(map(Path, FILES)) and fetched.written == 4


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("arrays.npz", ZIP),
        ("cells.tif.gz", GZIP(TAR)),
        ("1234", GZIP(b"a" * 1000)),
        ("1234", GZIP(b"a" * 1000)[:15]),
        ("1234", b"\x1f\x8b nonsense"),
        ("1234", b""),
    ],
)
def test_other_files_are_kept_as_they_are(server: Server, folder: Path, name: str, data: bytes) -> None:
    fetch.fetch(server.at(f"/{name}", answer(data)), folder)
    assert contents(folder) == {**MINE, name: data}


def test_a_tar_that_ends_with_a_zip_is_a_tar(server: Server, folder: Path) -> None:
    fetch.fetch(server.at("/x.tar", answer(tarred(("inner.npz", zipped(("a", b"1")))))), folder)
    assert contents(folder).keys() == {*MINE, "x.tar", "inner.npz"}


def test_unpacked_files_belong_to_who_unpacks_them(server: Server, folder: Path) -> None:
    info = tarfile.TarInfo("program")
    info.mode, info.uid = 0o6777, 12345
    fetch.fetch(server.at("/x.tar", answer(tarred((info, b"x")))), folder)
    found = (folder / "program").stat()
    assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | 0o022) and found.st_uid == os.getuid()


NAMES = [
    "/etc/passwd",
    "//host",
    "../evil",
    "a/../../evil",
    "a/..",
    "..",
    "..\\evil",
    "C:/evil",
    "./c:evil",
    "a\nb",
    "\x1b",
]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_could_do_harm_are_refused(
    server: Server, folder: Path, pack: Callable[..., bytes], name: str
) -> None:
    line = refused(server.at("/1234", answer(pack(("good.png", b"1"), (name, b"2")))), folder, force=True)
    assert line == f"member {name!r} has an unsafe path; nothing was kept"


STORED = zipped(*FILES.items(), method=zipfile.ZIP_STORED)
LINK = "member 'link' is a link, a device, encrypted, or compressed in an unusual way"
DAMAGED = "is damaged, or not an archive "


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (tarred(linked(tarfile.SYMTYPE)), LINK),
        (tarred(linked(tarfile.SYMTYPE, target="good.png")), LINK),
        (tarred(("a", b""), linked(tarfile.LNKTYPE, target="a")), LINK),
        (GZIP(tarred(linked(tarfile.CHRTYPE))), LINK),
        (tarred(linked(tarfile.FIFOTYPE)), LINK),
        (tarred(linked(tarfile.SYMTYPE, "link", "/tmp"), ("link/x", b"")), LINK),
        (zipped(moded("link", stat.S_IFLNK | 0o777)), LINK),
        (zipped(moded("link", stat.S_IFCHR)), LINK),
        (zipped(("link", b"1"), method=zipfile.ZIP_BZIP2), LINK),
        (zipped(("ab", b"1")).replace(b"ab", b"a\0"), "member 'a\\x00' has an unsafe path"),
        (zipped(("x.zip", b"1")), "member 'x.zip' would replace the archive itself"),
        (tarred(("./x.zip/deep", b"1")), "member './x.zip/deep' would replace the archive itself"),
        (b"  <!DOCTYPE html><p>log in", f"{DAMAGED}(file could not be opened successfully"),
        (b"", DAMAGED),
        (GZIP(b"neither"), DAMAGED),
        (ZIP[:-30], f"{DAMAGED}(File is not a zip file)"),
        (zipped(("link", b"1")).replace(b"\x14\0\0\0", b"\x14\0\1\0"), LINK),
        (
            zipped(("read me.txt", b"words"), method=zipfile.ZIP_STORED).replace(b"words", b"wards"),
            f"{DAMAGED}(Bad CRC-32 for file 'read me.txt')",
        ),
        (TAR[:1000], f"{DAMAGED}(unexpected end of data)"),
        (TAR[: 512 + 3072], f"{DAMAGED}(it breaks off)"),
        (tarred(("a", b"1"))[:1024] + b"garbage" * 2000, f"{DAMAGED}(it breaks off)"),
        (zipped(("zeros", bytes(LIMIT + 1))), "unpacks to more than 1 MB; --max-gb allows more"),
        (GZIP(tarred(*[("zeros", bytes(10**5))] * 11)), "unpacks to more than 1 MB; --max-gb allows more"),
    ],
)
def test_archives_that_could_do_harm_leave_nothing(server: Server, folder: Path, data: bytes, fault: str) -> None:
    line = refused(server.at("/x.zip", answer(data)), folder, limit=LIMIT)
    assert line.startswith(fault) and line.endswith("; nothing was kept")


def test_members_are_counted(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for pack in (zipped, tarred):
        for count in (4, 3):
            url = server.at("/1234", answer(pack(*((str(number), b"") for number in range(count)))))
            if count == 4:
                assert refused(url, folder, force=True) == "has more than 3 members; nothing was kept"
        assert len(fetch.fetch(url, folder, force=True).unpacked) == 3


@pytest.mark.parametrize("claimed", [100, LIMIT])
def test_a_zip_that_claims_another_size_brings_no_more(server: Server, folder: Path, claimed: int) -> None:
    size = (2 * LIMIT).to_bytes(4, "little")
    data = zipped(("zeros", bytes(2 * LIMIT))).replace(size, claimed.to_bytes(4, "little"))
    line = refused(server.at("/x.zip", answer(data)), folder, limit=LIMIT)
    assert line.startswith(f"{DAMAGED}(Bad CRC-32 for file 'zeros')")


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="comes with Python 3.11.4")
def test_the_standard_library_has_a_second_say(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_check", lambda entries, *rest: list(entries))
    line = refused(server.at("/x.tar", answer(tarred(("a/../../evil", b"1")))), folder)
    assert "outside the destination" in line


@pytest.mark.parametrize("data", [ZIP, TAR[:8000], GZIP(TAR, mtime=0), lzma.compress(TAR)])
def test_whatever_is_changed_is_unpacked_or_refused(tmp_path: Path, data: bytes) -> None:
    draws = random.Random(data[0])
    for number in range(150):
        changed = bytearray(data)
        for _ in range(draws.choice((1, 1, 2, 8))):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        place = tmp_path / str(number) / "inner"
        place.mkdir(parents=True)
        (place / "x.zip").write_bytes(changed[: draws.choice((len(data), draws.randrange(len(data))))])
        with contextlib.suppress(archives.Refused, OSError):
            archives.unpack(place / "x.zip", place, LIMIT)
        assert [path.name for path in place.parent.iterdir()] == ["inner"]


# The command


@pytest.fixture
def call(call: Call) -> Call:
    """`call(URL, "-o", folder)` runs `fetch`."""
    return partial(call, "fetch")


def test_the_command_says_what_it_wrote(server: Server, folder: Path, call: Call) -> None:
    url = server.at("/yeast.zip", answer(ZIP))
    status, out, err = call(url, "-o", folder)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"file     {folder}/yeast.zip, {len(ZIP)} bytes",
        f"sha256   {sha256(ZIP)}",
        "unpacked 4 files, 4 of them new: images/, masks/, read me.txt",
        f"{folder}",
    ]
    status, out, err = call(url, "-o", folder, "--sha256", sha256(ZIP))
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"file     {folder}/yeast.zip, {len(ZIP)} bytes, already there",
        f"sha256   {sha256(ZIP)}, as expected",
        "unpacked 4 files, 0 of them new: images/, masks/, read me.txt",
        f"{folder}",
    ]
    _, out, _ = call(server.at("/x.tif", answer(PICTURE)), "-o", folder)
    assert out.splitlines()[-1] == f"{folder}/x.tif"


def test_many_names_are_not_all_said(server: Server, folder: Path, call: Call) -> None:
    body = zipped(*((f"{number:03}.png", b"") for number in range(9)))
    _, out, _ = call(server.at("/x.zip", answer(body)), "-o", folder)
    assert out.splitlines()[2].endswith(": 000.png, 001.png, 002.png, 003.png, 004.png, 005.png, 006.png, 007.png, …")


@pytest.mark.parametrize(("digest", "status"), [("12", INPUT_WRONG), ("0" * 64, RUN_FAILED)])
def test_the_command_fails_in_a_line(server: Server, folder: Path, call: Call, digest: str, status: int) -> None:
    found, out, err = call(server.at("/yeast.zip", answer(ZIP)), "-o", folder, "--sha256", digest)
    assert (found, out, err.count("\n")) == (status, "", 1)
    assert contents(folder) == MINE


def test_a_bar_is_drawn_on_a_terminal_alone(server: Server, folder: Path) -> None:
    url = server.at("/x.tif", answer(PICTURE))
    outer, inner = os.openpty()
    try:
        command = [sys.executable, "-m", "yeastexp", "fetch", url, "-o", str(folder)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=inner, text=True, check=True, env=environment)
        assert done.stdout.splitlines()[-1] == f"{folder}/x.tif"
        assert b"1.0/1.0 kB" in os.read(outer, 10_000)
    finally:
        os.close(outer)
        os.close(inner)


def test_a_command_that_is_interrupted_leaves_nothing(server: Server, folder: Path) -> None:
    def route(request: loopback.Handler) -> None:
        answer(ZIP[:200], length=len(ZIP))(request)
        request.wfile.flush()
        running.send_signal(signal.SIGINT)
        running.wait()

    command = [sys.executable, "-m", "yeastexp", "fetch", server.at("/yeast.zip", route), "-o", str(folder)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.strip()) == (130, "", "interrupted")
    assert contents(folder) == MINE
