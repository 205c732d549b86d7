"""A file from the web, checked, and unpacked where it is an archive."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import loopback
import pytest
from loopback import Server, answer, ranged, redirect

from yeastexp.__main__ import main
from yeastexp.data import download, fetch
from yeastexp.errors import INPUT_WRONG, RUN_FAILED, UserError

FILES = {"images/001.png": b"one" * 1000, "images/002.png": b"two", "masks/001.png": b"three"}
PICTURE = b"II*\0" + bytes(1000)


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def linked() -> bytes:
    """A tar archive with a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return file.getvalue()


ZIP = zipped(FILES)


def sha256(data: bytes) -> str:
    """A digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with something in it."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "mine.png").write_bytes(b"mine")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files under a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(url: str, folder: Path, status: int = RUN_FAILED, **options: object) -> list[str]:
    """The lines that it ends in."""
    with pytest.raises(UserError) as caught:
        fetch.fetch(url, folder, **options)
    assert caught.value.status == status
    return list(caught.value.faults)


MINE = {"images/mine.png": b"mine"}


def test_an_archive_is_unpacked_beside_itself(server: Server, folder: Path) -> None:
    done = fetch.fetch(server.at("/yeast.zip", answer(ZIP)), folder, sha256=sha256(ZIP))
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}
    assert (done.file, done.size, done.sha256, done.downloaded) == (folder / "yeast.zip", len(ZIP), sha256(ZIP), True)
    assert done.contents and (len(done.contents.files), done.written) == (3, 3)


def test_an_archive_without_a_suffix_is_one_too(server: Server, folder: Path) -> None:
    fetch.fetch(server.at("/files/1234", answer(ZIP)), folder)
    assert contents(folder) == {**MINE, **FILES, "1234": ZIP}


@pytest.mark.parametrize(("name", "data"), [("cells.tif", PICTURE), ("arrays.npz", ZIP), ("empty", b"")])
def test_another_file_is_kept_as_it_is(server: Server, folder: Path, name: str, data: bytes) -> None:
    route = answer(data, Content_Disposition='attachment; filename="../evil.zip"')
    done = fetch.fetch(server.at(f"/{name}", route), folder)
    assert contents(folder) == {**MINE, name: data}
    assert done.contents is None and done.file == folder / name


def test_the_name_is_that_of_the_address_not_of_the_server(server: Server, folder: Path) -> None:
    server.at("/store/8f3a.zip", answer(PICTURE))
    fetch.fetch(server.at("/cells.tif", redirect("/store/8f3a.zip")), folder)
    assert contents(folder) == {**MINE, "cells.tif": PICTURE}


def test_a_folder_is_made(server: Server, tmp_path: Path) -> None:
    fetch.fetch(server.at("/x.tif", answer(PICTURE)), tmp_path / "a" / "b")
    assert contents(tmp_path) == {"a/b/x.tif": PICTURE}


@pytest.mark.parametrize(
    "digest", [sha256(ZIP), sha256(ZIP).upper(), f" sha256:{sha256(ZIP)}\n"], ids=["plain", "capitals", "prefixed"]
)
def test_what_is_there_is_not_fetched_again(server: Server, folder: Path, digest: str) -> None:
    url = server.at("/yeast.zip", answer(ZIP))
    fetch.fetch(url, folder)
    (folder / "images" / "001.png").unlink()
    done = fetch.fetch(url, folder, sha256=digest)
    assert (done.downloaded, done.written, done.sha256) == (False, 1, sha256(ZIP))
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}
    assert fetch.fetch(url, folder, sha256=digest, force=True).downloaded is False
    assert len(server.requests) == 1


def test_what_is_there_is_not_replaced(server: Server, folder: Path) -> None:
    url, target = server.at("/x.tif", answer(PICTURE)), folder / "x.tif"
    target.write_bytes(b"old")
    assert refused(url, folder, INPUT_WRONG) == [
        f"{target}: exists; --force fetches it again, --sha256 checks whether that is needed"
    ]
    assert refused(url, folder, INPUT_WRONG, sha256=sha256(PICTURE)) == [
        f"{target}: exists with the SHA-256 {sha256(b'old')}, not {sha256(PICTURE)}; --force fetches it again"
    ]
    assert contents(folder) == {**MINE, "x.tif": b"old"} and not server.requests
    fetch.fetch(url, folder, force=True)
    assert contents(folder) == {**MINE, "x.tif": PICTURE}


def test_the_old_file_stays_where_the_new_one_fails(server: Server, folder: Path) -> None:
    (folder / "x.tif").write_bytes(b"old")
    refused(server.at("/x.tif", answer(PICTURE)), folder, sha256="0" * 64, force=True)
    assert contents(folder) == {**MINE, "x.tif": b"old"}


def test_a_folder_in_the_place_of_the_file(server: Server, folder: Path) -> None:
    fault = f"{folder}/images: is a folder; move it away, or change -o"
    assert refused(server.at("/images", answer(PICTURE)), folder, INPUT_WRONG, force=True) == [fault]


def test_a_wrong_digest_leaves_nothing(server: Server, folder: Path) -> None:
    found = refused(server.at("/yeast.zip", answer(ZIP)), folder, sha256="0" * 64)
    assert found == [
        f"{folder}/yeast.zip: came with the SHA-256 {sha256(ZIP)}, not {'0' * 64}, and was removed; "
        "check address and digest"
    ]
    assert contents(folder) == MINE


@pytest.mark.parametrize(
    ("name", "body", "fault"),
    [
        ("x.zip", zipped({"good": b"", "../evil": b""}), "member '../evil' leads out of the folder"),
        ("x.zip", zipped({"X.ZIP": b""}), "member 'X.ZIP' has the name of the download itself"),
        ("x.zip", zipped({"zeros": bytes(10**6)}), "unpacks to more than 100 kB, which --max-size can raise"),
        ("x.zip", b"<html>log in", "is a web page, not an archive: copy the address of the download itself"),
        ("x.zip", ZIP[:-30], "is damaged (File is not a zip file)"),
        ("x.tgz", linked(), "member 'link' is a symbolic link"),
        ("1234", linked(), "member 'link' is a symbolic link"),
    ],
)
def test_an_archive_that_could_do_harm_leaves_nothing(
    server: Server, folder: Path, tmp_path: Path, name: str, body: bytes, fault: str
) -> None:
    url = server.at(f"/{name}", answer(body))
    for place in (folder, tmp_path / "new" / "one"):
        assert refused(url, place, limit=100_000) == [f"{place}/{name}: {fault}; nothing was unpacked"]
    assert contents(folder) == MINE
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_member_may_not_take_the_place_of_what_a_download_needs(server: Server, folder: Path) -> None:
    url = server.at("/x.zip", answer(b""))
    with download.claimed(folder / "x.zip", url) as part:
        names = [part.path.name, part.note.name, f"{part.folder.name}/x", "x.zip/x"]
    for name in names:
        server.at("/x.zip", answer(zipped({name: b"evil"})))
        fault = f"{folder}/x.zip: member {name!r} has the name of the download itself; nothing was unpacked"
        assert refused(url, folder, force=True) == [fault]
    assert contents(folder) == MINE


def test_a_body_cut_by_a_wrong_length_is_noticed(server: Server, folder: Path) -> None:
    url = server.at("/x.zip", answer(ZIP, length=len(ZIP) - 1))
    assert refused(url, folder)[0].startswith(f"{folder}/x.zip: is damaged (")
    found = refused(url, folder, sha256=sha256(ZIP))
    assert found[0].startswith(f"{folder}/x.zip: came with the SHA-256 {sha256(ZIP[:-1])}, not {sha256(ZIP)}, and")
    assert contents(folder) == MINE


def test_a_broken_download_is_kept_and_continues(server: Server, folder: Path) -> None:
    url = server.at("/yeast.zip", ranged(ZIP, 200, ETag='"1"'), answer(b"", status=503))
    (line,) = refused(url, folder)
    assert line.endswith(f"200 bytes of {len(ZIP)} bytes are there, and the same command continues")
    hidden = set(contents(folder)) - set(MINE)
    assert len(hidden) == 2 and all(name.startswith(".yeast.zip.") for name in hidden)
    server.at("/yeast.zip", ranged(ZIP, ETag='"1"'))
    fetch.fetch(url, folder, sha256=sha256(ZIP))
    assert server.asked("Range")[-1] == "bytes=200-"
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}


def test_files_in_the_way_keep_the_download_for_later(server: Server, folder: Path) -> None:
    url = server.at("/yeast.zip", answer(ZIP))
    (folder / "images" / "001.png").write_bytes(b"mine")
    before = contents(folder)
    first, second = refused(url, folder, INPUT_WRONG)
    fault = "exists, and differs from the archive's; --force replaces it, another -o keeps both"
    assert first == f"{folder}/images/001.png: {fault}"
    place, _, rest = second.partition(": ")
    assert rest == "keeps the download; the same command goes on from it"
    assert Path(place).read_bytes() == ZIP
    assert {name: data for name, data in contents(folder).items() if "/." not in f"/{name}"} == before
    fetch.fetch(url, folder, force=True)
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"sha256": "12"}, "--sha256: '12' is no SHA-256; it has 64 hexadecimal digits"),
        ({"sha256": "g" * 64}, f"--sha256: '{'g' * 64}' is no SHA-256; it has 64 hexadecimal digits"),
    ],
)
def test_wrong_digests_are_refused(server: Server, folder: Path, options: dict[str, str], fault: str) -> None:
    assert refused(server.at("/x", answer(PICTURE)), folder, INPUT_WRONG, **options) == [fault]
    assert not server.requests


def test_a_file_is_no_folder(server: Server, folder: Path) -> None:
    mine = folder / "images" / "mine.png"
    found = refused(server.at("/x", answer(PICTURE)), mine, INPUT_WRONG)
    assert found == [f"{mine}: is a file; name a folder"]


def test_other_addresses_are_refused(folder: Path) -> None:
    fault = "'file:///etc/passwd': is no address of the web; it should begin with https:// or http://"
    assert refused("file:///etc/passwd", folder, INPUT_WRONG) == [fault]


def test_a_full_disk_is_a_line_and_keeps_what_came(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(contents: object, directory: Path, *, force: bool) -> int:
        raise OSError(28, os.strerror(28))

    url = server.at("/yeast.zip", answer(ZIP))
    with monkeypatch.context() as context:
        context.setattr(fetch.archives, "put_in_place", full)
        fault = f"{folder}: No space left on device; the same command continues when that is mended"
        assert refused(url, folder) == [fault]
    fetch.fetch(url, folder)
    assert len(server.requests) == 1


def test_a_folder_below_a_file_is_a_line(server: Server, folder: Path) -> None:
    place = folder / "images" / "mine.png" / "x"
    (line,) = refused(server.at("/x", answer(PICTURE)), place)
    assert line == f"{place}: Not a directory; the same command continues when that is mended"


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("1.5 mb", 1_500_000), ("20k", 20_000), ("17", 17), ("17 B", 17), ("2T", 2 * 10**12)],
)
def test_sizes(text: str, size: int) -> None:
    assert fetch.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4 apples", "-4GB", "0", "0GB", "4GiB", "1e9", "nan"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(UserError) as caught:
        fetch.parse_size(text)
    assert caught.value.faults == (f"--max-size: {text!r} is no size; write it as 500MB or 4GB",)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call(URL, "-o", folder)` gives the exit status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["yeastexp", "fetch", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        return status, *capsys.readouterr()

    return run


def test_the_command_says_what_it_wrote(server: Server, folder: Path, call: Call) -> None:
    url = server.at("/yeast.zip", ranged(ZIP, 200, ETag='"1"'), ranged(ZIP, ETag='"1"'))
    status, out, err = call(url, "-o", folder)
    assert (status, err) == (
        0,
        f"{url}: the connection broke off; trying again\n{url}: continues after 200 bytes\n",
    )
    assert out.splitlines() == [
        f"file     {folder}/yeast.zip, {len(ZIP)} bytes",
        f"sha256   {sha256(ZIP)}",
        "unpacked 3 files, 3.01 kB, 3 of them new: images/, masks/",
        f"{folder}",
    ]
    status, out, err = call(url, "-o", folder, "--sha256", sha256(ZIP))
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"file     {folder}/yeast.zip, {len(ZIP)} bytes, was there already",
        f"sha256   {sha256(ZIP)}, as it should be",
        "unpacked 3 files, 3.01 kB, 0 of them new: images/, masks/",
        f"{folder}",
    ]


def test_the_last_line_is_the_file_that_is_no_archive(server: Server, folder: Path, call: Call) -> None:
    status, out, err = call(server.at("/x.tif", answer(PICTURE)), "-o", folder)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"{folder}/x.tif"


def test_many_names_are_not_all_said(server: Server, folder: Path, call: Call) -> None:
    body = zipped({f"{number:03}.png": b"" for number in range(9)})
    _, out, _ = call(server.at("/x.zip", answer(body)), "-o", folder)
    assert out.splitlines()[2].endswith(": 000.png, 001.png, 002.png, 003.png, 004.png, 005.png, 006.png, 007.png, …")


@pytest.mark.parametrize(
    ("options", "status", "fault"),
    [
        (["--max-size", "100"], 1, ": has more than 100 bytes; --max-size allows more"),
        (["--max-size", "much"], 2, "--max-size: 'much' is no size; write it as 500MB or 4GB"),
        (["--sha256", "12"], 2, "--sha256: '12' is no SHA-256; it has 64 hexadecimal digits"),
        (["--sha256", "0" * 64], 1, "and was removed; check address and digest"),
    ],
)
def test_the_command_fails_in_a_line(
    server: Server, folder: Path, call: Call, options: list[str], status: int, fault: str
) -> None:
    found, out, err = call(server.at("/yeast.zip", answer(ZIP)), "-o", folder, *options)
    assert (found, out) == (status, "")
    assert err.endswith(f"{fault}\n") and err.count("\n") == 1
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


def test_a_command_that_was_ended_continues(server: Server, folder: Path) -> None:
    def route(request: loopback.Handler) -> None:
        ranged(ZIP, 200, ETag='"1"')(request)
        request.wfile.flush()
        running.send_signal(signal.SIGINT)
        running.wait()

    url = server.at("/yeast.zip", route, ranged(ZIP, ETag='"1"'))
    command = [sys.executable, "-m", "yeastexp", "fetch", url, "-o", str(folder)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.strip()) == (130, "", "interrupted")
    fetch.fetch(url, folder)
    assert contents(folder) == {**MINE, **FILES, "yeast.zip": ZIP}
