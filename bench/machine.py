"""Facts about this machine that affect the results. None of them contains a path, a host or a user."""

import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import MissingProgramError, program

_SYNCS: Final = 200
_BLOCK: Final = b"x" * 4096
FREE_SYNC_SECONDS: Final = 50e-6
"""A disk that syncs faster than this probably does not wait for the data to be stored."""

_VERSION_COMMANDS: Final = {
    "wrk": ("wrk", "-v"),
    "redis-server": ("redis-server", "--version"),
    "webdis": ("dpkg-query", "--show", "--showformat=${Version}", "webdis"),  # it has no option that prints its version
    "etcd": ("etcd", "--version"),
    "nginx": ("nginx", "-v"),
}


class Memory(msgspec.Struct, frozen=True):
    """Resident and proportional set size of a process and its descendants, in MB of a million bytes."""

    rss_mb: float
    pss_mb: float


def memory_of(pid: int) -> Memory:
    sizes = [_rollup(each) for each in _tree(pid)]
    return Memory(sum(size.rss_mb for size in sizes), sum(size.pss_mb for size in sizes))


def _rollup(pid: int) -> Memory:
    kib = dict(re.findall(r"^(\w+): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    return Memory(int(kib["Rss"]) * 1024 / 1e6, int(kib["Pss"]) * 1024 / 1e6)


def _tree(pid: int) -> list[int]:
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [pid, *(below for child in children for below in _tree(child))]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, over all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # utime and stime; the name may contain spaces


def sync_seconds(folder: Path) -> float:
    """The median time of an append of 4 KiB and its fdatasync, in a file of `folder`."""
    path = folder / "sync-probe"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    times = []
    try:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            os.write(descriptor, _BLOCK)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times)


def file_system(folder: Path) -> str:
    """The type of the file system of `folder`: that of the last mount with the longest matching path."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(point), order, kind) for order, (point, kind) in enumerate(mounts) if folder.is_relative_to(point)]
    return max(holding)[2]


def facts(folder: Path) -> dict[str, str]:
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": f"{cpu[1].strip() if cpu else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{memory_bytes / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "file system of all data directories": file_system(folder),
    }


def versions() -> dict[str, str]:
    """The version of each program except the service; "missing" if it is not installed."""
    return {name: _version(name, *command) for name, command in _VERSION_COMMANDS.items()}


def _version(name: str, asked: str, *arguments: str) -> str:
    try:
        program(name)
    except MissingProgramError:
        return "missing"
    try:
        said = subprocess.run([program(asked), *arguments], capture_output=True, text=True, check=False)
    except MissingProgramError:
        return "unknown"
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "unknown"
