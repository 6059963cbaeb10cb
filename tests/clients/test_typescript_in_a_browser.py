"""The TypeScript client in a real browser: a page of another origin than the service imports its compiled modules."""

import functools
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typescript
from programs import NODE, needs, program
from running import running

pytestmark = needs(NODE, "chromium")

BROWSER_SECONDS = 120.0
PAGE = """<!doctype html><title>page</title><script type="module">
import { Client, LeaseLost, NotFound, PreconditionFailed } from "./dist/index.js";

const db = new Client("%s", { bigint: true });
const told = {};
try {
    const first = await db.put("page/a", { big: 2n ** 60n });
    told.written = first.revision;
    told.big = String((await db.get("page/a")).value.big);
    told.missing = await db.get("page/none").catch((error) => error instanceof NotFound);
    told.etag = (await db.get("page/a")).etag === first.etag;
    await db.put("page/a", 1, { ifMatch: first });
    told.stale = await db.put("page/a", 2, { ifMatch: first }).catch((error) => error instanceof PreconditionFailed);
    told.same = (await db.get("page/a", { changedFrom: await db.get("page/a") })).value;
    told.sum = (await db.transaction().increment("page/n", 5).commit()).results[0].value;
    told.fenced = (await db.withLock("page/lock", (lease) => lease.put("page/b", "held"))).value;
    told.lost = await db
        .withLock("page/lock", () => db.unlock("page/lock", { force: true }))
        .catch((error) => error instanceof LeaseLost);
    told.events = [];
    for await (const event of db.watch("page/", { snapshot: true })) {
        told.events.push(event.type);
        if (event.type === "ready") {
            break;
        }
    }
} catch (error) {
    told.error = String(error);
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the compiled client, and at `/` the page. What the page posts goes to `told`."""

    page = ""
    told: "queue.Queue[bytes]" = queue.Queue()

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        body = self.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.told.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        del format, args


@pytest.fixture
def origin() -> Iterator[str]:
    typescript.compiled()
    handler = functools.partial(Handler, directory=str(typescript.FOLDER))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{pages.server_address[1]}"
        finally:
            pages.shutdown()
            thread.join()


def test_the_client_works_in_a_browser(origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with a virtual time, which would let the deadlines of the client pass during a request."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'browser'}", "--remote-debugging-port=0"]
    with running(arguments=[f"--allowed-origin={origin}"]) as server:
        monkeypatch.setattr(Handler, "page", PAGE % server.url)
        command = [str(program("chromium")), *flags, origin]
        with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as browser:
            try:
                told: dict[str, Any] = json.loads(Handler.told.get(timeout=BROWSER_SECONDS))
            finally:
                browser.terminate()
    assert told == {
        "written": 1,
        "big": str(2**60),
        "missing": True,
        "etag": True,
        "stale": True,
        "same": 1,
        "sum": 5,
        "fenced": "held",
        "lost": True,
        "events": ["put", "put", "put", "ready"],
    }
