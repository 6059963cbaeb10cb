"""The Python interpreters that the service is measured with, and how each of them was built.

Each has an environment of its own with the service in it; `make bench PYTHONS="…"` makes them. `python -m
bench.interpreters` prints the record of the interpreter that runs it.
"""

import platform
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.processes import BenchError

_ROOT: Final = Path(__file__).parents[1]
_PROFILE_FLAGS: Final = ("-fprofile-use", "-fprofile-instr-use")
_LTO_FLAG: Final = "-flto"


class Record(msgspec.Struct, frozen=True):
    """What an interpreter knows about itself. `configured` and `flags` are from `sysconfig`."""

    implementation: str
    version: str
    compiler: str
    configured: str
    """The arguments of its `configure`."""
    flags: str
    """With which the interpreter itself was compiled and linked."""
    is_shared: bool
    """Whether it runs from a shared library."""
    debian_package: str | None
    """Name and version of the Debian package that it is from."""


class Interpreter(msgspec.Struct, frozen=True):
    """An interpreter in an environment with the service. `name` is unique in a run."""

    python: str
    name: str
    build: str

    @property
    def service(self) -> Sequence[str]:
        """The command `leasehold`."""
        return [str(Path(self.python).with_name("leasehold"))]

    @property
    def probe(self) -> Sequence[str]:
        """The command `leasehold` with a probe in its event loop."""
        return [self.python, "-m", "bench.probe"]


def interpreters(pythons: Sequence[str]) -> list[Interpreter]:
    """Ask each interpreter for its record. Raises BenchError if one does not answer."""
    pythons = [str(Path(python).absolute()) for python in pythons]  # not resolved: a link belongs to its environment
    records = [_ask(python) for python in pythons]
    names = unique([record.version for record in records])
    return [
        Interpreter(python, name, description(record))
        for python, name, record in zip(pythons, names, records, strict=True)
    ]


def _ask(python: str) -> Record:
    command = [python, "-m", "bench.interpreters"]
    try:
        done = subprocess.run(command, capture_output=True, cwd=_ROOT, check=True)
        return msgspec.json.decode(done.stdout, type=Record)
    except (OSError, subprocess.CalledProcessError, msgspec.MsgspecError) as error:
        raise BenchError(f"{python} is no interpreter of an environment with the service: {error}") from error


def unique(names: Sequence[str]) -> list[str]:
    """The names, each with a number where it occurs more than once."""
    return [
        f"{name} ({names[:position].count(name) + 1})" if names.count(name) > 1 else name
        for position, name in enumerate(names)
    ]


def description(record: Record) -> str:
    """How it was built, in one line without any path.

    Debian removes the flags of PGO and LTO from `sysconfig`, so the record of its packages does not say whether they
    were used. There is no other place to look: the program has no symbols.
    """
    linked = "in a shared library" if record.is_shared else "not in a shared library"
    levels = [flag for flag in record.flags.split() if flag.startswith("-O")]
    compiled = f"compiled with {' '.join([record.compiler, *levels[-1:]])}"  # of several levels, the last one counts
    if record.debian_package is not None:
        origin = f"Debian's package {record.debian_package}, {compiled}"
        return f"{record.implementation} {record.version}, {origin}, {linked}, PGO and LTO not recorded"
    has_profile = "--enable-optimizations" in record.configured or any(flag in record.flags for flag in _PROFILE_FLAGS)
    has_lto = _LTO_FLAG in record.flags
    built = {
        (True, True): "with PGO and LTO",
        (True, False): "with PGO, without LTO",
        (False, True): "without PGO, with LTO",
        (False, False): "without PGO and LTO",
    }[has_profile, has_lto]
    return f"{record.implementation} {record.version}, {compiled}, {linked}, {built}"


def own_record() -> Record:
    variables = ("PY_CORE_CFLAGS", "PY_CORE_LDFLAGS")
    return Record(
        implementation=platform.python_implementation(),
        version=platform.python_version(),
        compiler=platform.python_compiler(),
        configured=str(sysconfig.get_config_var("CONFIG_ARGS")),
        flags=" ".join(str(sysconfig.get_config_var(name)) for name in variables),
        is_shared="/libpython" in Path("/proc/self/maps").read_text(),
        debian_package=_debian_package(),
    )


def _debian_package() -> str | None:
    program = Path(sys.executable).resolve()
    try:
        owner = subprocess.run(["dpkg-query", "--search", program], capture_output=True, text=True, check=True).stdout
        asked = ["dpkg-query", "--show", "--showformat=${Package} ${Version}", owner.partition(":")[0]]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(own_record()))
