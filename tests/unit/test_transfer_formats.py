"""What `leasehold import` makes of the files that it reads."""

import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from leasehold.cli.transfer.choices import FormatName, ValueKind
from leasehold.cli.transfer.entry_lines import key_of, listed_line, with_key
from leasehold.cli.transfer.foreign_values import value_of
from leasehold.cli.transfer.formats import Options, read
from leasehold.cli.transfer.items import Found, Item, LeftOut, Unusable
from leasehold.cli.transfer.prefixes import parse_prefix, renamed
from leasehold.errors import ServiceError
from leasehold.model import Binary, Content, Value

FILES: Final = Path(__file__).parents[1] / "files_of_other_tools"
"""`etcdctl_get.json` was written by etcdctl 3.4.23. `consul_kv_export.json` is written as the source of Consul does it:
with tabs, and with `<`, `>` and `&` escaped."""
EXACT: Final = b'{"a":1.10,"big":18446744073709551615,"e":1E+2,"z":-0.0}'


def items_of(text: bytes, format_name: FormatName | None = None, options: Options | None = None) -> Sequence[Found]:
    return list(read(io.BytesIO(text), "file", format_name, options or Options()).items)


def one(text: bytes) -> Item:
    [item] = items_of(text)
    assert isinstance(item, Item)
    return item


def bytes_of(data: bytes, media: str = "application/octet-stream") -> Binary:
    return Binary(media, Content(data))


# Lines --------------------------------------------------------------------------------------------------------


def test_a_value_keeps_the_spelling_that_it_has_in_the_file() -> None:
    assert one(b'{"value": %b, "key": "k"}' % EXACT).value == EXACT


@pytest.mark.parametrize(
    "value", [b'"key"', b'{"key":{"value":1},"value":"\\u0001"}', b'{"a":1,"a":2}', b'["ttl","ttl",%b]' % (b"9" * 19)]
)
def test_a_value_may_contain_the_names_of_members(value: bytes) -> None:
    assert one(b'{"key":"k","value":%b,"ttl":5}' % value).key == "k"


def test_members_that_are_ignored_may_contain_anything() -> None:
    assert one(b'{"key":"k","base64":"","revision":["key","\xff"],"size":%b}' % (b"9" * 5_000)).key == "k"


def test_a_line_has_an_expiry_to_the_microsecond() -> None:
    item = one(b'{"key":"k","value":null,"expires_at":"2026-01-31T12:00:00.000001Z"}')
    assert (item.value, item.expires_at, item.ttl) == (b"null", 1_769_860_800_000_001, None)
    assert one(b'{"key":"k","value":1,"expires_at":"2026-01-31T13:00:00+01:00"}').expires_at == 1_769_860_800_000_000
    assert one(b'{"key":"k","value":1,"ttl":1.5}').ttl == 1.5
    assert one(b'{"key":"k","value":1,"expires_at":null,"ttl":null}').expires_at is None


def test_a_line_of_an_export_and_a_line_of_a_list_have_the_same_bytes() -> None:
    facts = b'"revision":3,"created_at":"2026-01-31T12:00:00.000001Z","updated_at":"2026-01-31T12:00:00.000002Z"'
    for end in (b"}", b',"expires_at":"2026-01-31T12:00:00.000003Z"}'):
        exported = b'{"key":"a","media":"image/png","base64":"/wA=",%b%b' % (facts, end)
        listed = b'{"key":"a","media":"image/png","size":2,"value":"/wA=",%b%b' % (facts, end)
        assert one(exported).value == one(listed).value == bytes_of(b"\xff\0", "image/png")
        assert listed_line(listed) == exported
    plain = b'{"key":"a","value":{"media":"x"},"revision":3}'
    assert listed_line(plain) == plain


