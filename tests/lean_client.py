"""An HTTP client with the requests and responses of httpx, and with connections of its own.

A request takes less than a third of the processor time, because there are no proxies, cookies, redirects or TLS.
Open connections are kept. If several threads send requests, each has a connection of its own meanwhile.
An answer that is not HTTP/1.1 exactly, or is followed by more, is an error: httpx.RemoteProtocolError.
"""

import re
import select
import socket
from collections.abc import Iterator
from typing import Any, Final

import httpx

RECEIVE_BYTES: Final = 65_536
HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)
CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,16})\r\n")
LENGTH: Final = re.compile(rb"[0-9]{1,19}")


class LeanClient(httpx.Client):
    """`timeout`: seconds, for each connect, send and receive."""

    def __init__(self, url: str, *, timeout: float) -> None:
        self._connections = Connections()
        super().__init__(base_url=url, timeout=timeout, transport=self._connections, trust_env=False)

    def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = httpx.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx.USE_CLIENT_DEFAULT,
    ) -> httpx.Response:
        """Send one request. Only if the caller asks for authentication or redirects does httpx do it, perhaps more."""
        is_plain = auth is httpx.USE_CLIENT_DEFAULT and follow_redirects is httpx.USE_CLIENT_DEFAULT
        if not is_plain or self.is_closed:
            return super().send(request, stream=stream, auth=auth, follow_redirects=follow_redirects)
        response = self._connections.handle_request(request)
        response.request = request
        if not stream:
            try:
                response.read()
            except BaseException:
                response.close()
                raise
        return response


