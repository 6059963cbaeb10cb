"""Pointers into a value, and changes of a value."""

import copy

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leasehold.errors import ServiceError
from leasehold.limits import MAX_NESTING, MAX_PATCH_OPERATIONS
from leasehold.model import Json, Pointer
from leasehold.values import (
    decode,
    encode,
    encode_bounded,
    format_pointer,
    get_at,
    json_patch,
    json_patch_document_steps,
    merge_patch,
    parse_json_patch,
    parse_pointer,
    remove_at,
    set_at,
    to_messagepack,
)
from leasehold.values.steps import finished

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
PARTS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b"]),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.sampled_from("abc-0"), parts, max_size=4),
    max_leaves=12,
)
PATHS = st.lists(st.sampled_from(["a", "b", "c", "-", "0", "1", "01"]), max_size=4).map(tuple)

STEPS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": PATHS.map(format_pointer),
        "from": PATHS.map(format_pointer),
        "value": PARTS,
    }
)


def refused(code: str) -> pytest.RaisesExc[ServiceError]:
    return pytest.RaisesExc(ServiceError, check=lambda error: error.code == code)


def nested(levels: int) -> Json:
    value: Json = 0
    for _ in range(levels):
        value = [value]
    return value


# Encoding -----------------------------------------------------------------------------------------------------


def test_a_value_exactly_at_the_size_limit_is_encoded() -> None:
    assert encode_bounded("abc", max_bytes=5) == b'"abc"'


def test_a_value_over_the_size_limit_is_too_large() -> None:
    with refused("too_large") as caught:
        encode_bounded("abcd", max_bytes=5)
    assert caught.value.details == {"limit": 5}


def test_a_value_with_the_deepest_allowed_nesting_is_encoded() -> None:
    assert encode_bounded(nested(MAX_NESTING), max_bytes=1000) == b"[" * MAX_NESTING + b"0" + b"]" * MAX_NESTING


@pytest.mark.parametrize("levels", [MAX_NESTING + 1, 200_000])
def test_a_value_nested_too_deep_is_refused(levels: int) -> None:
    with refused("invalid_json") as caught:
        encode_bounded(nested(levels), max_bytes=1000)
    assert caught.value.message == "nested deeper than 128 levels"


def test_a_stored_value_is_converted_to_messagepack() -> None:
    assert to_messagepack(b'{"a":[1,null]}') == b"\x81\xa1a\x92\x01\xc0"


# Pointers (RFC 6901) ------------------------------------------------------------------------------------------

RFC_6901_DOCUMENT: Json = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", RFC_6901_DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_rfc_6901_find_their_parts(text: str, part: Json) -> None:
    assert get_at(RFC_6901_DOCUMENT, parse_pointer(text)) == part


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        ("/", ("",)),
        ("//", ("", "")),
        ("/a/", ("a", "")),
        ("/~01", ("~1",)),
        ("/~10", ("/0",)),
        ("/~0~1~0", ("~/~",)),
        ("/ä/🎉", ("ä", "🎉")),
    ],
)
def test_a_pointer_is_split_before_it_is_unescaped(text: str, path: Pointer) -> None:
    assert parse_pointer(text) == path


@pytest.mark.parametrize(
    "text",
    ["a", "a/b", "#/a", " /a", "~0", "/~", "/a~", "/~2", "/~/a", "/~~0", "/a\0b", "/\ud800", "/a" * (MAX_NESTING + 1)],
)
def test_a_malformed_pointer_is_refused(text: str) -> None:
    with refused("invalid_path"):
        parse_pointer(text)


def test_a_pointer_of_the_maximal_depth_is_parsed() -> None:
    assert parse_pointer("/a" * MAX_NESTING) == ("a",) * MAX_NESTING


@settings(deadline=None)
@given(st.lists(NAMES, max_size=5).map(tuple))
def test_a_formatted_pointer_is_parsed_to_itself(path: Pointer) -> None:
    assert parse_pointer(format_pointer(path)) == path


# Reading a part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": 1}, ("b",)),
        ({"a": 1}, ("a", "b")),
        ({"a": None}, ("a", "b")),
        ({"a": "text"}, ("a", "0")),
        (None, ("a",)),
        (True, ("0",)),
        ([], ("0",)),
        ([1], ("1",)),
        ([1], ("-",)),
        ([1, 2], ("01",)),
        ([1, 2], ("-1",)),
        ([1, 2], ("+1",)),
        ([1, 2], ("1 ",)),
        ([1, 2], ("1\n",)),
        ([1, 2], ("1.0",)),
        ([1, 2], ("",)),
        ([1, 2], ("\N{ARABIC-INDIC DIGIT ONE}",)),
        ([1, 2], ("9" * 5000,)),
        ([1, 2], ("length",)),
    ],
)
def test_a_missing_part_is_not_found(value: Json, path: Pointer) -> None:
    with refused("path_not_found") as caught:
        get_at(value, path)
    assert caught.value.details == {"path": format_pointer(path)}