def test_blank_lines_and_a_byte_order_mark_are_left_out_and_the_places_are_those_of_the_lines() -> None:
    found = items_of(b'\xef\xbb\xbf{"key":"a","value":1}\r\n\n  \n{"key":"b","value":2}')
    assert [(item.place, item.key) for item in found if isinstance(item, Item)] == [(1, "a"), (4, "b")]
    assert items_of(b"") == items_of(b"\n") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"x", "it is not JSON"),
        (b'{"key":"a","value":1', "it is not JSON"),
        (b"5", "it is not an entry"),
        (b'{"value":1}', "`key`"),
        (b'{"key":5,"value":1}', "Expected `str`"),
        (b'{"key":"a"}', "there is no value"),
        (b'{"key":"a","value":1,"tll":5}', "`tll`"),
        (b'{"key":"a","value":1,"ttl":"5"}', "Expected `float"),
        (b'{"key":"a","value":1,"ttl":5,"expires_at":"2026-01-31T12:00:00Z"}', "cannot be combined"),
        (b'{"key":"a","value":1,"expires_at":"2026-01-31T12:00:00"}', "timezone"),
        (b'{"key":"a","value":99999999999999999999}', "an integer is outside"),
        (b'{"key":"a","value":1e999}', "out of range"),
        (b'{"key":"a","value":%b}' % (b"[" * 200 + b"]" * 200), "nested deeper"),
        (b'{"key":"a","value":"\\u0000"}', "U+0000"),
        (b'{"key":"a","value":"\xff"}', "UTF-8"),
        (b'{"key":"\xff","value":1}', "UTF-8"),
        (b'{"key":"a","value":1,"base64":""}', "cannot be combined"),
        (b'{"key":"a","base64":"x"}', "base64"),
        (b'{"key":"a","base64":"\xc3\xa4"}', "base64"),
        (b'{"key":"a","media":"image/png","size":5}', "bytes, and they are missing"),
        (b'{"key":"a","media":"png","base64":""}', "media type"),
        (b'{"key":"a","value":1,"value":2}', "a member twice"),
        (b'{"key":"a","value":1,"k\\u0065y" : "b"}', "a member twice"),
        (b'{"key":"a","value":{"ttl":1},"ttl":5,"ttl":6}', "a member twice"),
    ],
)
def test_a_line_that_is_no_entry_is_found_with_its_number_and_its_text(line: bytes, reason: str) -> None:
    first, bad, last = items_of(b'{"key":"a","value":1}\n%b\n{"key":"b","value":1}' % line)
    assert isinstance(bad, Unusable)
    assert (bad.place, bad.text) == (2, line)
    assert reason in bad.reason
    assert isinstance(first, Item)
    assert isinstance(last, Item)


def test_the_key_of_a_line_is_replaced_and_nothing_else() -> None:
    line = b'{"key":"a/\\"\xc3\xa4\\n","value":{"key":"a/"},"revision":3}'
    old = key_of(line)
    assert with_key(line, old, "b") == b'{"key":"b","value":{"key":"a/"},"revision":3}'


# Backups ------------------------------------------------------------------------------------------------------


def backup_of(*lines: bytes) -> bytes:
    text = b'{"leasehold": 1, "incarnation": "5f3a9c", "revision": 42, "entries": [\n' + b",\n".join(lines)
    return text + b'\n], "sha256": "%b"}\n' % hashlib.sha256(text).hexdigest().encode()


LINES: Final = (b'{"key":"a","value":1,"revision":1}', b'{"key":"b","value":%b,"revision":2}' % EXACT)


def test_the_entries_of_a_backup_are_read() -> None:
    found = items_of(backup_of(*LINES))
    assert [(item.place, item.key, item.value) for item in found if isinstance(item, Item)] == [
        (2, "a", b"1"),
        (3, "b", EXACT),
    ]


@pytest.mark.parametrize("cut", [1, 50, 80, 120])
def test_a_backup_that_is_cut_off_ends_with_an_error(cut: int) -> None:
    with pytest.raises(ServiceError, match="cut off"):
        items_of(backup_of(*LINES)[:-cut])


def test_a_backup_that_was_changed_ends_with_an_error() -> None:
    with pytest.raises(ServiceError, match="damaged"):
        items_of(backup_of(*LINES).replace(b'"b"', b'"c"'))


# Consul and etcd ----------------------------------------------------------------------------------------------


def found_in(name: str, options: Options | None = None) -> dict[str, Value]:
    found = items_of((FILES / name).read_bytes(), None, options)
    return {item.key: item.value for item in found if isinstance(item, Item)}


CONTENTS: Final[dict[str, Value]] = {
    "config/database": b'{"host": "db.example.com", "ratio": 1.10, "tags": ["a", "b"]}',
    "config/enabled": b"true",
    "config/greeting": '"Grüße, \\"Ann\\""'.encode(),
    "config/id": b'"007"',
    "config/port": b"5432",
    "config/version": b'"1.10"',
    "config/<a&b>": b'"x"',
    "empty": b'""',
    "logo": bytes_of(b"\x89PNG\r\n\x1a\n\0"),
}


def test_a_file_of_consul_kv_export_is_read() -> None:
    assert found_in("consul_kv_export.json") == CONTENTS


def test_a_file_of_etcdctl_get_is_read() -> None:
    leased: Value = b'"10.0.0.1:80"'
    assert found_in("etcdctl_get.json") == CONTENTS | {"services/web/1": leased}
    assert found_in("etcdctl_get.json", Options(takes_leased=False)) == CONTENTS


def test_what_is_not_kept_of_other_tools_is_known() -> None:
    consul = items_of((FILES / "consul_kv_export.json").read_bytes())
    assert [item.key for item in consul if isinstance(item, Item) and item.loss == "flags"] == ["config/port"]
    assert [item.reason for item in consul if isinstance(item, LeftOut)] == ["folder"]
    etcd = items_of((FILES / "etcdctl_get.json").read_bytes())
    assert [item.key for item in etcd if isinstance(item, Item) and item.loss == "lease"] == ["services/web/1"]


