"""One report of each test that has passed, in place of three.

The workers of pytest-xdist send the reports of a test's setup, call and teardown to the process that prints them. For a
short test this takes more time than the test. What has passed before and after the call is shown only by `--durations`.
"""

import os

import pytest
from _pytest.runner import runtestprotocol


class ShortReports:
    """A plugin that runs each test as pytest does, and then says only what has failed and how the call ended."""

    @pytest.hookimpl
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed:
                item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True


def are_wanted(config: pytest.Config) -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ and config.option.durations is None
