"""An HTTP proxy before a store, which counts requests and bytes and answers wrongly when a test wants it to.

A *fault* is a function that is given each request and how to forward it, and returns the answer. The proxy passes
requests on with their Host header, so that signatures stay valid. It knows of S3 only how a list is asked for.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from msgspec import Struct, structs

from tests.processes import TIMEOUT


class Request(Struct, frozen=True):
    """``range`` is the first byte and the one after the last, None for everything."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path).lstrip("/")

    @property
    def is_list(self) -> bool:
        return "list-type=" in self.target

    @property
    def range(self) -> tuple[int, int] | None:
        _, _, text = self.headers.get("range", "").partition("=")
        first, _, last = text.partition("-")
        return (int(first), int(last) + 1) if first and last else None


class Answer(Struct, frozen=True):
    """The body is sent at ``rate`` bytes a second if that is not 0, and only its first ``cut_after`` bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    rate: float = 0.0
    cut_after: int | None = None


class Exchange(Struct):
    """A request and what was sent of the body of its answer; ``status`` is 0 if there was none."""

    request: Request
    status: int = 0
    sent: int = 0


Forward = Callable[[Request], Answer]
Fault = Callable[[Request, Forward], Answer]


def pass_on(request: Request, forward: Forward) -> Answer:
    """No fault."""
    return forward(request)


def answering(status: int, code: str, message: str) -> Fault:
    """Every request is answered with this error of S3."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    return lambda request, forward: Answer(status, {"Content-Type": "application/xml"}, body)


def with_wrong_bodies(request: Request, forward: Forward) -> Answer:
    """The first byte of a range is another one."""
    answer = forward(request)
    return structs.replace(answer, body=bytes((answer.body[0] ^ 1,)) + answer.body[1:]) if answer.body else answer


def with_short_bodies(request: Request, forward: Forward) -> Answer:
    """The connection is closed after half of a body."""
    answer = forward(request)
    return structs.replace(answer, cut_after=len(answer.body) // 2) if answer.body else answer


def without_ranges(request: Request, forward: Forward) -> Answer:
    """A range is answered as if it were the whole object: the signature does not let the proxy ask for that."""
    answer = forward(request)
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-range"}
    return structs.replace(answer, status=200, headers=headers) if answer.status == 206 else answer


def at_rate(rate: float) -> Fault:
    """Bodies arrive at this many bytes a second."""
    return lambda request, forward: structs.replace(forward(request), rate=rate)


def only_objects(fault: Fault) -> Fault:
    """The fault, but lists are right."""
    return lambda request, forward: forward(request) if request.is_list else fault(request, forward)


class FailingProxy:
    """Forwards HTTP from ``127.0.0.1:port`` to ``127.0.0.1:target``. A context manager.

    Any thread may set ``fault``, which applies to the requests that arrive from then on, and empty ``exchanges``.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.fault: Fault = pass_on
        self.exchanges: list[Exchange] = []
        self._server = _HttpServer(("127.0.0.1", 0), self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hang(self, request: Request, forward: Forward) -> Answer:
        """A fault: no request is answered until another fault is set by ``release()``."""
        self._released.wait()
        return Answer(503, {}, b"")

    def release(self, fault: Fault = pass_on) -> None:
        """Sets another fault, and answers what hangs."""
        self.fault = fault
        self._released.set()

    def go_away(self) -> None:
        """Closes all connections, and refuses others, until ``come_back()``."""
        self._stop()

    def come_back(self) -> None:
        self._server = _HttpServer(("127.0.0.1", self.port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def reads(self, path: str = "") -> list[tuple[int, int] | None]:
        """Returns the ranges that were asked for of the objects whose path ends in ``path``."""
        return [e.request.range for e in self._object_reads() if e.request.path.endswith(path)]

    @property
    def bytes_of_objects(self) -> int:
        """The bytes of objects that were sent."""
        return sum(exchange.sent for exchange in self._object_reads() if exchange.status < 300)

    def _object_reads(self) -> list[Exchange]:
        return [e for e in [*self.exchanges] if e.request.method == "GET" and not e.request.is_list]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._stop()

    def _stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FailingProxy) -> None:
        self.proxy = proxy
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def close_connections(self) -> None:
        for connection in [*self.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    """One connection from a client, and one to the target."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _HttpServer

    def setup(self) -> None:
        self.server.connections.add(self.request)
        self._target = http.client.HTTPConnection("127.0.0.1", self.server.proxy.target, timeout=TIMEOUT)
        super().setup()

    def finish(self) -> None:
        self.server.connections.discard(self.request)
        self._target.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        exchange = Exchange(request)
        proxy.exchanges.append(exchange)
        try:
            answer = proxy.fault(request, lambda wanted: self._forward(wanted, content))
        except (OSError, http.client.HTTPException):
            # The target is away: so is the proxy.
            self.close_connection = True
            return
        exchange.status = answer.status
        self._send(answer, exchange)

    do_HEAD = do_GET  # noqa: N815

    def _forward(self, request: Request, content: bytes) -> Answer:
        target = self._target
        try:
            target.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                target.putheader(name, value)
            target.endheaders(content or None)
            answer = target.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            target.close()
            raise
        hop = {"transfer-encoding", "connection", "keep-alive"}
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in hop}
        return Answer(answer.status, headers, body)

    def _send(self, answer: Answer, exchange: Exchange) -> None:
        self.send_response_only(answer.status)
        is_head = self.command == "HEAD"
        for name, value in answer.headers.items():
            if is_head or name.lower() != "content-length":
                self.send_header(name, value)
        if not is_head:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body[: answer.cut_after]
        if answer.rate:
            for start in range(len(body)):
                self.connection.sendall(body[start : start + 1])
                exchange.sent += 1
                time.sleep(1 / answer.rate)
        else:
            self.connection.sendall(body)
            exchange.sent += len(body)
        if answer.cut_after is not None:
            self.close_connection = True
