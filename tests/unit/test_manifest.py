"""Files of Kubernetes objects: values as the kubelet reads them, the place of each, and what is refused."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.errors import PyrunError
from pyrun.kube.manifest import ManifestError, load, scan
from pyrun.kube.positions import JsonText, path_of, pointer_of

# What go-yaml v2 makes of plain scalars; it stands below `kubectl create --dry-run=client -o json` as well.
SCALARS = [
    *[(word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")],
    *[(word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")],
    *[(word, None) for word in ("", "~", "null", "Null", "NULL")],
    *[(word, math.inf) for word in (".inf", ".Inf", "+.INF")],
    ("-.inf", -math.inf),
    *[(word, word) for word in ("yEs", "tRUE", "nULL", "inf", "nan", "Infinity", "oN", "yes please")],
    ("0", 0),
    ("-0", 0),
    ("80", 80),
    ("+80", 80),
    ("-80", -80),
    ("0777", 511),
    ("0o777", 511),
    ("-0777", -511),
    ("0x1F", 31),
    ("0X1f", 31),
    ("0b101", 5),
    ("1_000", 1000),
    ("0_7", 7),
    ("08", 8.0),
    ("1e3", 1000.0),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1.", 1.0),
    ("-1.5E-2", -0.015),
    ("18446744073709551615", 18446744073709551615),
    ("18446744073709551616", 18446744073709551616.0),
    ("-9223372036854775808", -9223372036854775808),
    ("0x1ffffffffffffffff", "0x1ffffffffffffffff"),
    *[(word, word) for word in ("2026-01-01", "2026-01-01T10:00:00Z", "1:30", "190:20:30", "0x", "0o8", "0b2", "1e")],
    *[(word, word) for word in ("10.0.0.1", "100m", "1Gi", "1.2.3", "+", ".", "--", "1-2", "0.0.0.0", "fd00::1")],
    ("9" * 500, "9" * 500),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[repr(text)[:30] for text, _ in SCALARS])
def test_scalar(text: str, value: Any) -> None:
    (document,) = load(f"value: {text}\n".encode())
    assert document.value["value"] == value
    assert type(document.value["value"]) is type(value)


@pytest.mark.parametrize("text", ["yes", "0777", "null", "1e3", "~", ""])
def test_what_is_quoted_is_a_string(text: str) -> None:
    (document,) = load(f"one: '{text}'\ntwo: \"{text}\"\n".encode())
    assert document.value == {"one": text, "two": text}


def test_keys_are_strings() -> None:
    (document,) = load(b"80: a\nyes: b\n1.5: c\n'x/y~z': {deep: d}\n")
    assert document.value == {"80": "a", "true": "b", "1.5": "c", "x/y~z": {"deep": "d"}}
    assert document.line("/x~1y~0z/deep") == (4, 11)


TEXT = """\
# a comment
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  ports:
  - name: http
    port: 80
  - {name: https, port: 443}
---
---
kind: List
apiVersion: v1
items:
- kind: Service
  metadata: {name: one}
- kind: Service
  metadata:
    name: two
"""


def test_each_value_has_its_place() -> None:
    web, one, two = load(TEXT.encode(), "web.yaml")
    assert web.line() == (2, 1)
    assert web.line("/spec/ports/0") == (8, 5)
    assert web.line("/spec/ports/0/port") == (9, 5)
    assert web.line("/spec/ports/1/port") == (10, 19)
    assert web.place("/spec/ports/1") == "web.yaml:10:5"
    assert one.line() == (16, 3) and one.value["metadata"]["name"] == "one"
    assert two.line("/metadata/name") == (20, 5)


def test_what_is_not_there_is_placed_by_what_is_above_it() -> None:
    web, *_ = load(TEXT.encode(), "web.yaml")
    assert web.line("/spec/ports/7/port") == web.line("/spec/ports") == (7, 3)
    assert web.line("/spec/ports/x") == (7, 3)
    assert web.line("/spec/type") == (6, 1)
    assert str(web.fault("/spec/type", "unknown")) == "web.yaml:6:1: /spec/type: unknown"


def test_json_has_places_as_well() -> None:
    text = '{"kind": "List",\n "items": [{"kind": "A", "x": [1,\n 2, {"y": "]}"}]}, {"kind":\n"B", "z": {}}]}'
    a, b = load(text.encode(), "a.json")
    assert a.line() == (2, 12)
    assert a.line("/x/1") == (3, 2)
    assert a.line("/x/2/y") == (3, 6)
    assert a.line("/x/9") == a.line("/x") == (2, 26)
    assert b.line("/z") == (4, 6)


def test_a_list_of_one_kind() -> None:
    documents = load(b"apiVersion: v1\nkind: ServiceList\nitems: [{metadata: {name: a}}, {kind: Service}]\n")
    assert [d.value["kind"] for d in documents] == ["Service", "Service"]
    assert documents[0].value["apiVersion"] == "v1"
    assert load(b"kind: List\nitems:\n") == []


def test_empty_files_have_nothing() -> None:
    for text in (b"", b"\n", b"# only this\n", b"---\n...\n---\n"):
        assert load(text) == []


FAULTS = [
    ("a: 1\na: 2\n", "2:1", "the key 'a' is there already, in line 1"),
    ("a: {b: 1,\n  b: 2}\n", "2:3", "the key 'b' is there already, in line 1"),
    ('{"a": 1,\n "a": 2}', "2:2", "the key 'a' is there already, in line 1"),
    ("1: a\n'1': b\n", "2:1", "the key '1' is there already"),
    ("a: !!str 5\n", "1:4", "the tag !!str is not supported"),
    ("a: !thing {b: 1}\n", "1:4", "the tag !thing is not supported"),
    ("a: !!python/object/apply:os.system [id]\n", "1:4", "the tag !!python/object/apply:os.system is not supported"),
    ("? [a]\n: 1\n", "1:3", "a key is a mapping or list"),
    ("~: 1\n", "1:1", "a key is null"),
    ("a: *b\n", "1:4", "*b stands for nothing"),
    ("a: &b [1, *b]\n", "1:11", "*b contains itself"),
    ("<<: 1\n", "1:5", "<< takes a mapping or a list of them"),
    ("- 1\n", "1:1", "/: a list, and not an object"),
    ("hello\n", "1:1", "/: a string, and not an object"),
    ("kind: List\nitems: 1\n", "2:1", "/items: a number, and not a list"),
    ("kind: List\nitems: [{}, 5]\n", "2:13", "/items/1: a number, and not an object"),
    ("a: [1\nb: 2\n", "2:2", "did not find expected ',' or ']'"),
    ("a: 1\n\tb: 2\n", "2:1", "found a tab character that violates indentation"),
    ("a: '\n", "2:1", "found unexpected end of stream"),
    ("a: \x00\n", "1:1", "control characters are not allowed"),
    ("ä:\n\tb: 1\n", "2:1", "found a tab, and YAML is indented by spaces"),
    ("a: @b\n", "1:4", "cannot start any token"),
    ("[" * 300, "1:101", "nested more than 100 deep"),
    ('{"a":' * 3000 + "1" + "}" * 3000, "1:501", "nested more than 100 deep"),
]


@pytest.mark.parametrize(("text", "place", "message"), FAULTS, ids=[fault[0][:24] for fault in FAULTS])
def test_what_is_refused_names_its_place(text: str, place: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(text.encode(), "x.yaml")
    assert caught.value.text.startswith(f"x.yaml:{place}: ")
    assert message in caught.value.text


def test_one_bad_document_does_not_take_the_others_with_it() -> None:
    documents, faults = scan(b"kind: A\n---\nkind: B\nkind: C\n---\nkind: D\n---\nkind: [\n---\nkind: E\n", "x.yaml")
    assert [d.value["kind"] for d in documents] == ["A", "D"]
    assert [fault.position[0] for fault in faults] == [4, 9]


def test_billion_laughs() -> None:
    """CVE-2019-11253: aliases of aliases. What is shared costs nothing until somebody walks through it."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ManifestError, match="aliases stand for more than 100000 values"):
        load("\n".join(lines).encode(), "bomb.yaml")


