"""What the bench does with what it measured. Nothing here measures."""

import random
from collections.abc import Mapping, Sequence

import pytest

from bench import plot, report, rows
from bench.against import Pair, compared
from bench.instructions import CASES, Column, markdown
from bench.interpreters import Record, description, unique
from bench.load import Load
from bench.results import Instance, Results, Verdict, is_good, verdicts
from bench.rows import Bar, Limit, Row
from bench.stalls import worst_of_each_form
from bench.starting import PEERS, SERVICES
from bench.watching import MarkCounter
from bench.workload import ALL_KEYS_REQUESTS, Work, drawn_keys

FAST, SLOW = "3.11.2", "3.11.7"
ROUNDS = 5
GET = Row("get", "GET", Work.GET, 64, (rows.LEASEHOLD, rows.NGINX), (Bar((rows.NGINX,), required=0.5, goal=1.0),))
LARGE = Row(
    "large", "GET of many", Work.GET, 64, (rows.LEASEHOLD_LARGE, rows.LEASEHOLD), (Bar((rows.LEASEHOLD,), 0.85),)
)  # fmt: skip
MEMORY = Limit("memory", "memory", rows.LEASEHOLD_LARGE, "MB", required=400)


def load(rate: float, p99_ms: float = 1.0) -> Load:
    return Load(rate, 0.5, p99_ms)


def results(*of_rows: Row, limits: tuple[Limit, ...] = ()) -> Results:
    return Results(rows=of_rows, limits=limits, pythons=[FAST, SLOW], key_count_large=1_000_000)


def measured(found: Results, row: Row, rates: Mapping[Instance, Sequence[float]]) -> None:
    for instance, of_instance in rates.items():
        found.loads[row.name, instance] = [load(rate) for rate in of_instance]


def record(**changed: object) -> Record:
    plain = {
        "implementation": "CPython",
        "version": "3.11.7",
        "compiler": "GCC 12.2.0",
        "configured": "'--prefix=/opt/python' '--enable-shared'",
        "flags": "-O2 -Wall -O3 -I/opt/python/include",
        "is_shared": True,
        "debian_package": None,
    }
    return Record(**(plain | changed))  # type: ignore[arg-type]


# Requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key_count", [1_000, ALL_KEYS_REQUESTS])
def test_a_load_of_all_keys_requests_each_key_equally_often(key_count: int) -> None:
    names = list(drawn_keys(Work.GET_ALL, key_count, random.Random(1)))
    assert len(names) == ALL_KEYS_REQUESTS
    assert len(set(names)) == len(set(names[:key_count])) == key_count


def test_marks_are_counted_wherever_a_stream_is_divided() -> None:
    stream = b"event: put\n\nevent: progress\n\nevent: put\n\nevent: putevent: put\n"
    for size in range(1, len(stream) + 1):
        counter = MarkCounter(b"event: put\n")
        for begin in range(0, len(stream), size):
            counter.feed(stream[begin : begin + size])
        assert counter.count == 3


# Rows and sides -----------------------------------------------------------------------------------------------


def test_every_side_of_a_row_can_be_started_and_the_service_with_each_interpreter() -> None:
    named = {side for row in rows.ROWS for side in row.sides} | {limit.side for limit in rows.LIMITS}
    assert named == PEERS.keys() | SERVICES.keys()
    assert SERVICES.keys() == rows.OWN


def test_a_side_that_a_bar_compares_is_loaded_in_all_rounds_and_others_in_the_first_three() -> None:
    by_name = {row.name: row for row in rows.ROWS}
    in_all = [("get", rows.NGINX), ("pg-get", rows.PGBENCH_16), ("pg-post-256", rows.LEASEHOLD_PG)]
    assert [rows.rounds_of(by_name[name], side, ROUNDS) for name, side in in_all] == [ROUNDS] * 3
    in_few = [("get-1", rows.LEASEHOLD), ("pg-get", rows.PGBENCH_64_J2), ("lock", rows.LEASEHOLD_PG)]
    assert [rows.rounds_of(by_name[name], side, ROUNDS) for name, side in in_few] == [3] * 3
    assert rows.rounds_of(by_name["get-1"], rows.LEASEHOLD, 1) == 1


# Verdicts -----------------------------------------------------------------------------------------------------