def test_a_numeric_segment_names_a_member_of_an_object() -> None:
    assert get_at({"0": {"01": "x"}}, ("0", "01")) == "x"


def test_a_part_that_is_null_is_found() -> None:
    assert get_at({"a": [None]}, ("a", "0")) is None


# Writing a part -----------------------------------------------------------------------------------------------

WRITTEN: dict[str, tuple[Json, Pointer, Json]] = {
    "the whole": ([1], (), "new"),
    "a member replaced": ({"a": 1, "b": 2}, ("a",), {"a": "new", "b": 2}),
    "a member added": ({"a": 1}, ("b",), {"a": 1, "b": "new"}),
    "a member inside": ({"a": {"b": 1}}, ("a", "b"), {"a": {"b": "new"}}),
    "a member of an empty name": ({}, ("",), {"": "new"}),
    "missing objects made": ({}, ("a", "b", "c"), {"a": {"b": {"c": "new"}}}),
    "a missing list made": ({}, ("a", "-"), {"a": ["new"]}),
    "a missing list made inside a missing object": ({}, ("a", "b", "-"), {"a": {"b": ["new"]}}),
    "a dash in the middle of what is missing": ({}, ("-", "a"), {"-": {"a": "new"}}),
    "an index into what is missing": ({}, ("a", "0"), {"a": {"0": "new"}}),
    "an element replaced": ([1, 2, 3], ("1",), [1, "new", 3]),
    "an element appended": ([1], ("-",), [1, "new"]),
    "an element appended inside": ({"a": [{"b": []}]}, ("a", "0", "b", "-"), {"a": [{"b": ["new"]}]}),
    "a member of an element": ([{}, {}], ("1", "a"), [{}, {"a": "new"}]),
    "a dash as a member of an object": ({"a": {}}, ("a", "-"), {"a": {"-": "new"}}),
}


@pytest.mark.parametrize(("value", "path", "after"), WRITTEN.values(), ids=WRITTEN.keys())
def test_a_part_is_written_at_its_path(value: Json, path: Pointer, after: Json) -> None:
    assert set_at(copy.deepcopy(value), path, "new") == after


@pytest.mark.parametrize(
    ("value", "path"),
    [([], ("0",)), ([1], ("1",)), ([1], ("5", "a")), ([1], ("-", "a")), ([1], ("9" * 5000,))],
)
def test_a_write_past_the_end_of_a_list_is_not_found(value: Json, path: Pointer) -> None:
    with refused("path_not_found"):
        set_at(value, path, "new")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": 1}, ("a", "b")),
        ({"a": None}, ("a", "b")),
        ({"a": "text"}, ("a", "0")),
        ({"a": "text"}, ("a", "-")),
        ({"a": True}, ("a", "b", "c")),
        (None, ("a",)),
        (7, ("-",)),
        ([1], ("a",)),
        ([1], ("01",)),
        ([1], ("",)),
        ([[1]], ("a", "0")),
    ],
)
def test_a_write_through_a_scalar_is_a_conflict(value: Json, path: Pointer) -> None:
    with refused("conflict"):
        set_at(value, path, "new")


def test_a_path_of_the_maximal_depth_is_created() -> None:
    path = ("a",) * MAX_NESTING
    assert get_at(set_at({}, path, 1), path) == 1


@settings(deadline=None)
@given(PARTS, PATHS.filter(lambda path: "-" not in path))
def test_a_part_written_at_a_path_is_read_at_that_path(value: Json, path: Pointer) -> None:
    try:
        after = set_at(value, path, "new")
    except ServiceError:
        assume(False)  # noqa: FBT003
    assert get_at(after, path) == "new"


# Removing a part ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path", "after"),
    [
        ({"a": 1, "b": 2}, ("a",), {"b": 2}),
        ({"a": {"b": None}}, ("a", "b"), {"a": {}}),
        ([1, 2, 3], ("1",), [1, 3]),
        ([1], ("0",), []),
        ([{"a": [1, 2]}], ("0", "a", "1"), [{"a": [1]}]),
    ],
)
def test_a_part_is_removed(value: Json, path: Pointer, after: Json) -> None:
    assert remove_at(copy.deepcopy(value), path) == after


