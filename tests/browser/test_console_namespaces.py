"""The console in a real browser: the choice of a namespace, and what follows it."""

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


@pytest.fixture
def service() -> Iterator[Server]:
    """With an entry `one` in `default`, in `team-a` and in `team-b`."""
    with running("memory:") as started:
        for prefix in ("", "/ns/team-a", "/ns/team-b"):
            if prefix:
                assert started.client.put(prefix).status_code == 201
            started.client.put(f"{prefix}/kv/one", json=f"of {prefix.rpartition('/')[2] or 'default'}")
        yield started


def selector(page: Page) -> Locator:
    return page.get_by_label("Namespace", exact=True).filter(visible=True)


def value(page: Page) -> Locator:
    return page.get_by_label("Value", exact=True)


def use_token(page: Page, text: str) -> None:
    page.get_by_label("Bearer token").fill(text)
    page.keyboard.press("Enter")


def stored(service: Server, prefix: str) -> object:
    return service.client.get(f"{prefix}/kv/one").json()["value"]


def test_there_is_nothing_to_choose_while_there_is_only_the_namespace_default(visit: Visit) -> None:
    with running("memory:") as service:
        page = visit(service.url).tab()
        expect(page.locator("#stream")).to_have_text("Connected")
        expect(selector(page)).to_have_count(0)
        service.client.put("/ns/team-a")
        page.reload()
        expect(selector(page)).to_have_value("default")
        expect(selector(page).get_by_role("option")).to_have_text(["default", "team-a"])


def test_all_views_follow_the_namespace_and_its_address_can_be_kept(service: Server, visit: Visit) -> None:
    service.client.put("/ns/team-a/kv/folder/two", json=2)
    service.client.post("/ns/team-a/locks/jobs/team", json={"ttl": 600})
    service.lease("jobs/default", ttl=600)
    page = visit(service.url).tab("keys/one")
    expect(value(page)).to_have_text('"of default"')
    selector(page).select_option("team-a")
    expect(page.get_by_role("treeitem")).to_have_text(["folder/", "one"])
    expect(page.get_by_text("Choose an entry")).to_be_visible()
    assert page.url.endswith("/console/?namespace=team-a#keys")
    expect(page).to_have_title("Keys · team-a · Leasehold")
    page.get_by_role("treeitem", name="one").click()
    expect(value(page)).to_have_text('"of team-a"')
    service.client.put("/ns/team-b/kv/one", json="elsewhere")
    service.client.put("/ns/team-a/kv/one", json="changed")
    expect(value(page)).to_have_text('"changed"')
    page.reload()
    expect(value(page)).to_have_text('"changed"')
    expect(selector(page)).to_have_value("team-a")
    page.get_by_role("link", name="Locks").click()
    expect(page.get_by_role("rowheader")).to_have_text(["jobs/team"])
    page.get_by_role("link", name="Live").click()
    expect(page.locator("#stream")).to_have_text("Connected")
    service.put("of/default", "1")
    service.client.put("/ns/team-a/kv/of/team", json=1)
    expect(page.locator("tbody tr td:last-child")).to_have_text(["of/team"])
    page.evaluate("history.go(-4)")
    expect(value(page)).to_have_text('"of default"')
    expect(selector(page)).to_have_value("default")


