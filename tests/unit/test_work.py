"""The largest cost of a request, measured as executed lines of Python and as spent budget.

The limits are those of the worst inputs known. Before there were budgets, each of them took from 60 ms to 7 s.
"""

import asyncio
from collections.abc import Callable, Iterator

import executed_lines
import msgspec
import pytest
from driving import stored_state

from leasehold.engines.memory.state import State
from leasehold.engines.memory.table import MAX_SKIPPED, Table
from leasehold.engines.state import Contents
from leasehold.errors import ServiceError
from leasehold.http.media_types import Media
from leasehold.http.pieces import CHUNK_BYTES, GatheredList
from leasehold.http.responses import Response
from leasehold.limits import (
    KIB,
    MAX_BATCH_WORK_BYTES,
    MAX_CHANGE_WORK_BYTES,
    MAX_CONTAINERS,
    MAX_PARTS_BYTES,
    MAX_STATE_BRACKETS,
    MAX_STATE_COMMAS,
    MIB,
    Limits,
)
from leasehold.model import (
    ENTRY,
    Delete,
    Entry,
    Found,
    Json,
    JsonPatch,
    MergePatch,
    Operation,
    PatchStep,
    Put,
    Read,
    RevisionCheck,
    Transaction,
    Written,
)
from leasehold.rules import evaluate, evaluate_read
from leasehold.store.turns import Turn
from leasehold.values import (
    check_json_text,
    check_steps,
    decode,
    encode,
    json_patch,
    merge_patch,
    parse_json,
    parse_json_patch,
    parse_json_value,
    parse_messagepack,
    to_messagepack,
)
from leasehold.values.budgets import WorkBudget
from leasehold.values.messagepack import count_steps, has_more_containers


def filled(item: bytes, count: int | None = None) -> bytes:
    """A list that repeats an item, up to a mebibyte or `count` times."""
    count = (MIB - 2) // (len(item) + 1) if count is None else count
    return b"[" + b",".join([item] * count) + b"]"


def packed(item: bytes) -> bytes:
    count = (MIB - 5) // len(item)
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def refusal_of(work: Callable[[], object]) -> str:
    try:
        work()
    except ServiceError as refusal:
        return refusal.code
    return "done"


def lines_of(work: Callable[[], object]) -> int:
    """The number of Python lines that `work` executes, with or without an exception."""
    return executed_lines.lines_of(lambda: refusal_of(work))