@pytest.mark.parametrize(
    ("value", "path"),
    [({}, ("a",)), ({"a": 1}, ("a", "b")), ([1], ("1",)), ([1], ("-",)), ([1, 2], ("01",)), (None, ("a",))],
)
def test_a_removal_of_a_missing_part_is_not_found(value: Json, path: Pointer) -> None:
    with refused("path_not_found"):
        remove_at(value, path)


# Merge Patch (RFC 7396) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "patch", "after"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {}, {"a": 1}),
        ("text", {}, {}),
    ],
)
def test_the_examples_of_rfc_7396_have_their_results(target: Json, patch: Json, after: Json) -> None:
    assert merge_patch(copy.deepcopy(target), patch) == after


def test_null_within_a_list_of_a_merge_patch_is_kept() -> None:
    assert merge_patch({}, {"a": [None, {"b": None}]}) == {"a": [None, {"b": None}]}


def test_a_merge_patch_of_the_maximal_depth_is_applied() -> None:
    patch: Json = 1
    for _ in range(MAX_NESTING):
        patch = {"a": patch}
    assert merge_patch({}, patch) == patch


def merged(target: Json, patch: Json) -> Json:
    """MergePatch of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), part)
    return result


OBJECTS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.integers(0, 2) | st.just([]),
    lambda parts: st.dictionaries(st.sampled_from("abc"), parts, min_size=1),
    max_leaves=12,
)


@settings(deadline=None, max_examples=300)
@given(OBJECTS, OBJECTS)
def test_a_merge_patch_has_the_result_of_its_definition_with_the_members_in_the_same_order(
    target: Json, patch: Json
) -> None:
    expected = encode(merged(target, patch))
    assert encode(merge_patch(target, patch)) == expected


@settings(deadline=None)
@given(PARTS, PARTS)
def test_a_merge_patch_is_not_modified_by_its_use(target: Json, patch: Json) -> None:
    before = copy.deepcopy(patch)
    merge_patch(merge_patch(target, patch), {"a": {"b": {"c": None}}})
    assert patch == before


@settings(deadline=None)
@given(PARTS, PARTS)
def test_merging_twice_has_the_result_of_merging_once(target: Json, patch: Json) -> None:
    once = merge_patch(copy.deepcopy(target), patch)
    assert merge_patch(copy.deepcopy(once), patch) == once


# JSON Patch (RFC 6902): the document --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        "add",
        {"op": "add", "path": "/a", "value": 1},
    ],
)
def test_a_patch_that_is_not_a_list_is_refused(document: Json) -> None:
    with refused("invalid_argument"):
        parse_json_patch(document)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (1, "not an object"),
        ({"op": "add", "value": 1}, "path is missing or not a string"),
        ({"op": "add", "path": 1, "value": 1}, "path is missing or not a string"),
        ({"op": "add", "path": None, "value": 1}, "path is missing or not a string"),
        ({"op": "add", "path": "/a"}, "value is missing"),
        ({"op": "replace", "path": "/a"}, "value is missing"),
        ({"op": "test", "path": "/a"}, "value is missing"),
        ({"op": "move", "path": "/a"}, "from is missing or not a string"),
        ({"op": "copy", "path": "/a", "from": ["b"]}, "from is missing or not a string"),
        ({"path": "/a"}, "op is not add, remove, replace, move, copy or test"),
        ({"op": "Add", "path": "/a", "value": 1}, "op is not add, remove, replace, move, copy or test"),
        ({"op": ["add"], "path": "/a", "value": 1}, "op is not add, remove, replace, move, copy or test"),
    ],
)
def test_a_malformed_step_is_refused_with_its_index(step: Json, message: str) -> None:
    with refused("invalid_argument") as caught:
        parse_json_patch([{"op": "remove", "path": "/a"}, step])
    assert caught.value.message == f"operation 1: {message}"


@pytest.mark.parametrize(
    "step",
    [
        {"op": "remove", "path": "a"},
        {"op": "remove", "path": "/~"},
        {"op": "copy", "path": "/a", "from": "b"},
    ],
)
def test_a_malformed_pointer_in_a_patch_is_refused_with_its_index(step: Json) -> None:
    with refused("invalid_path") as caught:
        parse_json_patch([step])
    assert caught.value.message.startswith("operation 0: ")


def test_a_patch_with_the_maximum_of_steps_is_parsed() -> None:
    document: list[Json] = [{"op": "remove", "path": "/a"}] * MAX_PATCH_OPERATIONS
    assert len(parse_json_patch(document)) == MAX_PATCH_OPERATIONS


def test_a_patch_of_many_steps_is_parsed_in_pieces() -> None:
    document: list[Json] = [{"op": "remove", "path": f"/{number}"} for number in range(MAX_PATCH_OPERATIONS)]
    pieces = json_patch_document_steps(document)
    assert sum(1 for _ in pieces) >= 4
    assert finished(json_patch_document_steps(document)) == parse_json_patch(document)


def test_a_patch_of_too_many_steps_is_refused() -> None:
    document: list[Json] = [{"op": "remove", "path": "/a"}] * (MAX_PATCH_OPERATIONS + 1)
    with refused("invalid_argument"):
        parse_json_patch(document)


def test_unknown_members_of_a_step_are_ignored() -> None:
    assert patched({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux", "xyz": 123}) == {
        "foo": "bar",
        "baz": "qux",
    }


# JSON Patch (RFC 6902): the steps -----------------------------------------------------------------------------


def patched(value: Json, *document: Json, max_bytes: int = 1000) -> Json:
    return json_patch(copy.deepcopy(value), parse_json_patch(list(document)), max_bytes=max_bytes)


PATCHED: dict[str, tuple[Json, Json, Json]] = {
    # RFC 6902, appendix A
    "a member added": ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "qux"}, {"baz": "qux", "foo": "bar"}),
    "an element added": (
        {"foo": ["bar", "baz"]},
        {"op": "add", "path": "/foo/1", "value": "qux"},
        {"foo": ["bar", "qux", "baz"]},
    ),
    "a member removed": ({"baz": "qux", "foo": "bar"}, {"op": "remove", "path": "/baz"}, {"foo": "bar"}),
    "an element removed": (
        {"foo": ["bar", "qux", "baz"]},
        {"op": "remove", "path": "/foo/1"},
        {"foo": ["bar", "baz"]},
    ),
    "a member replaced": (
        {"baz": "qux", "foo": "bar"},
        {"op": "replace", "path": "/baz", "value": "boo"},
        {"baz": "boo", "foo": "bar"},
    ),
    "a member moved": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        {"op": "move", "from": "/foo/waldo", "path": "/qux/thud"},
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    "an element moved": (
        {"foo": ["all", "grass", "cows", "eat"]},
        {"op": "move", "from": "/foo/1", "path": "/foo/3"},
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "an object added": (
        {"foo": "bar"},
        {"op": "add", "path": "/child", "value": {"grandchild": {}}},
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    "escapes in a tested path": ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
    "a list appended as one element": (
        {"foo": ["bar"]},
        {"op": "add", "path": "/foo/-", "value": ["abc", "def"]},
        {"foo": ["bar", ["abc", "def"]]},
    ),
    # the rules in the text of the RFC
    "a member added that exists": ({"a": 1}, {"op": "add", "path": "/a", "value": 2}, {"a": 2}),
    "an element added at the end": ([1], {"op": "add", "path": "/1", "value": 2}, [1, 2]),
    "an element added to an empty list": ([], {"op": "add", "path": "/0", "value": 2}, [2]),
    "an element replaced": ([1, 2], {"op": "replace", "path": "/0", "value": None}, [None, 2]),
    "a part copied": ({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": [1], "b": [1]}),
    "the whole added": ({"a": 1}, {"op": "add", "path": "", "value": [1]}, [1]),
    "the whole replaced": ({"a": 1}, {"op": "replace", "path": "", "value": None}, None),
    "the whole replaced by a part of it": ({"a": {"b": 1}}, {"op": "move", "from": "/a", "path": ""}, {"b": 1}),
    "the whole replaced by a copy of a part": ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": ""}, {"b": 1}),
    "the whole copied into itself": ({"a": 1}, {"op": "copy", "from": "", "path": "/b"}, {"a": 1, "b": {"a": 1}}),
    "the whole moved to where it is": ({"a": 1}, {"op": "move", "from": "", "path": ""}, {"a": 1}),
    "a part moved to where it is": ({"a": 1}, {"op": "move", "from": "/a", "path": "/a"}, {"a": 1}),
    "a part moved beside a name it begins": ({"a": 1}, {"op": "move", "from": "/a", "path": "/ab"}, {"ab": 1}),
    "a dash as the member of an object": ({}, {"op": "add", "path": "/-", "value": 1}, {"-": 1}),
}


@pytest.mark.parametrize(("value", "step", "after"), PATCHED.values(), ids=PATCHED.keys())
def test_a_valid_step_is_applied(value: Json, step: Json, after: Json) -> None:
    assert patched(value, step) == after


FAILED: dict[str, tuple[Json, Json]] = {
    "a test of another value": ({"baz": "qux"}, {"op": "test", "path": "/baz", "value": "bar"}),
    "a test of a missing member": ({"a": 1}, {"op": "test", "path": "/b", "value": None}),
    "an addition to a missing object": ({"foo": "bar"}, {"op": "add", "path": "/baz/bat", "value": "qux"}),
    "an addition to a scalar": ({"foo": "bar"}, {"op": "add", "path": "/foo/0", "value": "qux"}),
    "an addition past the end": ([1], {"op": "add", "path": "/2", "value": 1}),
    "an addition at an index with a leading zero": ([1], {"op": "add", "path": "/00", "value": 1}),
    "an addition at a name in a list": ([1], {"op": "add", "path": "/a", "value": 1}),
    "a replacement of a missing member": ({}, {"op": "replace", "path": "/a", "value": 1}),
    "a replacement past the end": ([1], {"op": "replace", "path": "/1", "value": 1}),
    "a replacement of the dash": ([1], {"op": "replace", "path": "/-", "value": 1}),
    "the removal of a missing member": ({}, {"op": "remove", "path": "/a"}),
    "the removal of the dash": ([1], {"op": "remove", "path": "/-"}),
    "the removal of the whole": ({}, {"op": "remove", "path": ""}),
    "a copy of a missing part": ({}, {"op": "copy", "from": "/a", "path": "/b"}),
    "a copy into a missing object": ({"a": 1}, {"op": "copy", "from": "/a", "path": "/b/c"}),
    "a move of a missing part": ({}, {"op": "move", "from": "/a", "path": "/b"}),
    "a move of a missing part to where it is not": ({}, {"op": "move", "from": "/a", "path": "/a"}),
    "a move into its own child": ({"a": {"b": {}}}, {"op": "move", "from": "/a", "path": "/a/b"}),
    "a move of the whole into itself": ({"a": {}}, {"op": "move", "from": "", "path": "/a"}),
    "a move past the end that the move leaves": ([1, 2], {"op": "move", "from": "/0", "path": "/2"}),
}


@pytest.mark.parametrize(("value", "step"), FAILED.values(), ids=FAILED.keys())
def test_a_step_that_cannot_be_applied_fails_the_patch(value: Json, step: Json) -> None:
    with refused("patch_failed") as caught:
        patched(value, {"op": "test", "path": "", "value": value}, step)
    assert caught.value.details == {"step": 1}


EQUAL: list[tuple[Json, Json]] = [
    (1, 1.0),
    (0, -0.0),
    (10, 1e1),
    (None, None),
    (True, True),
    ("a", "a"),
    ([1, [2.0]], [1.0, [2]]),
    ({"a": 1, "b": [True]}, {"b": [True], "a": 1}),
    ([1, True, [1, {"a": False}]], [1.0, True, [1, {"a": False}]]),
    (["\u0082\u0083", 1], ["\u0082\u0083", 1.0]),
    ([2**70, True], [2**70, True]),
]
DIFFERENT: list[tuple[Json, Json]] = [
    (True, 1),
    (1, True),
    (False, 0),
    (0.0, False),
    (None, False),
    (None, 0),
    ("", None),
    (1, "1"),
    (2**53 + 1, float(2**53)),
    ([1, 2], [2, 1]),
    ([1], [1, 1]),
    ([True], [1]),
    ([], {}),
    ({}, []),
    ({"a": 1}, {"a": 1, "b": 2}),
    ({"a": 1}, {"b": 1}),
    ({"a": {"b": False}}, {"a": {"b": 0}}),
    ([1, [{"a": [True, 2]}]], [1.0, [{"a": [1, 2]}]]),
    ([2**70, True], [2**70, 1]),
    ("e\u0301", "\u00e9"),
]


@pytest.mark.parametrize(("value", "tested"), EQUAL)
def test_a_test_step_succeeds_for_equal_json(value: Json, tested: Json) -> None:
    assert patched(value, {"op": "test", "path": "", "value": tested}) == value


@pytest.mark.parametrize(("value", "tested"), DIFFERENT)
def test_a_test_step_fails_for_different_json(value: Json, tested: Json) -> None:
    with refused("patch_failed"):
        patched(value, {"op": "test", "path": "", "value": tested})


def test_steps_see_the_changes_of_earlier_steps() -> None:
    after = patched(
        {},
        {"op": "add", "path": "/a", "value": []},
        {"op": "add", "path": "/a/-", "value": 1},
        {"op": "test", "path": "/a/0", "value": 1},
        {"op": "move", "from": "/a/0", "path": "/b"},
    )
    assert after == {"a": [], "b": 1}


def test_a_copy_is_independent_of_its_original() -> None:
    after = patched({"a": [1]}, {"op": "copy", "from": "/a", "path": "/b"}, {"op": "add", "path": "/a/-", "value": 2})
    assert after == {"a": [1, 2], "b": [1]}


def test_a_json_patch_is_not_modified_by_its_use() -> None:
    steps = parse_json_patch(
        [
            {"op": "add", "path": "/a", "value": {"list": []}},
            {"op": "replace", "path": "/a/list", "value": [1]},
            {"op": "add", "path": "/a/list/-", "value": 2},
            {"op": "add", "path": "/b", "value": []},
            {"op": "add", "path": "/b/-", "value": 3},
        ]
    )
    expected = {"a": {"list": [1, 2]}, "b": [3]}
    assert [json_patch({}, steps, max_bytes=1000), json_patch({}, steps, max_bytes=1000)] == [expected, expected]


def test_a_value_used_by_two_steps_is_not_shared() -> None:
    shared: Json = []
    after = patched(
        {},
        {"op": "add", "path": "/a", "value": shared},
        {"op": "add", "path": "/b", "value": shared},
        {"op": "add", "path": "/a/-", "value": 1},
    )
    assert after == {"a": [1], "b": []}


def test_an_empty_patch_changes_nothing() -> None:
    assert patched({"a": 1}) == {"a": 1}


def test_copies_that_double_the_value_are_refused_at_the_limit() -> None:
    steps: list[Json] = [{"op": "copy", "from": "", "path": f"/{index}"} for index in range(100)]
    with refused("too_large") as caught:
        patched({"a": "b" * 50}, *steps, max_bytes=1 << 20)
    assert caught.value.details == {"limit": 1 << 20}


def test_copies_that_add_up_to_the_limit_are_done() -> None:
    steps: list[Json] = [{"op": "copy", "from": "/a", "path": "/b"}] * 4
    assert patched({"a": "12345678"}, *steps, max_bytes=40) == {"a": "12345678", "b": "12345678"}


def test_copies_that_add_up_to_more_than_the_limit_are_refused() -> None:
    steps: list[Json] = [{"op": "copy", "from": "/a", "path": "/b"}] * 5
    with refused("too_large"):
        patched({"a": "12345678"}, *steps, max_bytes=49)


def moves_that_nest(levels: int) -> list[Json]:
    """A patch that makes `/a` `levels` deep, although no single step is nested."""
    steps: list[Json] = [{"op": "add", "path": "/a", "value": 0}]
    for _ in range(levels):
        steps.append({"op": "add", "path": "/b", "value": {}})
        steps.append({"op": "move", "from": "/a", "path": "/b/c"})
        steps.append({"op": "move", "from": "/b", "path": "/a"})
    return steps


def test_moves_that_nest_too_deep_are_refused_when_the_value_is_encoded() -> None:
    value = patched({}, *moves_that_nest(3000))
    with refused("invalid_json"):
        encode_bounded(value, max_bytes=1 << 20)


def test_a_copy_of_a_part_nested_too_deep_is_refused() -> None:
    with refused("invalid_json"):
        patched({}, *moves_that_nest(3000), {"op": "copy", "from": "/a", "path": "/d"}, max_bytes=1 << 20)


def test_a_test_step_on_a_part_nested_too_deep_fails() -> None:
    with refused("patch_failed"):
        patched({}, *moves_that_nest(3000), {"op": "test", "path": "/a", "value": nested(MAX_NESTING - 2)})


@settings(deadline=None, max_examples=300)
@given(PARTS, st.lists(STEPS, max_size=6))
def test_a_random_patch_results_in_json_or_fails_at_one_step(value: Json, document: list[Json]) -> None:
    steps = parse_json_patch(document)
    try:
        result = json_patch(value, steps, max_bytes=10_000)
    except ServiceError as refusal:
        step = refusal.details["step"]
        assert step in range(len(steps))
        return
    assert decode(encode(result)) == result
