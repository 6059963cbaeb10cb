"""What a test requires from the machine, in addition to Python and its packages.

    pytestmark = needs("nginx")                # a whole file
    @needs("varnishd", "loop mounts")          # one test

If the machine lacks something, the test is skipped, and the end of the run lists what was missing. With `CI=true` the
test fails instead, as does every test that is skipped (`conftest`), because `.ci/run` installs everything.

To add a requirement, add it to `PACKAGES`, or to `OTHERS` if Debian does not have it, and to its list in `.ci/run`.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
import typescript
from harness.mounts import obstacle, obstacle_to_mounts

from leasehold.process.huge_pages import are_available

PACKAGES: Final[Mapping[str, str]] = {
    "apache2": "apache2",
    "chromium": "chromium",
    "curl": "curl",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "faketime": "faketime",
    "fish": "fish",
    "haproxy": "haproxy",
    "jq": "jq",
    "lighttpd": "lighttpd",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "promtool": "prometheus",
    "strace": "strace",
    "unshare": "util-linux",
    "varnishd": "varnish",
    "zsh": "zsh",
}
"""The Debian package of each program that a test may need."""
OTHERS: Final[Mapping[str, str]] = {"terraform": "Terraform 1.5 or newer from its makers"}
"""What to install for the programs that Debian does not have."""
LOOP_MOUNTS: Final = "loop mounts"
"""A requirement that is not a program: root, loop devices, and ext4."""
PID_NAMESPACES: Final = "PID namespaces"
"""A requirement that is not a program: the right to start a PID namespace, which root has."""
MOUNTS: Final = "mounts"
"""A requirement that is not a program: root, and the right to mount."""
HUGE_PAGES: Final = "huge pages"
"""A requirement that is not a program: Linux 6.1 or newer, with huge pages that are not switched off."""
NODE: Final = "Node.js"
"""A requirement that is not only a program: its version, and the packages of the TypeScript client."""

_PREFIX = "this machine lacks "


def needs(*names: str) -> pytest.MarkDecorator:
    """A mark for a test, a class or a whole file: names of programs, or the constants above."""
    known = (*PACKAGES, *OTHERS, LOOP_MOUNTS, PID_NAMESPACES, MOUNTS, HUGE_PAGES, NODE)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"not in programs.PACKAGES or programs.OTHERS: {unknown}")
    return pytest.mark.needs(*names)


def program(name: str) -> Path:
    """The path of a program that the test needs. If it is missing, the test is skipped."""
    require([name])
    found = _found(name)
    assert found is not None
    return found


def require(names: Iterable[str]) -> None:
    """Skip the running test unless the machine has all of these."""
    lacking = [text for name in names if (text := _lack(name))]
    if lacking:
        pytest.skip(_PREFIX + "; ".join(lacking))


def left_out(reasons: Iterable[str]) -> Counter[str]:
    """How many tests were skipped for each missing requirement, from the reasons of all skipped tests."""
    return Counter(lack for reason in reasons if _PREFIX in reason for lack in reason.partition(_PREFIX)[2].split("; "))


def _lack(name: str) -> str:
    """What is missing, and how to install it; empty if nothing is missing."""
    if name == LOOP_MOUNTS:
        reason = obstacle()
        return f"{LOOP_MOUNTS} ({reason})" if reason else ""
    if name == PID_NAMESPACES:
        reason = _lack("unshare") or _refusal([*AS_PID_1, "true"])
        return f"{PID_NAMESPACES} ({reason})" if reason else ""
    if name == MOUNTS:
        reason = obstacle_to_mounts()
        return f"{MOUNTS} ({reason})" if reason else ""
    if name == HUGE_PAGES:
        return "" if are_available() else f"{HUGE_PAGES} (Linux 6.1 or newer, not switched off)"
    if name == NODE:
        reason = typescript.obstacle()
        return f"{NODE} {typescript.NODE_VERSION} or newer ({reason})" if reason else ""
    remedy = f"install {OTHERS[name]}" if name in OTHERS else f"apt-get install {PACKAGES[name]}"
    return "" if _found(name) else f"{name} ({remedy})"


AS_PID_1: Final = ("unshare", "--fork", "--pid")
"""Put in front of a command. It makes the command PID 1 of a new namespace."""


def _refusal(command: Sequence[str]) -> str:
    """The error output of a failing command; empty if it succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _found(name: str) -> Path | None:
    """The path of the program. Programs for administrators are often not on the PATH of other users."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    return None if found is None else Path(found)
