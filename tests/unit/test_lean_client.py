"""The client of the tests keeps connections, and accepts no answer that is not HTTP/1.1 exactly."""

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue

import httpx
import pytest
from lean_client import LeanClient
from running import free_port

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"Content-Length: 0\r\n\r\n"
SECONDS = 60.0


class Serve:
    """`serve(*connections)`: a client of a server that gives these answers on each connection, and then closes it."""

    def __init__(self, stack: ExitStack, pool: ThreadPoolExecutor) -> None:
        self._stack = stack
        self._pool = pool
        self.closed: SimpleQueue[None] = SimpleQueue()
        """Has an item for each connection that the server has closed."""

    def __call__(self, *connections: Sequence[bytes]) -> LeanClient:
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        # A test that fails may never connect. This ends a wait for it.
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        self._pool.submit(self._answer, listener, connections)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return self._stack.enter_context(LeanClient(url, timeout=SECONDS))

    def _answer(self, listener: socket.socket, connections: Sequence[Sequence[bytes]]) -> None:
        for answers in connections:
            connection, _ = listener.accept()
            with connection:
                for each in answers:
                    connection.recv(65_536)
                    connection.sendall(each)
            self.closed.put(None)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        yield Serve(stack, pool)


@pytest.mark.parametrize(
    ("answer", "status", "content"),
    [
        (EMPTY, 200, b""),
        (OK + b"content-length: 2\r\n\r\nab", 200, b"ab"),
        (
            OK + b"A:  b \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n",
            200,
            b"ab0123456789",
        ),
        (OK + b"\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
)
def test_an_answer_is_read(serve: Serve, answer: bytes, status: int, content: bytes) -> None:
    response = serve([answer]).get("/")
    assert (response.status_code, response.content) == (status, content)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        OK + b"A : b\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
        OK + b"A: \0\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: 0",
        OK + b"Content-Length: +2\r\n\r\nab",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Content-Length: 2\r\n\r\na",
        OK + b"Content-Length: 2\r\n\r\nabc",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n{}",
    ],
)
def test_a_malformed_answer_is_an_error(serve: Serve, answer: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        serve([answer]).get("/")


def test_a_connection_is_used_again_and_replaced_after_its_end(serve: Serve) -> None:
    client = serve(
        [EMPTY, OK + b"Content-Length: 1\r\n\r\nb"], [OK + b"Content-Length: 1\r\nConnection: close\r\n\r\nc"]
    )
    assert [client.get("/").text for _ in range(2)] == ["", "b"]
    serve.closed.get(timeout=SECONDS)
    assert client.get("/").text == "c"


def test_a_body_that_is_not_read_to_its_end_closes_the_connection(serve: Serve) -> None:
    client = serve([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"], [EMPTY])
    with client.stream("GET", "/") as response:
        assert next(response.iter_raw()) == b"ab"
    assert client.get("/").status_code == 200


def test_a_port_on_which_nobody_listens_is_an_error() -> None:
    with (
        free_port() as port,
        LeanClient(f"http://127.0.0.1:{port}", timeout=60) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get("/")


def test_an_answer_that_does_not_come_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with LeanClient(url, timeout=0.01) as client, pytest.raises(httpx.ReadTimeout):
            client.get("/")
