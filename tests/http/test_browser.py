"""A real browser: pages of an allowed origin can use the service, and pages of other origins cannot (CORS)."""

import html
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from programs import needs, program
from running import Server, running

pytestmark = needs("chromium")

BROWSER_SECONDS = 120.0
PAGE = """<!doctype html><title>page</title><body><script>
const told = {}, service = "%(service)s";
async function ask(name, path, options) {
    try {
        const answer = await fetch(service + path, options);
        const header = (each) => answer.headers.get(each);
        told[name] = [answer.status, header("ETag"), header("X-Request-Id"), await answer.text()];
    } catch (error) {
        told[name] = [0, null, null, error.name];
    }
    return told[name][1];
}
(async () => {
    const json = {"Content-Type": "application/json", "Prefer": "return=minimal", "X-Request-Id": "page-1"};
    const tag = await ask("write", "/kv/page", {method: "PUT", headers: json, body: '{"n": 1}'});
    await ask("read", "/kv/page?raw");
    await ask("replace", "/kv/page", {method: "PUT", headers: {...json, "If-Match": tag}, body: '{"n": 2}'});
    await ask("replace again", "/kv/page", {method: "PUT", headers: {...json, "If-Match": tag}, body: '{"n": 3}'});
    await ask("bad token", "/kv/page", {headers: {"Authorization": "Bearer nonsense"}});
    await ask("absent", "/kv/page/absent");
    await ask("string", "/kv/page", {method: "POST", body: '"text"'});
    await ask("page", "/kv/page", {method: "POST", headers: {"Content-Type": "text/html"}, body: '"text"'});
    await ask("delete", "/kv/page", {method: "DELETE"});
    document.title = "told " + JSON.stringify(told);
})();
</script>"""


class Pages:
    """Serves one page on a port of its own, which makes it an origin of its own."""

    def __init__(self) -> None:
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = pages.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                del format, args

        self.page = ""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    serving = Pages()
    try:
        yield serving
    finally:
        serving.close()


def told_to_the_page(pages: Pages, server: Server, folder: Path) -> dict[str, Any]:
    """What the page was told: status, ETag, request id and body of each answer; 0 where the browser refused."""
    pages.page = PAGE % {"service": server.url}
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=30000", "--dump-dom"]
    ran = subprocess.run(
        [str(program("chromium")), *flags, pages.origin],
        capture_output=True,
        text=True,
        check=False,
        timeout=BROWSER_SECONDS,
    )
    title = re.search(r"<title>told (.*?)</title>", ran.stdout, re.DOTALL)
    assert title is not None, ran.stdout + ran.stderr[-2_000:]
    told: dict[str, Any] = json.loads(html.unescape(title[1]))
    return told


def test_a_page_of_an_allowed_origin_can_send_preconditions_and_read_errors(pages: Pages, tmp_path: Path) -> None:
    with running(arguments=[f"--allowed-origin={pages.origin}"]) as server:
        told = told_to_the_page(pages, server, tmp_path)
    statuses = {name: status for name, (status, *_) in told.items()}
    assert statuses == {
        "write": 201,
        "read": 200,
        "replace": 200,
        "replace again": 412,
        "bad token": 200,  # there is no key, so that nobody looks at it; the browser asked for leave to send it
        "absent": 404,
        "string": 200,  # text/plain is among the types of bytes
        "page": 415,
        "delete": 200,
    }
    assert told["read"][3] == '{"n":1}\n'
    assert told["write"][1].startswith('"')
    assert told["write"][2] == "page-1"
    assert "application/json" in json.loads(told["page"][3])["message"]


def test_a_page_of_another_origin_can_read_and_change_nothing(pages: Pages, tmp_path: Path) -> None:
    with running(arguments=["--allowed-origin=https://app.example.com"]) as server:
        told = told_to_the_page(pages, server, tmp_path)
        assert {status for status, *_ in told.values()} == {0}
        assert (server.get("page").status_code, server.revision()) == (404, 0)
