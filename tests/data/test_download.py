"""A file from the web, from a server that breaks off, lies and redirects."""

from __future__ import annotations

import fcntl
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import loopback
import pytest
import urllib3
from loopback import Server, answer, chunked, ranged, redirect

from yeastexp.data import download
from yeastexp.data.download import Advance, Download, Version, claimed, file_name, refuse_address, shown
from yeastexp.errors import INPUT_WRONG, RUN_FAILED, UserError

BODY = bytes(range(256)) * 1000
LIMIT = 10**6


def get(url: str, folder: Path, limit: int = LIMIT) -> tuple[bytes, list[str]]:
    """The bytes of an address, and what was said on the way; they stay in the folder as a part."""
    said: list[str] = []
    with claimed(folder / "x", url) as part:
        Download(url, part, limit, say=said.append).run()
        data = part.path.read_bytes()
        assert part.version().size == len(data)
    return data, [line.removeprefix(f"{shown(url)}: ") for line in said]


def refused(url: str, folder: Path, limit: int = LIMIT) -> str:
    """The one line that a download ends in, without the address before it."""
    with pytest.raises(UserError) as caught:
        get(url, folder, limit)
    (line,) = caught.value.faults
    assert caught.value.status == RUN_FAILED
    assert line.startswith(f"{shown(url)}: ")
    return line.removeprefix(f"{shown(url)}: ")


@pytest.mark.parametrize("route", [answer(BODY), chunked(BODY), ranged(BODY, ETag='"1"')])
def test_a_file_comes_whole(server: Server, tmp_path: Path, route: loopback.Route) -> None:
    assert get(server.at("/x", route), tmp_path) == (BODY, [])
    assert server.asked("Range") == [None] and server.asked("Accept-Encoding") == ["identity"]


def test_an_empty_file_comes_and_leaves_no_part(server: Server, tmp_path: Path) -> None:
    assert get(server.at("/x", answer(b"")), tmp_path) == (b"", [])
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_those_that_were_sent(server: Server, tmp_path: Path) -> None:
    route = answer(b"\x1f\x8b not even gzip", Content_Encoding="gzip")
    assert get(server.at("/x", route), tmp_path)[0] == b"\x1f\x8b not even gzip"


@pytest.mark.parametrize("mark", [{"ETag": '"1"'}, {"Last_Modified": "Tue, 01 Jul 2025 10:00:00 GMT"}])
def test_a_broken_download_continues(server: Server, tmp_path: Path, mark: dict[str, str]) -> None:
    url = server.at("/x", ranged(BODY, 100_000, **mark), ranged(BODY, 50_000, **mark), ranged(BODY, **mark))
    data, said = get(url, tmp_path)
    assert data == BODY
    assert said == [
        "the connection broke off; trying again",
        "continues after 100 kB",
        "the connection broke off; trying again",
        "continues after 150 kB",
    ]
    assert server.asked("Range") == [None, "bytes=100000-", "bytes=150000-"]
    assert server.asked("If-Range") == [None, *mark.values(), *mark.values()]


def test_another_command_continues(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", ranged(BODY, 100_000, ETag='"1"'), answer(b"", status=503))
    fault = "the server answered 503 Service Unavailable (5 attempts); 100 kB of 256 kB are there, "
    assert refused(url, tmp_path) == fault + "and the same command continues"
    assert len(server.requests) == 5
    server.requests.clear()
    server.at("/x", ranged(BODY, ETag='"1"'))
    assert get(url, tmp_path) == (BODY, ["continues after 100 kB"])
    assert server.asked("Range") == ["bytes=100000-"]


def test_a_whole_part_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    for route in (answer(BODY), chunked(BODY)):
        server.requests.clear()
        url = server.at("/x", route)
        assert get(url, tmp_path)[0] == get(url, tmp_path)[0] == BODY
        assert len(server.requests) <= 1


def test_addresses_have_parts_of_their_own(server: Server, tmp_path: Path) -> None:
    first, second = server.at("/a", answer(b"a")), server.at("/b", answer(b"b"))
    assert get(first, tmp_path)[0] == b"a"
    assert get(second, tmp_path)[0] == b"b"


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(ranged(BODY[::-1], ETag='"2"'), id="changed, and sent whole"),
        pytest.param(answer(BODY[::-1]), id="ranges ignored"),
    ],
)
def test_what_changed_starts_afresh(server: Server, tmp_path: Path, then: loopback.Route) -> None:
    url = server.at("/x", ranged(BODY, 100_000, ETag='"1"'), then)
    assert get(url, tmp_path) == (BODY[::-1], ["the connection broke off; trying again"])
    assert server.asked("If-Range") == [None, '"1"']