def test_aliases_and_merges() -> None:
    (document,) = load(b"base: &b {x: 1, w: 2}\none: *b\ntwo: {<<: *b, w: 3}\nthree:\n  <<: [*b, {z: 4}]\n")
    assert document.value["one"] == {"x": 1, "w": 2}
    assert document.value["two"] == {"x": 1, "w": 3}
    assert document.value["three"] == {"x": 1, "w": 2, "z": 4}
    assert document.line("/two/x") == (3, 11)


def test_files_that_are_none(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, message in ((tmp_path, "is a directory"), (fifo, "not a regular file"), (tmp_path / "no", "no such")):
        with pytest.raises(PyrunError, match=message):
            load(str(path))
    with pytest.raises(PyrunError, match="NUL"):
        load("a\0b")


def test_without_pyyaml_json_is_read_and_yaml_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyrun.kube.events", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert load(b'{"kind": "A"}')[0].value == {"kind": "A"}
    with pytest.raises(ManifestError, match=r"x\.json:2:1: Expecting"):
        load(b'{"kind":\n', "x.json")
    with pytest.raises(PyrunError, match="PyYAML") as caught:
        load(b"kind: A\n", "x.yaml")
    assert "pyrun[kube]" in str(caught.value.hint)


def test_bytes_that_are_no_text_are_an_error_and_no_crash() -> None:
    for data in (b"\xff\xfe\xfd", b"a: \xc3\x28", b"{\xff", b"\xef\xbb\xbfkind: A"):
        scan(data, "x")


@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_faults(data: bytes) -> None:
    documents, faults = scan(data, "x")
    assert all(fault.text.startswith("x:") for fault in faults)
    assert all(isinstance(document.value, dict) and document.line()[0] >= 1 for document in documents)


PARTS = st.text(alphabet="ab/~ \u00e90", min_size=1, max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.text(alphabet='ab \u00e9"\\', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(PARTS, VALUES, max_size=4), st.sampled_from([None, 1]))
def test_json_and_yaml_agree_on_values_and_places(value: dict[str, Any], indent: int | None) -> None:
    """A JSON text read as JSON and, behind a mark that only YAML has, as YAML."""
    text = json.dumps(value, indent=indent)
    (one,) = load(text.encode())
    (two,) = load(f"--- {text}".encode())
    assert one.value == two.value == value
    paths: list[list[str | int]] = [[]]
    for path in paths:
        here: Any = value
        for part in path:
            here = here[part]
        inner = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        paths += [[*path, key] for key, _ in inner]
        line, column = one.line(pointer_of(path))
        assert two.line(pointer_of(path)) == (line, column + (4 if line == 1 else 0))


@given(st.lists(PARTS | st.integers(0, 9), max_size=4))
def test_pointers_go_both_ways(path: list[str | int]) -> None:
    assert path_of(pointer_of(path)) == [str(part) for part in path]


def test_a_path_that_is_not_in_the_text() -> None:
    assert JsonText('{"a": [1, 2]}').find(["a", "5"]) == (1, 2)
    assert JsonText('{"a": [1, 2]}').find(["a", "1", "x"]) == (1, 11)
