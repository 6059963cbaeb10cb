"""A batch continues whatever raises: each caller gets an answer, and the lane takes the next batch."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from driving import memory_of
from structlog.testing import capture_logs

from leasehold import rules
from leasehold.engines.base import CommitDone, Decide
from leasehold.engines.memory.engine import MemoryEngine
from leasehold.engines.memory.ordered_names import OrderedNames
from leasehold.engines.memory.space import MemorySpace
from leasehold.engines.memory.state import State
from leasehold.engines.memory.table import Table
from leasehold.errors import ServiceError, outcome_unknown
from leasehold.limits import Limits
from leasehold.metrics import Metrics
from leasehold.model import LEASE, Acquire, Change, Kind, Operation, Outcome, Put, R, Touched, View, Written
from leasehold.rules.overlay import Overlay
from leasehold.store.store import Store

SECONDS = 60.0
MINUTE = 60_000_000
"""A ttl, so that a batch does not consist of plain puts, which are decided by another rule."""
Told = Outcome | ServiceError


def scenario(test: Callable[[Store], Awaitable[None]]) -> Callable[[], None]:
    """Run with an in-memory store. At the end it must still accept a write, and close."""

    def run() -> None:
        async def on_a_store() -> None:
            store = Store(MemoryEngine(), Limits())
            async with asyncio.timeout(SECONDS):
                await store.open()
                await test(store)
                assert isinstance(await submit(store, Put("later", b"1")), Written)
                await store.close()

        asyncio.run(on_a_store())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run


async def submit(store: Store, operation: Operation) -> Told:
    told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
    store.submit(operation, told.set_result)
    return await told


async def submit_all(store: Store, *operations: Operation) -> list[Told]:
    """Submit the operations as one batch."""
    return list(await asyncio.gather(*(submit(store, operation) for operation in operations)))


def error(told: Told) -> tuple[str, str]:
    assert isinstance(told, ServiceError)
    return told.code, told.message


NOTHING_CHANGED = ("internal", "the service failed; nothing was changed")
UNKNOWN = ("unavailable", "the change may or may not have been stored")


class FailingOnce:
    """Raises at the first call. Later calls call the function that it replaces."""

    def __init__(self, real: Callable[..., object], failure: BaseException) -> None:
        self._real = real
        self._failure: BaseException | None = failure

    def __call__(self, *arguments: object, **named: object) -> object:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self._real(*arguments, **named)


# Completions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [ValueError, MemoryError, RecursionError, asyncio.CancelledError])
def test_a_completion_that_raises_is_called_again_with_the_error_and_the_others_are_unaffected(
    failure: type[BaseException],
) -> None:
    @scenario
    async def run(store: Store) -> None:
        told: list[Told] = []

        def fails_once(outcome: Told) -> None:
            told.append(outcome)
            if len(told) == 1:
                raise failure

        before = asyncio.ensure_future(submit(store, Put("a", b"1")))
        await asyncio.sleep(0)
        store.submit(Put("b", b"2"), fails_once)
        after = await submit(store, Put("c", b"3"))
        assert [type(each) for each in (await before, after)] == [Written, Written]
        assert [type(each) for each in told] == [Written, ServiceError]
        assert isinstance(told[1], ServiceError)
        assert told[1].is_outcome_unknown

    run()


@scenario
async def test_a_completion_that_always_raises_is_called_twice(store: Store) -> None:
    told: list[Told] = []

    def fails(outcome: Told) -> None:
        told.append(outcome)
        raise ValueError

    store.submit(Put("a", b"1"), fails)
    assert isinstance(await submit(store, Put("b", b"2")), Written)
    assert len(told) == 2


def test_an_exception_that_ends_the_process_is_raised_after_all_completions() -> None:
    told: list[Told] = []

    def interrupted(_: Told) -> None:
        raise KeyboardInterrupt

    async def run() -> None:
        store = Store(MemoryEngine(), Limits())
        await store.open()
        store.submit(Put("a", b"1"), interrupted)
        store.submit(Put("b", b"1"), told.append)
        await asyncio.sleep(SECONDS)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(run())
    assert [type(each) for each in told] == [Written]


# Rules --------------------------------------------------------------------------------------------------------


def test_an_operation_that_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules.batch.apply

    def apply(overlay: Overlay, operation: Operation) -> Outcome:
        if isinstance(operation, Put) and operation.key == "b":
            raise MemoryError
        return real(overlay, operation)

    monkeypatch.setattr(rules.batch, "apply", apply)

    @scenario
    async def run(store: Store) -> None:
        first, second, third = await submit_all(store, Put("a", b"1"), Put("b", b"2", ttl=MINUTE), Put("c", b"3"))
        assert error(second) == NOTHING_CHANGED
        assert isinstance(second, ServiceError)
        assert (second.details, type(second.__cause__)) == ({"key": "b"}, MemoryError)
        assert [type(each) for each in (first, third)] == [Written, Written]
        assert [entry.key for entry in (await store.page([""], None, 10)).records] == ["a", "c"]

    run()


def test_earlier_changes_of_a_key_are_kept_when_a_later_operation_on_it_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules.entries, "Written", failing := FailingOnce(Written, MemoryError()))
    failing._failure = None

    @scenario
    async def run(store: Store) -> None:
        await submit(store, Put("a", b"0"))
        first = asyncio.ensure_future(submit(store, Put("a", b"1")))
        await asyncio.sleep(0)

        real = rules.entries.put

        def put(overlay: Overlay, operation: Put) -> Written:
            if operation.value == b"2":
                failing._failure = MemoryError()
            return real(overlay, operation)

        monkeypatch.setattr(rules.entries, "put", put)
        assert error(await submit(store, Put("a", b"2", ttl=MINUTE))) == NOTHING_CHANGED
        assert isinstance(await first, Written)
        [entry] = (await store.page([""], None, 10)).records
        assert entry.value == b"1"

    run()


# The engine ---------------------------------------------------------------------------------------------------


class Failing(MemorySpace):
    """An engine that fails in one commit in the given way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def commit(self, touched: Touched, decide: Decide, done: CommitDone) -> None:
        fault, self._fault = self._fault, ""
        if fault == "raises":
            raise MemoryError
        if fault == "decides, raises":
            decide(self._state, self.revision, self._clock())
            raise MemoryError
        if fault == "does not ask":
            done(None)
        elif fault == "tells twice":
            super().commit(touched, decide, done)
            done(outcome_unknown())
        else:
            super().commit(touched, decide, done)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", NOTHING_CHANGED),
        ("decides, raises", NOTHING_CHANGED),
        ("does not ask", UNKNOWN),
        ("tells twice", None),
    ],
)
def test_the_lane_continues_after_an_engine_breaks_its_contract(fault: str, told: tuple[str, str] | None) -> None:
    async def run() -> None:
        store = Store(memory_of(Failing(fault)), Limits())
        async with asyncio.timeout(SECONDS):
            await store.open()
            for each in await submit_all(store, Put("a", b"1"), Put("b", b"1")):
                assert isinstance(each, Written) if told is None else error(each) == told
            assert isinstance(await submit(store, Put("a", b"2")), Written)
            await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("where", ["publish", "entries", "leases"])