TAIL = BODY[100_000:]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(answer(TAIL, status=206, Content_Range="bytes 100000-255999/256000", ETag='"2"'), id="etag"),
        pytest.param(answer(TAIL, status=206, Content_Range="bytes 100000-255999/256001"), id="size"),
        pytest.param(answer(TAIL, status=206, Content_Range="bytes 99999-255998/256000"), id="place"),
        pytest.param(answer(TAIL, status=206, Content_Range="bytes nonsense"), id="nonsense"),
        pytest.param(answer(TAIL, status=206), id="nothing"),
        pytest.param(answer(b"", status=416, Content_Range="bytes */5"), id="shorter"),
    ],
)
def test_a_piece_that_does_not_fit_is_not_added(server: Server, tmp_path: Path, then: loopback.Route) -> None:
    url = server.at("/x", ranged(BODY, 100_000, ETag='"1"'), then, answer(BODY[::-1]))
    data, said = get(url, tmp_path)
    assert data == BODY[::-1]
    assert said[1:] == ["what is there fits the server's file no more; trying again"]
    assert server.asked("Range") == [None, "bytes=100000-", None]


@pytest.mark.parametrize("marks", [{}, {"ETag": 'W/"1"'}])
def test_without_a_mark_nothing_is_added(server: Server, tmp_path: Path, marks: dict[str, str]) -> None:
    url = server.at("/x", ranged(BODY, 100_000, **marks))
    fault = "the connection broke off (5 attempts); 100 kB of 256 kB came, but nothing tells their version: "
    assert refused(url, tmp_path) == fault + "the same command begins again"
    assert server.asked("Range") == [None] * 5
    server.at("/x", answer(BODY[::-1]))
    assert get(url, tmp_path)[0] == BODY[::-1]


