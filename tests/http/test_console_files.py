"""The files of the console: what is served at `/console/`, with which headers, and what is not."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from programs import NODE, needs
from running import Server, running

import leasehold

FOLDER = Path(leasehold.__file__).parent / "console"
FILES = sorted(path.name for path in FOLDER.iterdir())
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of a service of this module alone, whose metrics only it changes."""
    with running("memory:") as started:
        yield started.client


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_with_its_type_and_may_run_nothing_else(client: httpx.Client, name: str) -> None:
    response = client.get(f"/console/{name}")
    assert (response.status_code, response.content) == (200, (FOLDER / name).read_bytes())
    assert response.headers["Content-Type"] == TYPES[Path(name).suffix]
    assert response.headers["Cache-Control"] == "no-cache"
    policy = dict(each.split(" ", 1) for each in response.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_folder_is_the_page(client: httpx.Client) -> None:
    page = client.get("/console/", headers=BROWSER)
    assert (page.status_code, page.content) == (200, (FOLDER / "index.html").read_bytes())


def test_a_cached_file_is_not_sent_again(client: httpx.Client) -> None:
    etag = client.get("/console/main.js").headers["ETag"]
    for sent in (etag, f'"other", W/{etag}', "*"):
        response = client.get("/console/main.js", headers={"If-None-Match": sent})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", etag)
        assert response.headers["Cache-Control"] == "no-cache"
    assert client.get("/console/main.js", headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_has_the_headers_alone(client: httpx.Client) -> None:
    got, headed = client.get("/console/base.css"), client.head("/console/base.css")
    assert (headed.status_code, headed.content) == (200, b"")
    assert {name: headed.headers[name] for name in ("ETag", "Content-Length", "Content-Type")} == {
        name: got.headers[name] for name in ("ETag", "Content-Length", "Content-Type")
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/console/", "/console/main.js", "/console", "/"])
def test_a_file_cannot_be_changed(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("name", ["absent.js", "../errors.py", "..%2ferrors.py", "a/main.js", "%00", "%ff", "main.js/"])
def test_there_are_no_other_files(server: Server, name: str) -> None:
    target = f"/console/{name}"
    response = server.client.send(
        server.client.build_request("GET", httpx.URL(server.url).copy_with(raw_path=target.encode()))
    )
    assert (response.status_code, response.json()["error"]) == (404, "no_such_route")


@pytest.mark.parametrize(
    "accept", ["*/*", "text/css,*/*;q=0.1", "image/avif,image/webp", "text/html", "application/json"]
)
def test_every_accept_gets_the_file(client: httpx.Client, accept: str) -> None:
    assert client.get("/console/icon.svg", headers={"Accept": accept}).headers["Content-Type"] == "image/svg+xml"


@pytest.mark.parametrize("path", ["/", "/console"])
def test_a_browser_is_sent_to_the_console_by_a_relative_address(client: httpx.Client, path: str) -> None:
    """Behind a proxy that adds a prefix, an absolute path would lead elsewhere."""
    response = client.get(path, headers=BROWSER, follow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (302, "console/")
    assert response.headers["Cache-Control"] == "no-store"
    assert client.get(path, headers=BROWSER, follow_redirects=True).url.path == "/console/"


def test_a_program_finds_nothing_at_the_root(client: httpx.Client) -> None:
    response = client.get("/")
    assert (response.status_code, response.json()["error"]) == (404, "no_such_route")


def test_the_files_need_no_token_but_the_data_do(guarded: Server) -> None:
    assert guarded.client.get("/console/").status_code == 200
    assert guarded.client.get("/kv").status_code == 401


def test_the_console_is_no_part_of_the_description(server: Server) -> None:
    assert not [path for path in server.contract.document["paths"] if path == "/" or path.startswith("/console")]


def test_requests_for_files_are_counted_under_one_route(client: httpx.Client) -> None:
    client.get("/console/main.js")
    assert re.search(r'http_route="/console/\{file\}"', client.get("/metrics").text)


def test_all_files_together_are_small_and_refer_to_nothing_outside() -> None:
    texts = {name: (FOLDER / name).read_text() for name in FILES}
    assert sum(len(text.encode()) for text in texts.values()) < 150_000
    outside = re.compile(r"https?://(?!www\.w3\.org/2000/svg)|\bstyle=|\bon[a-z]+=\"|innerHTML|eval\(")
    assert {name: found[0] for name, text in texts.items() if (found := outside.search(text))} == {}


def test_every_module_is_loaded_with_the_page() -> None:
    """A module that nothing imports would be left behind unnoticed."""
    modules = {name: (FOLDER / name).read_text() for name in FILES if name.endswith(".js")}
    imported = {name for text in modules.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert set(modules) - imported == {"main.js"}
    assert max(text.count("\n") for text in modules.values()) <= 400


@needs(NODE)
def test_the_types_in_the_comments_of_the_modules_hold() -> None:
    root = Path(__file__).parents[2]
    checked = subprocess.run(["make", "-s", "lint-typescript"], cwd=root, capture_output=True, text=True, check=False)
    assert (checked.stdout, checked.returncode) == ("", 0)
