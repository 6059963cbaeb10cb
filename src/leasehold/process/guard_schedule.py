"""When a command under a lease is told to end, and when it is killed: pure decisions of the guard (`guard.py`).

    now ──────────── terminate_at ──────────── kill_at ─────────── deadline
         it may run                SIGTERM               SIGKILL             the lease may be over

A renewal moves all three. Times are seconds of `boot_clock`. Each function returns the schedule after an event.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Self

MARGIN_SHARE: Final = 0.1
"""SIGKILL is sent before the deadline by this share of the ttl, at most `MAX_MARGIN_SECONDS`. Processes do not end at
the moment of the signal, and a busy machine may run the guard late."""
MAX_MARGIN_SECONDS: Final = 1.0
GRACE_SHARE: Final = 0.2
"""The time from SIGTERM to SIGKILL as a share of the ttl, at most `MAX_GRACE_SECONDS`. Renewals are sent each third of
the ttl, so this leaves time for several attempts before SIGTERM."""
MAX_GRACE_SECONDS: Final = 5.0
MAX_GIVEN_GRACE_SHARE: Final = 0.5


class Stage(IntEnum):
    """What was sent to the command."""

    RUNS = 0
    TOLD_TO_END = 1
    KILLED = 2


@dataclass(frozen=True)
class Schedule:
    """`is_lost`: it is the end of the lease that ends the command."""

    grace_seconds: float
    margin_seconds: float
    terminate_at: float
    kill_at: float
    stage: Stage = Stage.RUNS
    is_fixed: bool = False
    """Whether renewals change nothing any more: the command is being ended."""
    is_lost: bool = False
    is_nested: bool = False
    """Whether another guard ends the command, too: it runs under a second lock."""

    @classmethod
    def of_lease(
        cls, deadline: float, ttl_seconds: float, grace_seconds: float | None = None, *, is_nested: bool = False
    ) -> Self:
        """`deadline`: until then the lease certainly lasts. A grace of more than half of the ttl is cut to that."""
        margin = min(ttl_seconds * MARGIN_SHARE, MAX_MARGIN_SECONDS)
        if grace_seconds is None:
            grace = min(ttl_seconds * GRACE_SHARE, MAX_GRACE_SECONDS)
        else:
            grace = min(grace_seconds, ttl_seconds * MAX_GIVEN_GRACE_SHARE)
        return cls(grace, margin, deadline - margin - grace, deadline - margin, is_nested=is_nested)

    @property
    def deadline(self) -> float:
        return self.kill_at + self.margin_seconds

    def renewed(self, deadline: float) -> Self:
        """The lease was renewed. It never becomes shorter by that."""
        if self.is_fixed or deadline <= self.deadline:
            return self
        kill_at = deadline - self.margin_seconds
        return replace(self, kill_at=kill_at, terminate_at=kill_at - self.grace_seconds)

    def lost(self, now: float) -> Self:
        """The service says that the lease is over, so another holder may have the lock: there is no grace."""
        at = min(now, self.kill_at)
        return replace(self, terminate_at=at, kill_at=at, is_fixed=True, is_lost=True)

    def ending(self, now: float) -> Self:
        """What is left of the command must end, because its first process has ended, or because nobody renews."""
        if self.is_fixed:
            return self
        kill_at = min(self.kill_at, now + self.grace_seconds)
        return replace(self, terminate_at=min(self.terminate_at, now), kill_at=kill_at, is_fixed=True)

    def abandoned(self, now: float) -> Self:
        """The parent was killed, so nobody renews.

        Under a second lock, the guard of that lock has killed the parent because the second lease ends. It does not
        find the command, which has a process group of its own, and it gave its grace before: there is no other one.
        """
        if not self.is_nested:
            return self.ending(now)
        at = min(now, self.kill_at)
        return replace(self, terminate_at=at, kill_at=at, is_fixed=True)

    def due(self, now: float) -> tuple[Self, Sequence[signal.Signals]]:
        """The schedule after the signals that are due now, and these signals."""
        is_lost = self.is_lost or not self.is_fixed
        if self.stage < Stage.KILLED and now >= self.kill_at:
            return replace(self, stage=Stage.KILLED, is_fixed=True, is_lost=is_lost), (signal.SIGKILL,)
        if self.stage < Stage.TOLD_TO_END and now >= self.terminate_at:
            after = replace(self, stage=Stage.TOLD_TO_END, is_fixed=True, is_lost=is_lost)
            # A stopped process takes SIGTERM only when it continues.
            return after, (signal.SIGTERM, signal.SIGCONT)
        return self, ()

    def next_at(self) -> float | None:
        """When the next signals are due, unless something happens before; None after SIGKILL."""
        return (self.terminate_at, self.kill_at, None)[self.stage]
