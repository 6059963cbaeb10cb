"""Leaves out packages that are installed, but that this process does not need."""

import sys


def leave_out(*packages: str) -> None:
    """Let imports of these packages fail in this process, as if they were not installed.

    For packages that others import where they can. Has no effect on those that are already imported. See the Python
    reference, section 5.3.1.
    """
    for package in packages:
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
