"""The TypeScript client (`clients/typescript`): compiled once for all processes of a run, and run by Node.js."""

import fcntl
import hashlib
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from running import Server, free_port

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


class Services:
    """Starts and ends services for tests in Node.js, which ask for it by HTTP (`clients/typescript/tests/server.ts`).

    A service that Python starts is a copy of a process that has imported the modules (`forked`). One that Node.js
    executes would import them again, which takes longer than most of what these tests do with it.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: list[Server] = []

    def create(self, store: str, environment: dict[str, str], *, keeps_port: bool) -> dict[str, Any]:
        """`keeps_port`: no other program gets the port while the service is stopped."""
        port = self._stack.enter_context(free_port()) if keeps_port else 0
        server = Server(store, environment=environment | {"LEASEHOLD_PORT": str(port)}, log_level="error")
        self._stack.enter_context(server)
        self._servers.append(server)
        return {"number": self._servers.index(server), "url": server.url}

    def start(self, number: int) -> dict[str, Any]:
        return {"url": self._servers[number].start().url}

    def end(self, number: int, name: str) -> dict[str, Any]:
        return {"code": self._servers[number].terminate(signal.Signals[name])}

    def log(self) -> str:
        """What the services have written to standard error."""
        return "".join(server.log() for server in self._servers)


@contextmanager
def services() -> Iterator[tuple[Services, dict[str, str]]]:
    """And the variables that tell Node.js where they are. The end of the block ends all of them."""
    with ExitStack() as stack:
        made = Services(stack)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    status, answer = 200, getattr(made, self.path.removeprefix("/"))(**asked)
                except Exception as error:  # noqa: BLE001 - the test in Node.js fails with it
                    status, answer = 500, repr(error)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
            listener.daemon_threads = False  # the end of this block waits for them: no service is started after it
            threading.Thread(target=listener.serve_forever, args=(0.05,)).start()
            try:
                yield made, {"LEASEHOLD_TEST_SERVICES": f"http://127.0.0.1:{listener.server_port}"}
            finally:
                listener.shutdown()


def _fingerprint() -> str:
    digest = hashlib.sha256()
    tests = sorted((FOLDER / "tests").glob("*.ts"))
    for path in (*sorted(FOLDER.glob("*.json")), *sorted((FOLDER / "src").rglob("*.ts")), *tests):
        digest.update(f"{path.name} ".encode() + path.read_bytes())
    return digest.hexdigest()
