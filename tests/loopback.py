"""A web server on this machine's loopback that answers as a test tells it to, however wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.requests.append((self.path, self.headers))
        route = self.server.routes.get(self.path.partition("?")[0])
        with suppress(ConnectionError):
            (route or answer(b"", status=404))(self)

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


Route = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """`routes` maps paths to what answers them; `requests` are the paths and headers that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, Message]] = []

    def at(self, path: str, *routes: Route) -> str:
        """The address of a path that is answered by one route after the other, and by the last one from then on."""
        left = list(routes)
        self.routes[path] = lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def asked(self, header: str) -> list[str | None]:
        """What every request said in a header."""
        return [headers[header] for _, headers in self.requests]


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers as long as the block lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def answer(body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> Route:
    """The body with its length, or with another `length`; headers are written with _ for -."""

    def route(request: Handler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return route


def chunked(body: bytes, *, status: int = 200, whole: bool = True, **headers: str) -> Route:
    """The body in one chunk, without a length, or broken off before its end is told."""

    def route(request: Handler) -> None:
        request.send_response(status)
        request.send_header("Transfer-Encoding", "chunked")
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if whole else b""))

    return route


def redirect(location: str, status: int = 302, body: bytes = b"") -> Route:
    """A redirect, maybe with something to read."""
    return answer(body, status=status, Location=location)
