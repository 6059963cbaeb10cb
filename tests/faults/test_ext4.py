"""What was acknowledged survives the loss of a real file system. And the harness finds what is wrong."""

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
    """Files that loop devices are made of."""
    return [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]


def nothing_is_left(folder: Path) -> bool:
    return str(folder) not in Path("/proc/self/mounts").read_text() and not any(
        name.startswith(str(folder)) for name in loop_files()
    )


def test_what_was_acknowledged_survives_the_loss_of_the_file_system(tmp_path: Path) -> None:
    finding = survive_lost_file_system(tmp_path, 6, cuts=CUTS)
    assert finding.violations == []
    assert finding.figures["cuts"] == CUTS
    assert finding.figures["cuts with changes under way"] >= 2
    until(lambda: nothing_is_left(tmp_path))


@pytest.mark.parametrize("bug", ["no-fsync", "no-folder-fsync", "answer-before-fsync"])
def test_a_planted_bug_would_be_noticed(tmp_path: Path, bug: str) -> None:
    finding = survive_lost_file_system(tmp_path, 6, cuts=30, bug=bug)  # ends by the first
    assert finding.violations
    until(lambda: nothing_is_left(tmp_path))


def test_a_cut_keeps_what_was_synced_and_nothing_else(tmp_path: Path) -> None:
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


def test_a_mount_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
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