def test_each_interpreter_is_judged_by_its_own_loads_against_the_same_loads_of_a_peer() -> None:
    found = results(GET)
    measured(
        found,
        GET,
        {
            Instance(rows.LEASEHOLD, FAST): [100, 110, 90],
            Instance(rows.LEASEHOLD, SLOW): [40, 44, 45],
            Instance(rows.NGINX): [100, 100, 100],
        },
    )
    fast, slow = verdicts(found)
    assert (fast.python, fast.measured, fast.is_met, fast.is_goal_met) == (FAST, "1.00 (0.90-1.10)", True, True)
    assert (slow.python, slow.measured, slow.is_met, slow.is_goal_met) == (SLOW, "0.44 (0.40-0.45)", False, False)
    assert not is_good(found)


def test_two_stores_of_the_service_are_compared_with_the_same_interpreter() -> None:
    found = results(LARGE)
    measured(
        found,
        LARGE,
        {
            Instance(rows.LEASEHOLD_LARGE, FAST): [90],
            Instance(rows.LEASEHOLD, FAST): [100],
            Instance(rows.LEASEHOLD_LARGE, SLOW): [45],
            Instance(rows.LEASEHOLD, SLOW): [50],
        },
    )
    assert [each.measured for each in verdicts(found)] == ["0.90 (0.90-0.90)"] * 2


def test_a_bar_may_compare_with_another_row() -> None:
    row = Row("txn", "A", Work.TRANSACTION, 64, (rows.LEASEHOLD,), (Bar((rows.LEASEHOLD,), 2.0, against_row="single"),))
    single = Row("single", "B", Work.PIPELINED, 64, (rows.LEASEHOLD,))
    found = results(row, single)
    for of_row, rates in ((row, (300.0, 200.0)), (single, (100.0, 125.0))):
        pythons = zip((FAST, SLOW), rates, strict=True)
        measured(found, of_row, {Instance(rows.LEASEHOLD, python): [rate] for python, rate in pythons})
    assert [(each.title, each.measured, each.is_met) for each in verdicts(found)] == [
        ("A, 64 connections: leasehold / leasehold, single", "3.00 (3.00-3.00)", True),
        ("A, 64 connections: leasehold / leasehold, single", "1.60 (1.60-1.60)", False),
    ]
    assert {each.reason for each in verdicts(results(row))} == {"single was not run"}


def test_a_goal_without_a_requirement_cannot_fail_a_run() -> None:
    row = Row("one", "POST", Work.POST, 1, (rows.LEASEHOLD, rows.WEBDIS), (Bar((rows.WEBDIS,), goal=0.7),))
    found = results(row)
    rates = {Instance(rows.LEASEHOLD, FAST): [80.0], Instance(rows.LEASEHOLD, SLOW): [60.0]}
    measured(found, row, {**rates, Instance(rows.WEBDIS): [100.0]})
    assert [(each.required, each.goal, each.is_met, each.is_goal_met) for each in verdicts(found)] == [
        ("", "0.7", None, True),
        ("", "0.7", None, False),
    ]
    assert is_good(found)
    assert "not measured" not in report.summary(found)


def test_a_load_that_failed_with_one_interpreter_fails_only_its_verdict() -> None:
    found = results(GET)
    measured(found, GET, {Instance(rows.LEASEHOLD, FAST): [100], Instance(rows.NGINX): [100]})
    found.failures[GET.name, Instance(rows.LEASEHOLD, SLOW)] = "no answer\nafter 20 s"
    assert "FAILED: get, leasehold on Python 3.11.7: no answer after 20 s" in report.summary(found).splitlines()
    assert [(each.is_met, each.reason) for each in verdicts(found)] == [(True, ""), (False, "leasehold failed")]


def test_a_missing_peer_leaves_the_verdicts_of_all_interpreters_open() -> None:
    found = results(GET)
    found.missing[Instance(rows.NGINX)] = "no program nginx"
    assert [(each.is_met, each.reason) for each in verdicts(found)] == [(None, "nginx is missing")] * 2
    assert is_good(found)


def test_a_limit_is_judged_for_each_interpreter() -> None:
    found = results(limits=(MEMORY,))
    found.figures[MEMORY.name, Instance(MEMORY.side, FAST)] = [390]
    found.figures[MEMORY.name, Instance(MEMORY.side, SLOW)] = [410]
    judged: list[Verdict] = verdicts(found)
    assert [(each.python, each.is_met) for each in judged] == [(FAST, True), (SLOW, False)]


