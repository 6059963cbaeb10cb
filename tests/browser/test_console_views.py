"""The console in a real browser: locks, live changes, status, tokens, and what all views share."""

import re
import threading
from collections.abc import Callable, Iterator

import pytest
from browsing import Visitor
from callers import bearer, token
from playwright.sync_api import expect
from programs import needs
from running import Server, running, until

pytestmark = needs("chromium")

Visit = Callable[..., Visitor]
ALL = ("read", "write", "admin")


@pytest.fixture
def service() -> Iterator[Server]:
    with running("memory:") as started:
        yield started


# Locks --------------------------------------------------------------------------------------------------------


def test_locks_appear_with_their_holder_and_waiters_and_disappear(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab("locks")
    expect(page.get_by_text("No lock is held")).to_be_visible()
    lease = service.lease("jobs/nightly", ttl=600, owner={"pid": 9223372036854775807})
    row = page.get_by_role("row", name="jobs/nightly")
    expect(row.get_by_role("cell").nth(0)).to_have_text('{"pid":9223372036854775807}')
    expect(row.get_by_role("cell").nth(1)).to_have_text(str(lease["token"]))
    expect(row.get_by_role("cell").nth(2)).to_have_text(re.compile(r"^(10|9) min \d\d s"))
    expect(row.get_by_role("cell").nth(3)).to_have_text("0")
    waiting = threading.Thread(target=service.acquire, args=["jobs/nightly"], kwargs={"wait": 60, "ttl": 600})
    waiting.start()
    expect(row.get_by_role("cell").nth(3)).to_have_text("1")
    service.release("jobs/nightly", lease["lease_id"])
    expect(row.get_by_role("cell").nth(1)).not_to_have_text(str(lease["token"]))
    waiting.join()
    service.request("DELETE", "/locks/jobs/nightly?force")
    expect(page.get_by_text("No lock is held")).to_be_visible()


def test_a_lock_is_released_only_after_its_name_was_typed(service: Server, visit: Visit) -> None:
    service.lease("jobs/nightly", ttl=600)
    service.lease("other", ttl=600)
    page = visit(service.url).tab("locks")
    page.get_by_role("button", name="Release jobs/nightly").click()
    dialog = page.get_by_role("dialog")
    release = dialog.get_by_role("button", name="Release")
    expect(release).to_be_disabled()
    dialog.get_by_role("textbox").fill("jobs/night")
    expect(release).to_be_disabled()
    dialog.get_by_role("textbox").press_sequentially("ly")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("row", name="jobs/nightly")).to_have_count(0)
    assert service.is_free("jobs/nightly")
    assert not service.is_free("other")


