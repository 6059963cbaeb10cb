"""Acknowledged changes survive the loss of a real file system; and the harness detects planted bugs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.ext4 import survive_lost_file_system
from harness.mounts import LoopMount
from programs import LOOP_MOUNTS, needs
from running import until

pytestmark = needs(LOOP_MOUNTS)
CUTS = 6


def loop_files() -> list[str]:
    """The files behind the loop devices of the system."""
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]


def nothing_is_left(folder: Path) -> bool:
    return str(folder) not in Path("/proc/self/mounts").read_text() and not any(
        name.startswith(str(folder)) for name in loop_files()
    )


def test_acknowledged_changes_survive_the_loss_of_the_file_system(tmp_path: Path) -> None:
    finding = survive_lost_file_system(tmp_path, 6, cuts=CUTS)
    assert finding.violations == []
    assert finding.figures["cuts"] == CUTS
    assert finding.figures["cuts with changes under way"] >= 2
    until(lambda: nothing_is_left(tmp_path))


@pytest.mark.parametrize("bug", ["no-fsync", "no-folder-fsync", "answer-before-fsync"])
def test_a_planted_bug_is_detected(tmp_path: Path, bug: str) -> None:
    finding = survive_lost_file_system(tmp_path, 6, cuts=30, bug=bug)  # one detection is enough
    assert finding.violations
    until(lambda: nothing_is_left(tmp_path))


def test_a_cut_keeps_only_what_was_synced(tmp_path: Path) -> None:
    with LoopMount(tmp_path) as mount:
        for name in ("synced", "unsynced"):
            with (mount.path / name).open("wb", buffering=0) as file:
                file.write(name.encode())
                if name == "synced":
                    os.fsync(file)
        mount.cut()
        mount.unmount()
        mount.mount()
        contents = {path.name: path.read_bytes() for path in mount.path.iterdir() if path.is_file()}
    assert contents.pop("synced") == b"synced"
    assert contents in ({}, {"unsynced": b""})


def test_a_killed_process_leaves_nothing_mounted(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from harness.mounts import LoopMount
with LoopMount(Path(sys.argv[1])):
    print("mounted", flush=True)
    sys.stdin.read()
"""
    tests = str(Path(__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": tests},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n"
        assert not nothing_is_left(tmp_path)
        process.kill()
    until(lambda: nothing_is_left(tmp_path))
