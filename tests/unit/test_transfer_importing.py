"""Which requests `leasehold import` and `copy` send, and what they do with the answers."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import pytest
from leasehold_client import (
    Forbidden,
    InvalidArgument,
    InvalidJson,
    LeaseholdError,
    LeaseLost,
    PreconditionFailed,
    Request,
    Response,
    TooLarge,
    Unreachable,
)

from leasehold.cli.transfer.importing import Importer, WriteOptions
from leasehold.cli.transfer.items import Found, Item, LeftOut, Unusable
from leasehold.cli.transfer.prefixes import Prefix
from leasehold.cli.transfer.requests import MAX_BATCH_BYTES, MAX_BATCH_ITEMS
from leasehold.cli.transfer.summaries import summary
from leasehold.model import Binary, Content, Value

NOW: Final = 1_000_000_000_000_000
SECOND: Final = 1_000_000


def item(place: int, key: str = "", value: Value = b"1", **rest: Any) -> Item:
    return Item(place, b"line %d" % place, key or f"k{place}", value, **rest)


def body(request: Request) -> Any:
    assert request.content is not None
    return json.loads(request.content)


class Service:
    """Answers by `refusal`, which gets the keys that a request writes, and returns the error or None."""

    def __init__(self, refusal: Callable[[Sequence[str]], LeaseholdError | None] = lambda _: None) -> None:
        self.requests: list[Request] = []
        self.written: list[str] = []
        self._refusal = refusal

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        alone = request.target.startswith("/kv/")
        keys = [request.target[4:]] if alone else [each["key"] for each in body(request)["do"]]
        error = self._refusal(keys)
        if error is not None:
            raise error
        self.written += keys
        return Response(200)


def imported(
    found: Iterable[Found], service: Service, options: WriteOptions | None = None
) -> tuple[Importer, list[tuple[int, str]]]:
    rejected: list[tuple[int, str]] = []
    importer = Importer(
        service.send,
        lambda place, _text, reason: rejected.append((place, reason)),
        options or WriteOptions(),
        clock=lambda: NOW,
    )
    importer.run(found)
    return importer, rejected


def numbered(count: int) -> list[Item]:
    return [item(place) for place in range(1, count + 1)]


def keys_in(requests: Iterable[Request]) -> list[list[str]]:
    return [[each["key"] for each in body(request)["do"]] for request in requests]


# Requests -----------------------------------------------------------------------------------------------------


def test_entries_are_written_in_their_order_in_transactions_of_the_largest_size() -> None:
    service = Service()
    importer, _ = imported(numbered(2 * MAX_BATCH_ITEMS + 1), service)
    assert [len(keys) for keys in keys_in(service.requests)] == [MAX_BATCH_ITEMS, MAX_BATCH_ITEMS, 1]
    assert service.written == [f"k{place}" for place in range(1, 2 * MAX_BATCH_ITEMS + 2)]
    assert importer.counts.written == 2 * MAX_BATCH_ITEMS + 1
    assert all(request.is_change and request.target == "/txn" for request in service.requests)


def test_a_key_that_comes_twice_is_written_twice_in_this_order() -> None:
    service = Service()
    imported([item(1, "a"), item(2, "b"), item(3, "a")], service)
    assert keys_in(service.requests) == [["a", "b"], ["a"]]


def test_a_transaction_is_not_larger_than_a_body_may_be_and_a_larger_value_is_written_alone() -> None:
    service = Service()
    half = b'"%b"' % (b"x" * (MAX_BATCH_BYTES // 2))
    large = Binary("image/png", Content(bytes(MAX_BATCH_BYTES)))
    imported([item(1, value=half), item(2, value=half), item(3, "a b", large, ttl=2.5), item(4)], service)
    first, second, alone, last = service.requests
    assert keys_in([first, second, last]) == [["k1"], ["k2"], ["k4"]]
    assert (alone.target, alone.content) == ("/kv/a%20b?ttl=2.500000", bytes(MAX_BATCH_BYTES))
    assert ("Content-Type", "image/png") in alone.headers


def test_the_text_of_a_value_is_sent_as_it_is() -> None:
    service = Service()
    exact = b'{"a": 1.10, "b": 1E+2}'
    imported([item(1, value=exact), item(2, value=Binary("text/plain", Content(b"\0")))], service)
    content = service.requests[0].content
    assert content is not None
    assert b'"value":' + exact in content
    assert body(service.requests[0])["do"][1] == {"op": "put", "key": "k2", "media": "text/plain", "base64": "AA=="}


def test_an_expiry_becomes_the_time_that_is_left_and_what_has_expired_is_left_out() -> None:
    service = Service()
    importer, _ = imported(
        [
            item(1, expires_at=NOW + 30 * SECOND + 1),
            item(2, expires_at=NOW - 1),
            item(3, expires_at=NOW + SECOND // 20),
            item(4, ttl=60.0),
        ],
        service,
    )
    assert [(each["key"], each["ttl"]) for each in body(service.requests[0])["do"]] == [("k1", 30.000001), ("k4", 60.0)]
    assert importer.counts.expired == 2


def test_all_writes_carry_the_headers_of_the_import() -> None:
    service = Service()
    large = item(2, value=b'"%b"' % (b"x" * MAX_BATCH_BYTES))
    imported([item(1), large], service, WriteOptions(headers=(("If-Lease", "id"),)))
    assert all(("If-Lease", "id") in request.headers for request in service.requests)


def test_keys_are_checked_after_they_were_renamed() -> None:
    service = Service()
    options = WriteOptions(prefixes=(Prefix("/", ""), Prefix("x/", "/")))
    importer, rejected = imported([item(1, "/a"), item(2, "//b"), item(3, "x/c"), item(4, "d")], service, options)
    assert service.written == ["a"]
    assert [place for place, _ in rejected] == [2, 3]
    assert importer.counts.outside == 1


def test_what_is_no_entry_is_reported_unless_its_key_is_not_wanted() -> None:
    found = [Unusable(1, b"", "no"), Unusable(2, b"", "no", "a"), Unusable(3, b"", "no", "b")]
    importer, rejected = imported(found, Service(), WriteOptions(prefixes=(Prefix("a", "a"),)))
    assert (rejected, importer.counts.outside) == ([(1, "no"), (2, "no")], 1)


# What is refused ----------------------------------------------------------------------------------------------


def test_an_entry_that_the_service_refuses_is_reported_and_all_others_are_written() -> None:
    def refusal(keys: Sequence[str]) -> LeaseholdError | None:
        if "k3" not in keys:
            return None
        index = keys.index("k3")
        return InvalidArgument(f"operation {index}: no", details={"index": index})

    service = Service(refusal)
    importer, rejected = imported(numbered(5), service)
    assert service.written == ["k1", "k2", "k4", "k5"]
    assert rejected == [(3, "the service refuses 'k3': no")]
    assert (importer.counts.written, importer.counts.rejected) == (4, 1)


def test_a_request_that_is_refused_as_a_whole_is_divided_until_the_cause_is_found() -> None:
    bad = {"k1", "k60", "k61", "k100"}
    service = Service(lambda keys: InvalidJson("no") if bad & set(keys) else None)
    importer, rejected = imported(numbered(100), service)
    assert service.written == [f"k{place}" for place in range(1, 101) if f"k{place}" not in bad]
    assert [place for place, _ in rejected] == [1, 60, 61, 100]
    assert importer.counts.written == 96


def test_transactions_become_smaller_if_the_service_takes_only_small_bodies() -> None:
    service = Service(lambda keys: TooLarge("too large") if len(keys) > 10 else None)
    importer, rejected = imported(numbered(128), service)
    assert (importer.counts.written, rejected) == (128, [])


@pytest.mark.parametrize("error", [LeaseLost("no"), Forbidden("no"), Unreachable("no")], ids=repr)
def test_an_error_that_is_not_the_fault_of_an_entry_ends_the_import(error: LeaseholdError) -> None:
    service = Service(lambda keys: error if "k200" in keys else None)
    importer = Importer(service.send, lambda *_: None, WriteOptions())
    with pytest.raises(type(error)):
        importer.run(numbered(1_000))
    assert importer.first_open == MAX_BATCH_ITEMS + 1
    assert service.written == [f"k{place}" for place in range(1, MAX_BATCH_ITEMS + 1)]


# Entries that exist -------------------------------------------------------------------------------------------


def existing(*keys: str) -> Callable[[Sequence[str]], LeaseholdError | None]:
    """The answer of a service with these entries to a transaction that writes only entries that do not exist."""

    def refusal(written: Sequence[str]) -> LeaseholdError | None:
        failed = [{"index": index, "key": key} for index, key in enumerate(written) if key in keys]
        return PreconditionFailed("no", details={"failed": failed}) if failed else None

    return refusal


def test_entries_that_exist_are_left_as_they_are() -> None:
    service = Service(existing("k2", "k4"))
    importer, rejected = imported(numbered(5), service, WriteOptions(if_absent=True))
    assert service.written == ["k1", "k3", "k5"]
    assert (importer.counts.written, importer.counts.existing, rejected) == (3, 2, [])
    assert body(service.requests[0])["if"] == [{"key": f"k{place}", "exists": False} for place in range(1, 6)]


def test_if_all_entries_exist_nothing_is_sent_again() -> None:
    service = Service(existing("k1", "k2"))
    importer, _ = imported(numbered(2), service, WriteOptions(if_absent=True))
    assert (len(service.requests), importer.counts.existing) == (1, 2)


def test_a_large_entry_that_exists_is_left_as_it_is() -> None:
    service = Service(lambda _: PreconditionFailed("no", details={"revision": 5}))
    importer, _ = imported([item(1, value=b'"%b"' % (b"x" * MAX_BATCH_BYTES))], service, WriteOptions(if_absent=True))
    assert ("If-None-Match", "*") in service.requests[0].headers
    assert importer.counts.existing == 1


@pytest.mark.parametrize(("if_absent", "written"), [(True, 2), (False, 3)])
def test_a_dry_run_sends_only_reads_and_counts_what_exists(*, if_absent: bool, written: int) -> None:
    def refusal(_keys: Sequence[str]) -> LeaseholdError:
        return PreconditionFailed("no", details={"failed": [{"index": 1, "key": "k2"}]})

    service = Service(refusal)
    importer, _ = imported(numbered(3), service, WriteOptions(if_absent=if_absent, is_dry_run=True))
    [request] = service.requests
    assert (request.is_change, body(request)["do"]) == (False, [{"op": "get", "key": "k1"}])
    assert len(body(request)["if"]) == 3
    assert (importer.counts.written, importer.counts.existing) == (written, 1)


# Summaries ----------------------------------------------------------------------------------------------------


def test_the_summary_says_what_became_of_everything() -> None:
    found: list[Found] = [
        item(1, loss="flags"),
        item(2, loss="lease"),
        item(3, expires_at=NOW),
        item(4, "x"),
        LeftOut(5, "folder"),
        LeftOut(6, "lease"),
        Unusable(7, b"", "no"),
        item(8),
        item(9, "k9"),
    ]
    options = WriteOptions(prefixes=(Prefix("k", "k"),), if_absent=True)
    importer, _ = imported(found, Service(existing("k8")), options)
    assert summary(importer.counts, options, verb="imported", unit="line") == (
        "3 entries imported; exist already: 1; expired: 1; without the prefix: 1; folders left out: 1; "
        "leased, left out: 1; without their flags: 1; without their lease, so they do not expire: 1; "
        "lines not imported: 1"
    )


def test_the_summary_of_a_dry_run_says_what_would_become_of_everything() -> None:
    options = WriteOptions(is_dry_run=True)
    importer, _ = imported(
        numbered(1), Service(lambda _: PreconditionFailed("no", details={"failed": [{"index": 0}]})), options
    )
    assert summary(importer.counts, options, verb="imported", unit="line") == (
        "1 entry would be imported; replaced by these: 1"
    )
