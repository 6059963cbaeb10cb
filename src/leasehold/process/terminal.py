"""Which process group is in the foreground of the terminal: it reads from the terminal, and gets ctrl+C and ctrl+Z.

SIGTTOU must be blocked or ignored in a process that calls these functions from the background.
"""

import os
import stat
from contextlib import suppress

from leasehold.process.streams import STANDARD_INPUT, STANDARD_OUTPUT


def can_be_passed() -> bool:
    """Whether standard input is a terminal that this process may pass on to a command.

    Not if standard output is a pipe: its reader is in the group of this process and may need the terminal (`less`).
    """
    return os.isatty(STANDARD_INPUT) and not stat.S_ISFIFO(os.fstat(STANDARD_OUTPUT).st_mode)


def foreground_group() -> int:
    """The process group that has the terminal at standard input; 0 if there is no terminal any more."""
    try:
        return os.tcgetpgrp(STANDARD_INPUT)
    except OSError:
        return 0


def pass_to(group: int, *, of: int) -> None:
    """Make a process group the foreground group, if the group `of` is it now.

    Otherwise the shell has put this job into the background. A terminal that has gone is no error.
    """
    if foreground_group() == of:
        with suppress(OSError):
            os.tcsetpgrp(STANDARD_INPUT, group)
