"""Moves of stores with several namespaces."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from databases import run
from moving import (
    IN_USE,
    KILLED,
    MOVED,
    STORES,
    WAS_COMPLETE,
    Ask,
    asking,
    every_source,
    every_target,
    has_tables,
    in_store_of,
    killed_moves,
    moved,
    new_file,
    new_with_tables,
    refused,
)
from several_namespaces import NAMES, filled_file, observed, opened, serving

from leasehold.engines.file.disk import OsDisk
from leasehold.engines.file.recovery import inspect
from leasehold.engines.postgres import namespaces
from leasehold.model import ENTRY, QuotaChange, Usage
from leasehold.namespaces import DEFAULT_NAMESPACE


def filled(kind: str, folder: Path) -> str:
    return in_store_of(kind, folder, filled_file(new_file(folder)))


@every_target
@every_source
def test_a_move_takes_all_namespaces_along(source_kind: str, target_kind: str, tmp_path: Path) -> None:
    source, target = filled(source_kind, tmp_path), STORES[target_kind](tmp_path)
    expected = observed(source)
    assert list(expected) == NAMES
    assert not moved(source, target)
    assert observed(target) == expected
    assert observed(source) == expected
    assert moved(source, target)


@every_source
def test_the_usage_is_known_after_a_move_to_postgresql(
    source_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the first commit under a quota would count, while it holds up all others."""
    source, target = filled(source_kind, tmp_path), STORES["postgres"](tmp_path)
    expected = {name: found.description.usage for name, found in observed(source).items()}
    assert not moved(source, target)

    async def fail(*_: object) -> namespaces.Counted | None:
        pytest.fail("it is counted")

    monkeypatch.setattr(namespaces, "count", fail)
    assert {name: found.description.usage for name, found in observed(target).items()} == expected
    assert expected["team-a"] == Usage(1, 9)


@every_target
@every_source
def test_a_namespace_that_was_deleted_before_a_move_continues_at_its_revision(
    source_kind: str, target_kind: str, tmp_path: Path
) -> None:
    source, target = filled(source_kind, tmp_path), STORES[target_kind](tmp_path)
    assert not moved(source, target)

    async def create() -> int:
        async with serving(target) as engine:
            description, is_new = await engine.create("gone", QuotaChange())
            assert is_new
            async with opened(engine, "gone") as space:
                assert not (await space.scan(ENTRY, "", None, 100)).records
            return description.revision

    assert run(create()) == 3


@every_target
def test_a_target_whose_other_namespaces_differ_is_refused(target_kind: str, tmp_path: Path) -> None:
    source, target = filled("file", tmp_path), STORES[target_kind](tmp_path)
    assert not moved(source, target)

    async def change() -> None:
        async with serving(target) as engine:
            await engine.create("empty", QuotaChange(1, None))

    run(change())
    before = observed(target)
    assert refused(source, target) == "the target is not empty; nothing was changed"
    assert observed(target) == before


@pytest.mark.parametrize(("source_kind", "target_kind"), [("file", "file"), ("file", "postgres"), ("postgres", "file")])
@pytest.mark.long
def test_a_move_that_is_killed_at_any_step_has_moved_all_namespaces_or_none(
    source_kind: str, target_kind: str, tmp_path: Path
) -> None:
    """After each kill a server starts on a copy of what is left."""
    source, target = filled(source_kind, tmp_path), STORES[target_kind](tmp_path)
    expected = observed(source)
    step = completed = attempts = 0
    found_tables = goes_back = False
    with killed_moves(source, STORES[target_kind](tmp_path)) as killed_at, asking() as ask:
        while (code := killed_at(step, source, target)) != MOVED:
            # The database may still be busy with the process that was killed.
            assert code in (KILLED, WAS_COMPLETE, IN_USE)
            attempts += 1
            assert attempts < 3_000
            if code == WAS_COMPLETE:
                assert observed(target) == expected
                completed += 1
                if completed == 1:
                    # Into a new target there is nothing of killed moves to remove, which takes a few steps.
                    step, goes_back = step - 5, True
                target = new_with_tables(target_kind, tmp_path)
            elif code == KILLED:
                assert heads_in(target, ask) in ({}, HEADS), step
                assert not (goes_back and heads_in(target, ask)), "it went back too few steps"
                goes_back = False
                step += 1
                if not found_tables and has_tables(target, ask):
                    # From now on the moves do not make them, so that their first steps are others.
                    found_tables, step = True, 0
                if completed and not heads_in(target, ask):
                    target = new_with_tables(target_kind, tmp_path)
    assert step > 20
    assert completed > 0
    assert observed(target) == expected


HEADS = {DEFAULT_NAMESPACE: 4, "empty": 0, "gone": 3, "team-a": 4, "team-c": 4}


def heads_in(store: str, ask: Ask) -> Mapping[str, int]:
    """The revisions of all namespaces, deleted ones included. Empty: nothing was ever written."""
    path = Path(store)
    if path.suffix == ".json":
        report = inspect(path, OsDisk())
        others = report.namespaces
        states = {name: state.revision for name, state in others.states.items()}
        deleted = {name: head.revision for name, head in others.heads.items() if head.is_deleted}
        return {DEFAULT_NAMESPACE: report.revision, **states, **deleted} if report.revision or states else {}
    schema = store.rpartition("search_path=")[2]
    if not has_tables(store, ask):
        return {}
    return dict(ask(f"SELECT namespace, revision FROM {schema}.head"))  # type: ignore[arg-type] # of rows with two


def test_a_start_completes_a_move_that_was_killed_between_its_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = filled("file", tmp_path), new_file(tmp_path)
    rename = OsDisk.rename

    def failing(self: OsDisk, old: Path, new: Path) -> None:
        if old.name.startswith("data.json.namespaces.for-"):
            raise OSError("killed")
        rename(self, old, new)

    with monkeypatch.context() as patched:
        patched.setattr(OsDisk, "rename", failing)
        assert not moved(source, target)
    folder = Path(target).parent
    assert len(list(folder.glob("data.json.namespaces.for-*"))) == 1
    assert len(inspect(Path(target), OsDisk()).namespaces.heads) == 5
    assert observed(target) == observed(source)
    assert not list(folder.glob("data.json.namespaces.for-*"))
    assert (folder / "data.json.namespaces").exists()


def test_namespaces_that_were_prepared_for_another_data_json_are_removed(tmp_path: Path) -> None:
    """As after a kill before `data.json` was renamed."""
    source, target = filled("file", tmp_path), new_file(tmp_path)
    assert not moved(source, target)
    folder = Path(target).parent
    (folder / "data.json.namespaces").rename(folder / "data.json.namespaces.for-abcdef")
    assert list(observed(target)) == [DEFAULT_NAMESPACE]
    assert not list(folder.glob("data.json.namespaces*"))
