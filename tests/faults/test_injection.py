"""The lane survives an exception at any call of the service's code, on every engine; and the harness detects planted
bugs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FunctionType

import pytest
from databases import ENGINES
from harness.injection import SOURCE, survive_exceptions

from leasehold import completions, rules
from leasehold.engines.base import Engine, Space, SteadyClock, by_kind
from leasehold.engines.file import storage
from leasehold.engines.file.appends import AnyAppend, Append, Group
from leasehold.engines.file.disk import rename_durably
from leasehold.engines.file.engine import FileEngine
from leasehold.engines.file.storage import Storage
from leasehold.engines.memory.space import InMemorySpace
from leasehold.engines.postgres.committer import Committer
from leasehold.errors import ServiceError
from leasehold.http.responses import Response
from leasehold.http.wire.connection import Connection
from leasehold.model import AnyKind, Change, Operation
from leasehold.store import batch
from leasehold.store.batch import Batch
from leasehold.store.lane import Lane

# A coroutine whose task could not be created is never awaited.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LEAST_KINDS = 200
"""The fewest kinds of calls on any engine. With fewer, the harness does not see all code that it should."""
LEAST_KINDS_IN_FILES = 200
"""Those of commits and of checkpoints."""
OF_TURNS = ("engines/postgres/", "store/")
"""The code that notices whether servers take turns. The calls by other code are the same without turns."""


def made(kind: str, folder: Path) -> Callable[[], Engine]:
    return lambda: ENGINES[kind](folder, SteadyClock())


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.long
def test_an_exception_at_each_kind_of_call_affects_one_caller_or_one_batch(tmp_path: Path, kind: str) -> None:
    finding = survive_exceptions(made(kind, tmp_path), 1)
    assert finding.violations == []
    assert finding.figures["kinds of calls"] > LEAST_KINDS
    assert finding.figures["faults"] > 0.6 * finding.figures["kinds of calls"], finding.figures


@pytest.mark.long
def test_an_exception_while_servers_take_turns_affects_one_caller_or_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Committer, "is_contended", True)
    finding = survive_exceptions(made("postgres", tmp_path), 1, folders=OF_TURNS)
    assert finding.violations == []
    assert finding.figures["kinds of calls"] > LEAST_KINDS
    assert finding.figures["faults"] > 0.6 * finding.figures["kinds of calls"], finding.figures


@pytest.mark.long
def test_nothing_is_lost_by_a_kill_after_an_exception_in_the_code_that_writes_the_files(tmp_path: Path) -> None:
    finding = survive_exceptions(made("file", tmp_path), 1, in_files=True)
    assert finding.violations == []
    assert finding.figures["kinds of calls"] > LEAST_KINDS_IN_FILES
    assert finding.figures["faults"] > 0.8 * finding.figures["kinds of calls"], finding.figures


# Planted bugs -------------------------------------------------------------------------------------------------


def shipped(function: Callable[..., object], file: str) -> FunctionType:
    """Make the code of a bug look like code in a file of the service, so that its calls are seen."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace(co_filename=f"{SOURCE}/{file}")
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def naive_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a completion that raises prevents the remaining completions."""

    def complete_all(calls: Iterator[tuple[Callable[[object], None], object]], _failed: object) -> None:
        for complete, result in calls:
            complete(result)

    monkeypatch.setattr(batch, "complete_all", complete_all)


def unguarded_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a response that raises leaves the connection in its present state."""
    monkeypatch.setattr(Connection, "_fail", lambda *_arguments, **_named: None)


def batch_fails_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: an operation that raises fails the whole batch."""
    real = rules.batch._internal_error

    def unforeseen(operation: Operation, failure: Exception) -> ServiceError:
        if isinstance(failure, ServiceError):
            return real(operation, failure)
        raise failure

    monkeypatch.setattr(rules.batch, "_internal_error", unforeseen)


def unguarded_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a batch that cannot be made in its turn leaves the lane waiting."""

    def come(self: Lane) -> None:
        self._awaits_turn = False
        with suppress(OSError, MemoryError, RuntimeError):
            self._commit_waiting()

    monkeypatch.setattr(Lane, "_turn_came", shipped(come, "store/lane.py"))
    monkeypatch.setattr(Committer, "is_contended", True)


