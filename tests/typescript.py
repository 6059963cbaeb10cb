"""The TypeScript client (`clients/typescript`): compiled once for all processes of a run, and run by Node.js."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "clients/typescript"
PACKAGES: Final = FOLDER / "node_modules"
"""`make test` installs them, from package-lock.json."""
COMPILER: Final = PACKAGES / "typescript/bin/tsc"
NODE_VERSION: Final = 20
"""The oldest major version that the client supports."""


def obstacle() -> str:
    """What this machine lacks to run the client; empty if nothing is missing."""
    try:
        version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        return "not installed"
    if int(version.removeprefix("v").partition(".")[0]) < NODE_VERSION:
        return f"{version} is too old"
    if not COMPILER.exists():
        return "no packages: npm ci --ignore-scripts --prefix clients/typescript"
    return ""


def compiled() -> Path:
    """The folder of the compiled tests. Fails if a type is wrong.

    Several processes of the tests share the folder: one compiles, and the others wait.
    """
    made = FOLDER / "build"
    stamp = made / "sources"
    with (PACKAGES / ".compiling").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = _fingerprint()
        if not stamp.exists() or stamp.read_text() != sources:
            # Files of sources that were removed would be packed, too.
            for folder in (made, FOLDER / "dist"):
                shutil.rmtree(folder, ignore_errors=True)
            for project in ("tsconfig.json", "tests/tsconfig.json"):
                done = subprocess.run(
                    ["node", str(COMPILER), "--project", project],
                    cwd=FOLDER,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stdout
            stamp.write_text(sources)
    return made


def command(program: str, *arguments: str) -> list[str]:
    """The command that runs one of the compiled tests."""
    return ["node", str(compiled() / program), *arguments]


def environment() -> dict[str, str]:
    """For tests that start services: which Python has the service."""
    return os.environ | {"LEASEHOLD_TEST_PYTHON": sys.executable}


def _fingerprint() -> str:
    digest = hashlib.sha256()
    tests = sorted((FOLDER / "tests").glob("*.ts"))
    for path in (*sorted(FOLDER.glob("*.json")), *sorted((FOLDER / "src").rglob("*.ts")), *tests):
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()
