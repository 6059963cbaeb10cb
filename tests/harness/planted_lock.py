"""`leasehold` whose `lock` has a planted bug that the harness must detect. LEASEHOLD_TEST_BUG names one of `BUGS`."""

import os
import signal
from collections.abc import Callable
from typing import Final

from leasehold.cli import app as cli
from leasehold.process import guard
from leasehold.process.guard_schedule import Schedule


def end_nothing() -> None:
    """The end of the lease does not end the command."""
    Schedule.due = lambda self, _now: (self, ())  # type: ignore[method-assign,assignment]


def end_only_the_first_process() -> None:
    """Signals go to the first process of the command, and not to its group."""

    def send(self: guard.Guard, number: int) -> None:
        if self._exit_code is None:
            os.kill(self._group, number)

    guard.Guard._send = send  # type: ignore[method-assign]
    guard.Guard._exists = lambda self: self._exit_code is None  # type: ignore[method-assign]


def only_ask() -> None:
    """SIGKILL is never sent."""
    due = Schedule.due

    def asking(self: Schedule, now: float) -> object:
        after, signals = due(self, now)
        return after, [number for number in signals if number != signal.SIGKILL]

    Schedule.due = asking  # type: ignore[method-assign,assignment]


def stay_in_the_group() -> None:
    """The guard is in the process group of its parent, so it is stopped with it."""

    class Os:
        def __getattr__(self, name: str) -> object:
            return (lambda *_: None) if name == "setpgid" else getattr(os, name)

    guard.os = Os()  # type: ignore[assignment,attr-defined]


def end_with_the_parent() -> None:
    """The guard ends when its parent does, without a look at the command."""
    obey = guard.Guard._obey

    def obey_or_end(self: guard.Guard) -> None:
        obey(self)
        if self._orders.is_over:
            os._exit(0)

    guard.Guard._obey = obey_or_end  # type: ignore[method-assign]


def count_from_the_command() -> None:
    """The guard counts the ttl from its own start and from each renewal that it hears of, a ttl too long."""
    of_lease = Schedule.of_lease
    Schedule.of_lease = classmethod(  # type: ignore[assignment,method-assign]
        lambda _cls, deadline, ttl, grace=None, **rest: of_lease(deadline + ttl, ttl, grace, **rest)
    )
    renewed = Schedule.renewed
    Schedule.renewed = lambda self, deadline: renewed(  # type: ignore[method-assign]
        self, deadline + self.margin_seconds * 10
    )


BUGS: Final[dict[str, Callable[[], None]]] = {
    "the command is not ended": end_nothing,
    "only the first process is ended": end_only_the_first_process,
    "SIGKILL is never sent": only_ask,
    "the guard is stopped with its parent": stay_in_the_group,
    "the guard ends with its parent": end_with_the_parent,
    "the deadline is too late": count_from_the_command,
}


if __name__ == "__main__":
    BUGS[os.environ["LEASEHOLD_TEST_BUG"]]()
    cli.main()