def test_an_edit_is_saved_only_in_the_namespace_in_which_it_was_begun(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab("keys/one")
    selector(page).select_option("team-a")
    page.get_by_role("treeitem", name="one").click()
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Value (JSON)").press_sequentially(" ")
    page.get_by_label("Value (JSON)").fill('"edited"')
    with page.expect_event("dialog") as asked:
        page.once("dialog", lambda dialog: dialog.dismiss())
        selector(page).select_option("team-b")
    assert asked.value.type == "beforeunload"
    expect(page.get_by_label("Value (JSON)")).to_have_value('"edited"')
    expect(selector(page)).to_have_value("team-a")
    page.get_by_role("button", name="Save").click()
    expect(value(page)).to_have_text('"edited"')
    assert [stored(service, prefix) for prefix in ("", "/ns/team-a", "/ns/team-b")] == [
        "of default",
        "edited",
        "of team-b",
    ]


def test_a_lock_is_released_in_its_namespace(service: Server, visit: Visit) -> None:
    for prefix in ("", "/ns/team-a"):
        service.client.post(f"{prefix}/locks/jobs", json={"ttl": 600})
    page = visit(service.url).tab("locks")
    selector(page).select_option("team-a")
    page.get_by_role("button", name="Release jobs").click()
    page.get_by_role("dialog").get_by_role("textbox").fill("jobs")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No lock is held")).to_be_visible()
    assert service.client.get("/ns/team-a/locks/jobs").status_code == 404
    assert service.client.get("/locks/jobs").status_code == 200


def test_the_status_has_the_figures_of_the_namespace(service: Server, visit: Visit) -> None:
    service.client.put("/ns/team-a", json={"max_entries": 10})
    page = visit(service.url).tab()
    page.goto(f"{service.url}/console/?namespace=team-a#status")
    facts = page.locator(".facts")
    for text in ("Namespaceteam-a", "Revision1", "Entries1 of 10", "Keys and values14 bytes"):
        expect(facts).to_contain_text(text)
    expect(facts).not_to_contain_text("Incarnation")


def test_a_program_for_an_entry_names_the_namespace(service: Server, visit: Visit) -> None:
    page = visit(service.url).tab()
    page.goto(f"{service.url}/console/?namespace=team-a#keys/one")
    page.get_by_text("Use this entry in a program").click()
    expect(page.get_by_label("curl", exact=True)).to_contain_text(f"{service.url}/ns/team-a/kv/one?raw")
    expect(page.get_by_label("Python", exact=True)).to_contain_text('namespace="team-a"')


@pytest.mark.parametrize("name", ["nowhere", "..", "A/b"])
def test_a_namespace_that_does_not_exist_shows_nothing_of_another_one(service: Server, visit: Visit, name: str) -> None:
    visitor = visit(service.url)
    visitor.refused = {400, 404}
    page = visitor.tab()
    page.goto(f"{service.url}/console/?namespace={name}#keys/one")
    expect(page.get_by_role("alert").first).to_contain_text("namespace")
    expect(page.get_by_role("button", name="Create it")).to_have_count(0)
    expect(page.get_by_role("treeitem", name="one")).to_have_count(0)
    selector(page).select_option("default")
    expect(page.get_by_role("treeitem")).to_have_text(["one"])


# Tokens -------------------------------------------------------------------------------------------------------


@pytest.fixture
def teams(guarded: Server) -> Server:
    """With an entry `one` in `team-a` and in `team-b`."""
    everything = bearer(token("read", "write", "admin", namespaces=["*"]))
    for name in ("team-a", "team-b"):
        guarded.client.put(f"/ns/{name}", headers=everything)
        guarded.client.put(f"/ns/{name}/kv/one", json=f"of {name}", headers=everything)
    return guarded


@pytest.mark.parametrize(
    ("granted", "offered"),
    [
        ({"namespaces": ["*"]}, ["default", "team-a", "team-b"]),
        ({"namespaces": ["default", "team-b"]}, ["default", "team-b"]),
        ({}, []),
    ],
    ids=["all", "two", "default"],
)
@pytest.mark.parametrize("permissions", [("read", "admin"), ("read",)], ids="+".join)
def test_a_token_offers_only_its_own_namespaces(
    teams: Server, visit: Visit, permissions: tuple[str, ...], granted: dict[str, list[str]], offered: list[str]
) -> None:
    visitor = visit(teams.url)
    visitor.refused = {401}
    page = visitor.tab()
    use_token(page, token(*permissions, **granted))  # type: ignore[arg-type]
    expect(page.locator("#stream")).to_have_text("Connected")
    if "admin" not in permissions and granted.get("namespaces") == ["*"]:
        offered = []  # only who may list them knows which there are
    expect(page.locator("#namespace option")).to_have_text(offered or ["default"])
    expect(selector(page)).to_have_count(1 if offered else 0)


def test_a_token_that_is_not_for_default_opens_its_own_namespace(teams: Server, visit: Visit) -> None:
    visitor = visit(teams.url)
    visitor.refused = {401, 403}
    page = visitor.tab()
    use_token(page, token("read", namespaces=["team-b"]))
    expect(page.get_by_role("treeitem")).to_have_text(["one"])
    assert page.url.endswith("/console/?namespace=team-b#keys")
    page.get_by_role("treeitem").click()
    expect(value(page)).to_have_text('"of team-b"')


def test_namespaces_work_under_a_path_of_a_proxy(visit: Visit, tmp_path: Path) -> None:
    with (
        running("memory:", environment={"LEASEHOLD_ALLOWED_HOSTS": HOST}) as service,
        fronted("nginx", service.address[1], tmp_path, changed=under_a_path) as front,
    ):
        service.client.put("/ns/team-a")
        service.client.put("/ns/team-a/kv/one", json="of team-a")
        host, port = front.address
        page = visit(f"https://{host}:{port}/leasehold").tab()
        selector(page).select_option("team-a")
        page.get_by_role("treeitem", name="one").click()
        expect(value(page)).to_have_text('"of team-a"')
        page.close()  # it would complain about the end of the proxy