def test_publishing_continues_after_an_exception_in_the_middle(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(store: Store) -> None:
        space = store.space
        assert isinstance(space, MemorySpace)
        await submit(store, Acquire("l", "1", 10_000_000))
        if where == "publish":
            monkeypatch.setattr(space._state, "publish", FailingOnce(space._state.publish, MemoryError()))
        elif where == "entries":
            fail_once = FailingOnce(OrderedNames.add, MemoryError())

            def add(names: OrderedNames, name: str) -> None:
                fail_once(names, name)  # entries are published first

            monkeypatch.setattr(OrderedNames, "add", add)
        else:
            publish, fail = Table.publish, FailingOnce(Table.publish, MemoryError())
            monkeypatch.setattr(
                Table,
                "publish",
                lambda table, *batch: (fail if table.kind is LEASE else publish)(table, *batch),
            )
        told = await submit_all(store, Put("a", b"1"), Acquire("m", "2", 10_000_000), Put("b", b"2"))
        assert not any(isinstance(each, ServiceError) for each in told)
        assert [entry.key for entry in (await store.page([""], None, 10)).records] == ["a", "b"]
        assert [lease.lock for lease in (await store.lease_page([""], None, 10)).records] == ["l", "m"]
        assert space.revision == 4
        await submit(store, Put("c", b"3"))
        assert [entry.revision for entry in (await store.page([""], None, 10)).records] == [2, 4, 5]

    run()


def test_changes_are_refused_until_a_stored_batch_can_be_published(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_arguments: object) -> State:
        raise MemoryError

    @scenario
    async def run(store: Store) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(State, "publish", no_memory)
            patch.setattr(State, "rebuilt", no_memory)
            assert error(await submit(store, Put("a", b"1"))) == UNKNOWN
            assert error(await submit(store, Put("b", b"2"))) == NOTHING_CHANGED
        assert isinstance(await submit(store, Put("c", b"3")), Written)
        entries = (await store.page([""], None, 10)).records
        assert [(entry.key, entry.revision) for entry in entries] == [("a", 1), ("c", 2)]

    run()


# The lane itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["_take_batch", "_start_batch", "_new_batch"])
def test_a_batch_that_cannot_be_started_is_refused(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(store: Store) -> None:
        lane = store._lane
        monkeypatch.setattr(lane, step, FailingOnce(getattr(lane, step), MemoryError()))
        told = await submit_all(store, Put("a", b"1"), Put("b", b"1"))
        assert [error(each) for each in told] == [NOTHING_CHANGED] * 2
        assert (await store.page([""], None, 10)).records == []

    run()


def test_a_change_that_cannot_be_added_to_the_lane_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    @scenario
    async def run(store: Store) -> None:
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_soon", FailingOnce(loop.call_soon, MemoryError()))
            with pytest.raises(MemoryError):
                store.submit(Put("a", b"1"), lambda _: None)
        assert isinstance(await submit(store, Put("b", b"1")), Written)
        assert [entry.key for entry in (await store.page([""], None, 10)).records] == ["b"]

    run()


def test_a_failing_metric_of_batches_does_not_affect_the_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_metrics: Metrics, _operations: int) -> None:
        raise ValueError

    monkeypatch.setattr(Metrics, "count_batch", fails)

    @scenario
    async def run(store: Store) -> None:
        assert isinstance(await submit(store, Put("a", b"1")), Written)

    run()


@scenario
async def test_each_fault_is_logged(store: Store) -> None:
    def fails(_: Told) -> None:
        raise ValueError("seen in the log")

    with capture_logs() as logs:
        store.submit(Put("a", b"1"), fails)
        await submit(store, Put("b", b"2"))
    events = [line["event"] for line in logs]
    assert events == ["a completion failed", "a completion failed again with the error"]


def test_a_view_that_fails_for_one_key_fails_only_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    class Poisoned(MemorySpace):
        def _decide(self, decide: Decide) -> list[Change]:
            state = self._state

            class PoisonedRecords(dict[str, R]):
                def get(self, name: str, _default: object = None) -> R | None:  # type: ignore[override]
                    if name == "b":
                        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
                    return super().get(name)

            class PoisonedView:
                incarnation = state.incarnation
                found = state.found
                quota = None
                usage = state.usage

                def records(self, kind: Kind[R]) -> Mapping[str, R]:
                    return PoisonedRecords(state.records(kind))

            view: View = PoisonedView()
            return list(decide(view, self.revision, self._clock()))

    async def run() -> None:
        store = Store(memory_of(Poisoned()), Limits())
        await store.open()
        told = await submit_all(store, Put("a", b"1"), Put("b", b"1"), Put("c", b"1"))
        assert [type(each) for each in told] == [Written, ServiceError, Written]
        await store.close()

    asyncio.run(run())
