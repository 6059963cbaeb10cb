"""Requests that Schemathesis generates from `/openapi.json` get documented answers."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from contract import Contract
from harness import depth
from harness.described import drive_by_description
from running import Server

EXAMPLES = depth(10)


def test_requests_generated_from_the_description_get_documented_answers() -> None:
    finding = drive_by_description("memory:", 1, examples=EXAMPLES)
    assert finding.violations == []
    assert min(finding.figures["answers 2xx"], finding.figures["answers 4xx"]) >= depth(100)
    assert finding.figures["replayed answers"] > 0


def test_an_undocumented_answer_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Server.start

    def describe_wrongly(server: Server) -> Server:
        start(server)
        document: Mapping[str, Any] = deepcopy(server.contract.document)
        health = document["paths"]["/health"]["get"]["responses"]
        health["404"] = health.pop("200")
        server.contract = Contract(document)
        return server

    monkeypatch.setattr(Server, "start", describe_wrongly)
    finding = drive_by_description("memory:", 1, examples=1)
    assert any("/health" in violation for violation in finding.violations)
