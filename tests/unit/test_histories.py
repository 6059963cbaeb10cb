"""The two checks of histories accept what is linearizable and reject what is not."""

from collections.abc import Sequence

import pytest
from harness import registers
from harness.histories import Change, History, Loss, Sight, Value
from harness.registers import search
from harness.revisions import faults_by_revisions

KEY, LOCK = "k", "l"
Span = tuple[int, int]
"""When an operation began and when it ended."""


def whole(mark: str, span: Span, revision: int, **more: object) -> Change:
    return change("whole", mark, span, revision, more)


def part(mark: str, span: Span, revision: int, **more: object) -> Change:
    return change("part", mark, span, revision, more)


def removal(mark: str, span: Span, revision: int, **more: object) -> Change:
    return change("removal", mark, span, revision, more)


def change(kind: str, mark: str, span: Span, revision: int | None, more: dict[str, object]) -> Change:
    key = more.pop("key", KEY)
    return Change(key, kind, mark, *span, revision, **more)  # type: ignore[arg-type]


def uncertain(kind: str, mark: str, began: int, **more: object) -> Change:
    """A change that got no answer."""
    return Change(more.pop("key", KEY), kind, mark, began, **more)  # type: ignore[arg-type]


def sees(revision: int | None, value: Value | None, span: Span, *, key: str = KEY, head: int = 0) -> Sight:
    return Sight(key, *span, is_there=True, revision=revision, value=value, head=head)


def sees_nothing(span: Span, *, key: str = KEY, head: int = 0) -> Sight:
    return Sight(key, *span, is_there=False, head=head)


Told = Change | Sight | Loss


def history_of(told: Sequence[Told]) -> History:
    return History(
        changes=[each for each in told if isinstance(each, Change)],
        sights=[each for each in told if isinstance(each, Sight)],
        losses=[each for each in told if isinstance(each, Loss)],
    )


def judged(told: Sequence[Told], head: int) -> tuple[list[str], list[str]]:
    """The findings of the check by revisions, and those of the search."""
    history = history_of(told)
    found = search(history).faults
    return faults_by_revisions(history, head), found


GOOD: dict[str, tuple[int, list[Told]]] = {
    "a read after a write": (1, [whole("a", (0, 1), 1, found=False), sees(1, ("a", None), (2, 3))]),
    "reads concurrent with a write return the state before or after it": (
        2,
        [
            whole("a", (0, 1), 1),
            whole("b", (2, 9), 2),
            sees(1, ("a", None), (3, 4)),
            sees(2, ("b", None), (5, 6)),
        ],
    ),
    "concurrent writes in the other order": (
        2,
        [whole("a", (0, 9), 2), whole("b", (1, 8), 1), sees(2, ("a", None), (10, 11))],
    ),
    "an unanswered write that is seen later": (
        2,
        [
            whole("a", (0, 1), 1),
            uncertain("whole", "b", 2),
            sees(1, ("a", None), (3, 4)),
            sees(2, ("b", None), (5, 6)),
        ],
    ),
    "an unanswered write that is never seen": (
        1,
        [whole("a", (0, 1), 1), uncertain("whole", "b", 2), sees(1, ("a", None), (3, 4))],
    ),
    "an unanswered removal that is seen": (
        2,
        [whole("a", (0, 1), 1), uncertain("removal", "b", 2), sees(1, ("a", None), (3, 4)), sees_nothing((5, 6))],
    ),
    "an unanswered removal before a creation": (
        3,
        [whole("a", (0, 1), 1), uncertain("removal", "b", 2), whole("c", (3, 4), 3, expected="absent", found=False)],
    ),
    "an unanswered creation before a removal": (2, [uncertain("whole", "a", 0), removal("b", (1, 2), 2)]),
    "a part of an unanswered whole": (
        3,
        [
            whole("a", (0, 1), 1),
            uncertain("whole", "b", 2),
            part("c", (3, 4), 3, found=True),
            sees(3, ("b", "c"), (5, 6)),
        ],
    ),
    "a part after one that was written after an unanswered removal": (
        4,
        [
            whole("a", (0, 1), 1),
            uncertain("removal", "b", 2),
            part("c", (3, 4), 3),
            part("d", (5, 6), 4),
            sees(4, (None, "d"), (7, 8)),
        ],
    ),
    "an unanswered removal after a part in progress": (
        3,
        [whole("a", (0, 1), 1), part("b", (2, 9), 2), uncertain("removal", "c", 2), sees_nothing((3, 8))],
    ),
    "a part after an unanswered removal and an unanswered part": (
        4,
        [
            whole("a", (0, 1), 1),
            uncertain("removal", "b", 2),
            uncertain("part", "c", 2),
            part("d", (3, 4), 4, found=True),
            sees(4, (None, "d"), (5, 6)),
        ],
    ),
    "parts keep the whole, and removals end it": (
        4,
        [
            whole("a", (0, 1), 1),
            part("b", (2, 3), 2, found=True),
            sees(2, ("a", "b"), (4, 5)),
            removal("c", (6, 7), 3),
            sees_nothing((8, 9)),
            part("d", (10, 11), 4, found=False),
            sees(4, (None, "d"), (12, 13)),
        ],
    ),
    "a comparison with a revision known only from a refusal": (
        3,
        [
            whole("a", (0, 1), 1),
            uncertain("whole", "b", 2),
            sees(2, None, (3, 4)),
            whole("c", (5, 6), 3, expected=2, found=True),
        ],
    ),
    "one of two comparisons succeeds": (
        2,
        [whole("a", (0, 1), 1), whole("b", (2, 9), 2, expected=1, found=True), sees(2, None, (3, 8))],
    ),
    "a list with changes after its revision": (
        2,
        [whole("a", (0, 1), 1), whole("b", (2, 9), 2), sees(2, ("b", None), (3, 8), head=1)],
    ),
    "a lock changes hands": (
        3,
        [
            whole("a", (0, 1), 1, key=LOCK, expected="absent"),
            sees(None, ("a", None), (2, 3), key=LOCK),
            removal("b", (4, 9), 2, key=LOCK, expected=1),
            Loss(LOCK, 1, 5, 6),
            whole("c", (7, 12), 3, key=LOCK, expected="absent"),
        ],
    ),
    "a lease of an unanswered acquisition is released": (
        3,
        [
            uncertain("whole", "a", 0, key=LOCK, expected="absent"),
            uncertain("removal", "b", 0, key=LOCK, expected="present"),
            whole("c", (5, 6), 3, key=LOCK, expected="absent"),
        ],
    ),
    "a write under a lease": (
        3,
        [
            whole("a", (0, 1), 1, key=LOCK, expected="absent"),
            whole("b", (2, 9), 2, fence=(LOCK, 1)),
            removal("c", (3, 8), 3, key=LOCK, expected=1),
        ],
    ),
}

