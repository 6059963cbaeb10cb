"""`leasehold` that learns of the commits of other servers in one way only: a `program` for `Server`.

Its first argument is the way: `notified`, or `polling`. The rest is for `leasehold`.
"""

import sys

from leasehold.__main__ import main
from leasehold.engines.postgres import listener
from leasehold.engines.postgres.listener import Listener

NEVER_SECONDS = 3_600.0


def never_poll() -> None:
    listener.POLL_SECONDS = NEVER_SECONDS  # type: ignore[misc]


def hear_nothing() -> None:
    Listener._hear = lambda *_: None  # type: ignore[method-assign]


WAYS = {"notified": never_poll, "polling": hear_nothing}

if __name__ == "__main__":
    WAYS[sys.argv.pop(1)]()
    main()
