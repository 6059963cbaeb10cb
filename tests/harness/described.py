"""Requests that Schemathesis generates from `/openapi.json`, valid and invalid, have answers that match the
description.

Schemathesis checks statuses, headers, media types and bodies without knowledge of this project. It is not checked that
valid requests succeed, because a description cannot contain all rules of keys, paths and conditions.
"""

import itertools
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from running import running
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure, FailureGroup

from harness import Finding

CHECK_NAMES: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
ANSWER_SECONDS: Final = 20.0


def drive_by_description(store: str | Path, seed_number: int, *, examples: int) -> Finding:
    """Send this many valid requests, and as many invalid ones, to each operation of a server of `store`."""
    finding = Finding()
    load_all_checks()
    checks = [CHECKS.get_one(name) for name in CHECK_NAMES]
    with running(store) as server:
        schema = schemathesis.openapi.from_dict(deepcopy(server.contract.document))  # type: ignore[arg-type]
        for result, mode in itertools.product(schema.get_all_operations(), GenerationMode):
            operation = result.ok()
            if operation.path == "/watch":  # its responses do not end
                continue

            def send(case: Any) -> None:
                _do_not_wait(case)
                for _ in range(1 + _share_key(case, finding.figures["requests"])):
                    response = case.call(base_url=server.url, timeout=ANSWER_SECONDS)
                    finding.figures["requests"] += 1
                    finding.figures[f"answers {response.status_code // 100}xx"] += 1
                    finding.figures["replayed answers"] += "idempotent-replayed" in response.headers
                    try:
                        case.validate_response(response, checks=checks)
                    except (Failure, FailureGroup) as failure:
                        found = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
                        finding.violations += [f"{case.as_curl_command()}: {each}" for each in found]

            bounds = settings(
                max_examples=examples,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            with suppress(Unsatisfiable):  # this operation has no invalid requests
                cases: SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)
                bounds(seed(seed_number)(given(cases)(send)))()
        if "Traceback" in server.log():
            finding.violations.append(f"the log has a fault: {server.log()[-2000:]}")
    return finding


def _share_key(case: Any, number: int) -> bool:
    """Whether to send the request twice, because it has an idempotency key. Some have the key of others.

    Generated conditions nearly always fail, so some requests with a key have none: then they can be repeated.
    """
    if "Idempotency-Key" not in (case.headers or {}):
        return False
    case.headers["Idempotency-Key"] = f"shared-{number % 16}" if number % 4 == 0 else f"own-{number}"
    if number % 2:
        for name in ("If-Match", "If-None-Match", "If-Lease"):
            case.headers.pop(name, None)
    return True


def _do_not_wait(case: Any) -> None:
    """Do not wait for a lock that is held, or for a key that does not exist: it could take a minute."""
    if case.method == "GET" and "wait" in (case.query or {}):
        if str(case.query["wait"]).replace(".", "").isdecimal():
            case.query = {**case.query, "wait": 0}
        return
    if case.method != "POST" or not case.path.startswith("/lock"):
        return
    if isinstance(case.body, dict) and "wait" in case.body:
        if isinstance(case.body["wait"], int | float) and case.body["wait"] > 0:
            case.body["wait"] = 0
    elif "wait" not in (case.query or {}) or str(case.query["wait"]).replace(".", "").isdecimal():
        case.query = {**(case.query or {}), "wait": 0}
