"""The service with a system clock that is off by LEASEHOLD_TEST_CLOCK_SECONDS: `shifted_clock.py serve …`."""

import os
import time

from leasehold.cli import app as cli

_true_time_ns = time.time_ns


def main() -> None:
    shift = int(float(os.environ["LEASEHOLD_TEST_CLOCK_SECONDS"]) * 1e9)
    time.time_ns = lambda: _true_time_ns() + shift
    cli.main()


if __name__ == "__main__":
    main()
