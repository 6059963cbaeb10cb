"""PATCH: a merge patch (RFC 7396) or a JSON patch (RFC 6902) is applied completely or not at all."""

import json
from typing import Any

import pytest
from running import Server, refusal

PATCH_FAILED = (422, "patch_failed")


@pytest.fixture(scope="module")
def server(any_server: Server) -> Server:
    """Every test of this file runs on every engine."""
    return any_server


# Merge patch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [  # the examples of RFC 7396, appendix A
        ('{"a":"b"}', '{"a":"c"}', {"a": "c"}),
        ('{"a":"b"}', '{"b":"c"}', {"a": "b", "b": "c"}),
        ('{"a":"b"}', '{"a":null}', {}),
        ('{"a":"b","b":"c"}', '{"a":null}', {"b": "c"}),
        ('{"a":["b"]}', '{"a":"c"}', {"a": "c"}),
        ('{"a":"c"}', '{"a":["b"]}', {"a": ["b"]}),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', {"a": {"b": "d"}}),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', {"a": [1]}),
        ('["a","b"]', '["c","d"]', ["c", "d"]),
        ('{"a":"b"}', '["c"]', ["c"]),
        ('{"a":"foo"}', "null", None),
        ('{"a":"foo"}', '"bar"', "bar"),
        ('{"e":null}', '{"a":1}', {"e": None, "a": 1}),
        ("[1,2]", '{"a":"b","c":null}', {"a": "b"}),
        ("{}", '{"a":{"bb":{"ccc":null}}}', {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_applied(server: Server, key: str, before: str, patch: str, after: Any) -> None:
    server.put(key, before)
    response = server.patch(key, patch)
    assert (response.status_code, response.json()["value"], server.value(key)) == (200, after, after)


def test_a_merge_patch_that_is_not_json_is_refused_and_changes_nothing(server: Server, key: str) -> None:
    entry = server.put(key, "{}").json()
    refused = server.patch(key, "{")
    assert (refusal(refused), server.get(key).json()) == ((400, "invalid_json"), entry)


def test_a_merge_patch_that_makes_the_value_too_large_is_refused_and_changes_nothing(server: Server, key: str) -> None:
    half = "x" * 600_000
    entry = server.put(key, json.dumps({"a": half})).json()
    refused = server.patch(key, json.dumps({"b": half}))
    assert (refusal(refused), server.get(key).json() == entry) == ((413, "too_large"), True)


# JSON patch ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [  # among them the examples of RFC 6902, appendix A
        ('{"foo":"bar"}', '[{"op":"add","path":"/baz","value":"qux"}]', {"baz": "qux", "foo": "bar"}),
        ('{"foo":["bar","baz"]}', '[{"op":"add","path":"/foo/1","value":"qux"}]', {"foo": ["bar", "qux", "baz"]}),
        ('{"baz":"qux","foo":"bar"}', '[{"op":"remove","path":"/baz"}]', {"foo": "bar"}),
        ('{"foo":["bar","qux","baz"]}', '[{"op":"remove","path":"/foo/1"}]', {"foo": ["bar", "baz"]}),
        ('{"baz":"qux"}', '[{"op":"replace","path":"/baz","value":"boo"}]', {"baz": "boo"}),
        (
            '{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}',
            '[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]',
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            '{"foo":["all","grass","cows","eat"]}',
            '[{"op":"move","from":"/foo/1","path":"/foo/3"}]',
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        (
            '{"baz":"qux","foo":["a",2,"c"]}',
            '[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]',
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        ('{"foo":"bar"}', '[{"op":"add","path":"/child","value":{"g":{}}}]', {"foo": "bar", "child": {"g": {}}}),
        ('{"foo":"bar"}', '[{"op":"add","path":"/baz","value":"qux","xyz":123}]', {"foo": "bar", "baz": "qux"}),
        ('{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":10}]', {"/": 9, "~1": 10}),
        ('{"foo":["bar"]}', '[{"op":"add","path":"/foo/-","value":["abc","def"]}]', {"foo": ["bar", ["abc", "def"]]}),
        ('{"a":1}', '[{"op":"copy","from":"/a","path":"/b"}]', {"a": 1, "b": 1}),
        ('{"a":1}', '[{"op":"replace","path":"","value":[2]}]', [2]),
        ("[1]", "[]", [1]),
        ('{"a":1}', '[{"op":"test","path":"/a","value":1.0}]', {"a": 1}),
        ('{"a":null}', '[{"op":"test","path":"/a","value":null}]', {"a": None}),
        (
            '{"n":0}',
            '[{"op":"add","path":"/l","value":[]},{"op":"add","path":"/l/-","value":1},{"op":"move","from":"/n","path":"/l/0"}]',
            {"l": [0, 1]},
        ),
    ],
)
def test_a_json_patch_is_applied(server: Server, key: str, before: str, patch: str, after: Any) -> None:
    server.put(key, before)
    response = server.patch(key, patch, kind="json-patch")
    assert (response.status_code, response.json()["value"], server.value(key)) == (200, after, after)


@pytest.mark.parametrize(
    "step",
    [
        '{"op":"test","path":"/baz","value":"bar"}',
        '{"op":"test","path":"/a","value":"1"}',
        '{"op":"test","path":"/a","value":true}',
        '{"op":"test","path":"/absent","value":null}',
        '{"op":"remove","path":"/absent"}',
        '{"op":"remove","path":""}',
        '{"op":"replace","path":"/absent","value":1}',
        '{"op":"add","path":"/absent/b","value":1}',
        '{"op":"add","path":"/l/5","value":1}',
        '{"op":"add","path":"/l/01","value":1}',
        '{"op":"add","path":"/a/b","value":1}',
        '{"op":"move","from":"/absent","path":"/b"}',
        '{"op":"move","from":"/o","path":"/o/p"}',
        '{"op":"copy","from":"/absent","path":"/b"}',
        '{"op":"copy","from":"/a","path":"/l/9"}',
    ],
)
def test_a_json_patch_with_one_failing_step_is_refused_and_changes_nothing(server: Server, key: str, step: str) -> None:
    entry = server.put(key, '{"a": 1, "baz": "qux", "l": [1], "o": {}}').json()
    refused = server.patch(key, f'[{{"op":"replace","path":"/a","value":1}},{step}]', kind="json-patch")
    seen = (refusal(refused), refused.json()["step"], server.get(key).json())
    assert seen == (PATCH_FAILED, 1, entry)


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ("{}", "invalid_argument"),
        ("null", "invalid_argument"),
        ("[1]", "invalid_argument"),
        ('[{"path":"/a"}]', "invalid_argument"),
        ('[{"op":"add","path":"/a"}]', "invalid_argument"),
        ('[{"op":"add","value":1}]', "invalid_argument"),
        ('[{"op":"spam","path":"/a","value":1}]', "invalid_argument"),
        ('[{"op":"Add","path":"/a","value":1}]', "invalid_argument"),
        ('[{"op":"move","path":"/a"}]', "invalid_argument"),
        ('[{"op":"move","path":"/a","from":1}]', "invalid_argument"),
        ('[{"op":"remove","path":7}]', "invalid_argument"),
        ('[{"op":"remove","path":"a"}]', "invalid_path"),
        ('[{"op":"remove","path":"/~2"}]', "invalid_path"),
        ('[{"op":"copy","path":"/a","from":"a"}]', "invalid_path"),
        ("[", "invalid_json"),
        ("", "invalid_json"),
    ],
)
def test_an_invalid_json_patch_is_refused_and_changes_nothing(server: Server, key: str, patch: str, code: str) -> None:
    entry = server.put(key, '{"a": 1}').json()
    refused = server.patch(key, patch, kind="json-patch")
    assert (refusal(refused), server.get(key).json()) == ((400, code), entry)


def test_a_json_patch_that_doubles_a_value_repeatedly_is_too_large(server: Server, key: str) -> None:
    entry = server.put(key, '{"a": "%s"}' % ("x" * 1000)).json()
    steps = [{"op": "copy", "from": "", "path": f"/{number}"} for number in range(40)]
    refused = server.patch(key, json.dumps(steps), kind="json-patch")
    assert (refusal(refused), server.get(key).json()) == ((413, "too_large"), entry)


# Both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "patch"), [("merge-patch", "{}"), ("json-patch", "[]")])
def test_a_patch_of_an_absent_key_is_not_found(server: Server, key: str, kind: str, patch: str) -> None:
    assert refusal(server.patch(key, patch, kind=kind)) == (404, "not_found")


@pytest.mark.parametrize(("kind", "patch"), [("merge-patch", "{}"), ("json-patch", "[]")])
def test_a_patched_entry_has_a_new_revision_and_keeps_its_time_of_creation(
    server: Server, key: str, kind: str, patch: str
) -> None:
    before = server.put(key, "{}").json()
    after = server.patch(key, patch, kind=kind).json()
    assert (after["revision"] > before["revision"], after["created_at"]) == (True, before["created_at"])