STATE_BYTES = Limits().max_state_bytes
NUL, LARGE = b'"\\\\u0000"', b"1234567890123456789"
"""Text that only looks as if it contained something forbidden."""
BODIES = {
    "numbers": filled(b"1"),
    "floats": filled(b"1.5"),
    "floats that grow": filled(b"1e15"),
    "minus zeros": filled(b"-0"),
    "minus zeros in strings": filled(b'"-0"')[:-1] + b",-0]",
    "strings": filled(b'""'),
    "escaped quotes": filled(b'"\\""'),
    "escapes": b'"' + b"\\n" * (MIB // 2 - 1) + b'"',
    "brackets in strings": filled(b'"[{"'),
    "suspected U+0000": b"[" + NUL + b"," + filled(b"1")[1 : MIB - 20] + b"1]",
    "suspected large integers": b"[" + LARGE + b"," + filled(b'"1"')[1 : MIB - 30].rpartition(b",")[0] + b"]",
    "large integers": filled(LARGE),
    "members": b"{" + b",".join(b'"%x":1' % number for number in range(100_000)) + b"}",
    "lists": filled(b"[]", MAX_CONTAINERS - 1),
    "nested lists": filled(b"[" * 127 + b"]" * 127, MAX_CONTAINERS // 127 - 1),
    "nested objects": filled(b'{"a":' * 126 + b"{}" + b"}" * 126, MAX_CONTAINERS // 127 - 1),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_checked_without_a_walk_over_its_parts(kind: str) -> None:
    body = BODIES[kind]
    assert len(body) <= MIB
    assert refusal_of(lambda: parse_json(body)) == "done"
    assert lines_of(lambda: parse_json(body)) < 200


@pytest.mark.parametrize("body", [filled(b"[]"), filled(b"{}"), filled(b"[" * 127 + b"]" * 127)])
def test_a_body_with_too_many_containers_is_not_decoded(body: bytes) -> None:
    assert refusal_of(lambda: parse_json(body)) == "too_large"
    assert lines_of(lambda: parse_json(body)) < 200


@pytest.mark.parametrize("item", [b"\x80", b"\x90", b"\x91" * 126 + b"\x90", b"\x81\xa0" * 126 + b"\x90", b"\xdc\0\0"])
def test_messagepack_with_too_many_containers_is_not_decoded(item: bytes) -> None:
    body = packed(item)
    assert refusal_of(lambda: parse_messagepack(body)) == "too_large"
    assert lines_of(lambda: parse_messagepack(body)) < 6 * MAX_CONTAINERS


@pytest.mark.parametrize("item", [b"\x01", b"\xc2", b"\xa0", b"\xcf" + b"\xff" * 8, b"\xcb?\xf8" + bytes(6), b"\xa1a"])
def test_messagepack_is_checked_without_a_walk_over_its_parts(item: bytes) -> None:
    body = packed(item)
    assert refusal_of(lambda: parse_messagepack(body)) == "done"
    assert lines_of(lambda: parse_messagepack(body)) < len(body) // 4


def test_messagepack_whose_text_is_too_large_is_refused_before_its_parts_are_checked() -> None:
    body = packed(b"\xc2")  # 6 bytes of JSON for each byte
    with pytest.raises(ServiceError) as caught:
        parse_messagepack(body, max_bytes=MIB)
    assert (caught.value.code, caught.value.details) == ("too_large", {"limit": MIB})
    assert lines_of(lambda: parse_messagepack(body, max_bytes=MIB)) < 100


def test_text_in_messagepack_is_not_counted_as_containers() -> None:
    body = msgspec.msgpack.encode(["\u4e00\u0391" * 8] * 20_000)
    assert refusal_of(lambda: parse_messagepack(body)) == "done"


STRINGS_LIKE_CONTAINERS = [b"\xa3\xe8\x80\x80"] * (MAX_CONTAINERS + 1)
"""So many containers that a body with them must be counted."""
FORMS_OF_A_STRING = (b"\xa1a", b"\xd9\1a", b"\xda\0\1a", b"\xdb\0\0\0\1a")


def containers_beside(extra: bytes, count: int) -> bytes:
    """A list of `count` lists in three encodings, and among them `extra`, one item that is not a container."""
    forms = (b"\x90", b"\x91" + extra, b"\xdc\0\0", b"\xdd\0\0\0\0")
    items = (
        [forms[number % 4 if number % 100 < 4 else 0] for number in range(count)] + STRINGS_LIKE_CONTAINERS + [extra]
    )
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(items)


@pytest.mark.parametrize(
    "extra",
    [
        *(msgspec.msgpack.encode("x" * length) for length in (0, 1, 31, 32, 255, 256, 257, 70_000)),
        *(msgspec.msgpack.encode(number) for number in (0, -1, 200, -200, 70_000, -70_000, 2**40, -(2**40), 1.5, None)),
        *FORMS_OF_A_STRING,
    ],
    ids=lambda extra: extra[:6].hex(),
)
def test_the_containers_of_messagepack_are_counted_exactly(extra: bytes) -> None:
    assert not has_more_containers(containers_beside(extra, MAX_CONTAINERS - 1), MAX_CONTAINERS)
    assert has_more_containers(containers_beside(extra, MAX_CONTAINERS), MAX_CONTAINERS)


@pytest.mark.parametrize("form", FORMS_OF_A_STRING)
def test_strings_that_look_like_containers_are_skipped_without_a_step_for_each(form: bytes) -> None:
    strings = b"".join(STRINGS_LIKE_CONTAINERS)
    body = b"\xdd" + (2_000 + len(STRINGS_LIKE_CONTAINERS)).to_bytes(4, "big") + (b"\x91" + form) * 2_000 + strings
    assert lines_of(lambda: has_more_containers(body, MAX_CONTAINERS // 2)) < 100


@pytest.mark.parametrize("item", [b"\xa3\xe8\x80\x80", b"\xa1\x90", b"\xda\1\0" + b"\x90" * 256])
def test_the_containers_of_a_large_body_are_counted_in_short_steps(item: bytes) -> None:
    """Each step looks at 30,000 items or at 64 KiB."""
    steps = count_steps(packed(item), MAX_CONTAINERS)
    is_over = False

    def step() -> None:
        nonlocal is_over
        is_over = next(steps, True) is True

    lines = []
    while not is_over:
        lines.append(lines_of(step))
    assert len(lines) > MIB // len(item) // 30_000
    assert max(lines) < 4_000


@pytest.mark.parametrize(
    "text",
    [b'"%b"' % (b"x" * STATE_BYTES), b'"%b"' % ("é" * 8_000_000).encode()],
    ids=["letters", "characters"],
)
def test_a_state_is_checked_in_steps_of_a_few_megabytes(text: bytes) -> None:
    steps = check_steps(text, max_brackets=MAX_STATE_BRACKETS, max_commas=MAX_STATE_COMMAS)
    assert sum(1 for _ in steps) >= len(text) // (4 * MIB)


def test_a_response_in_messagepack_is_encoded_without_a_walk() -> None:
    assert lines_of(lambda: to_messagepack(BODIES["lists"])) < 50


def test_the_limit_of_containers_is_exact() -> None:
    most, more = filled(b"[]", MAX_CONTAINERS - 1), filled(b"[]", MAX_CONTAINERS)
    assert parse_json(most) == most
    with pytest.raises(ServiceError) as caught:
        parse_json(more)
    assert (caught.value.code, caught.value.details) == ("too_large", {"limit": MAX_CONTAINERS})


# Changes ------------------------------------------------------------------------------------------------------


def steps_of(step: bytes, count: int = 10_000) -> tuple[PatchStep, ...]:
    return parse_json_patch(parse_json_value(filled(step, count)))


LONG_LIST = filled(b"1")
MOVE = b'{"op":"move","from":"/0","path":"/524000"}'
INSERT = b'{"op":"add","path":"/0","value":1}'
REMOVE = b'{"op":"remove","path":"/0"}'
AT_ONCE = {
    "moves in a long list": (LONG_LIST, MOVE, 10_000),
    "insertions at the front of a long list": (LONG_LIST, INSERT, 10_000),
    "removals at the front of a long list": (LONG_LIST, REMOVE, 10_000),
    "long paths": (b"[" * 60 + b"]" * 60, b'{"op":"add","path":"%b/0","value":1}' % (b"/0" * 59), 6_000),
}


@pytest.mark.parametrize("kind", AT_ONCE)
def test_a_json_patch_is_refused_when_its_budget_is_spent(kind: str) -> None:
    document, step, count = AT_ONCE[kind]
    steps, budget = steps_of(step, count), WorkBudget(len(document))
    with pytest.raises(ServiceError) as caught:
        json_patch(decode(document), steps, max_bytes=MIB, budget=budget)
    assert (caught.value.code, caught.value.details) == ("too_large", {"limit": MAX_CHANGE_WORK_BYTES})
    assert MAX_CHANGE_WORK_BYTES // 4 < budget.spent < MAX_CHANGE_WORK_BYTES


@pytest.mark.parametrize(
    "step", [INSERT, b'{"op":"add","path":"/-","value":1}', b'{"op":"test","path":"/0","value":1}']
)
def test_a_patch_of_10000_operations_on_a_list_of_a_thousand_is_applied(step: bytes) -> None:
    document = filled(b"1", 1_000)
    json_patch(decode(document), steps_of(step), max_bytes=MIB, budget=WorkBudget(len(document)))


def test_a_patch_that_only_tests_does_not_encode_the_value_again() -> None:
    value = filled(b"1.5")
    operation = JsonPatch("a", (PatchStep("test", ("0",), 1.5),) * 2)
    outcomes, _ = evaluate([operation], State(stored_state({"a": entry_of(value)}, 1)), 1, 0, max_value_bytes=MIB)
    [written] = outcomes
    assert isinstance(written, Written)
    assert written.entry.value is value


@pytest.mark.parametrize("part", [BODIES["lists"], BODIES["numbers"], BODIES["members"], BODIES["floats"]])
def test_a_large_part_is_tested_without_a_walk(part: bytes) -> None:
    document, steps = decode(part), (PatchStep("test", (), decode(part)),)
    assert lines_of(lambda: json_patch(document, steps, max_bytes=MIB)) < 100


def test_a_merge_patch_is_refused_when_its_budget_is_spent() -> None:
    budget = WorkBudget(MIB)
    patch: Json = {f"m{number}": decode(b'{"a":' * 126 + b"1" + b"}" * 126) for number in range(1_300)}
    with pytest.raises(ServiceError) as caught:
        merge_patch({}, patch, budget)
    assert caught.value.code == "too_large"
    assert budget.spent < MAX_CHANGE_WORK_BYTES


def test_a_merge_patch_of_30000_members_is_applied() -> None:
    patch: Json = {f"m{number}": {"a": number} for number in range(15_000)}
    assert merge_patch({}, patch, WorkBudget(len(encode(patch)))) == patch


# Reads --------------------------------------------------------------------------------------------------------


def entry_of(value: bytes, key: str = "a") -> Entry:
    return Entry(key, value, 1, 0, 0)


def test_overlapping_parts_of_one_read_are_bounded_in_total() -> None:
    nested = decode(b"[" * 99 + b'"' + b"a" * (MIB - 300) + b'"' + b"]" * 99)
    paths = tuple(("0",) * levels for levels in range(88))
    with pytest.raises(ServiceError) as caught:
        evaluate_read(Read("a", paths), entry_of(encode(nested)), "5f3a9c")
    assert (caught.value.code, caught.value.details) == ("too_large", {"limit": MAX_PARTS_BYTES})


def test_a_part_that_is_asked_for_several_times_is_encoded_once() -> None:
    part = filled(b"1.5", 1_000)
    value = b'{"a":%b}' % part
    found = evaluate_read(Read("a", ((), ("a",), (), ("a",))), entry_of(value), "5f3a9c")
    assert isinstance(found, Found)
    assert found.parts == (value, part) * 2
    assert len(set(map(id, found.parts))) == 2


def test_a_single_part_may_be_as_large_as_the_value() -> None:
    value = filled(b"1", 2 * MAX_PARTS_BYTES)
    found = evaluate_read(Read("a", ((),)), entry_of(value), "5f3a9c")
    assert getattr(found, "parts", None) == (value,)


# Batches ------------------------------------------------------------------------------------------------------


def decided(*operations: Operation, size: int) -> int:
    """How many of the operations are decided in one batch, on entries of this size."""
    value = b'{"a":"%b"}' % (b"x" * (size - 8))
    entries = {key: entry_of(value, key) for key in ("a", "b", "c", "d")}
    view = State(stored_state(entries, 1))
    outcomes, changes = evaluate(operations, view, 1, 0, max_value_bytes=MIB)
    assert all(not isinstance(outcome, ServiceError) for outcome in outcomes)
    assert len({change.key for change in changes if isinstance(change, Entry)}) <= len(outcomes)
    return len(outcomes)


UPDATES: list[Operation] = [
    Put("a", b"1", ("b",)),
    MergePatch("b", {"c": 1}),
    JsonPatch("c", (PatchStep("add", ("b",), 1),)),
    Delete("d", ("a",)),
]


@pytest.mark.parametrize("operation", UPDATES)
def test_a_batch_ends_with_the_first_change_of_a_value_of_the_largest_size(operation: Operation) -> None:
    assert decided(operation, *UPDATES, Put("e", b"1"), size=MIB - 100) == 1


def test_a_batch_takes_as_many_changes_as_its_budget_allows() -> None:
    assert decided(*UPDATES[:2] * 50, size=MAX_BATCH_WORK_BYTES // 10 - 50) == 10


def test_whole_values_do_not_use_the_work_budget_of_a_batch() -> None:
    assert decided(*[Put("a", b'"%b"' % (b"x" * 1000))] * 3_000, size=10) == 3_000


SHOWING: list[Transaction] = [
    Transaction((), tuple(map(Read, "abcd"))),
    Transaction(tuple(RevisionCheck(key, None) for key in "abcd"), (Read("a"),), shows_current=True),
]


@pytest.mark.parametrize("transaction", SHOWING)
def test_a_batch_ends_when_its_transactions_have_shown_many_bytes(transaction: Transaction) -> None:
    """All answers of a batch are made in one iteration of the event loop."""
    size = MAX_PARTS_BYTES // 4
    view = State(stored_state({key: entry_of(b'"%b"' % (b"x" * (size - 2)), key) for key in "abcd"}, 1))
    outcomes, _ = evaluate([transaction] * 100, view, 1, 0, max_value_bytes=MIB)
    assert len(outcomes) == 4


def test_what_a_transaction_shows_is_no_reason_to_refuse_it() -> None:
    size = MAX_PARTS_BYTES // 2 - 100
    reads = Transaction((), (Read("a"), Read("b"), Put("c", b"1", ("b",))))
    assert decided(reads, reads, size=size) == 1


def test_the_work_of_a_patch_counts_for_its_batch() -> None:
    steps = (PatchStep("test", ("a",), "xx"),) * 10_000
    assert decided(*[JsonPatch("a", steps)] * 10, size=10) == MAX_BATCH_WORK_BYTES // (10_000 * 44) + 1


# Lists --------------------------------------------------------------------------------------------------------


def test_a_page_skips_a_bounded_number_of_expired_entries_and_misses_none() -> None:
    count = 4 * MAX_SKIPPED
    entries = {f"{number:06}": Entry(f"{number:06}", b"1", 1, 0, 0, expires_at=5) for number in range(count)}
    entries["live"] = entry_of(b"1", "live")
    records = Table(ENTRY, Contents(entries), 1)
    assert lines_of(lambda: records.page("", None, 10, 1, 5)) < 12 * MAX_SKIPPED
    pages = [records.page("", None, 10, 1, 5)]
    while (after := pages[-1].next_after) is not None:
        pages.append(records.page("", after, 10, 1, 5))
    assert [[entry.key for entry in page.records] for page in pages] == [[]] * 4 + [["live"]]


def test_expired_entries_are_found_in_steps_that_skip_replaced_ones() -> None:
    records = Table(ENTRY, Contents({}), 0)
    count = 2 * MAX_SKIPPED
    for expires_at in (3, None):  # all expire at once at first, and then their expiry is replaced
        changes = [Entry(str(number), b"1", number, 0, 0, expires_at) for number in range(count)]
        records.publish(changes, count)
    records.publish([Entry("late", b"1", count, 0, 0, 4)], count)
    found = [records.expired(500, 5) for _ in range(3)]
    assert (found[0], found[-1]) == ([], ["late"])


def turns_of(texts: list[bytes], media: Media) -> tuple[int, Response]:
    """How often other callbacks run while a list is made, and the response."""

    async def scenario() -> tuple[int, Response]:
        turns = 0
        done = False

        async def others() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        found = GatheredList("entries", media, Turn())
        await found.add(map(to_messagepack, texts) if found.is_packed else texts)
        done = True
        await task
        return turns, found.response(7, "z")

    return asyncio.run(scenario())


@pytest.mark.parametrize("media", [Media.JSON, Media.MESSAGEPACK])
def test_other_callbacks_run_while_a_list_that_is_not_streamed_is_made(media: Media) -> None:
    texts = [b'{"key":"%d","value":"%b"}' % (number, b"x" * 1000) for number in range(1_000)]
    turns, response = turns_of(texts, media)
    decoder: Callable[[bytes], Json] = msgspec.msgpack.decode if response.is_packed else msgspec.json.decode
    assert turns > len(b"".join(texts)) // (2 * CHUNK_BYTES)
    assert response.body is not None
    assert decoder(response.body) == {"entries": [decode(text) for text in texts], "revision": 7, "next": "z"}


def test_many_short_lists_yield_as_often_as_one_long_list() -> None:
    item, lists = b"x" * (CHUNK_BYTES // 4), 40
    longest = encoded = 0

    def counted() -> Iterator[bytes]:
        nonlocal encoded
        encoded += 1
        yield item

    async def watch_iterations(adding: asyncio.Future[list[int]]) -> None:
        nonlocal longest, encoded
        while not adding.done():
            longest, encoded = max(longest, encoded), 0
            await asyncio.sleep(0)

    async def scenario() -> None:
        turn = Turn()
        adding = asyncio.gather(*(GatheredList("entries", Media.JSON, turn).add(counted()) for _ in range(lists)))
        await watch_iterations(adding)
        await adding

    asyncio.run(scenario())
    assert 0 < longest <= 5  # more than CHUNK_BYTES end a turn


# States of Terraform -----------------------------------------------------------------------------------------------


def check_state(text: bytes) -> None:
    check_json_text(text, max_brackets=MAX_STATE_BRACKETS, max_commas=MAX_STATE_COMMAS)


def refusal_of_state(text: bytes) -> str:
    return refusal_of(lambda: check_state(text))


def test_a_state_is_checked_without_a_walk_over_its_parts() -> None:
    text = b"[" + b",".join([b'"\xf0\x9f\x98\x80\xf0\x9f\x98\x80"'] * (STATE_BYTES // 11 - 1)) + b"]"
    assert refusal_of_state(text) == "done"
    assert lines_of(lambda: check_state(text)) < 50 * STATE_BYTES // (128 * KIB)


def test_the_brackets_of_a_state_are_limited() -> None:
    text = b"[" + b",".join([b"[]"] * (MAX_STATE_BRACKETS - 1)) + b"]"
    assert refusal_of_state(text) == "done"
    assert refusal_of_state(b"[" + text + b"]") == "too_large"
    assert refusal_of_state(b'["[",' + text[1:]) == "too_large"


def test_the_commas_of_a_state_are_limited() -> None:
    text = b"[" + b"1," * MAX_STATE_COMMAS + b"1]"
    assert refusal_of_state(text) == "done"
    assert refusal_of_state(b"[1," + text[1:]) == "too_large"
    assert refusal_of_state(b'[",' + text[1:-2] + b'"]') == "too_large"


@pytest.mark.parametrize("before", range(4))
def test_characters_of_a_state_may_lie_across_the_pieces_that_are_checked(before: int) -> None:
    text = b'"' + b"x" * before + "\U0001f600".encode() * 100_000 + b'"'
    assert refusal_of_state(text) == "done"
    assert refusal_of_state(text[:-2] + b'"') == "invalid_json"
    assert refusal_of_state(text[: before + 2] + text[before + 3 :]) == "invalid_json"