def test_flags_of_consul_are_kept_in_an_object() -> None:
    found = found_in("consul_kv_export.json", Options(keeps_flags=True))
    assert found["config/port"] == b'{"flags":18446744073709551615,"value":5432}'
    assert found["config/id"] == b'{"flags":0,"value":"007"}'
    logo = found["logo"]
    assert isinstance(logo, bytes)
    assert json.loads(logo) == {
        "flags": 0,
        "media": "application/octet-stream",
        "base64": b64encode(b"\x89PNG\r\n\x1a\n\0").decode(),
    }


def test_an_empty_etcd_and_an_empty_consul_have_no_entries() -> None:
    header = b'{"header":{"cluster_id":324952591200643719,"member_id":3319814642761637952,"revision":1,"raft_term":2}'
    assert items_of(header + b"}\n") == items_of(header + b',"count":0}') == items_of(b"[]\n") == []


def test_a_document_that_was_indented_by_another_tool_is_found() -> None:
    text = json.dumps(json.loads((FILES / "etcdctl_get.json").read_bytes()), indent=2).encode()
    assert len(items_of(text)) == len(CONTENTS) + 1


def test_an_item_that_is_no_entry_does_not_affect_the_others() -> None:
    found = items_of(b'[{"key":"a","value":"MQ=="},{"value":"MQ=="},{"key":"b","value":"?"},{"key":"c","value":null}]')
    assert [(each.place, each.reason[:16]) for each in found if isinstance(each, Unusable)] == [
        (2, "it is not an ent"),
        (3, "the key or the v"),
    ]
    assert [item.key for item in found if isinstance(item, Item)] == ["a", "c"]
    [bad] = items_of(b'{"header":{},"kvs":[{"key":"/w=="}]}')
    assert isinstance(bad, Unusable)
    assert bad.reason == "the key is not UTF-8"


@pytest.mark.parametrize("name", ["consul_kv_export.json", "etcdctl_get.json"])
def test_of_a_document_that_is_cut_off_nothing_is_read(name: str) -> None:
    with pytest.raises(ServiceError, match="cut off"):
        items_of((FILES / name).read_bytes()[:-20])


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(ServiceError, match="is not what `consul kv export` writes"):
        items_of(b'{"key":"a","value":1}', "consul")
    with pytest.raises(ServiceError, match="is not what `etcdctl get -w json` writes"):
        items_of(b'{"key":"a","value":1}', "etcd")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", b"{}"),
        (b" [1, 2.50]\n", b" [1, 2.50]\n"),
        (b"12", b"12"),
        (b"-0.5", b"-0.5"),
        (b"null", b"null"),
        (b'"quoted"', b'"quoted"'),
        (b"12\n", b'"12\\n"'),
        (b"1e3", b'"1e3"'),
        (b"1.0e1", b'"1.0e1"'),
        (b"99999999999999999999", b'"99999999999999999999"'),
        (b"[99999999999999999999]", b'"[99999999999999999999]"'),
        (b"{'a': 1}", b"\"{'a': 1}\""),
        (b"True", b'"True"'),
        (b"\xef\xbb\xbf{}", '"\ufeff{}"'.encode()),
        (b"", b'""'),
        (b"a\0b", bytes_of(b"a\0b")),
        (b"\xff", bytes_of(b"\xff")),
    ],
)
def test_the_bytes_of_a_foreign_value_become_what_fits_best(data: bytes, value: Value) -> None:
    assert value_of(data, "auto") == value


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        ("json", b"1.10", b"1.10"),
        ("json", b"007", None),
        ("json", b"", None),
        ("text", b"12", b'"12"'),
        ("text", b"\xff", None),
        ("text", b"\0", None),
        ("bytes", b"12", bytes_of(b"12")),
        ("bytes", b"", bytes_of(b"")),
    ],
)
def test_the_kind_of_a_foreign_value_can_be_chosen(kind: ValueKind, data: bytes, value: Value | None) -> None:
    if value is None:
        with pytest.raises(ServiceError):
            value_of(data, kind)
    else:
        assert value_of(data, kind) == value


# Prefixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefixes", "key", "expected"),
    [
        ([], "a", "a"),
        (["users/"], "users/ann", "users/ann"),
        (["users/"], "jobs/1", None),
        (["users/=people/"], "users/ann", "people/ann"),
        (["users/="], "users/ann", "ann"),
        (["=copy/"], "a", "copy/a"),
        (["/="], "/a/b", "a/b"),
        (["a/=x/", "a/b/=y/"], "a/b/c", "x/b/c"),
        (["a=b=c"], "a", "b=c"),
    ],
)
def test_keys_are_taken_and_renamed_by_the_first_prefix_that_fits(
    prefixes: list[str], key: str, expected: str | None
) -> None:
    assert renamed(key, [parse_prefix(text) for text in prefixes]) == expected
