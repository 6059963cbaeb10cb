"""A TCP relay that counts the bytes in each direction."""

import socket
import threading
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

_CHUNK_BYTES: Final = 1 << 16


class Traffic(msgspec.Struct, frozen=True):
    """Bytes of TCP payload. `sent`: from the side that connected."""

    sent: int
    received: int


class Relay:
    """Forwards connections from its own port to another port, until `stack` closes.

    Bytes are counted before they are forwarded, so an answer that a client has received is counted. It uses threads,
    because nothing is timed while it runs.
    """

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._sent = self._received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        stack.callback(self._close)
        threading.Thread(target=self._accept, daemon=True).start()

    def traffic(self) -> Traffic:
        with self._lock:
            return Traffic(self._sent, self._received)

    def _close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts connections
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(*ends, ends[0] is near), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                with self._lock:
                    if is_sent:
                        self._sent += len(data)
                    else:
                        self._received += len(data)
                target.sendall(data)
        for end in (source, target):  # when one side ends, both ends are closed, as PostgreSQL does
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
