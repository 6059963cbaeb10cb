"""The console in a real browser: the tree of keys, and entries that are shown, changed, created and deleted."""

import json
from collections.abc import Callable, Iterator

import pytest
from browsing import Visitor
from playwright.sync_api import Locator, Page, expect
from programs import needs
from running import Server, running

pytestmark = needs("chromium")

Visit = Callable[..., Visitor]
BIG = '{"id":9223372036854775807,"max":18446744073709551615,"half":0.1,"text":"<b>é</b>"}'


@pytest.fixture
def service() -> Iterator[Server]:
    with running("memory:") as started:
        yield started


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("treeitem", name=name, exact=True)


def edit(page: Page, text: str) -> None:
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Value (JSON)").fill(text)


# Browsing -----------------------------------------------------------------------------------------------------


def test_folders_open_one_level_at_a_time_and_show_their_entries(service: Server, visit: Visit) -> None:
    for key in ("a", "users/ann", "users/deep/x", "users-old"):
        service.put(key, json.dumps(f"value of {key}"))
    page = visit(service.url).tab()
    names = page.get_by_role("treeitem").filter(visible=True)
    expect(names).to_have_text(["a", "users-old", "users/"])
    row(page, "users, folder").click()
    expect(names.last).to_have_text("deep/")
    row(page, "ann").click()
    expect(page.get_by_role("heading", name="users/ann")).to_be_visible()
    expect(page.get_by_label("Value")).to_have_text('"value of users/ann"')
    page.reload()
    expect(page.get_by_label("Value")).to_have_text('"value of users/ann"')
    expect(row(page, "ann")).to_have_attribute("aria-selected", "true")


def test_the_search_shows_keys_with_a_prefix(service: Server, visit: Visit) -> None:
    for key in ("users/ann", "users/anton", "users/ben", "other"):
        service.put(key, "1")
    page = visit(service.url).tab()
    page.get_by_label("Show keys that begin with").fill("users/an")
    expect(page.get_by_role("treeitem").filter(visible=True)).to_have_text(["ann", "anton"])
    expect(page.get_by_text("2 entries")).to_be_visible()
    page.get_by_label("Show keys that begin with").fill("nothing")
    expect(page.get_by_text("No key begins with this text.")).to_be_visible()


