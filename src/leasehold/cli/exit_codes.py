"""The exit codes of commands, and the exception that ends a command with one of them.

`docs/command-line.md` has the same table for users. 0, 1 and 2 are those of most programs; 69, 75 and 77 are those of
`sysexits.h`. `leasehold lock` also exits with the code of the command that it runs.
"""

from typing import Final

SUCCESS: Final = 0
FAILED: Final = 1
"""Any other failure: the service refused the request or failed, or a file cannot be read or written."""
WRONG_USAGE: Final = 2
"""An option, a variable or an argument is wrong, or the service does not accept a key, a value or a path."""
NOT_FOUND: Final = 3
"""There is no such entry, part of a value, or held lock."""
CONDITION_FAILED: Final = 4
"""What is stored does not allow it: a condition does not hold, or a change does not fit the value."""
UNAVAILABLE: Final = 69
"""The service cannot be reached, or cannot do it now. A change may have been made."""
LOCK_HELD: Final = 75
"""Another holder has the lock."""
LEASE_LOST: Final = 76
"""The lease is not alive, so the write was refused."""
ACCESS_DENIED: Final = 77
"""The token is missing, not valid, or without the permission."""
LOCK_COMMAND_FAILED: Final = 125
"""`leasehold lock` itself failed. Like `env`, it cannot use the codes above, which its command may use. 126 and
127 mean that the command cannot be run, and that there is none (`process/starting.py`)."""


class CommandFailed(Exception):  # noqa: N818 - the end of a command, not an error in it
    """Ends the command. `message` is printed in one line to standard error."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def wrong_usage(message: str) -> CommandFailed:
    return CommandFailed(message, WRONG_USAGE)
