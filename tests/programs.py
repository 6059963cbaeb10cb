"""What a test needs from the machine, beyond Python and its packages.

    pytestmark = needs("nginx")                # a whole file
    @needs("varnishd", "loop mounts")          # one test

Where the machine has it, the test runs. Where it lacks it, the test is left out, and the end of the run names what was
missing. With `CI=true` nothing is left out: what is missing fails the test, for `.ci/run` installs everything.

To add a need, add it to `PACKAGES` and to the list in `.ci/run`.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from harness.mounts import obstacle, obstacle_to_mounts

PACKAGES: Final[Mapping[str, str]] = {
    "apache2": "apache2",
    "chromium": "chromium",
    "curl": "curl",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "jq": "jq",
    "lighttpd": "lighttpd",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "strace": "strace",
    "unshare": "util-linux",
    "varnishd": "varnish",
}
"""Debian's package for each program that a test may need."""
LOOP_MOUNTS: Final = "loop mounts"
"""Not a program: root, loop devices, and ext4."""
PID_NAMESPACES: Final = "PID namespaces"
"""Not a program: the right to be PID 1 of a namespace, as root has it."""
MOUNTS: Final = "mounts"
"""Not a program: root, and the right to mount."""

_PREFIX = "this machine lacks "


def needs(*names: str) -> pytest.MarkDecorator:
    """A mark for a test, a class or a whole file: programs by their names, or one of the constants above."""
    unknown = [name for name in names if name not in PACKAGES and name not in (LOOP_MOUNTS, PID_NAMESPACES, MOUNTS)]
    if unknown:
        raise ValueError(f"not in programs.PACKAGES: {unknown}")
    return pytest.mark.needs(*names)


def program(name: str) -> Path:
    """The path of a program that the test needs; leaves the test out, or fails it, where there is none."""
    require([name])
    found = _found(name)
    assert found is not None
    return found


def require(names: Iterable[str]) -> None:
    """Leave the running test out, or fail it, unless the machine has all of them."""
    lacking = [text for name in names if (text := _lack(name))]
    if not lacking:
        return
    reason = _PREFIX + "; ".join(lacking)
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def left_out(reasons: Iterable[str]) -> Counter[str]:
    """From the reasons of all skipped tests: how many tests each lack has cost."""
    return Counter(lack for reason in reasons if _PREFIX in reason for lack in reason.partition(_PREFIX)[2].split("; "))


def _lack(name: str) -> str:
    """What is missing, and how to get it; empty if nothing is."""
    if name == LOOP_MOUNTS:
        reason = obstacle()
        return f"{LOOP_MOUNTS} ({reason})" if reason else ""
    if name == PID_NAMESPACES:
        reason = _lack("unshare") or _refusal([*AS_PID_1, "true"])
        return f"{PID_NAMESPACES} ({reason})" if reason else ""
    if name == MOUNTS:
        reason = obstacle_to_mounts()
        return f"{MOUNTS} ({reason})" if reason else ""
    return "" if _found(name) else f"{name} (apt-get install {PACKAGES[name]})"


AS_PID_1: Final = ("unshare", "--fork", "--pid")
"""In front of a command, which becomes PID 1 of a namespace of its own."""


def _refusal(command: Sequence[str]) -> str:
    """What a command says that fails; empty if it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _found(name: str) -> Path | None:
    """The program. Those of administrators are often not on the PATH of others."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    return None if found is None else Path(found)