def test_a_store_without_entries_says_so(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab()
    expect(page.get_by_text("The store has no entries yet.")).to_be_visible()


def test_a_level_is_read_in_pages_and_folders_are_skipped(service: Server, visit: Visit) -> None:
    """20,000 keys: what is read depends on the rows that are shown, and not on the keys in the folders."""
    for first in range(0, 20_000, 100):
        operations = [{"op": "put", "key": f"f{n % 5}/d{n // 5:05}", "value": n} for n in range(first, first + 100)]
        assert service.client.post("/txn", json={"do": operations}).status_code == 200
    page = visit(service.url).tab()
    expect(page.get_by_role("treeitem").filter(visible=True)).to_have_text([f"f{n}/" for n in range(5)])
    expect(page.get_by_text("More than 10,000 entries")).to_be_visible()
    row(page, "f3, folder").click()
    expect(page.get_by_role("treeitem", name="Show 100 more")).to_be_visible()
    assert page.locator('[role="group"] [data-path]').count() == 100
    assert 0 < page.evaluate("performance.getEntries().filter(({ name }) => name.includes('/kv?')).length") <= 10
    page.get_by_role("treeitem", name="Show 100 more").click()
    expect(page.locator('[role="group"] [data-path]')).to_have_count(200)
    expect(row(page, "d00199")).to_have_attribute("data-path", "f3/d00199")
    page.get_by_label("Show keys that begin with").fill("f3/d0399")
    expect(page.get_by_role("treeitem").filter(visible=True)).to_have_text([f"d0399{n}" for n in range(10)])


def test_the_tree_follows_changes(service: Server, visit: Visit) -> None:
    service.put("a/one", "1")
    page = visit(service.url).tab()
    row(page, "a, folder").click()
    expect(page.locator("#stream")).to_have_text("Connected")
    service.put("a/two", "2")
    expect(row(page, "two")).to_be_visible()
    service.delete("a/one")
    expect(row(page, "one")).to_have_count(0)
    service.delete("a/two")
    expect(row(page, "a, folder")).to_have_count(0)
    service.put("b", "1")
    expect(row(page, "b")).to_be_visible()


def test_the_tree_is_used_with_the_keyboard_alone(service: Server, visit: Visit) -> None:
    for key in ("a", "users/ann", "users/ben", "z"):
        service.put(key, json.dumps(key))
    page = visit(service.url).tab()
    expect(row(page, "z")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Show keys that begin with").focus()
    page.keyboard.press("ArrowDown")
    expect(row(page, "a")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(row(page, "ben")).to_be_visible()
    expect(row(page, "users, folder")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowRight")
    expect(row(page, "ann")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="users/ann")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(row(page, "users, folder")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(row(page, "ann")).to_be_hidden()
    page.keyboard.press("End")
    expect(row(page, "z")).to_be_focused()
    page.keyboard.press("Home")
    expect(row(page, "a")).to_be_focused()


# Entries ------------------------------------------------------------------------------------------------------


def test_a_value_is_not_changed_by_being_shown_and_saved(service: Server, visit: Visit) -> None:
    service.put("big", BIG)
    page = visit(service.url).tab("keys/big")
    expect(page.get_by_label("Value")).to_contain_text("9223372036854775807")
    page.get_by_label("Without line breaks, as the service sent it").check()
    expect(page.get_by_label("Value", exact=True)).to_have_text(BIG)
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("definition").first).to_have_text("2")
    assert service.client.get("/kv/big?raw").text == BIG + "\n"


def test_an_edit_keeps_the_expiry_or_sets_it(service: Server, visit: Visit) -> None:
    service.put("short?ttl=900", "1")
    before = service.get("short").json()["expires_at"]
    page = visit(service.url).tab("keys/short")
    edit(page, "2")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Value")).to_have_text("2")
    assert service.get("short").json()["expires_at"] == before
    edit(page, "3")
    page.get_by_label("Expires", exact=True).select_option("never")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_label("Value")).to_have_text("3")
    assert "expires_at" not in service.get("short").json()
    edit(page, "4")
    page.get_by_label("Expires", exact=True).select_option("after some seconds")
    page.get_by_label("Seconds until it expires").fill("600")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Expires in")).to_be_visible()


def test_two_tabs_that_edit_the_same_entry_compare_the_versions(service: Server, visit: Visit) -> None:
    service.put("shared", '{"one":1,"two":2}')
    visitor = visit(service.url)
    visitor.refused = {412}
    first, second = visitor.tab("keys/shared"), visitor.tab("keys/shared")
    edit(first, '{"one": 9223372036854775807, "two": 2}')
    edit(second, '{"one": 1, "two": 22}')
    first.get_by_role("button", name="Save").click()
    expect(first.get_by_label("Value")).to_contain_text("9223372036854775807")
    expect(second.get_by_text("The entry was changed on the server meanwhile.")).to_be_visible()
    second.get_by_role("button", name="Save").click()
    compared = second.locator(".conflict")
    expect(compared.get_by_role("heading", name="The entry was changed meanwhile")).to_be_focused()
    expect(compared.locator("section").nth(1).locator("del")).to_have_text(['\u2212   "one": 1,'])
    expect(compared.locator("section").nth(1).locator("ins")).to_have_text(['+   "one": 9223372036854775807,'])
    expect(compared.locator("section").nth(2).locator("ins")).to_have_text(['+   "two": 22'])
    assert service.client.get("/kv/shared?raw").text == '{"one":9223372036854775807,"two":2}\n'
    second.get_by_role("button", name="Take the server").click()
    value = second.get_by_label("Value (JSON)")
    value.fill(value.input_value().replace('"two": 2', '"two": 22'))
    second.get_by_role("button", name="Save over revision 2").click()
    expect(second.get_by_label("Value")).to_contain_text("22")
    assert service.client.get("/kv/shared?raw").text == '{"one":9223372036854775807,"two":22}\n'


def test_an_entry_that_was_deleted_during_an_edit_is_not_created_by_accident(service: Server, visit: Visit) -> None:
    service.put("gone", "1")
    visitor = visit(service.url)
    visitor.refused = {404, 412}
    page = visitor.tab("keys/gone")
    edit(page, "2")
    service.delete("gone")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Deleted on the server")).to_be_visible()
    assert service.get("gone").status_code == 404
    page.get_by_role("button", name="Create it again").click()
    expect(page.get_by_label("Value")).to_have_text("2")


def test_an_entry_is_created_and_deleted(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {400, 404}
    page = visitor.tab()
    page.get_by_role("button", name="New entry").click()
    page.get_by_label("Key", exact=True).fill("new/käse 1")
    page.get_by_label("Value (JSON)").fill("{oops")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("invalid_json")
    page.get_by_label("Value (JSON)").fill(BIG)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="new/käse 1")).to_be_visible()
    assert service.client.get("/kv/new/k%C3%A4se%201?raw").text == BIG + "\n"
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Choose an entry")).to_be_visible()
    assert service.get("new/k%C3%A4se%201").status_code == 404


def test_a_form_for_a_new_entry_closes_at_the_address_where_it_was_opened(service: Server, visit: Visit) -> None:
    visitor = visit(service.url)
    visitor.refused = {404}
    page = visitor.tab()
    page.get_by_role("button", name="New entry").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Choose an entry")).to_be_visible()
    page = visitor.tab("keys/absent")
    page.get_by_role("button", name="Create it").click()
    page.get_by_label("Value (JSON)").fill("17")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.get_by_label("Value")).to_have_text("17")


def test_bytes_are_downloaded_and_not_shown(service: Server, visit: Visit) -> None:
    service.client.put("/kv/logo.png", content=b"\x89PNG\0\xff", headers={"Content-Type": "image/png"})
    page = visit(service.url).tab("keys/logo.png")
    expect(page.get_by_text("This value is 6 bytes of image/png.")).to_be_visible()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download 6 bytes").click()
    assert downloading.value.path().read_bytes() == b"\x89PNG\0\xff"
    assert downloading.value.suggested_filename == "logo.png"


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_an_entry_is_copied_as_a_program(service: Server, visit: Visit, language: str) -> None:
    service.put("it's", json.dumps("x"))
    visitor = visit(service.url)
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.tab("keys/it's")
    page.get_by_text("Use this entry in a program").click()
    page.get_by_role("button", name=f"Copy as {language}").click()
    expect(page.get_by_role("button", name=f"Copy as {language}")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert service.url in copied
    assert {"curl": "curl", "Python": "leasehold_client", "JavaScript": "fetch"}[language] in copied
