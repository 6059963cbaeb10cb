"""Memory that is moved into huge pages."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import HUGE_PAGES, needs

from leasehold.process import huge_pages
from leasehold.process.huge_pages import HugePages

MIB = 1 << 20
LARGE_MIB = 160
MOVES_ITS_MEMORY = f"""
import sys, time
from leasehold.process.huge_pages import HugePages

def huge_bytes():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("AnonHugePages"))

texts = [b"%0600d" % number for number in range({{mib}} * {MIB} // 640)]
pages = HugePages()
pages.start()
limit = time.monotonic() + 120
while huge_bytes() < {{least}} and time.monotonic() < limit:
    time.sleep(0.05)
pages.stop()
assert all(int(text) == number for number, text in enumerate(texts)), "the memory has changed"
print(huge_bytes())
"""


@needs(HUGE_PAGES)
def test_large_memory_is_moved_and_keeps_its_content() -> None:
    least = LARGE_MIB * MIB * 3 // 4
    command = [sys.executable, "-c", MOVES_ITS_MEMORY.format(mib=LARGE_MIB, least=least)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) >= least


def test_nothing_happens_where_huge_pages_are_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "enabled"
    setting.write_text("always madvise [never]\n")
    monkeypatch.setattr(huge_pages, "_SETTING", setting)
    assert not huge_pages.are_available()
    pages = HugePages()
    pages.start()
    pages.stop()  # a thread that was not started cannot be joined


def test_nothing_happens_on_a_system_without_huge_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "missing")
    assert not huge_pages.are_available()