def unguarded_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: an engine that raises leaves the lane waiting."""

    def start(self: Batch, space: Space) -> None:
        space.commit(rules.touched(self.operations), self._decide, self.finish)

    def refuse(self: Batch, failure: BaseException) -> None:
        completions.report("a batch failed", failure)

    monkeypatch.setattr(Batch, "commit", start)
    monkeypatch.setattr(Batch, "refuse", refuse)


def half_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a batch that was published in part stays so."""

    def publish(self: InMemorySpace, changes: Sequence[Change]) -> Mapping[AnyKind, Sequence[Change]]:
        of_kinds = by_kind(changes)
        self._state.publish(of_kinds, changes[-1].revision)
        return of_kinds

    monkeypatch.setattr(InMemorySpace, "_publish", publish)


def sure_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: an exception between the sync and the end of the step counts as a batch that was not stored."""

    def append(self: Storage, appends: Sequence[AnyAppend]) -> None:
        [batch] = appends
        assert isinstance(batch, Append)
        record = batch.encoded(0)
        self.reserve.spend_for(
            lambda: self._journals.append(record, self.revision, self._incarnation), allowed=batch.frees_space
        )
        max(batch.first_revision, batch.last_revision)
        self.revision, batch.is_over = batch.last_revision, True

    monkeypatch.setattr(Storage, "_append_together", shipped(append, "engines/file/storage.py"))


def answered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a request counts as open while its response is being sent."""
    real = Connection._respond

    def respond(self: Connection, response: Response) -> None:
        request = self._current
        try:
            real(self, response)
        except BaseException:
            self._current = request
            raise

    monkeypatch.setattr(Connection, "_respond", respond)


def written_with_a_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: a batch whose job failed is written with the next batch, which has the same revision."""

    def take(group: Group, append: AnyAppend) -> list[AnyAppend]:
        others = [other for other in group if other is not append and not other.is_over]
        group.clear()
        return [append, *others]

    monkeypatch.setattr(storage, "take_waiting", take)


def late_end_of_a_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: after an exception, the next batches are appended to a journal that was renamed and will be removed."""

    def rotate(self: Storage) -> None:
        journals = self._journals
        if not journals.has_old and journals.current is not None:
            journals.has_old = True
            rename_durably(self._disk, self._paths.journal, self._paths.old_journal)
            self._owner.files.put(self._paths.journal, None)
            journals.close()

    monkeypatch.setattr(Storage, "rotate", shipped(rotate, "engines/file/storage.py"))


@pytest.mark.parametrize(
    ("plant", "kind", "place"),
    [
        (naive_completions, "memory", "finish"),
        (unguarded_answers, "memory", "_respond"),
        (batch_fails_as_a_whole, "memory", "evaluate"),
        (unguarded_commit, "memory", "commit"),
        (half_published, "memory", "publish"),
        (half_published, "file", "publish"),
        (sure_files, "file", "append"),
        (answered_twice, "memory", "_respond"),
        (unguarded_turn, "postgres", "come"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_planted_bug_is_detected(
    plant: Callable[[pytest.MonkeyPatch], None],
    kind: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`place`: a part of the names of the functions around the bug. Their calls come first, to save time."""
    plant(monkeypatch)
    monkeypatch.setattr("harness.injection.WAIT_SECONDS", 2.0)
    finding = survive_exceptions(made(kind, tmp_path), 1, stops_at_first=True, begins_in=place)
    assert finding.figures["likely calls"] > 0
    assert finding.violations


@pytest.mark.parametrize(("plant", "place"), [(written_with_a_later_one, "_run"), (late_end_of_a_journal, "rotate")])
def test_a_planted_bug_is_detected_in_the_files(
    plant: Callable[[pytest.MonkeyPatch], None], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    finding = survive_exceptions(made("file", tmp_path), 1, stops_at_first=True, begins_in=place, in_files=True)
    assert finding.figures["likely calls"] > 0
    others = ("the store is broken", "waits for ever")
    assert [each for each in finding.violations if not any(other in each for other in others)], finding


def test_a_store_of_the_file_engine_can_be_opened_after_the_exceptions(tmp_path: Path) -> None:
    """A second run on the same files reads what the faults of the first run left."""
    for seed in range(2):
        finding = survive_exceptions(lambda: FileEngine(tmp_path / "data.json", clock=SteadyClock()), seed, points=100)
        assert finding.violations == []
