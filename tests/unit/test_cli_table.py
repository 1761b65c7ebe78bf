"""The table against its two readers, and what click makes of it for people: help and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from pyrun.cli import click_app, texts
from pyrun.cli.options import FLAG, Option
from pyrun.cli.parse import parse
from pyrun.cli.table import GLOBALS
from pyrun.cli.verbs import VERBS

REPO = Path(__file__).resolve().parents[2]
VISIBLE = [verb for verb in VERBS.values() if not verb.hidden]

# Lines in the notation that both parsers know; click has neither `-bundle` nor `--flag=true`.
SHARED = [
    "--root /r --log /l --log-format json --debug --systemd-cgroup --rootless true state c1",
    "--cgroup-manager disabled state c1",
    "create --bundle /b --console-socket /s --pid-file /p --pidfd-socket /q --no-pivot --no-new-keyring c1",
    "create -b /b --preserve-fds 3 --config f c1",
    "create c1 --bundle=/b",
    "run -d --keep --no-subreaper --trace c1",
    "exec -t -e A=1 --env B=2 -u 0:0 -g 1 -g 2 -c CAP_KILL --cwd / --no-new-privs --ignore-paused c1 sh -c ls",
    "exec --process /p --detach c1",
    "exec c1 ls --color -l",
    "kill c1",
    "kill --all c1 TERM",
    "kill c1 9",
    "delete -f c1",
    "list -q -f json",
    "ps --format json c1",
    "ps c1 -aux --format json",
    "pause c1",
    "resume c1",
    "update --memory 1G --pids-limit -1 --cpu-share 5 --cpuset-cpus 0-1 c1",
    "update -r - c1",
    "events --stats --interval 2s c1",
    "spec --rootless --bundle /b",
    "features",
    "explain /b --format json",
    "explain",
    "validate --config f",
    "cri --root /r --state /s --listen unix:///s/sock --config f",
    "--debug cri",
    "cri status --format json --listen unix:///s/sock",
    "help cri status",
    "metrics --address 127.0.0.1:1 --node-name n --listen unix:///s",
    "logs -f -n a -p b -c c -l d=e --since 1h --tail 5 --stream stderr -t --format json --dir /d x y",
    "logs --previous --regex --since-time a --until-time b --listen unix:///s x",
    "image pull --root /r --certs-dir /a --certs-dir /b -u me -q --format json busybox",
    "image ls -q --format json",
    "image rm a b",
    "image inspect a",
    "image import --name a:1 /layout",
    "image export -o f a b",
    "image prune -a",
    "image verify --format json a b",
    "node validate --node-name n --format json a b",
    "node explain --cpu 1000 --memory 1G a",
]


def by_click(line: str) -> dict[str, Any]:
    app = click_app.build()
    with app.make_context("pyrun", line.split()) as outer:
        name, command, rest = app.resolve_command(outer, [*outer._protected_args, *outer.args])
        assert command is not None
        if isinstance(command, click.Group) and rest and rest[0] in command.commands:
            name, command, rest = f"{name} {rest[0]}", command.commands[rest[0]], rest[1:]
        with command.make_context(name, rest, parent=outer) as inner:
            return {f"+{key}": value for key, value in outer.params.items()} | inner.params | {"verb": name}


def by_parser(line: str) -> dict[str, Any]:
    call = parse(line.split())
    assert call.verb is not None
    values = {f"+{key}": value for key, value in call.globals.__dict__.items()} | call.options.__dict__
    return values | {"verb": call.verb.name}


@pytest.mark.parametrize("line", SHARED)
def test_click_reads_what_the_parser_reads(line: str) -> None:
    left, right = by_click(line), by_parser(line)
    # --version ends the parser's work, and click does not note what was given.
    for values in (left, right):
        for name in ("+version", "+given", "given"):
            values.pop(name, None)
    assert left == right


@pytest.mark.parametrize(
    "line", ["create", "create --zzz c1", "start a b", "list --format xml", "update --memory x c1", "zzz"]
)
def test_click_refuses_what_the_parser_refuses(line: str) -> None:
    with pytest.raises(click.UsageError):
        by_click(line)


def test_the_tables_names_are_clicks() -> None:
    app = click_app.build()
    assert set(app.commands) == {name.partition(" ")[0] for name in VERBS}
    for verb in VERBS.values():
        first, _, second = verb.name.partition(" ")
        command = app.commands[first]
        if second:
            assert isinstance(command, click.Group)
            command = command.commands[second]
        theirs = {param.name for param in command.params}
        ours = {option.attribute for option in verb.options} | {a.name.replace("-", "_") for a in verb.arguments}
        assert theirs == ours


@pytest.mark.parametrize("options", [GLOBALS, *(verb.options for verb in VERBS.values())])
def test_no_name_stands_for_two(options: tuple[Option, ...]) -> None:
    names = [option.name for option in options] + [option.short for option in options if option.short]
    assert len(names) == len(set(names))
    assert not {"h", "help"} & set(names)


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_has_its_module_its_text_and_a_group(name: str) -> None:
    source = (REPO / "pyrun" / "cli" / "commands" / f"{name.replace(' ', '_').replace('-', '_')}.py").read_text()
    assert "\ndef run(g: Globals, o: Options) -> int:\n" in source
    assert name in texts.VERBS
    assert VERBS[name].hidden or sum(name in names for _, names in texts.GROUPS) == 1


@pytest.mark.parametrize("verb", VISIBLE, ids=lambda verb: verb.name)
def test_help_teaches(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert click_app.show_help(verb.name) == 0
    shown = capsys.readouterr().out
    for option in verb.options:
        assert (f"--{option.name}" in shown) != option.hidden, option.name
    assert "Examples:" in shown
    assert f"pyrun {verb.name}" in shown
    assert "Exit status:" in shown
    for command, _ in texts.VERBS[verb.name].examples:
        assert command in shown


def test_examples_can_be_typed() -> None:
    """Every example that is a plain pyrun command line is one that the parser takes."""
    import shlex

    for text in texts.VERBS.values():
        for command, _ in text.examples:
            words = shlex.split(command)
            for stop in ("|", ">", "&&"):
                words = words[: words.index(stop)] if stop in words else words
            if words[0] == "pyrun":
                assert parse(words[1:]).verb is not None, command


def test_the_overview_has_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert click_app.show_help(None) == 0
    shown = capsys.readouterr().out
    for verb in VISIBLE:
        assert f"\n  {verb.name} " in shown
    for option in GLOBALS:
        assert (f"--{option.name} " in shown) != option.hidden


def complete(words: str, tmp_path: Path) -> list[str]:
    """What bash would be offered for the last of these words."""
    env = {
        **os.environ,
        "_PYRUN_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pyrun"], env=env, cwd=REPO, capture_output=True, text=True, check=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion(tmp_path: Path) -> None:
    for name in ("web1", "web2", "db"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert complete(f"pyrun --root {tmp_path} kill w", tmp_path) == ["web1", "web2"]
    assert complete(f"pyrun --root {tmp_path} kill web1 SIGH", tmp_path) == ["SIGHUP"]
    assert complete(f"pyrun --root {tmp_path} kill web1 HU", tmp_path) == ["HUP"]
    assert complete("pyrun re", tmp_path) == ["resume"]
    assert complete("pyrun run --ke", tmp_path) == ["--keep"]
    assert complete("pyrun list --format ", tmp_path) == ["table", "json"]
    assert complete(f"pyrun --root {tmp_path} create w", tmp_path) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    script = click_app.completion_script(shell)
    assert f"_PYRUN_COMPLETE={shell}_complete" in script
    assert "pyrun" in script


def test_flags_default_to_false_but_where_absence_means_something() -> None:
    unset = {(v.name, o.name) for v in VERBS.values() for o in v.options if o.kind == FLAG and o.default is None}
    assert unset == {("exec", "no-new-privs")}
