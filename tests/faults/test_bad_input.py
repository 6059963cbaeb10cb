"""Bad input of every kind to every engine; and the harness detects wrong answers.

A reported fault names the input. The mutations of a seed are always the same.
"""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import Finding, depth
from harness.bad_input import KEPT, Engines, Malformed, Mutator, answers, fault, send_bad_input, send_bad_tokens
from running import Answer, Server, message, running

MUTATIONS = depth(500)


@pytest.mark.database
@pytest.mark.long
def test_engines_answer_bad_input_alike_and_are_not_harmed(tmp_path: Path) -> None:
    finding = send_bad_input(tmp_path, 7, mutations=MUTATIONS, corpora=True)
    assert finding.violations == []
    assert finding.figures["inputs"] > 3 * MUTATIONS
    assert min(finding.figures["answers 2xx"], finding.figures["answers 4xx"]) > MUTATIONS


def test_every_bad_token_gets_the_same_refusal(tmp_path: Path) -> None:
    public_key = rsa.generate_private_key(65_537, 2_048).public_key()
    finding = send_bad_tokens(tmp_path, public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert finding.violations == []
    assert finding.figures["tokens"] > 1_000


# The harness detects wrong answers ----------------------------------------------------------------------------

JSON = {"content-type": "application/json", "x-request-id": "r"}


def error(code: str, **more: Any) -> bytes:
    members = {"error": code, "message": "m", "request_id": "r"} | more
    return ("{" + ",".join(f'"{name}":"{text}"' for name, text in members.items()) + "}").encode()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(500, JSON, error("internal")), "was answered 500"),
        (Answer(503, JSON, error("unavailable")), "was answered 503"),
        (Answer(400, JSON, error("not_found")), "against the contract"),
        (Answer(404, JSON, error("not_found", message="in store.py")), "against the contract"),
        (Answer(404, JSON, error("not_found", request_id="other")), "has two request ids"),
        (Answer(404, JSON, b"not found"), "against the contract"),
        (Answer(404, JSON | {"server": "uvloop"}, error("not_found")), "leaks"),
    ],
)
def test_a_wrong_answer_is_detected(answer: Answer, found: str) -> None:
    assert found in (fault(answer) or "")


def test_a_correct_answer_is_accepted() -> None:
    assert fault(Answer(404, JSON, error("not_found"))) is None


@pytest.mark.parametrize(
    "received",
    [
        b"garbage",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\na: b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_bytes_that_are_not_http_are_detected(received: bytes) -> None:
    with pytest.raises(Malformed):
        list(answers(received, message("GET", "/")))


@pytest.fixture
def pair(server: Server) -> Any:
    with running() as other:
        yield Engines({"one": server, "another": other}, Finding())


def test_different_answers_of_engines_are_detected(pair: Engines) -> None:
    pair.send("the same", message("GET", "/kv/differs"))
    assert pair.finding.violations == []
    pair.servers["one"].put("differs", "1")
    pair.send("a difference", message("GET", "/kv/differs"))
    assert "the engines: a difference differ" in pair.finding.violations[-1]


def test_an_unexpected_answer_is_detected(pair: Engines) -> None:
    pair.send("a surprise", message("GET", "/kv/absent-surprise"), expected="400 invalid_key")
    assert len(pair.finding.violations) == 2


def test_a_changed_entry_is_detected(pair: Engines) -> None:
    pair.keep()
    pair.check()
    assert pair.finding.violations == []
    pair.servers["another"].put(next(iter(KEPT)), "1")
    pair.check()
    assert len(pair.finding.violations) == 1


def test_a_seed_always_makes_the_same_mutations() -> None:
    from random import Random

    one, other = Mutator(Random(5)), Mutator(Random(5))
    assert [one() for _ in range(100)] == [other() for _ in range(100)]
