"""The service under a path of a proxy, as docs/proxies.md configures nginx for it."""

from collections.abc import Iterator

import pytest
from fronting import HOST, Front, fronted, under_a_path
from programs import needs
from running import Server, running

pytestmark = needs("nginx", "openssl")

PATH = "/leasehold"


@pytest.fixture(scope="module")
def origin() -> Iterator[Server]:
    with running(environment={"LEASEHOLD_ALLOWED_HOSTS": HOST}) as server:
        yield server


@pytest.fixture(scope="module")
def front(origin: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with fronted("nginx", origin.address[1], tmp_path_factory.mktemp("proxy"), changed=under_a_path) as started:
        yield started


@pytest.mark.parametrize(
    "name", ["a/b", "a%2Fb", "a%252Fb", "a%20b", "a+b", "a%3Fb%23", "%C3%A4", "a%25", "...", "a%5Cb", "leasehold/a"]
)
def test_a_key_arrives_as_it_was_sent(front: Front, origin: Server, key: str, name: str) -> None:
    written = front.ask("PUT", f"{PATH}/kv/{key}/{name}", "Content-Type: application/json", body=b"1")
    assert written.status == 201, written.body
    assert origin.value(f"{key}/{name}") == 1
    assert front.ask("GET", f"{PATH}/kv/{key}/{name}").value == 1


@pytest.mark.parametrize("name", ["a//b", "a/../b", "a/%2e%2e/b", "a/./b"])
def test_an_invalid_key_is_still_invalid(front: Front, origin: Server, key: str, name: str) -> None:
    target = f"{PATH}/kv/{key}/{name}"
    assert front.ask("PUT", target, "Content-Type: application/json", body=b"1").status == 400
    assert origin.request("GET", f"/kv?prefix={key}").json()["entries"] == []


@pytest.mark.parametrize(
    "target", ["/x/../leasehold/kv/a", "/leasehold/../kv/a", "/leasehold%2Fkv/a", "/leaseholder/a"]
)
def test_another_path_reaches_no_entry(front: Front, target: str) -> None:
    assert front.ask("PUT", target, "Content-Type: application/json", body=b"1").status in (400, 404, 405)


def test_the_console_is_found_under_the_path(front: Front) -> None:
    browser = {"Accept": "text/html"}
    for path in (f"{PATH}/", f"{PATH}/console"):
        answer = front.client.get(path, headers=browser)
        assert (answer.status_code, answer.headers["Location"]) == (302, "console/")
    assert front.client.get(f"{PATH}/console/", headers=browser).status_code == 200
    assert front.client.get(f"{PATH}/console/main.js").status_code == 200
