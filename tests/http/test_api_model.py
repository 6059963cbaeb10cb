"""Random sequences of requests are answered as a model, a plain dictionary, predicts, on every engine."""

from pathlib import Path

import httpx
import pytest
from databases import STORES
from harness import depth
from harness.api_model import KeyValueMachine, follow_the_model

SEQUENCES = depth(50)


@pytest.mark.parametrize("store", STORES)
def test_random_requests_are_answered_as_the_model_predicts(tmp_path: Path, store: str) -> None:
    finding = follow_the_model(STORES[store](tmp_path), 1, sequences=SEQUENCES)
    assert finding.violations == []
    assert finding.figures["sequences"] >= SEQUENCES


def test_an_answer_that_differs_from_the_model_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service seems to delete nothing."""
    honest = KeyValueMachine.request

    def lying(machine: KeyValueMachine, method: str, key: str, **options: object) -> httpx.Response:
        return honest(machine, "GET" if method == "DELETE" else method, key, **options)

    monkeypatch.setattr(KeyValueMachine, "request", lying)
    finding = follow_the_model("memory:", 1, sequences=150, shrinks=False)
    assert len(finding.violations) == 1