def test_a_spoilt_note_starts_afresh(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", ranged(BODY, 100_000, ETag='"1"'))
    refused(server.at("/x", ranged(BODY, 100_000, ETag='"1"'), answer(b"", status=404)), tmp_path)
    (note,) = tmp_path.glob(".*.json")
    assert json.loads(note.read_text()) == {"size": 256_000, "etag": '"1"', "modified": None}
    note.write_text("{")
    server.at("/x", answer(BODY))
    assert get(url, tmp_path)[0] == BODY
    assert server.asked("Range")[-1] is None


def test_less_than_announced_is_an_error(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", answer(BODY, length=len(BODY) + 1))
    fault = "the connection broke off (5 attempts); 256 kB of 256 kB came, but nothing tells their version: "
    assert refused(url, tmp_path) == fault + "the same command begins again"


def test_a_chunk_less_is_an_error(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", chunked(BODY, whole=False))
    assert refused(url, tmp_path).startswith("the connection broke off (5 attempts); 256 kB came, but")


def test_a_piece_that_is_less_than_announced_is_followed_by_the_next(server: Server, tmp_path: Path) -> None:
    first = answer(BODY[10:20], status=206, Content_Range="bytes 10-19/256000")
    url = server.at("/x", ranged(BODY, 10, ETag='"1"'), first, ranged(BODY, ETag='"1"'))
    data, said = get(url, tmp_path)
    assert data == BODY
    assert said[2] == "the server sent less than it announced; trying again"
    assert server.asked("Range") == [None, "bytes=10-", "bytes=20-"]


def test_more_than_announced_is_an_error(server: Server, tmp_path: Path) -> None:
    more = chunked(TAIL + b"more", status=206, Content_Range="bytes 100000-255999/256000")
    url = server.at("/x", answer(b"", status=503), *[ranged(BODY, 100_000, ETag='"1"'), more] * 2)
    fault = "the server sent more than the 256 kB that it announced (5 attempts); nothing came; "
    assert refused(url, tmp_path) == fault + "the same command tries again"
    assert list(tmp_path.iterdir()) == []


def test_a_body_ends_where_its_announced_length_does(server: Server, tmp_path: Path) -> None:
    """What HTTP says; that the rest is missing shows in the digest or in the archive."""
    assert get(server.at("/x", answer(BODY, length=1000)), tmp_path)[0] == BODY[:1000]


@pytest.mark.parametrize("length", ["-5", "many", "1e3", "²"])
def test_a_length_that_is_no_number_is_none(server: Server, tmp_path: Path, length: str) -> None:
    def route(request: loopback.Handler) -> None:
        request.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nbody".encode())

    assert get(server.at("/x", route), tmp_path)[0] == b"body"


@pytest.mark.parametrize("route", [answer(BODY), chunked(BODY), answer(b"", length=256_000)])
def test_what_is_too_large_is_not_taken(server: Server, tmp_path: Path, route: loopback.Route) -> None:
    url = server.at("/x", route)
    assert refused(url, tmp_path, 255_999) == "has more than 256 kB; --max-size allows more"
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


def test_a_part_that_is_too_large_is_not_kept(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", answer(BODY))
    get(url, tmp_path)
    assert refused(url, tmp_path, 1000) == "has more than 1 kB; --max-size allows more"
    assert list(tmp_path.iterdir()) == []


def test_attempts_end(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "WAIT", 0.5)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    url = server.at("/x", ranged(BODY, 0, ETag='"1"'))
    fault = "the connection broke off (5 attempts); nothing came; the same command tries again"
    assert refused(url, tmp_path) == fault
    assert waits == [0.5, 1, 2, 4]
    assert list(tmp_path.iterdir()) == []


def test_attempts_that_bring_much_do_not_count(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHEERING", 20_000)
    assert get(server.at("/x", ranged(BODY, 20_000, ETag='"1"')), tmp_path)[0] == BODY
    assert len(server.requests) == 13
    server.requests.clear()
    refused(server.at("/y", ranged(BODY, 19_999, ETag='"1"')), tmp_path)
    assert len(server.requests) == 5


def test_attempts_that_always_start_afresh_end(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "CHEERING", 20_000)
    refused(server.at("/x", answer(BODY[:100_000], length=len(BODY), ETag='"1"')), tmp_path)
    assert len(server.requests) <= 6


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (404, "the server answered 404 Not Found; check the address"),
        (410, "the server answered 410 Gone; check the address"),
        (401, "the server answered 401 Unauthorized; it may need a login, or another link for downloads"),
        (403, "the server answered 403 Forbidden; it may need a login, or another link for downloads"),
        (204, "the server answered 204 No Content; check the address"),
        (206, "the server answered 206 Partial Content; check the address"),
        (304, "the server answered 304 Not Modified; check the address"),
        (416, "the server answered 416 Requested Range Not Satisfiable; check the address"),
        (501, "the server answered 501 Not Implemented; check the address"),
        (799, "the server answered 799; check the address"),
    ],
)
def test_other_answers_end_it(server: Server, tmp_path: Path, status: int, fault: str) -> None:
    assert refused(server.at("/x", answer(b"\x1b[2J", status=status)), tmp_path) == fault
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", sorted(download.PASSING))
def test_answers_that_pass_are_waited_out(server: Server, tmp_path: Path, status: int) -> None:
    data, said = get(server.at("/x", answer(b"busy", status=status), answer(BODY)), tmp_path)
    assert data == BODY
    assert len(said) == 1 and said[0].startswith(f"the server answered {status} ")


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 60),
        ("Wed, 21 Oct 2015 07:26:00 GMT", 0),
        ("0.5", 0),
        ("soon", 0),
        ("-3", 0),
        ("9" * 5_000, 0),
    ],
)
def test_a_server_is_left_alone_as_long_as_it_asks(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, seconds: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    monkeypatch.setattr(urllib3.util.retry, "time", SimpleNamespace(time=lambda: 1_445_412_420.0))  # at 07:27
    url = server.at("/x", answer(b"busy", status=503, Retry_After=asked), answer(BODY))
    data, said = get(url, tmp_path)
    assert data == BODY
    assert [wait for wait in waits if wait] == [seconds] * bool(seconds)
    asks = f" and asks to wait {seconds} s" if seconds else ""
    assert said == [f"the server answered 503 Service Unavailable{asks}; trying again"]


def test_a_server_that_asks_for_too_much_is_left_to_the_user(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", answer(b"busy", status=429, Retry_After="121"))
    fault = "the server answered 429 Too Many Requests and asks to wait 121 s (1 attempt); nothing came"
    assert refused(url, tmp_path) == f"{fault}; the same command tries again"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, tmp_path: Path, status: int) -> None:
    server.at("/b/y", answer(BODY))
    url = server.at("/a/x", redirect("../b/y?key=1#part", status, b"not to be read"))
    assert get(url, tmp_path) == (BODY, [])
    assert [path for path, _ in server.requests] == ["/a/x", "/b/y?key=1"]


def test_a_broken_download_continues_behind_a_redirect(server: Server, tmp_path: Path) -> None:
    server.at("/y", ranged(BODY, 100_000, ETag='"1"'), ranged(BODY, ETag='"1"'))
    assert get(server.at("/x", redirect("/y")), tmp_path)[0] == BODY
    assert server.asked("Range") == [None, None, "bytes=100000-", "bytes=100000-"]


@pytest.mark.parametrize(("redirects", "good"), [(10, True), (11, False)])
def test_redirects_end(server: Server, tmp_path: Path, redirects: int, good: bool) -> None:
    url = server.at("/x", *[redirect("/x")] * redirects, answer(BODY))
    if good:
        assert get(url, tmp_path)[0] == BODY
    else:
        assert refused(url, tmp_path) == "redirects more than 10 times; check the address"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://host/x", "data:,x", "http://[", "http://host:99999/"]
)
def test_redirects_out_of_the_web_are_refused(server: Server, tmp_path: Path, location: str) -> None:
    url = server.at("/x", redirect(location))
    assert refused(url, tmp_path) == f"redirects to {location!r}, which is no address of the web"
    assert list(tmp_path.iterdir()) == []


