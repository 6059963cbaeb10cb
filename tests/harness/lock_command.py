"""`leasehold lock` ends its command before the lease is over, whatever happens to it, to the network or to the service.

Several holders run at once, each with a lock and a command of two processes (`beating.py`), half of which ignore
SIGTERM. Then one of `FAULTS` comes to all of them. For each lock, the next holder acquires it from the service itself.
At that moment,

- no process of the first command may run,
- and none may have written after the acquisition: its writes carry no lease, so only the order of revisions judges.

The exit codes must be those that are documented. At the fault "restart" the commands must not notice anything.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from lock_commands import PROGRAM, LockCommand, running_in
from proxy import Proxy, proxy_on_a_thread
from running import Server, free_port, running, until

from harness import Finding

BEATING: Final = str(Path(__file__).with_name("beating.py"))
PLANTED: Final = str(Path(__file__).with_name("planted_lock.py"))
HOLDERS: Final = 4
TTL_SECONDS: Final = 5.0
"""Long enough that a holder seldom loses its lease before the fault, on a busy machine."""
LATEST_FAULT_SECONDS: Final = 1.0
LEASE_LOST: Final = 76
OWN_EXIT_CODE: Final = 5


class Round:
    """A service, a proxy in front of it, and the holders that reach it through the proxy."""

    def __init__(self, server: Server, proxy: Proxy, holders: Sequence[LockCommand], rng: random.Random) -> None:
        """Wait until the commands run and write."""
        self.server = server
        self.proxy = proxy
        self.holders = holders
        self.rng = rng
        self.fences = [int(holder.started().line()) for holder in holders]
        until(lambda: all(self.last_beat(fence) for fence in self.fences))

    # Faults: what happens; and afterwards, once the locks are held by others. Each returns the expected exit code.

    def stop(self) -> None:
        """The holder is stopped past its ttl, together with its process group."""
        self._send_to_groups(signal.SIGSTOP)

    def go_on(self) -> int:
        self._send_to_groups(signal.SIGCONT)
        return LEASE_LOST

    def kill(self) -> None:
        for holder in self.holders:
            holder.send(signal.SIGKILL)

    def was_killed(self) -> int:
        return -signal.SIGKILL

    def cut(self) -> None:
        """The connections of the holder are lost, and there are no new ones."""
        self.proxy.is_open = False
        self.proxy.cut()

    def freeze(self) -> None:
        """The service does not answer, and its connections stay. It goes on when the commands have ended."""
        os.kill(self.server.pid, signal.SIGSTOP)
        self._wait_for_ends()
        os.kill(self.server.pid, signal.SIGCONT)

    def kill_server(self) -> None:
        """The service is away until the commands have ended."""
        self.server.kill()
        self._wait_for_ends()
        self.server.start()

    def was_lost(self) -> int:
        return LEASE_LOST

    def restart(self) -> None:
        """The service is killed and started again, in time for a renewal."""
        self.server.restart()
        self._go_on_beating()

    def was_not_noticed(self) -> int:
        return OWN_EXIT_CODE

    def _send_to_groups(self, number: int) -> None:
        for holder in self.holders:
            if holder.process.poll() is None:
                os.killpg(holder.pid, number)

    def _wait_for_ends(self) -> None:
        until(lambda: all(holder.process.poll() is not None for holder in self.holders))

    def _go_on_beating(self) -> None:
        head = self.server.revision()
        until(lambda: all(self.last_beat(fence) > head for fence in self.fences))

    # What the service knows.

    def last_beat(self, fence: int) -> int:
        """The revision of the last write of a command; 0 if it has written nothing."""
        entries = self.server.request("GET", f"/kv?prefix=beats/{fence}/").json()["entries"]
        return max((entry["revision"] for entry in entries), default=0)


Fault = tuple[Callable[[Round], None], Callable[[Round], int]]
FAULTS: Final[dict[str, Fault]] = {
    "stop": (Round.stop, Round.go_on),
    "kill": (Round.kill, Round.was_killed),
    "cut": (Round.cut, Round.was_lost),
    "freeze": (Round.freeze, Round.was_lost),
    "server": (Round.kill_server, Round.was_lost),
    "restart": (Round.restart, Round.was_not_noticed),
}
LATE_WRITES: Final = ("freeze",)
"""A write that was sent in time lies in the buffer of a service that is stopped, and is done later."""


def end_in_time(
    folder: Path,
    seed: int,
    *,
    faults: Sequence[str] = tuple(FAULTS),
    commands: int = HOLDERS,
    bug: str | None = None,
) -> Finding:
    """Figures: `commands`, and of these `commands that were ended`. `commands`: at each fault, at least two."""
    finding = Finding()
    rng = random.Random(seed)
    for fault in faults:
        with ExitStack() as stack:
            port = stack.enter_context(free_port())
            store, setting = folder / f"{fault}.json", {"LEASEHOLD_PORT": str(port)}
            server = stack.enter_context(running(store, environment=setting))
            proxy = stack.enter_context(proxy_on_a_thread(port))
            holders = [
                stack.enter_context(_holder(server, proxy, number, ttl=_ttl(fault), bug=bug))
                for number in range(commands)
            ]
            for violation in _strike(fault, Round(server, proxy, holders, rng), finding):
                finding.violations.append(f"seed {seed}, {fault}: {violation}")
    return finding


def _ttl(fault: str) -> float:
    """A restart may take long on a busy machine."""
    return 60.0 if fault == "restart" else TTL_SECONDS


def _holder(server: Server, proxy: Proxy, number: int, *, ttl: float, bug: str | None) -> LockCommand:
    command = [sys.executable, BEATING, server.url, *(["stubborn"] if number % 2 else [])]
    return LockCommand(
        f"http://127.0.0.1:{proxy.port}",
        f"lock/{number} --ttl {ttl}",
        command,
        environment={} if bug is None else {"LEASEHOLD_TEST_BUG": bug},
        program=PROGRAM if bug is None else [PLANTED],
    )


def _strike(fault: str, round_: Round, finding: Finding) -> Sequence[str]:
    """What was wrong."""
    count = len(round_.holders)
    finding.figures["commands"] += count
    strike, end = FAULTS[fault]
    time.sleep(round_.rng.uniform(0, LATEST_FAULT_SECONDS))
    had_ended = [holder.process.poll() is not None for holder in round_.holders]
    strike(round_)
    if fault == "restart":
        for holder in round_.holders:
            assert holder.process.stdin is not None
            holder.process.stdin.close()
            holder.process.stdin = None  # `communicate` must not close it again
    else:
        finding.figures["commands that were ended"] += count
    with ThreadPoolExecutor(count) as threads:
        found = list(threads.map(lambda number: _next_holder(round_, number), range(count)))
    violations = []
    for number, (token, left) in enumerate(found):
        if left:
            violations.append(f"{len(left)} processes of holder {number} ran when the lock had another holder")
        if fault not in LATE_WRITES and round_.last_beat(round_.fences[number]) > token:
            violations.append(f"holder {number} wrote when the lock had another holder")
    expected = end(round_)
    if not violations:  # otherwise the commands may run for ever
        for holder, is_early in zip(round_.holders, had_ended, strict=True):
            code, _, errors = holder.end()
            if code != (LEASE_LOST if is_early else expected):
                violations.append(f"exit code {code}, expected {expected}: {errors}")
    return violations


def _next_holder(round_: Round, number: int) -> tuple[int, Sequence[int]]:
    """The token of the next lease on the lock, and the processes of the first holder that run then."""
    lease = round_.server.lease(f"lock/{number}", ttl=60, wait=60)
    left = running_in(round_.holders[number].group)
    token = lease["token"]
    assert isinstance(token, int)
    return token, left