class Connections(httpx.BaseTransport):
    """Open connections, by address. Threads may share them: each takes one from a list for a request."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._idle: dict[tuple[str, int], list[Connection]] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        timeouts = request.extensions.get("timeout", {})
        connection = self._taken(request.url, timeouts.get("connect"))
        try:
            connection.set_timeout(timeouts.get("write"))
            is_sent = connection.send(request)
            connection.set_timeout(timeouts.get("read"))
            status, reason, headers = connection.head()
            pieces = connection.body(request.method, status, headers)
        except BaseException:
            self.discard(connection)
            raise
        stays = is_sent and not (_closes(request.headers.raw) or _closes(headers))
        body = Body(self, connection, pieces, stays=stays)
        return httpx.Response(status, headers=headers, stream=body, extensions={"reason_phrase": reason})

    def _taken(self, url: httpx.URL, timeout: float | None) -> "Connection":
        if url.scheme != "http":
            raise httpx.UnsupportedProtocol(f"{url}: only http")
        address = url.host, url.port or 80
        idle = self._idle.setdefault(address, [])
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread took it
                break
            if connection.is_quiet():
                return connection
            self.discard(connection)
        connection = Connection(address, timeout)
        self._open.add(connection)
        return connection

    def keep(self, connection: "Connection") -> None:
        self._idle.setdefault(connection.address, []).append(connection)

    def discard(self, connection: "Connection") -> None:
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        self._idle.clear()
        for connection in list(self._open):
            self.discard(connection)


class Body(httpx.SyncByteStream):
    """The body of a response. At its end, the connection is kept for the next request or closed."""

    def __init__(
        self, connections: Connections, connection: "Connection", pieces: Iterator[bytes], *, stays: bool
    ) -> None:
        self._connections = connections
        self._connection: Connection | None = connection
        self._pieces = pieces
        self._stays = stays
        self._is_complete = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        self._is_complete = True

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not (self._is_complete and self._stays and connection.is_open):
            self._connections.discard(connection)
        elif connection.has_more:
            self._connections.discard(connection)
            raise httpx.RemoteProtocolError("there are bytes after the end of the response")
        else:
            self._connections.keep(connection)


class Connection:
    """One TCP connection, which has one request at a time."""

    def __init__(self, address: tuple[str, int], timeout: float | None) -> None:
        self.address = address
        try:
            self._socket = socket.create_connection(address, timeout)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        self._timeout = timeout
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self.is_open = True

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that nobody has taken."""
        return self._received != b""

    def set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            self._timeout = timeout
            self._socket.settimeout(timeout)

    def is_quiet(self) -> bool:
        """Whether the server has not closed an idle connection."""
        return self.is_open and not self._readable.poll(0)

    def close(self) -> None:
        self.is_open = False
        self._socket.close()

    def send(self, request: httpx.Request) -> bool:
        """The head, and then each part of the body by itself. False if the server receives no more.

        It may have answered before the end of the body.
        """
        lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
        lines += [b"%s: %s" % field for field in request.headers.raw]
        is_chunked = "Transfer-Encoding" in request.headers
        assert isinstance(request.stream, httpx.SyncByteStream)
        try:
            self._socket.sendall(b"\r\n".join([*lines, b"", b""]))
            for part in request.stream:
                if part:
                    self._socket.sendall(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
            if is_chunked:
                self._socket.sendall(b"0\r\n\r\n")
        except TimeoutError as error:
            raise httpx.WriteTimeout(str(error)) from error
        except OSError:
            return False
        return True

    def head(self) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        """Status, reason and headers of the response. Interim responses are skipped."""
        while True:
            while b"\r\n\r\n" not in self._received:
                self._receive("the connection ended before the response")
            head = HEAD.match(self._received)
            if head is None:
                raise httpx.RemoteProtocolError(f"this is no head of a response: {self._received[:1000]!r}")
            self._received = self._received[head.end() :]
            if not head[1].startswith(b"1"):
                fields = [line.split(b":", 1) for line in head[3].split(b"\r\n")[:-1]]
                return int(head[1]), head[2], [(name, value.strip(b"\t ")) for name, value in fields]

    def body(self, method: str, status: int, headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
        codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
        lengths = [value for name, value in headers if name.lower() == b"content-length"]
        if len(codings) + len(lengths) > 1 or codings not in ([], [b"chunked"]):
            raise httpx.RemoteProtocolError(f"the length of the response is not clear: {headers}")
        if not all(map(LENGTH.fullmatch, lengths)):
            raise httpx.RemoteProtocolError(f"no length of a response: {lengths}")
        if method == "HEAD" or status in (204, 304):
            return iter(())
        if codings:
            return self._chunks()
        return self._exactly(int(lengths[0])) if lengths else self._rest()

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            if not self._received:
                self._receive("the connection ended before the response")
            part, self._received = self._received[:size], self._received[size:]
            size -= len(part)
            yield part

    def _chunks(self) -> Iterator[bytes]:
        while True:
            while b"\r\n" not in self._received:
                self._receive("the connection ended before the response")
            size = CHUNK_SIZE.match(self._received)
            if size is None:
                raise httpx.RemoteProtocolError(f"this is no chunk: {self._received[:100]!r}")
            self._received = self._received[size.end() :]
            length = int(size[1], 16)
            yield from self._exactly(length)
            while len(self._received) < 2:
                self._receive("the connection ended before the response")
            if not self._received.startswith(b"\r\n"):
                raise httpx.RemoteProtocolError(f"a chunk does not end like one: {self._received[:100]!r}")
            self._received = self._received[2:]
            if length == 0:
                return

    def _rest(self) -> Iterator[bytes]:
        while self.is_open:
            if self._received:
                part, self._received = self._received, b""
                yield part
            self._receive(None)

    def _receive(self, end: str | None) -> None:
        """Wait for bytes. `end`: what it means if none come any more; None if that is allowed."""
        try:
            received = self._socket.recv(RECEIVE_BYTES)
        except TimeoutError as error:
            raise httpx.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        if received:
            self._received += received
        elif end is None:
            self.is_open = False
        else:
            raise httpx.RemoteProtocolError(end)


def _closes(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"connection" and b"close" in value.lower() for name, value in headers)