BAD: dict[str, tuple[int, list[Told]]] = {
    "a stale read": (2, [whole("a", (0, 1), 1), whole("b", (2, 3), 2), sees(1, ("a", None), (4, 5))]),
    "a stale read after another's read": (
        2,
        [whole("a", (0, 1), 1), whole("b", (2, 9), 2), sees(2, ("b", None), (3, 4)), sees(1, ("a", None), (5, 6))],
    ),
    "a lost update": (
        3,
        [whole("a", (0, 1), 1), whole("b", (2, 3), 2), part("c", (4, 5), 3), sees(3, ("a", "c"), (6, 7))],
    ),
    "a value that no client wrote": (2, [whole("a", (0, 1), 1), sees(2, ("x", None), (2, 3))]),
    "a value at another revision": (1, [whole("a", (0, 1), 1), sees(2, ("a", None), (2, 3))]),
    "two writes with one revision": (1, [whole("a", (0, 9), 1), whole("b", (0, 9), 1)]),
    "two comparisons that both succeed": (
        3,
        [whole("a", (0, 1), 1), whole("b", (2, 9), 2, expected=1), whole("c", (2, 9), 3, expected=1)],
    ),
    "two creations that both succeed": (
        2,
        [whole("a", (0, 9), 1, expected="absent"), whole("b", (0, 9), 2, expected="absent")],
    ),
    "a creation reported as an update": (1, [whole("a", (0, 1), 1, found=True)]),
    "a removal of nothing": (2, [whole("a", (0, 1), 1), removal("b", (2, 3), 2), removal("c", (4, 5), 3)]),
    "a state that was seen and has disappeared": (
        2,
        [
            whole("a", (0, 1), 1),
            uncertain("whole", "b", 2),
            sees(2, ("b", None), (3, 4)),
            sees(1, ("a", None), (5, 6)),
        ],
    ),
    "a revision that was seen and is issued again": (
        2,
        [whole("a", (0, 1), 1), uncertain("whole", "b", 2), sees(2, ("b", None), (3, 4)), whole("c", (5, 6), 2)],
    ),
    "an acknowledged write that has disappeared": (1, [whole("a", (0, 1), 1), sees_nothing((2, 3))]),
    "a removal that is undone": (2, [whole("a", (0, 1), 1), removal("b", (2, 3), 2), sees(1, ("a", None), (4, 5))]),
    "a read before the write": (1, [sees(1, ("a", None), (0, 1)), whole("a", (2, 3), 1)]),
    "revisions in the opposite order of time": (2, [whole("a", (0, 1), 2), whole("b", (2, 3), 1)]),
    "a refusal with a stale revision": (2, [whole("a", (0, 1), 1), whole("b", (2, 3), 2), sees(1, None, (4, 5))]),
    "a refusal with a revision that no client wrote": (2, [whole("a", (0, 1), 1), sees(2, None, (2, 3))]),
    "two holders of a lock": (
        2,
        [whole("a", (0, 1), 1, key=LOCK, expected="absent"), whole("b", (2, 3), 2, key=LOCK, expected="absent")],
    ),
    "a lock held by a client that has released it": (
        2,
        [
            whole("a", (0, 1), 1, key=LOCK, expected="absent"),
            removal("b", (2, 3), 2, key=LOCK, expected=1),
            sees(None, ("a", None), (4, 5), key=LOCK),
        ],
    ),
}

