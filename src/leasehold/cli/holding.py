"""The lease of `leasehold lock`: acquired, renewed on a thread of its own, released.

`HeldLock` of the client does the same for a block of Python, and is not used: a command in another process must be told
each new deadline, and whether the lease is certainly over or only not renewed; the block knows neither. The renewals
run on a thread because they wait for the network, while the main thread passes signals on without a delay. The thread
enforces nothing: if it hangs or dies, the guard hears of no new deadline and ends the command in time.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, NamedTuple

from leasehold.process.boot_clock import boot_seconds
from leasehold.process.streams import print_error

if TYPE_CHECKING:
    from leasehold_client import Client

RENEWALS_PER_TTL: Final = 3
LONGEST_RETRY_PAUSE_SECONDS: Final = 1.0
RELEASE_SECONDS: Final = 5.0
"""How long the release is tried. If that fails, the lease ends by itself."""
MIN_TTL_SECONDS: Final = 1.0
"""The shortest ttl that the service accepts."""


class HeldLease(NamedTuple):
    """The lease was granted before `acquired_at`, and lasts longer than until `deadline` (times of `boot_clock`).

    `ttl` is in seconds.
    """

    lock: str
    lease_id: str
    token: int
    ttl: float
    acquired_at: float
    deadline: float


def acquire(db: "Client", name: str, *, ttl: float, wait: float) -> HeldLease:
    """Wait for a lock, in requests of up to 60 seconds. Raises LeaseholdError; LockHeld if it is not free in time.

    A response that came late says little about how long the lease still lasts, because the time counts from before the
    request was sent. Such a lease is renewed before it is used.
    """
    from leasehold_client import LeaseLost, LockHeld
    from leasehold_client.protocol import locks

    owner = {"host": os.uname().nodename, "pid": os.getpid()}
    give_up_at = boot_seconds() + wait
    while True:
        sent_at = boot_seconds()
        patience = min(max(give_up_at - sent_at, 0.0), locks.MAX_WAIT_SECONDS)
        try:
            grant = locks.read_grant(db.send(locks.acquire(name, ttl=ttl, wait_seconds=patience, owner=owner)))
        except LockHeld:
            if boot_seconds() >= give_up_at:
                raise
            continue
        lease = HeldLease(name, grant.lease_id, grant.token, grant.ttl, boot_seconds(), sent_at + grant.ttl)
        if lease.acquired_at - sent_at <= lease.ttl / RENEWALS_PER_TTL:
            return lease
        try:
            return lease._replace(deadline=renewed(db, lease))
        except LeaseLost:
            continue


def renewed(db: "Client", lease: HeldLease, *, ttl: float | None = None, within_seconds: float | None = None) -> float:
    """Renew the lease, and return its new deadline. Raises LeaseholdError; LeaseLost if it is over."""
    from leasehold_client.protocol import locks

    sent_at = boot_seconds()
    response = db.send(locks.renew(lease.lock, lease.lease_id, ttl=ttl), within_seconds=within_seconds)
    return sent_at + locks.read_grant(response).ttl


class Renewals:
    """Renews a lease on a thread until `stop`.

    `connect` opens a client that is only for this thread. `extend` gets each new deadline, and `lose` is called if the
    service says that the lease is over.
    """

    def __init__(
        self,
        lease: HeldLease,
        connect: Callable[[], AbstractContextManager["Client"]],
        *,
        extend: Callable[[float], None],
        lose: Callable[[], None],
    ) -> None:
        self._lease = lease
        self._connect = connect
        self._extend = extend
        self._lose = lose
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"renewal of {lease.lock}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No renewal is sent after this. One that is under way is waited for, but not for long."""
        self._ending.set()
        self._thread.join(RELEASE_SECONDS)

    def _run(self) -> None:
        from leasehold_client import LeaseholdError, LeaseLost, LockNotFound, NoSuchNamespace

        # The main thread handles them. SIGTSTP must stop this process where the main thread waits for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        lease, deadline = self._lease, self._lease.deadline
        pause = lease.ttl / RENEWALS_PER_TTL
        told = ""
        with self._connect() as db:
            while not self._ending.wait(pause):
                remaining = deadline - boot_seconds()
                if remaining <= 0:
                    return  # the guard ends the command
                # The deadline counts from the first attempt of a request, so a new request is made now and then.
                seconds = min(remaining, lease.ttl / RENEWALS_PER_TTL)
                try:
                    deadline = renewed(db, lease, within_seconds=seconds)
                except (LeaseLost, LockNotFound, NoSuchNamespace):
                    self._lose()
                    return
                except LeaseholdError as error:
                    if error.message != told:
                        told = error.message
                        seconds = max(deadline - boot_seconds(), 0.0)
                        print_error(f"leasehold: the lease on {lease.lock!r} ends in {seconds:.1f} s: {told}")
                    pause = min(lease.ttl / 30, LONGEST_RETRY_PAUSE_SECONDS)
                else:
                    self._extend(deadline)
                    told = ""
                    # After attempts that took long, less than the ttl is left.
                    pause = max(deadline - boot_seconds(), 0.0) / RENEWALS_PER_TTL


def release(db: "Client", lease: HeldLease, *, at_least_seconds: float) -> None:
    """Release the lease, or let it end `at_least_seconds` after it was acquired, if that is later.

    In the second case the service ends it, at the latest a ttl after its last renewal. Raises LeaseholdError.
    """
    from leasehold_client.protocol import locks

    remaining = lease.acquired_at + at_least_seconds - boot_seconds()
    if remaining > 0:
        renewed(db, lease, ttl=max(remaining, MIN_TTL_SECONDS), within_seconds=RELEASE_SECONDS)
    else:
        db.send(locks.release(lease.lock, lease.lease_id), within_seconds=RELEASE_SECONDS)
