"""The longest stall of the event loop, caused by the worst requests that are known (`attacks`)."""

import os
import re
import selectors
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from msgspec.structs import replace

from bench.attacks import Attack, worst_requests
from bench.catching_up import MARKS, catch_up, write_changes
from bench.processes import BenchError
from bench.service import Leasehold
from bench.workload import MIB, http_request
from leasehold.limits import MAX_TRANSACTION_OPERATIONS

_ANSWER_SECONDS: Final = 300.0
"""100 clients share the service, and the probe slows it."""
_LARGE_BYTES: Final = MIB // 8
_TOLD: Final = re.compile(rb"longest turn: ([0-9.]+) ms, ([0-9.]+) ms")
_FEW_CLIENTS: Final = 5
PROCESSOR: Final = 1
"""A `ProbedLeasehold.clock`."""


class ProbedLeasehold(Leasehold):
    """The service with a probe in its event loop. `program`: the command `bench.probe`.

    It runs only while the stalls are measured: its event loop never waits, so it would take a core from other loads.
    """

    clock = 0
    """0: the elapsed time of the longest stall; 1: its processor time."""

    def stalls(self, *, of_many: bool) -> Mapping[str, float]:
        """Stalls in milliseconds, by the name of the attack. `of_many`: those by many clients, not by one.

        An attack by many clients takes up to half a minute. So of those that differ only in their values, the worst one
        is found with few clients, and all clients send only this one.
        """
        with self._started():
            attacks = (attack for attack in worst_requests() if (attack.clients > 1) is of_many)
            if not of_many:
                return self._stalls(attacks)
            forms: dict[str, str] = {}
            by_few: dict[str, float] = {}
            for attack in attacks:
                forms[attack.name] = attack.form or attack.name
                if attack.form:
                    few = replace(attack, clients=min(attack.clients, _FEW_CLIENTS))
                    by_few |= self._stalls([few], PROCESSOR)
            worst = worst_of_each_form(forms, by_few)
            return self._stalls(attack for attack in worst_requests() if attack.name in worst)

    def _stalls(self, attacks: Iterable[Attack], clock: int | None = None) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for attack in attacks:
            self.succeed(self.put("worst", b"0" if attack.value is None else attack.value))
            self._store(attack.entries)
            self._longest_turn()
            self._send(attack)
            found[attack.name] = max(found.get(attack.name, 0.0), self._longest_turn(clock))
            if attack.entries:
                self.succeed(http_request("DELETE", "/kv?prefix=several/", self.headers()))
        return found

    def catch_up_stalls(self) -> Mapping[str, float]:
        """Processor time, in milliseconds, of the longest stall while a watcher catches up, by media type."""
        found = {}
        with self._started():
            cursor = write_changes(self)
            for media in MARKS:
                self._longest_turn()
                catch_up(self, cursor, media)
                found[media] = self._longest_turn(PROCESSOR)
        return found

    @contextmanager
    def _started(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()

    def _store(self, entries: Mapping[str, bytes]) -> None:
        """Store entries, the small ones in transactions: a commit for each would take minutes."""
        puts: list[bytes] = []
        for key, value in entries.items():
            if len(value) > _LARGE_BYTES:
                self.succeed(self.put(key, value))
                continue
            puts.append(b'{"op":"put","key":"%b","value":%b}' % (key.encode(), value))
            if len(puts) == MAX_TRANSACTION_OPERATIONS or sum(map(len, puts)) > MIB - 2 * _LARGE_BYTES:
                self._put(puts)
                puts = []
        if puts:
            self._put(puts)

    def _put(self, puts: Sequence[bytes]) -> None:
        headers = {**self.headers(), "Content-Type": "application/json"}
        self.succeed(http_request("POST", "/txn", headers, b'{"do":[%b]}' % b",".join(puts)))

    def _send(self, attack: Attack) -> None:
        """Send all requests at once and wait for the last answer."""
        requests = [
            http_request(method, target, {**self.headers(), **fields}, body)
            for method, target, fields, body in attack.requests
        ]
        end = http_request("GET", "/health/live", {**self.headers(), "Connection": "close"})
        with ExitStack() as stack:
            address = ("127.0.0.1", self.port)
            connections = [
                stack.enter_context(socket.create_connection(address, timeout=_ANSWER_SECONDS))
                for _ in range(attack.clients)
            ]
            for connection in connections:
                connection.sendall(b"".join([*requests, end]))
            for end_of_answers in _ends(connections, attack.name):
                if not end_of_answers.rstrip().endswith(b"}"):
                    raise BenchError(f"{attack.name}: the connection ended with {end_of_answers[-80:]!r}")

    def _longest_turn(self, clock: int | None = None) -> float:
        log = self.folder / "log"
        before = len(_TOLD.findall(log.read_bytes()))
        os.kill(self._process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            told = _TOLD.findall(log.read_bytes())
            if len(told) > before:
                return float(told[-1][self.clock if clock is None else clock])
            time.sleep(0.001)
        raise BenchError("the probe does not answer")


def worst_of_each_form(forms: Mapping[str, str], stalls: Mapping[str, float]) -> set[str]:
    """The name of the attack with the longest stall of each form. `forms`: of all attacks, by their names."""
    worst: dict[str, str] = {}
    for name, form in forms.items():
        if form not in worst or stalls[name] > stalls[worst[form]]:
            worst[form] = name
    return set(worst.values())


def _ends(connections: Sequence[socket.socket], name: str) -> Sequence[bytes]:
    """The last bytes that each connection has received when the service has closed it.

    All are read side by side, since the service closes a connection whose client does not read.
    """
    ends = [b""] * len(connections)
    with selectors.DefaultSelector() as selector:
        for place, connection in enumerate(connections):
            selector.register(connection, selectors.EVENT_READ, place)
        while selector.get_map():
            ready = selector.select(_ANSWER_SECONDS)
            if not ready:
                raise BenchError(f"{name}: no answer in {_ANSWER_SECONDS:.0f} s")
            for key, _ in ready:
                if part := connections[key.data].recv(MIB):
                    ends[key.data] = (ends[key.data] + part)[-100:]
                else:
                    selector.unregister(key.fileobj)
    return ends