def test_a_token_without_admin_releases_no_lock(guarded: Server, visit: Visit) -> None:
    own = bearer(token(*ALL))
    guarded.client.post("/locks/a", json={"ttl": 600}, headers=own)
    visitor = visit(guarded.url)
    visitor.refused = {401}
    page = visitor.tab("locks")
    page.get_by_label("Bearer token").fill(token("read", "write"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Release a")).to_be_disabled()


# Tokens -------------------------------------------------------------------------------------------------------


def test_a_token_is_asked_for_and_kept_for_the_tab(guarded: Server, visit: Visit) -> None:
    guarded.client.put("/kv/users/ann", content=b"1", headers=bearer(token(*ALL)))
    guarded.client.put("/kv/other", content=b"1", headers=bearer(token(*ALL)))
    visitor = visit(guarded.url)
    visitor.refused = {401}
    page = visitor.tab()
    page.get_by_label("Bearer token").fill("Bearer nonsense")
    page.get_by_role("button", name="Use this token").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("does not accept this token")
    page.get_by_label("Bearer token").fill(f"Bearer {token('read', prefixes=['users/'])}")
    page.get_by_role("button", name="Use this token").click()
    expect(page.get_by_role("treeitem")).to_have_text(["users/"])
    expect(page.get_by_role("button", name="New entry")).to_be_disabled()
    expect(page.locator("#token")).to_have_text("ann")
    page.reload()
    expect(page.locator("#stream")).to_have_text("Connected")
    expect(page.locator("#token")).to_have_text("ann")
    other = visitor.tab()
    expect(other.get_by_role("dialog")).to_be_visible()
    other.get_by_role("button", name="Cancel").click()
    expect(other.get_by_role("alert")).to_have_text("The service needs a token.")


# Live ---------------------------------------------------------------------------------------------------------


def test_changes_appear_as_they_are_committed_and_can_be_paused_and_filtered(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab("live")
    expect(page.locator("#stream")).to_have_text("Connected")
    expect(page.get_by_text("Waiting for changes")).to_be_visible()
    service.put("users/ann", "1")
    service.delete("users/ann")
    service.lease("jobs/nightly")
    rows = page.locator("tbody tr").filter(visible=True)
    names = page.locator("tbody tr td:last-child").filter(visible=True)
    expect(names).to_have_text([re.compile("jobs/nightly"), "users/ann", "users/ann"])
    page.get_by_label("Show names that contain").fill("users")
    expect(rows).to_have_count(2)
    page.get_by_label("Deleted").uncheck()
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    service.put("users/ben", "1")
    expect(page.get_by_role("button", name="Continue (1 new)")).to_be_visible()
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Continue").click()
    expect(names).to_have_text(["users/ben", "users/ann"])
    names.first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="users/ben")).to_be_visible()


def test_the_stream_resumes_after_a_restart(visit: Visit, tmp_path: object) -> None:
    with running(f"{tmp_path}/data.json") as service:
        port = service.address[1]
        visitor = visit(service.url)
        page = visitor.tab("live")
        service.put("before", "1")
        expect(page.get_by_role("link", name="before")).to_be_visible()
        service.kill()
        expect(page.locator("#stream")).not_to_have_text("Connected")
    with running(f"{tmp_path}/data.json", environment={"LEASEHOLD_PORT": str(port)}) as service:
        service.put("after", "1")
        expect(page.get_by_role("link", name="after")).to_be_visible()
    visitor.faults = [fault for fault in visitor.faults if "net::ERR_" not in fault]


def test_a_tab_has_one_stream(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab()
    expect(page.locator("#stream")).to_have_text("Connected")
    for view in ("locks", "live", "status", "keys"):
        page.get_by_role("link", name=view.capitalize(), exact=True).click()
        expect(page.locator("nav [aria-current]")).to_have_text(view.capitalize())
    assert "leasehold_watchers 1.0" in service.client.get("/metrics").text
    page.close()
    until(lambda: "leasehold_watchers 0.0" in service.client.get("/metrics").text)


# Status -------------------------------------------------------------------------------------------------------


def test_status_shows_health_and_rates(service: Server, visit: Visit) -> None:
    service.put("a", "1")
    page = visit(service.url).tab("status")
    expect(page.get_by_text("healthy")).to_be_visible()
    expect(page.get_by_role("definition").first).to_have_text("memory")
    expect(page.get_by_role("img", name="Entries: now 1, highest 1")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile(r"^Reads: now \d"))).to_be_visible()


# All views ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(service: Server, visit: Visit, scheme: str) -> None:
    """4.5 to 1, as WCAG 2.1 level AA requires."""
    service.put("a/b", '{"a":[1,true,"x"]}')
    service.lease("a", ttl=600)
    visitor = visit(service.url, scheme=scheme)
    for view in ("keys/a%2Fb", "locks", "live", "status"):
        page = visitor.tab(view)
        expect(page.locator("#stream")).to_have_text("Connected")
        expect(page.locator("h1, h2").first).to_be_visible()
        assert page.evaluate(LOW_CONTRASTS) == []


LOW_CONTRASTS = """() => {
    const numbers = (colour) => {
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
        .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (element) => {
        const colour = numbers(getComputedStyle(element).backgroundColor);
        return colour[3] === 255 || !element.parentElement ? colour : behind(element.parentElement);
    };
    return [...document.body.querySelectorAll("*")]
        .filter((element) => element.checkVisibility() && !element.disabled && !element.closest(".unseen, .skip"))
        .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
        .map((element) => {
            const [high, low] =
                [light(numbers(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
            return [element.tagName, element.className, element.textContent, (high + 0.05) / (low + 0.05)];
        })
        .filter(([, , , ratio]) => ratio < 4.5);
}"""


def test_a_dark_browser_gets_a_dark_page(service: Server, visit: Visit) -> None:
    colours = [
        visit(service.url, scheme=scheme).tab().evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(246, 247, 247)", "rgb(19, 23, 22)"]


@pytest.mark.parametrize("view", ["keys", "keys/users%2Fann", "locks", "live", "status"])
def test_a_narrow_window_needs_no_sideways_scrolling(service: Server, visit: Visit, view: str) -> None:
    service.put("users/ann", '{"text":"%s"}' % ("x" * 300))
    service.lease("jobs/nightly-with-a-long-name", ttl=600, owner={"host": "a" * 80})
    page = visit(service.url, width=360, height=640).tab(view)
    expect(page.locator("#stream")).to_have_text("Connected")
    expect(page.locator("main")).not_to_be_empty()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_value_that_contains_markup_stays_text(service: Server, visit: Visit) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    service.request("POST", "/kv/%3Cb%3E", json=attack)
    service.lease("%3Ci%3E", owner=attack, ttl=600)
    page = visit(service.url).tab("keys/%3Cb%3E")
    expect(page.get_by_label("Value")).to_have_text(f'"{attack}"')
    page.get_by_role("link", name="Locks").click()
    expect(page.get_by_role("row", name="<i>")).to_contain_text(attack)