BAD_BETWEEN_KEYS: dict[str, tuple[int, list[Told]]] = {
    "a list older than a known revision": (
        2,
        [
            whole("a", (0, 1), 1),
            whole("b", (2, 3), 2, key="other"),
            sees(1, ("a", None), (4, 5), head=1),
        ],
    ),
    "a list without a change up to its revision": (
        2,
        [whole("a", (0, 1), 1), whole("b", (2, 9), 2), sees(1, ("a", None), (3, 8), head=2)],
    ),
    "a list without an entry up to its revision": (1, [whole("a", (0, 9), 1), sees_nothing((1, 8), head=1)]),
    "a key older than a revision known from another key": (
        2,
        [
            whole("a", (0, 9), 1),
            whole("b", (0, 9), 2, key="other"),
            sees(2, ("b", None), (1, 2), key="other"),
            sees_nothing((3, 4)),
        ],
    ),
    "a change that was done twice": (2, [whole("a", (0, 1), 2)]),
    "an unanswered change that was done twice": (3, [uncertain("whole", "a", 0), whole("b", (1, 2), 3)]),
    "a head that went back": (1, [whole("a", (0, 1), 1), whole("b", (2, 3), 2)]),
    "a write under an ended lease": (
        3,
        [
            whole("a", (0, 1), 1, key=LOCK),
            removal("b", (2, 3), 2, key=LOCK, expected=1),
            whole("c", (4, 5), 3, fence=(LOCK, 1)),
        ],
    ),
    "a live lease that is reported as lost": (1, [whole("a", (0, 1), 1, key=LOCK), Loss(LOCK, 1, 2, 3)]),
}
"""Cases that only the check by revisions finds, because the search looks at each key separately."""

BAD_IN_DOUBT: dict[str, tuple[int, list[Told]]] = {
    "an unanswered removal that is seen and undone": (
        2,
        [whole("a", (0, 1), 1), uncertain("removal", "b", 2), sees_nothing((3, 4)), sees(1, ("a", None), (5, 6))],
    ),
    "an unanswered removal that is seen twice": (
        4,
        [
            whole("a", (0, 1), 1),
            uncertain("removal", "b", 2),
            uncertain("whole", "x", 2),
            whole("c", (3, 4), 3, found=False),
            sees_nothing((5, 6)),
        ],
    ),
}
"""Cases that only the search finds: a change without an answer has no revision."""


@pytest.mark.parametrize("name", GOOD)
def test_linearizable_histories_are_accepted(name: str) -> None:
    head, told = GOOD[name]
    assert judged(told, head) == ([], [])


@pytest.mark.parametrize("name", BAD)
def test_impossible_histories_are_rejected_by_both_checks(name: str) -> None:
    head, told = BAD[name]
    by_revisions, by_search = judged(told, head)
    assert by_revisions != []
    assert by_search != []


@pytest.mark.parametrize("name", BAD_BETWEEN_KEYS)
def test_contradictions_between_keys_are_rejected_by_revisions(name: str) -> None:
    head, told = BAD_BETWEEN_KEYS[name]
    by_revisions, by_search = judged(told, head)
    assert len(by_revisions) == 1
    assert by_search == []


@pytest.mark.parametrize("name", BAD_IN_DOUBT)
def test_contradictions_of_unanswered_changes_are_rejected_by_search(name: str) -> None:
    head, told = BAD_IN_DOUBT[name]
    assert len(judged(told, head)[1]) == 1


def test_a_search_that_exceeds_its_limit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registers, "STEPS", 3)
    history = history_of([whole(f"{number}", (0, 9), number) for number in range(1, 9)])
    assert search(history).faults == ["k: undecided after 3 steps"]


def test_windows_end_where_no_operation_is_in_progress() -> None:
    told: list[Told] = [
        whole("a", (0, 1), 1),
        whole("b", (2, 4), 2),
        sees(2, ("b", None), (3, 5)),
        whole("c", (6, 7), 3),
    ]
    assert search(history_of(told)).windows == 3
