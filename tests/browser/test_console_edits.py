"""The console in a real browser: what becomes of an edit that is not saved, and of saves that are refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Visitor
from callers import bearer, token
from fronting import HOST, fronted, under_a_path
from playwright.sync_api import Locator, Page, expect
from programs import needs
from running import Server, running

pytestmark = needs("chromium")

Visit = Callable[..., Visitor]
ALL = ("read", "write", "admin")


@pytest.fixture
def service() -> Iterator[Server]:
    with running("memory:") as started:
        for key in ("one", "two"):
            started.put(key, json.dumps(f"value of {key}"))
        yield started


def value_field(page: Page) -> Locator:
    return page.get_by_label("Value (JSON)")


def edit(page: Page, text: str) -> None:
    page.get_by_role("button", name="Edit").click()
    value_field(page).fill(text)


# Leaving an edit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["view", "entry", "same entry", "new entry", "back"])
def test_leaving_an_edit_that_is_not_saved_asks_first(service: Server, visit: Visit, way: str) -> None:
    page = visit(service.url).tab("keys/two")
    page.goto(f"{service.url}/console/#keys/one")
    ways: dict[str, Callable[[], object]] = {
        "view": lambda: page.get_by_role("link", name="Locks").click(),
        "entry": lambda: page.get_by_role("treeitem", name="two", exact=True).click(),
        "same entry": lambda: page.get_by_role("treeitem", name="one", exact=True).click(),
        "new entry": lambda: page.get_by_role("button", name="New entry").click(),
        "back": lambda: page.evaluate("history.back()"),
    }
    arrived = {
        "view": page.get_by_role("heading", name="Locks"),
        "entry": page.get_by_text('"value of two"'),
        "same entry": page.get_by_text('"value of one"'),
        "new entry": page.get_by_role("heading", name="New entry"),
        "back": page.get_by_text('"value of two"'),
    }[way]
    expect(page.get_by_text('"value of one"')).to_be_visible()
    edit(page, '"typed"')
    ways[way]()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(value_field(page)).to_have_value('"typed"')
    assert page.url.endswith("#keys/one")
    ways[way]()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(arrived).to_be_visible()
    assert service.value("one") == "value of one"


def test_an_edit_in_which_nothing_was_changed_is_left_without_a_question(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab("keys/one")
    page.get_by_role("button", name="Edit").click()
    expect(value_field(page)).to_have_value('"value of one"')
    page.get_by_role("link", name="Locks").click()
    expect(page.get_by_role("heading", name="Locks")).to_be_visible()


def test_the_browser_asks_before_a_tab_with_an_edit_is_closed(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab("keys/one")
    page.get_by_role("button", name="Edit").click()
    value_field(page).press_sequentially(" ")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    expect(value_field(page)).to_be_visible()


def test_an_edit_stays_when_the_token_is_replaced(guarded: Server, visit: Visit) -> None:
    guarded.client.put("/kv/edited", content=b"1", headers=bearer(token(*ALL)))
    visitor = visit(guarded.url)
    visitor.refused = {401, 403}
    page = visitor.tab("keys/edited")
    page.get_by_label("Bearer token").fill(token("read", "write", prefixes=["edit"]))
    page.keyboard.press("Enter")
    edit(page, "2")
    page.locator("#token").click()
    page.get_by_label("Bearer token").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="does not accept this token").last).to_be_visible()
    page.get_by_label("Bearer token").fill(token("read", "write"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(value_field(page)).to_have_value("2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Value", exact=True)).to_have_text("2")


# Saves that are refused ---------------------------------------------------------------------------------------


def test_a_save_outside_of_the_prefixes_of_the_token_says_why(guarded: Server, visit: Visit) -> None:
    visitor = visit(guarded.url)
    visitor.refused = {401, 403}
    page = visitor.tab()
    page.get_by_label("Bearer token").fill(token("read", "write", prefixes=["users/"]))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="New entry").click()
    page.get_by_label("Key", exact=True).fill("other")
    value_field(page).fill("1")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text(
        "The service refuses this: the token does not cover this key."
    )


def test_the_line_breaks_of_the_form_do_not_make_a_value_too_large(service: Server, visit: Visit) -> None:
    text = json.dumps(["x" * 1_045] * 1_000, separators=(",", ":"))
    assert service.put("large", text).status_code == 201
    page = visit(service.url).tab("keys/large")
    page.get_by_role("button", name="Edit").click()
    assert len(value_field(page).input_value()) > 2**20
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("button", name="Edit")).to_be_visible()
    assert service.get("large").json()["revision"] == 4
    assert service.client.get("/kv/large?raw").text == text + "\n"


def test_the_same_value_with_another_expiry_is_compared_and_not_taken_as_saved(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {412}
    page = visitor.tab("keys/one")
    edit(page, '"new"')
    page.get_by_label("Expires", exact=True).select_option("after some seconds")
    page.get_by_label("Seconds until it expires").fill("600")
    service.put("one", '"new"')
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Save over revision 3").click()
    expect(page.get_by_text("Expires in")).to_be_visible()


def test_a_save_that_fails_in_the_console_itself_can_be_tried_again(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {412}
    module = 'export function comparison() { throw new Error("a planted fault"); }'
    visitor.context.route("**/conflict.js", lambda route: route.fulfill(content_type="text/javascript", body=module))
    page = visitor.tab("keys/one")
    edit(page, '"typed"')
    service.put("one", '"other"')
    with visitor.context.expect_event("weberror"):
        page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Save over revision 3").click()
    expect(page.get_by_label("Value", exact=True)).to_have_text('"typed"')
    assert len(visitor.faults) == 1
    assert "a planted fault" in visitor.faults.pop()


def test_an_entry_whose_key_is_a_title_of_the_console_has_its_own_address(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab()
    page.get_by_role("button", name="New entry").click()
    page.get_by_label("Key", exact=True).fill("New entry")
    value_field(page).fill("1")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_label("Value", exact=True)).to_have_text("1")
    assert page.url.endswith("#keys/New%20entry")


# Reads that fail ----------------------------------------------------------------------------------------------


def test_a_folder_that_could_not_be_read_is_read_again(service: Server, visit: Visit) -> None:
    service.put("folder/inside", "1")
    visitor = visit(service.url)
    page = visitor.tab()
    pattern = "**/kv?*prefix=folder*"
    page.route(pattern, lambda route: route.abort())
    page.get_by_role("treeitem", name="folder, folder").click()
    expect(page.get_by_role("alert")).to_have_text("The service did not answer.")
    page.unroute(pattern)
    page.get_by_role("treeitem", name="Try again").click()
    expect(page.get_by_role("treeitem", name="inside", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("treeitem", name="Try again")).to_have_count(0)
    visitor.faults = [each for each in visitor.faults if "net::ERR_FAILED" not in each]


# A proxy ------------------------------------------------------------------------------------------------------


@needs("nginx", "openssl")
def test_the_console_works_under_a_path_of_a_proxy(visit: Visit, tmp_path: Path) -> None:
    with (
        running("memory:", environment={"LEASEHOLD_ALLOWED_HOSTS": HOST}) as service,
        fronted("nginx", service.address[1], tmp_path, changed=under_a_path) as front,
    ):
        service.put("one", "1")
        host, port = front.address
        page = visit(f"https://{host}:{port}/leasehold").tab("keys/one")
        expect(page.locator("#stream")).to_have_text("Connected")
        page.get_by_text("Use this entry in a program").click()
        expect(page.get_by_label("curl", exact=True)).to_contain_text(f"{host}:{port}/leasehold/kv/one?raw")
        edit(page, '"a new value"')
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Value", exact=True)).to_have_text('"a new value"')
        service.put("three", "3")
        expect(page.get_by_role("treeitem", name="three")).to_be_visible()
        page.get_by_role("link", name="Status").click()
        expect(page.get_by_text("healthy")).to_be_visible()
        page.close()


def test_an_error_page_of_a_proxy_is_not_taken_for_the_health_of_the_service(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {502}
    page = visitor.tab("status")
    expect(page.get_by_text("healthy")).to_be_visible()
    page.route("**/health", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad</h1>"))
    expect(page.get_by_text("A proxy answered 502 in place of the service.")).to_be_visible()
    expect(page.get_by_text("unreachable")).to_be_visible()


def test_only_a_change_that_was_not_answered_may_have_been_made(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    page = visitor.tab("keys/one")
    edit(page, '"typed"')
    page.route("**/kv/one*", lambda route: route.abort())
    page.get_by_role("button", name="Save").click()
    fault = page.get_by_role("alert").filter(visible=True)
    expect(fault).to_have_text("The service did not answer. The change may have been made.")
    expect(value_field(page)).to_have_value('"typed"')
    page.get_by_role("button", name="Cancel").click()
    expect(fault).to_have_text("The service did not answer.")
    visitor.faults = [each for each in visitor.faults if "net::ERR_FAILED" not in each]


# The keyboard -------------------------------------------------------------------------------------------------


def test_the_focus_stays_in_the_page_after_a_save_and_after_a_deletion(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {404}
    page = visitor.tab("keys/one")
    page.get_by_role("button", name="Edit").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type('"typed"')
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Choose an entry")).to_be_visible()
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Show keys that begin with")).to_be_focused()
    assert service.get("one").status_code == 404