def test_the_body_of_a_redirect_is_not_read(server: Server, tmp_path: Path) -> None:
    left = threading.Event()

    def route(request: loopback.Handler) -> None:
        answer(b"", status=302, length=10**12, Location="/y")(request)
        try:
            for _ in range(200):
                request.wfile.write(BODY)
        except ConnectionError:
            left.set()

    server.at("/y", answer(BODY))
    assert get(server.at("/x", route), tmp_path)[0] == BODY
    assert left.wait(10)


def test_a_redirect_keeps_its_secrets_and_its_tricks_to_itself(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", redirect("gopher:\x1b[2J\xff"))
    assert refused(url, tmp_path) == "redirects to 'gopher:\\x1b[2Jÿ', which is no address of the web"


def test_a_redirect_out_of_safety_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        download._redirected("https://a.org/x", "http://b.org/y?key=1")
    fault = "redirects to http://b.org/y?…, which is not encrypted; if you trust it, give that address"
    assert caught.value.faults == (f"https://a.org/x: {fault}",)
    assert download._redirected("http://a.org/x", "https://b.org/y") == "https://b.org/y"
    assert download._redirected("https://a.org/x", "//b.org/größe") == "https://b.org/größe"
    assert download._redirected("https://a.org/x", "/größe".encode().decode("latin-1")) == "https://a.org/größe"


def test_nobody_there(server: Server, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    fault = "no connection (Connection refused) (5 attempts); nothing came; the same command tries again"
    assert refused(url, tmp_path) == fault


def test_a_silent_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.05))
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/x"
        assert refused(url, tmp_path).startswith("the server does not answer (1 attempt); nothing came")


def test_a_server_that_falls_silent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", (1, 0.1))

    def route(request: loopback.Handler) -> None:
        ranged(BODY, 100_000, ETag='"1"')(request)
        request.rfile.read(1)  # until the other side gives up

    data, said = get(server.at("/x", route, ranged(BODY, ETag='"1"')), tmp_path)
    assert data == BODY
    assert said[0] == "the server fell silent; trying again"
    assert said[1].startswith("continues after ")


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n"])
def test_no_http(server: Server, tmp_path: Path, reply: bytes) -> None:
    url = server.at("/x", lambda request: request.wfile.write(reply) and None)
    line = refused(url, tmp_path)
    assert line.startswith("no connection (")
    assert line.endswith("(5 attempts); nothing came; the same command tries again")


def test_no_safe_connection(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", answer(BODY)).replace("http:", "https:")
    line = refused(url, tmp_path)
    assert line.startswith("no safe connection (")
    assert line.endswith("check the address, and this computer's clock and certificates")


def test_a_proxy_of_the_environment_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["http://yeast.invalid/x"] = answer(BODY)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert get("http://yeast.invalid/x", tmp_path)[0] == BODY


def test_one_command_at_a_time(server: Server, tmp_path: Path) -> None:
    url = server.at("/x", answer(BODY))
    with claimed(tmp_path / "x", url) as part, pytest.raises(UserError) as caught:
        get(url, tmp_path)
    fault = f"{part.path}: another command is fetching it; wait until that one has ended"
    assert (caught.value.faults, caught.value.status) == ((fault,), INPUT_WRONG)


def test_a_file_system_without_locks_will_do(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert get(server.at("/x", answer(BODY)), tmp_path)[0] == BODY


def test_progress(server: Server, tmp_path: Path) -> None:
    shown_to_people: list[list[int | None]] = []

    @contextmanager
    def progress(total: int | None, there: int) -> Iterator[Advance]:
        shown_to_people.append([total, there])
        yield shown_to_people[-1].append

    url = server.at("/x", ranged(BODY, 100_000, ETag='"1"'), ranged(BODY, ETag='"1"'))
    with claimed(tmp_path / "x", url) as part:
        Download(url, part, LIMIT, progress).run()
    assert [pieces[:2] for pieces in shown_to_people] == [[256_000, 0], [256_000, 100_000]]
    assert [sum(filter(None, pieces[2:])) for pieces in shown_to_people] == [100_000, 156_000]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/b/yeast.zip", "yeast.zip"),
        ("https://a.org/b/yeast.zip?download=1#x", "yeast.zip"),
        ("https://a.org/files/1234", "1234"),
        ("https://a.org/b/", "b"),
        ("https://a.org", "download"),
        ("https://a.org/", "download"),
        ("https://a.org/..", "download"),
        ("https://a.org/%2e%2e", "download"),
        ("https://a.org/%2e%2e%2fevil", "evil"),
        ("https://a.org/%2Fetc%2Fpasswd", "passwd"),
        ("https://a.org/..%5Cevil", "_evil"),
        ("https://a.org/.bashrc", "bashrc"),
        ("https://a.org/a%00b%0a%1b.zip", "a_b__.zip"),
        ("https://a.org/C:evil", "C_evil"),
        ("https://a.org/my%20cells%20(2).tif", "my cells (2).tif"),
        ("https://a.org/Gr%C3%B6%C3%9Fe.tif", "Größe.tif"),
        ("https://a.org/" + "x" * 300 + ".zip", "x" * 146 + ".zip"),
        ("https://a.org/" + "é" * 300 + ".zip", "é" * 73 + ".zip"),
    ],
)
def test_file_names_are_harmless(url: str, name: str) -> None:
    assert file_name(url) == name
    assert len(f".{name}.{'0' * 12}.unpacked".encode()) < 255


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://a.org:80/b.zip", "https://a.org:80/b.zip"),
        ("https://name:password@a.org/b.zip?key=secret#x", "https://a.org/b.zip?…"),
        ("https://a.org/\x1b[2J", "https://a.org/�[2J"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize(
    "url",
    [
        "yeast.zip",
        "/data/yeast.zip",
        "file:///etc/passwd",
        "ftp://a.org/x",
        "data:,x",
        "javascript:1",
        "http://",
        "http:///x",
        "http://[",
        "http://a.org:99999/",
        "http://a.org/\udcff",
        "",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_address(url)
    assert caught.value.faults == (f"{url!r}: is no address of the web; it should begin with https:// or http://",)
    assert caught.value.status == INPUT_WRONG


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "*", "é" * 70])
def test_hosts_that_cannot_be_are_refused(server: Server, tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError):
        get(f"http://{host}/x", tmp_path)


def test_versions() -> None:
    assert Version(etag='"1"', modified="now").mark == '"1"'
    assert Version(etag='W/"1"', modified="now").mark == "now"
    assert Version(etag='W/"1"').mark is None
    assert Version(5, '"1"').agrees(Version(None, '"1"', "now"))
    assert Version().agrees(Version(5))
    for other in (Version(6, '"1"'), Version(5, '"2"'), Version(5, None, "then")):
        assert not Version(5, '"1"', "now").agrees(other)