def test_both_tables_of_the_report_name_the_interpreter() -> None:
    found = results(GET)
    measured(
        found, GET, {Instance(rows.LEASEHOLD, each): [75] for each in (FAST, SLOW)} | {Instance(rows.NGINX): [150]}
    )
    found.sync_seconds = [0.0001]
    page = report.markdown(found, date="2026-11-28", setting="1 round", facts={}, versions={}, plot="benchmarks.svg")
    for python in (FAST, SLOW):
        assert (
            f"| GET, 64 connections: leasehold / nginx | {python} | 0.50 (0.50-0.50) | ≥ 0.5 | 1 | yes |"
        ) in page.splitlines()
        assert f"| GET, 64 connections | leasehold | {python} | 1 | 75 (75-75) | 0.50 | 1.00 |" in page.splitlines()
    assert "| GET, 64 connections | nginx |  | 1 | 150 (150-150) | 0.50 | 1.00 |" in page.splitlines()


# Interpreters -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "built"),
    [
        ({}, "compiled with GCC 12.2.0 -O3, in a shared library, without PGO and LTO"),
        (
            {"configured": "'--enable-optimizations' '--with-lto'", "flags": "-O3 -flto", "is_shared": False},
            "compiled with GCC 12.2.0 -O3, not in a shared library, with PGO and LTO",
        ),
        (
            {"flags": "-O3 -fprofile-use -fprofile-correction"},
            "compiled with GCC 12.2.0 -O3, in a shared library, with PGO, without LTO",
        ),
        (
            {"flags": "-O2", "is_shared": False, "debian_package": "python3 3", "compiler": "GCC 12"},
            "Debian's package python3 3, compiled with GCC 12 -O2, not in a shared library, PGO and LTO not recorded",
        ),
    ],
)
def test_the_build_of_an_interpreter_is_described_without_paths(changed: dict[str, object], built: str) -> None:
    assert description(record(**changed)) == f"CPython 3.11.7, {built}"


def test_interpreters_of_the_same_version_get_different_names() -> None:
    assert unique(["3.11.7", "3.12.1", "3.11.7"]) == ["3.11.7 (1)", "3.12.1", "3.11.7 (2)"]


# Two versions of the service ----------------------------------------------------------------------------------


def test_two_versions_are_compared_by_the_medians_of_their_pairs() -> None:
    rates_and_p99 = [((100, 1.0), (120, 1.1)), ((50, 4.0), (55, 2.0)), ((100, 2.0), (90, 2.0))]
    found = compared([Pair(load(*before), load(*after)) for before, after in rates_and_p99])
    assert found.rate[1] == pytest.approx(1.1)
    assert found.p99 == pytest.approx((0.75, 1.0, 1.05))
    assert (found.p99_ms_before, found.p99_ms_after) == (2.0, 2.0)


def test_two_versions_are_compared_without_the_latencies_that_a_client_does_not_know() -> None:
    found = compared([Pair(load(100, 0.0), load(120, 0.0)), Pair(load(100, 0.0), load(110, 0.0))])
    assert found.rate[1] == pytest.approx(1.15)
    assert found.p99 is None


def test_instructions_are_shown_beside_those_of_the_earlier_version() -> None:
    after = Column("3.11.7", "abc1234", {case.title: 50_000.0 for case in CASES})
    before = Column("3.11.7", "def5678", {case.title: 100_000.0 for case in CASES})
    alone = markdown([], [after], date="2026-11-28", valgrind="3.19.0")
    assert f"| {CASES[0].title} | 3.11.7 | 50,000 |" in alone
    assert "(measured: commit abc1234)" in alone
    both = markdown([before], [after], date="2026-11-28", valgrind="3.19.0")
    assert f"| {CASES[0].title} | 3.11.7 | 100,000 | 50,000 | 0.50 |" in both
    assert "(before: commit def5678, after: commit abc1234)" in both


def test_every_side_of_every_row_can_be_drawn() -> None:
    found = Results(rows=rows.ROWS, limits=(), pythons=[FAST], key_count_large=1)
    for row in rows.ROWS:
        for side in row.sides:
            for instance in found.instances(side):
                found.loads[row.name, instance] = [load(1.0)]
    drawn = plot.svg(found)
    assert all(side in drawn for row in rows.ROWS for side in row.sides)


def test_of_attacks_that_differ_only_in_their_values_the_worst_one_is_chosen() -> None:
    forms = {"put of a": "put", "put of b": "put", "put of c": "put", "list of a": "list", "count": "count"}
    stalls = {"put of a": 1.0, "put of b": 3.0, "put of c": 2.0, "list of a": 0.0}
    assert worst_of_each_form(forms, stalls) == {"put of b", "list of a", "count"}
