"""Which watchers are due for a `progress`, and when."""

import random

from leasehold.http.event_formats import FORMATS
from leasehold.http.media_types import Media
from leasehold.store.heartbeats import Heartbeats
from leasehold.store.watchers import Interest, Watch, Watcher

MANY = 1_000


class NoSink:
    is_paused = False

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    async def give_way(self) -> None:
        raise NotImplementedError

    def abort(self) -> None:
        raise NotImplementedError


def watcher() -> Watcher:
    return Watcher(Watch(Interest(("",), FORMATS[Media.NDJSON, True])), NoSink())


def test_a_watcher_is_due_at_its_time_or_up_to_a_second_later_and_never_earlier() -> None:
    rng = random.Random(1)
    beats, due = Heartbeats(), {watcher(): rng.uniform(100, 160) for _ in range(MANY)}
    for each, at in due.items():
        beats.put(each, at)
    taken: set[Watcher] = set()
    for now in range(100, 162):
        for each in beats.take_due(now, MANY):
            assert due[each] < now <= due[each] + 1
            taken.add(each)
    assert (taken, len(beats)) == (set(due), 0)


def test_a_later_time_replaces_an_earlier_one() -> None:
    beats, each = Heartbeats(), watcher()
    beats.put(each, 1.5)
    beats.put(each, 3.5)
    assert (len(beats), beats.take_due(2, MANY), beats.take_due(4, MANY)) == (1, [], [each])


def test_a_watcher_that_was_removed_is_not_due() -> None:
    beats, each, other = Heartbeats(), watcher(), watcher()
    beats.put(each, 1.5)
    beats.put(other, 1.5)
    beats.remove(each)
    beats.remove(each)
    assert (beats.take_due(9, MANY), len(beats)) == ([other], 0)


def test_not_more_than_the_caller_wants_are_taken_at_a_time() -> None:
    beats = Heartbeats()
    each = [watcher() for _ in range(10)]
    for number, one in enumerate(each):
        beats.put(one, number // 4)
    parts = [beats.take_due(20, 3) for _ in range(5)]
    assert parts == [each[:3], each[3:6], each[6:9], each[9:], []]
