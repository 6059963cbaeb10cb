"""A client in its own process, so that it can be stopped at any moment. It appends to a list under a lock.

    python appender.py SETTINGS

In each round it acquires the lock, reads the list, writes the whole list with one more element, and releases the lock.
The write names the lease but no revision, so only the fence prevents two holders from overwriting each other. Each
answer is a line of JSON on standard output (`locks.Event`). It uses the standard library only, and as few imports as
possible, because dozens of these processes share a processor: `http.client` alone would take half of a client's start.
"""

import ctypes
import json
import os
import random
import signal
import socket
import sys
import time
from typing import Any

ANSWER_SECONDS = 30.0
RECONNECT_SECONDS = 0.02
END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2). Otherwise a client that is stopped when its parent dies would remain for ever."""

Answer = tuple[int | None, Any]
"""Status and body; None if the connection ended before the answer."""


class Connection:
    """A kept connection to the service, with one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), ANSWER_SECONDS)
        self._received = self._socket.makefile("rb")
        self.has_ended = False

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body. Raises OSError if the connection ends before the answer is complete."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{fields}\r\n"
        self._socket.sendall(head.encode() + body)
        status = self._line().split()[1]
        size = None
        while line := self._line():
            name, _, value = line.lower().partition(b": ")
            if name == b"content-length":
                size = int(value)
            elif name == b"connection" and value == b"close":
                self.has_ended = True
        assert size is not None, "an answer without a length"
        answer = self._received.read(size)
        if len(answer) < size:
            raise ConnectionError("the connection has ended within a body")
        if self.has_ended:
            self.close()
        return int(status), answer

    def _line(self) -> bytes:
        line = self._received.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection has ended within a head")
        return line[:-2]

    def close(self) -> None:
        self._received.close()
        self._socket.close()


class Appender:
    """A client with these `settings`: `service`, a file with the address of the service; `over`, a file whose
    existence ends the client after its round; `lock`; `name`; `ttl` and `wait`; `dwell`, the shortest and the longest
    pause between reading and writing; `renews`, the probability of a renewal before the write; `rounds`, their number
    or null; `seed`; `may_be_unavailable`: whether an answer 503 is allowed, and counts as none.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._rng = random.Random(settings["seed"])
        self._lock = f"/locks/{settings['lock']}"
        self._list = f"/kv/{settings['lock']}"
        self._connection: Connection | None = None

    def run(self) -> None:
        number = 0
        while number != self._settings["rounds"] and not os.path.exists(self._settings["over"]):  # noqa: PTH110
            number += 1
            self._append(f"{self._settings['name']}.{number}")

    def _append(self, element: str) -> None:
        status, lease = self._ask("grant", "POST", self._lock, {n: self._settings[n] for n in ("ttl", "wait")})
        if status != 201:
            return
        names = {"lease_id": lease["lease_id"]}
        before = self._read()
        time.sleep(self._rng.uniform(*self._settings["dwell"]))
        if self._rng.random() < self._settings["renews"]:
            self._ask("renewal", "PUT", self._lock, names, token=lease["token"])
        self._ask("write", "PUT", self._list, [*before, element], lease=lease, element=element)
        self._ask("release", "DELETE", self._lock, names, token=lease["token"])

    def _read(self) -> list[str]:
        while True:
            status, value = self._answer("GET", f"{self._list}?raw", None, {})
            if status is not None:
                return value if status == 200 else []

    def _ask(
        self, kind: str, method: str, path: str, body: object, *, lease: Any = None, token: int = 0, element: str = ""
    ) -> Answer:
        """Send a request and report the outcome. A request of a holder is repeated until it gets an answer.

        Repeating it has no further effect while the lease is alive.
        """
        status, answer = self._ask_once(kind, method, path, body, lease=lease, token=token, element=element)
        while status is None and kind != "grant":
            status, answer = self._ask_once(kind, method, path, body, lease=lease, token=token, element=element)
        return status, answer

    def _ask_once(
        self, kind: str, method: str, path: str, body: object, *, lease: Any, token: int, element: str
    ) -> Answer:
        headers = {} if lease is None else {"If-Lease": lease["lease_id"], "Prefer": "return=minimal"}
        sent, sent_wall = time.monotonic(), time.time_ns() // 1000
        status, answer = self._answer(method, path, json.dumps(body).encode(), headers)
        told = {
            "kind": kind,
            "client": self._settings["name"],
            "lock": self._settings["lock"],
            "sent": sent,
            "answered": time.monotonic(),
            "sent_wall": sent_wall,
            "answered_wall": time.time_ns() // 1000,
            "status": status,
            "token": token if lease is None else lease["token"],
            "element": element,
        }
        if isinstance(answer, dict):
            wanted = ("token", "acquired_at", "expires_at", "updated_at", "revision", "error")
            told |= {name: answer[name] for name in wanted if name in answer}
        os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")
        return status, answer

    def _answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        try:
            if self._connection is None:
                with open(self._settings["service"]) as place:  # noqa: PTH123
                    host, port = place.read().split()
                self._connection = Connection(host, int(port))
            status, text = self._connection.ask(method, path, body or b"", headers)
            if self._connection.has_ended:
                self._connection = None
            answer = json.loads(text)
            if status == 503 and self._settings["may_be_unavailable"]:
                time.sleep(RECONNECT_SECONDS)
                return None, None
            return status, answer
        except OSError:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            time.sleep(RECONNECT_SECONDS)
            return None, None


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGKILL)
    Appender(json.loads(sys.argv[1])).run()
