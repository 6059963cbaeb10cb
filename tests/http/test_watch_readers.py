"""Programs and libraries that read server-sent events: curl, two Python libraries, and EventSource in a browser."""

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from ld_eventsource import SSEClient
from ld_eventsource.config import ErrorStrategy
from programs import needs, program
from running import ANSWER_SECONDS, Server, free_port, running

NAMES = ("put", "delete", "lock", "ready", "progress", "reset", "end")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Server]:
    """A service that keeps its port when it is started again."""
    with ExitStack() as stack:
        port = stack.enter_context(free_port())
        environment = {"LEASEHOLD_PORT": str(port)}
        yield stack.enter_context(running(tmp_path / "data.json", environment=environment))


def put(server: Server, key: str, value: Any = 1) -> int:
    revision = server.put(key, json.dumps(value)).json()["revision"]
    assert isinstance(revision, int)
    return revision


# curl ---------------------------------------------------------------------------------------------------------


@needs("curl")
def test_curl_prints_each_event_at_once_and_ends_well(service: Server) -> None:
    first = put(service, "a")
    with subprocess.Popen(
        [str(program("curl")), "-sN", f"{service.url}/watch?since={first}"], stdout=subprocess.PIPE, text=True
    ) as curl:
        assert curl.stdout is not None
        assert [curl.stdout.readline() for _ in range(4)][1:3] == ["event: ready\n", f"id: {first}\n"]
        for value in ("one\u2028line", "two"):
            revision = put(service, "b", value)
            data, event, cursor, empty = (curl.stdout.readline() for _ in range(4))
            assert json.loads(data.removeprefix("data: "))["value"] == value
            assert (event, cursor, empty) == ("event: put\n", f"id: {revision}\n", "\n")
        service.terminate()
        rest, _ = curl.communicate(timeout=ANSWER_SECONDS)
        assert rest.endswith("event: end\n\n")
    assert curl.returncode == 0


# Python libraries ---------------------------------------------------------------------------------------------


def test_httpx_sse_reads_the_events_and_resumes(service: Server) -> None:
    def events(last: str) -> Generator[ServerSentEvent]:
        with (
            httpx.Client(timeout=ANSWER_SECONDS, verify=False) as client,
            connect_sse(client, "GET", f"{service.url}/watch?snapshot", headers={"Last-Event-ID": last}) as source,
        ):
            yield from source.iter_sse()

    put(service, "a", "é\u2028\x85")
    reading = events("")
    snapshot, ready = next(reading), next(reading)
    assert (snapshot.event, json.loads(snapshot.data)["value"], snapshot.id) == ("put", "é\u2028\x85", "")
    assert (ready.event, json.loads(ready.data)) == ("ready", {"revision": int(ready.id)})
    second = put(service, "b")
    assert next(reading).id == str(second)
    service.restart()
    with pytest.raises(httpx.TransportError):
        next(reading)
    third = put(service, "c")
    resumed = events(str(second))
    assert [(event.event, event.id) for event in (next(resumed), next(resumed))] == [
        ("ready", str(second)),
        ("put", str(third)),
    ]
    resumed.close()


def test_launchdarkly_eventsource_connects_again_by_itself_and_misses_nothing(service: Server) -> None:
    cursor = put(service, "a")
    with SSEClient(
        f"{service.url}/watch?snapshot&heartbeat=1",
        initial_retry_delay=0.05,
        error_strategy=ErrorStrategy.always_continue(),
    ) as client:
        events = client.events
        assert [next(events).event for _ in range(2)] == ["put", "ready"]
        for number in range(3):
            deleted = number == 2
            cursor = service.delete("a").json()["revision"] if deleted else put(service, f"k{number}")
            seen = [next(events)]
            while seen[-1].event in ("ready", "progress", "end"):
                seen.append(next(events))
            assert (seen[-1].event, seen[-1].last_event_id) == ("delete" if deleted else "put", str(cursor))
            assert "reset" not in {event.event for event in seen}
            if number == 1:
                service.terminate()  # the response ends with `end`
                service.start()
            else:
                service.restart()  # the response is cut off


# EventSource --------------------------------------------------------------------------------------------------

PAGE = """<!doctype html><title>page</title><body><script>
let told = Promise.resolve();
function tell(...what) {
    told = told.then(() => fetch("/told", {method: "POST", body: JSON.stringify(what)}));
}
const events = new EventSource("%(service)s/watch?prefix=page/&snapshot&heartbeat=1");
for (const name of %(names)s) {
    events.addEventListener(name, (event) => tell(name, JSON.parse(event.data), event.lastEventId));
}
events.onmessage = (event) => tell("message", event.data, event.lastEventId);
events.onerror = () => tell("error", events.readyState, "");
</script>"""


class Pages:
    """Serves a page on a port of its own, which makes it an origin, and collects what the page tells."""

    def __init__(self) -> None:
        pages = self
        self.page = ""
        self.told: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(pages.page.encode())

            def do_POST(self) -> None:
                pages.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                del format, args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def until(self, condition: Callable[[list[Any]], bool]) -> list[list[Any]]:
        """What the page tells, up to the first that fits."""
        found = [self.told.get(timeout=ANSWER_SECONDS)]
        while not condition(found[-1]):
            found.append(self.told.get(timeout=ANSWER_SECONDS))
        return found

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def open_page(url: str, folder: Path) -> "subprocess.Popen[bytes]":
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={folder / 'browser'}", "--remote-debugging-port=0"]  # keeps it open
    command = [str(program("chromium")), *flags, url]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@needs("chromium")
def test_eventsource_in_a_browser_resumes_after_a_restart(tmp_path: Path) -> None:
    pages = Pages()
    with ExitStack() as stack:
        stack.callback(pages.close)
        port = stack.enter_context(free_port())
        service = stack.enter_context(
            running(
                tmp_path / "data.json",
                environment={"LEASEHOLD_PORT": str(port)},
                arguments=[f"--allowed-origin={pages.origin}"],
            )
        )
        pages.page = PAGE % {"service": service.url, "names": json.dumps(NAMES)}
        put(service, "page/a", "first")
        browser = stack.enter_context(open_page(pages.origin, tmp_path))
        stack.callback(browser.kill)
        begun = pages.until(lambda told: told[0] == "ready")
        assert [told[0] for told in begun] == ["put", "ready"]
        assert (begun[0][1]["value"], begun[0][2], begun[1][2]) == ("first", "", "1")
        second = put(service, "page/b", "é\u2028")
        assert pages.until(lambda told: told[0] == "put")[-1][1:] == [service.get("page/b").json(), str(second)]
        service.restart()
        third = service.delete("page/a").json()["revision"]
        after = pages.until(lambda told: told[0] == "delete")
        assert after[-1][1:] == [{"key": "page/a", "revision": third}, str(third)]
        # 0: it connects again; 2 would mean that it has given up.
        assert {told[1] for told in after if told[0] == "error"} == {0}
        assert {told[0] for told in after} <= {"error", "ready", "progress", "delete"}
