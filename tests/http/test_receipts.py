"""Outcomes of requests with idempotency keys: at other servers, after restarts, and until they are removed."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest
from databases import STORES
from running import Server, Wire, http_client, leasehold, message, running, until

from leasehold.limits import Limits

DOCUMENTS = Path(__file__).parents[2] / "docs"
_numbers = count(1)

Pair = tuple[Server, Server]


@pytest.fixture
def once() -> dict[str, str]:
    return {"Idempotency-Key": f"once-{next(_numbers)}"}


def is_replayed(response: httpx.Response) -> bool:
    return "Idempotent-Replayed" in response.headers


def receipts(server: Server) -> int:
    """The gauge, of an engine that has the receipts in memory."""
    lines = server.request("GET", "/metrics").text.splitlines()
    [line] = [line for line in lines if line.startswith("leasehold_receipts ")]
    return int(float(line.split()[1]))


# Servers that share a database --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    store = STORES["postgres"](tmp_path_factory.mktemp("shared"))
    with running(store) as one, running(store) as other:
        yield one, other


def test_a_request_is_repeated_at_another_server(pair: Pair, key: str, once: dict[str, str]) -> None:
    first = pair[0].put(key, "[1]", headers=once)
    again = pair[1].put(key, "[1]", headers=once)
    assert (is_replayed(first), is_replayed(again)) == (False, True)
    assert (again.status_code, again.content, again.headers["ETag"]) == (201, first.content, first.headers["ETag"])


def test_equal_requests_at_two_servers_at_the_same_time_have_one_effect(pair: Pair, key: str) -> None:
    answers: list[list[httpx.Response]] = [[] for _ in range(20)]
    failures: list[BaseException] = []

    def send(server: Server) -> None:
        try:
            with http_client(server.url) as client:
                for number, of_number in enumerate(answers):
                    headers = {"Idempotency-Key": f"{key}-{number}"}
                    of_number.append(client.post(f"/kv/{key}?increment", content="1", headers=headers))
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    threads = [threading.Thread(target=send, args=(server,)) for server in (*pair, *pair)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for of_number in answers:
        assert len({answer.content for answer in of_number}) == 1
        assert sorted(map(is_replayed, of_number)) == [False, True, True, True]
    assert pair[0].value(key) == len(answers)


def test_equal_requests_that_wait_for_a_lock_at_two_servers_get_one_lease(
    pair: Pair, lock: str, once: dict[str, str]
) -> None:
    held = pair[0].lease(lock)
    request = message("POST", f"/locks/{lock}?wait=60&ttl=300", f"Idempotency-Key: {once['Idempotency-Key']}")
    with Wire(pair[0]) as one, Wire(pair[1]) as other:
        one.send(request)
        other.send(request)
        until(lambda: [server.waiters(lock) for server in pair] == [1, 1])
        pair[1].release(lock, held["lease_id"])
        answers = [wire.answer(to="POST") for wire in (one, other)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body
    assert json.loads(answers[0].body)["token"] == pair[0].holder(lock).json()["token"]


# Restarts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["file", "postgres"])
def test_a_request_is_repeated_after_a_kill_and_after_a_stop(store: str, tmp_path: Path, once: dict[str, str]) -> None:
    with running(STORES[store](tmp_path)) as server:
        lease = server.request("POST", "/locks/l?ttl=300", headers=once)
        server.put("a", "[]", headers={"Idempotency-Key": "a"})
        for end in (server.kill, server.terminate):
            end()
            server.start()
            again = server.request("POST", "/locks/l?ttl=300", headers=once)
            assert (again.status_code, again.content, is_replayed(again)) == (201, lease.content, True)
            assert is_replayed(server.put("a", "[]", headers={"Idempotency-Key": "a"}))


def test_a_restore_leaves_no_receipts(tmp_path: Path, once: dict[str, str]) -> None:
    with running(tmp_path / "data.json") as server:
        server.put("a", "1", headers=once)
        assert b"receipt" not in server.request("GET", "/backup").content
    assert b'"receipts"' in (tmp_path / "data.json").read_bytes()
    (tmp_path / "copy.json").write_bytes((tmp_path / "data.json").read_bytes())
    done = leasehold("restore", str(tmp_path / "copy.json"), "--store", str(tmp_path / "restored.json"))
    assert done.returncode == 0, done.stderr
    with running(tmp_path / "restored.json") as server:
        again = server.put("a", "1", headers=once)
        assert (again.status_code, is_replayed(again)) == (200, False)


# The end of a receipt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "seconds"), [({}, 600), ({"LEASEHOLD_IDEMPOTENCY_SECONDS": "7200"}, 7_200)], ids=["default", "set"]
)
def test_a_receipt_is_kept_for_600_seconds_or_as_long_as_is_set(
    environment: dict[str, str], seconds: int, tmp_path: Path, once: dict[str, str]
) -> None:
    with running(tmp_path / "data.json", environment=environment) as server:
        written = server.put("a", "1", headers=once).json()
        server.terminate()
    [receipt] = json.loads((tmp_path / "data.json").read_bytes())["receipts"]
    kept = datetime.fromisoformat(receipt["expires_at"]) - datetime.fromisoformat(written["updated_at"])
    assert kept == timedelta(seconds=seconds)


def test_the_documents_name_how_many_receipts_are_kept_and_for_how_long() -> None:
    limits = Limits()
    api, settings = ((DOCUMENTS / page).read_text("utf-8") for page in ("api.md", "operations.md"))
    assert (
        f"{limits.max_receipts:,} outcomes are kept in each [namespace](#namespaces); the oldest are removed first"
        in api
    )
    assert f"Only successes are kept, for {limits.idempotency_seconds:.0f} seconds" in api
    assert f"| `LEASEHOLD_IDEMPOTENCY_SECONDS` | {limits.idempotency_seconds:.0f} |" in settings
    assert f"| `LEASEHOLD_MAX_RECEIPTS` | {limits.max_receipts} |" in settings


@pytest.mark.parametrize("store", STORES)
def test_a_request_is_done_again_when_its_receipt_has_expired(
    store: str, tmp_path: Path, key: str, once: dict[str, str]
) -> None:
    with running(STORES[store](tmp_path), environment={"LEASEHOLD_IDEMPOTENCY_SECONDS": "1.5"}) as server:
        server.request("POST", f"/kv/{key}?increment", content="1", headers=once)
        values: set[int] = set()

        def is_done_again() -> bool:
            response = server.request("POST", f"/kv/{key}?increment", content="1", headers=once)
            values.add(response.json()["value"])
            return not is_replayed(response)

        until(is_done_again)
        assert values == {1, 2}


def test_expired_receipts_are_removed(tmp_path: Path) -> None:
    with running(tmp_path / "data.json", environment={"LEASEHOLD_IDEMPOTENCY_SECONDS": "1"}) as server:
        for number in range(50):
            server.put("a", "1", headers={"Idempotency-Key": str(number)})
        until(lambda: receipts(server) == 0)
        assert server.revision() < 100
        server.terminate()
        assert b"receipts" not in (tmp_path / "data.json").read_bytes()


@pytest.mark.parametrize("store", STORES)
def test_the_oldest_receipts_go_first_if_there_are_too_many(store: str, tmp_path: Path) -> None:
    with running(STORES[store](tmp_path), environment={"LEASEHOLD_MAX_RECEIPTS": "10"}) as server:
        for number in range(30):
            server.put("a", "1", headers={"Idempotency-Key": str(number)})
        # Requests that are done again replace receipts, so only the oldest ones are sent again.
        until(lambda: not is_replayed(server.put("a", "1", headers={"Idempotency-Key": "0"})))
        assert not is_replayed(server.put("a", "1", headers={"Idempotency-Key": "1"}))
        for number in range(24, 30):
            assert is_replayed(server.put("a", "1", headers={"Idempotency-Key": str(number)}))


@pytest.mark.parametrize("value", ["0", "-1", "many"])
@pytest.mark.parametrize("name", ["LEASEHOLD_IDEMPOTENCY_SECONDS", "LEASEHOLD_MAX_RECEIPTS"])
def test_a_wrong_setting_is_refused_at_the_start(name: str, value: str) -> None:
    done = leasehold("serve", "--store=memory:", "--port=0", environment={name: value})
    assert done.returncode != 0
    assert name in done.stderr
