"""The pictures of the console in docs/images. `make screenshots` writes them there; a test run makes them elsewhere."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Visitor
from playwright.sync_api import Page, expect
from programs import needs
from running import Server, running

pytestmark = needs("chromium")

MAX_BYTES = 120_000
SIZE = {"width": 1100, "height": 620}
ENTRIES = {
    "config/mail": '{"host":"mail.example.com","port":587}',
    "config/theme": '"dark"',
    "jobs/2026-11-28/import": '{"state":"running","worker":"worker-1","done":18446744073709551615}',
    "jobs/2026-11-28/report": '{"state":"waiting"}',
    "users/ann": '{"name":"Ann","id":9223372036854775807,"roles":["admin","author"],"active":true,"quota":null}',
    "users/ben": '{"name":"Ben","id":9223372036854775806,"roles":["author"],"active":false,"quota":2.5}',
    "users/eve": '{"name":"Eve","id":9223372036854775805,"roles":[],"active":true,"quota":10}',
    "visits": "1024",
}


@pytest.fixture
def service() -> Iterator[Server]:
    with running("memory:") as started:
        for key, text in ENTRIES.items():
            started.put(key, text)
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS", tmp_path))


def take(page: Page, file: Path) -> None:
    expect(page.locator("#stream")).to_have_text("Connected")
    page.screenshot(path=file)
    assert 5_000 < file.stat().st_size < MAX_BYTES


def test_an_entry(service: Server, visit: Callable[..., Visitor], folder: Path) -> None:
    page = visit(service.url, **SIZE).tab()
    for name in ("jobs, folder", "2026-11-28, folder", "users, folder", "ann"):
        page.get_by_role("treeitem", name=name, exact=True).click()
    expect(page.get_by_label("Value")).to_contain_text("9223372036854775807")
    take(page, folder / "console-entry.png")


def test_a_conflict(service: Server, visit: Callable[..., Visitor], folder: Path) -> None:
    visitor = visit(service.url, scheme="dark", **SIZE)
    visitor.refused = {412}
    page = visitor.tab("keys/users%2Fben")
    page.get_by_role("button", name="Edit").click()
    field = page.get_by_label("Value (JSON)")
    field.fill(field.input_value().replace("2.5", "5"))
    service.put("users/ben", ENTRIES["users/ben"].replace("false", "true"))
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".conflict")).to_be_visible()
    take(page, folder / "console-conflict-dark.png")


def test_locks(service: Server, visit: Callable[..., Visitor], folder: Path) -> None:
    lease = service.lease("jobs/import", ttl=600, owner={"host": "worker-1", "pid": 4711})
    service.lease("deploy", ttl=90, owner="ann")
    waiting = threading.Thread(target=service.acquire, args=["jobs/import"], kwargs={"wait": 60})
    waiting.start()
    page = visit(service.url, width=1100, height=300).tab("locks")
    expect(page.get_by_role("row", name="jobs/import").get_by_role("cell").nth(3)).to_have_text("1")
    take(page, folder / "console-locks.png")
    service.release("jobs/import", lease["lease_id"])
    waiting.join()
