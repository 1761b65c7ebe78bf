"""One file for a node: each option of `pyrun node run` has a key; what is given counts, then the file."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.node_config import NOT_KEYS, as_file, settle, shown, written
from pyrun.cli.options import FLAG, NUMBER, SIZE
from pyrun.cli.parse import Options, parse
from pyrun.cli.table_node import NODE_RUN
from pyrun.cri.config import HELP, Configuration, load_configuration
from pyrun.errors import InvalidArgument

OPTIONS = [option for option in NODE_RUN.options if option.name not in NOT_KEYS]


def given(*words: str) -> Options:
    return parse(["node", "run", *words]).options


def file(path: Path, text: str) -> str:
    made = path / "pyrun.toml"
    made.write_text(text)
    made.chmod(0o600)
    return str(made)


def settled(path: Path, text: str, *words: str) -> Options:
    o = given("--config", file(path, text), *words)
    settle(o, NODE_RUN.options)
    return o


def sample(option: Any) -> tuple[Any, Any]:
    """A value in the file, and what it comes to."""
    if option.kind == FLAG:
        return True, True
    if option.kind == NUMBER:
        return 77, 77
    if option.kind == SIZE:
        return "3M", 3 << 20
    if option.choices:
        return option.choices[-1], option.choices[-1]
    return (["a", "b"], ("a", "b")) if option.many else ("word", "word")


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_each_option_has_a_key_and_the_command_line_counts_before_it(tmp_path: Path, option: Any) -> None:
    value, wanted = sample(option)
    text = f"[node]\n{option.attribute} = {written(value)}\n"
    assert getattr(settled(tmp_path, text), option.attribute) == wanted
    word = "false" if option.kind == FLAG else option.choices[0] if option.choices else "5"
    before = getattr(given(f"--{option.name}={word}"), option.attribute)
    assert getattr(settled(tmp_path, text, f"--{option.name}={word}"), option.attribute) == before


@pytest.mark.parametrize("words", [("--root", "/given", "node", "run"), ("node", "run", "--root", "/given")])
def test_the_root_is_given_before_the_verb_or_behind_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    config = file(tmp_path, '[node]\nroot = "/written"\n')
    command = [sys.executable, "-m", "pyrun", *words, "--config", config, "--explain"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert 'root = "/given"  # --root\n' in told and "/written" not in told


def test_without_a_file_all_is_as_it_was(tmp_path: Path) -> None:
    o = given()
    chosen = settle(o, NODE_RUN.options, str(tmp_path / "none"))
    assert o.__dict__ == given().__dict__ and shown(chosen) == ()
    there = file(tmp_path, "[node]\nmax_pods = 5\n")
    chosen = settle(o, NODE_RUN.options, there)
    assert (o.max_pods, o.config, shown(chosen)) == (5, there, (("max_pods", "5", f"{there}:2"),))


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("max_pod = 5", "no key max_pod", "did you mean max_pods?"),
        ("max-pods = 5", "no key max-pods", "did you mean max_pods?"),
        ("colour = 5", "no key colour", "pyrun node run --explain"),
        ("config = '/a'", "no key config", "of the command line alone"),
        ("max_pods = '5'", "max_pods must be a whole number", None),
        ("max_pods = true", "max_pods must be a whole number", None),
        ("fail_swap_on = 1", "fail_swap_on must be true or false", None),
        ("node_ip = '192.0.2.1'", "node_ip must be a list of strings", None),
        ("node_name = 5", "node_name must be a string", None),
        ("proxy_mode = 'iptables'", "proxy_mode must be one of userspace, nftables", None),
        ("container_log_max_size = 'much'", "container_log_max_size must be a size", None),
        ("container_log_max_size = 1.5", "container_log_max_size must be a size", None),
    ],
)
def test_what_is_wrong_is_told_by_its_line(tmp_path: Path, line: str, said: str, hint: str | None) -> None:
    with pytest.raises(InvalidArgument, match=said) as told:
        settled(tmp_path, f'strict_limits = true\n[runtimes.runc]\npath = "/r"\n\n[node]\n# words\n{line}\n')
    assert f"{tmp_path}/pyrun.toml:7: " in str(told.value)
    assert hint is None or hint in (told.value.hint or "")


def test_a_table_of_another_kind_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="node must be a table"):
        settled(tmp_path, "node = 5\n")
    with pytest.raises(InvalidArgument, match=r"pyrun\.toml: "):
        settled(tmp_path, "[node\n")
    with pytest.raises(InvalidArgument, match="--config|No such file"):
        settle(given("--config", str(tmp_path / "none")), NODE_RUN.options)


def test_the_runtime_leaves_the_table_alone_and_says_what_was_meant(tmp_path: Path) -> None:
    path = file(tmp_path, 'layers = "erofs"\n[node]\nmax_pods = 5\n')
    assert load_configuration(path).layers == "erofs"
    with pytest.raises(InvalidArgument) as told:
        load_configuration(file(tmp_path, "strict_limit = true\n"))
    assert told.value.hint == "did you mean strict_limits?"


def test_every_key_of_the_runtime_is_explained() -> None:
    assert set(HELP) == {item.name for item in fields(Configuration)}


def test_what_is_explained_is_such_a_file(tmp_path: Path) -> None:
    """Read again it comes to the same; each key stands in it, set or as a comment, after what it is."""
    text = 'layers = "erofs"\n[runtimes.runc]\npath = "/r"\n[node]\nnode_ip = ["192.0.2.1"]\nfail_swap_on = true\n'
    o = given("--config", file(tmp_path, text), "--max-pods", "5")
    chosen = settle(o, NODE_RUN.options)
    told = as_file(o.config, chosen)
    assert f"fail_swap_on = true  # {tmp_path}/pyrun.toml:6" in told and "max_pods = 5  # --max-pods" in told
    again = given("--config", file(tmp_path, told))
    settle(again, NODE_RUN.options)
    same = {name: value for name, value in o.__dict__.items() if name not in ("given", "config")}
    assert {name: again.__dict__[name] for name in same} == same
    assert load_configuration(again.config) == load_configuration(file(tmp_path, text))
    lines = told.splitlines()
    for name in [*HELP, *(option.attribute for option in OPTIONS)]:
        if name == "runtimes":
            continue
        (at,) = [i for i, line in enumerate(lines) if line.removeprefix("# ").startswith(f"{name} = ")]
        assert lines[at - 1].startswith("# "), name
    plain = as_file(None, settle(given(), NODE_RUN.options, str(tmp_path / "none")))
    assert tomllib.loads(plain) == {"node": {}}


def test_a_secret_in_a_header_is_not_shown(tmp_path: Path) -> None:
    o = given("--config", file(tmp_path, '[node]\nmanifest_url_header = ["Authorization: word", "A: b"]\n'))
    ((key, value, _),) = shown(settle(o, NODE_RUN.options))
    assert (key, value) == ("manifest_url_header", '["Authorization: …", "A: …"]')
    for url, wanted in (("https://h/pods?sign=word", "https://h/pods?…"), ("https://h/pods", "https://h/pods")):
        ((_, value, _),) = shown(settle(given("--manifest-url", url), NODE_RUN.options, str(tmp_path / "none")))
        assert value == f'"{wanted}"'
