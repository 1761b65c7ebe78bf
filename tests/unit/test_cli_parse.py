"""Command lines as people and engines write them, read by the parser that every verb uses."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.cli.parse import Call, parse, parse_duration, parse_size
from pyrun.cli.table import GLOBALS
from pyrun.cli.verbs import VERBS
from pyrun.errors import UsageError


def read(line: str) -> Call:
    return parse(line.split())


def given(line: str) -> dict[str, Any]:
    """What differs from the defaults: global options with a `+` in front, the verb as `verb`."""
    call = read(line)
    assert call.verb is not None
    found: dict[str, Any] = {"verb": call.verb.name}
    for option in GLOBALS:
        if (value := getattr(call.globals, option.attribute)) != option.default:
            found["+" + option.attribute] = value
    defaults = {option.attribute: option.default for option in call.verb.options}
    for name, value in call.options.__dict__.items():
        if name != "given" and value != defaults.get(name):
            found[name] = value
    return found


SHIM = "--root /run/containerd/runc/k8s.io --log /run/x/log.json --log-format json --systemd-cgroup"
SHIM_GLOBALS = {
    "+root": "/run/containerd/runc/k8s.io",
    "+log": "/run/x/log.json",
    "+log_format": "json",
    "+systemd_cgroup": True,
}
CORPUS: list[tuple[str, dict[str, Any]]] = [
    # containerd-shim-runc-v2, by way of go-runc
    (
        f"{SHIM} create --bundle /b --pid-file /b/init.pid --console-socket /tmp/pty.sock c1",
        {"verb": "create", "bundle": "/b", "pid_file": "/b/init.pid", "console_socket": "/tmp/pty.sock", "id": "c1"}
        | SHIM_GLOBALS,
    ),
    (
        f"{SHIM} create --bundle /b --pid-file /b/init.pid --no-pivot --no-new-keyring --preserve-fds 2 c1",
        {"verb": "create", "bundle": "/b", "pid_file": "/b/init.pid", "no_pivot": True, "no_new_keyring": True}
        | {"preserve_fds": 2, "id": "c1"}
        | SHIM_GLOBALS,
    ),
    (f"{SHIM} start c1", {"verb": "start", "id": "c1"} | SHIM_GLOBALS),
    (f"{SHIM} state c1", {"verb": "state", "id": "c1"} | SHIM_GLOBALS),
    (
        f"{SHIM} exec --process /tmp/p.json --detach --pid-file /b/e.pid --console-socket /tmp/s c1",
        {"verb": "exec", "process": "/tmp/p.json", "detach": True, "pid_file": "/b/e.pid", "console_socket": "/tmp/s"}
        | {"id": "c1"}
        | SHIM_GLOBALS,
    ),
    (f"{SHIM} kill --all c1 9", {"verb": "kill", "all": True, "id": "c1", "signal": "9"} | SHIM_GLOBALS),
    (f"{SHIM} delete --force c1", {"verb": "delete", "force": True, "id": "c1"} | SHIM_GLOBALS),
    (f"{SHIM} ps --format json c1", {"verb": "ps", "format": "json", "id": "c1"} | SHIM_GLOBALS),
    (f"{SHIM} update --resources - c1", {"verb": "update", "resources": "-", "id": "c1"} | SHIM_GLOBALS),
    (f"{SHIM} update --resources=- c1", {"verb": "update", "resources": "-", "id": "c1"} | SHIM_GLOBALS),
    (f"{SHIM} events --stats c1", {"verb": "events", "stats": True, "id": "c1"} | SHIM_GLOBALS),
    (
        "--debug --rootless=true list --format=json",
        {"verb": "list", "+debug": True, "+rootless": "true", "format": "json"},
    ),
    # conmon, as podman and cri-o start it
    (
        "--log-format=json --log /x/oci-log --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s c1",
        {"verb": "create", "+log_format": "json", "+log": "/x/oci-log", "+systemd_cgroup": True}
        | {"bundle": "/b", "pid_file": "/p", "console_socket": "/s", "id": "c1"},
    ),
    (
        "--cgroup-manager disabled create --bundle /b c1",
        {"verb": "create", "+cgroup_manager": "disabled", "bundle": "/b", "id": "c1"},
    ),
    ("start c1", {"verb": "start", "id": "c1"}),
    ("kill c1 15", {"verb": "kill", "id": "c1", "signal": "15"}),
    ("kill --all c1 KILL", {"verb": "kill", "id": "c1", "signal": "KILL", "all": True}),
    (
        "exec --pid-file /p --process /x --detach --tty c1",
        {"verb": "exec", "pid_file": "/p", "process": "/x", "detach": True, "tty": True, "id": "c1"},
    ),
    ("exec --pid-file=/p --process=/x c1", {"verb": "exec", "pid_file": "/p", "process": "/x", "id": "c1"}),
    ("exec --preserve-fds 3 -p /x c1", {"verb": "exec", "preserve_fds": 3, "process": "/x", "id": "c1"}),
    # dockerd
    (
        "--root /var/run/docker/runtime-runc/moby delete c1",
        {"verb": "delete", "+root": "/var/run/docker/runtime-runc/moby", "id": "c1"},
    ),
    (
        "update --cpu-period 100000 --cpu-quota 50000 c1",
        {"verb": "update", "cpu_period": 100000, "cpu_quota": 50000, "id": "c1"},
    ),
    # people
    ("run c1", {"verb": "run", "id": "c1"}),
    ("run -b /b -d c1", {"verb": "run", "bundle": "/b", "detach": True, "id": "c1"}),
    ("run c1 --detach", {"verb": "run", "detach": True, "id": "c1"}),
    ("run -d c1 -b=/b", {"verb": "run", "detach": True, "bundle": "/b", "id": "c1"}),
    ("run -bundle /b -detach c1", {"verb": "run", "bundle": "/b", "detach": True, "id": "c1"}),
    (
        "run --trace --keep --no-subreaper c1",
        {"verb": "run", "trace": True, "keep": True, "no_subreaper": True, "id": "c1"},
    ),
    ("run --detach=false --keep=true c1", {"verb": "run", "keep": True, "id": "c1"}),
    ("run --detach=0 --keep=T c1", {"verb": "run", "keep": True, "id": "c1"}),
    ("run -- -c1", {"verb": "run", "id": "-c1"}),
    ("create --config try.json c1", {"verb": "create", "config": "try.json", "id": "c1"}),
    ("create --bundle --odd c1", {"verb": "create", "bundle": "--odd", "id": "c1"}),
    ("create --bundle= c1", {"verb": "create", "bundle": "", "id": "c1"}),
    ("create --bundle=a=b c1", {"verb": "create", "bundle": "a=b", "id": "c1"}),
    ("create --bundle a --bundle b c1", {"verb": "create", "bundle": "b", "id": "c1"}),
    ("exec c1 ls -l --color", {"verb": "exec", "id": "c1", "command": ("ls", "-l", "--color")}),
    ("exec c1 -- ls -- -l", {"verb": "exec", "id": "c1", "command": ("ls", "--", "-l")}),
    (
        "exec -t -e A=1 -e B=2,3 c1 sh",
        {"verb": "exec", "tty": True, "env": ("A=1", "B=2,3"), "id": "c1", "command": ("sh",)},
    ),
    (
        "exec -g 5 --additional-gids=6 c1 id",
        {"verb": "exec", "additional_gids": (5, 6), "id": "c1", "command": ("id",)},
    ),
    (
        "exec -u 1:2 --cap CAP_KILL -c CAP_CHOWN c1 id",
        {"verb": "exec", "user": "1:2", "cap": ("CAP_KILL", "CAP_CHOWN"), "id": "c1", "command": ("id",)},
    ),
    ("exec --no-new-privs=false c1 id", {"verb": "exec", "no_new_privs": False, "id": "c1", "command": ("id",)}),
    ("exec --no-new-privs c1 id", {"verb": "exec", "no_new_privs": True, "id": "c1", "command": ("id",)}),
    ("kill c1", {"verb": "kill", "id": "c1"}),
    ("kill c1 -9", {"verb": "kill", "id": "c1", "signal": "-9"}),
    ("ps c1 -o pid,comm", {"verb": "ps", "id": "c1", "ps_option": ("-o", "pid,comm")}),
    ("ps c1 -aux --format json", {"verb": "ps", "id": "c1", "ps_option": ("-aux", "--format", "json")}),
    (
        "update --memory 512M --memory-swap -1 --pids-limit=-1 c1",
        {"verb": "update", "memory": 512 << 20, "memory_swap": -1, "pids_limit": -1, "id": "c1"},
    ),
    ("events --interval 1m30s c1", {"verb": "events", "interval": 90.0, "id": "c1"}),
    ("spec --rootless -b /b", {"verb": "spec", "rootless": True, "bundle": "/b"}),
    ("list -q", {"verb": "list", "quiet": True}),
    ("explain", {"verb": "explain"}),
    ("explain --format json /b", {"verb": "explain", "format": "json", "bundle": "/b"}),
    # global options behind a verb that has none of that name, as in runc 1.4 and later
    ("state --root /r c1", {"verb": "state", "+root": "/r", "id": "c1"}),
    ("--criu /usr/sbin/criu state c1", {"verb": "state", "+criu": "/usr/sbin/criu", "id": "c1"}),
]


@pytest.mark.parametrize(("line", "wanted"), CORPUS, ids=[line for line, _ in CORPUS])
def test_corpus(line: str, wanted: dict[str, Any]) -> None:
    found = given(line)
    # Words that a verb may go without are there as None or ().
    for name in ("signal", "command", "ps_option", "bundle"):
        if not found.get(name) and name not in wanted:
            found.pop(name, None)
    assert found == wanted


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("crate c1", ['no verb "crate"', "did you mean create?"]),
        ("rnu c1", ['no verb "rnu"', "did you mean run?"]),
        ("frobnicate", ['no verb "frobnicate"', "create", "list"]),
        ("checkpoint c1", ['no verb "checkpoint"', "not part of this runtime"]),
        ("create --bundel /b c1", ["--bundel", "did you mean --bundle?"]),
        ("create --zzz c1", ["no option --zzz", "--bundle", "--pid-file"]),
        ("--zzz list", ["no option --zzz", "--root"]),
        ("exec -td c1 sh", ["no option -td", "-t -d"]),
        ("state -x c1", ["no option -x"]),
        ("create --bundle", ["option --bundle needs a value: DIR"]),
        ("--root", ["option --root needs a value: DIR"]),
        ("create", ["ID is missing", "pyrun create [OPTIONS] ID"]),
        ("start a b", ['"b" is one word too many', "pyrun start ID"]),
        ("kill a 9 b", ['"b" is one word too many', "pyrun kill [OPTIONS] ID [SIGNAL]"]),
        ("list all", ['"all" is one word too many']),
        ("create --preserve-fds x c1", ['--preserve-fds: "x" is not a whole number']),
        ("create --preserve-fds 1_0 c1", ['"1_0" is not a whole number']),
        ("create --preserve-fds ١ c1", ["is not a whole number"]),
        ("run --detach=maybe c1", ['--detach: "maybe" is not true or false']),
        ("run --detach= c1", ['--detach: "" is not true or false']),
        ("list --format xml", ['--format: "xml" is not one of table, json']),
        ("--log-format xml list", ['--log-format: "xml" is not one of text, json']),
        ("--rootless maybe list", ['--rootless: "maybe" is not one of auto, true, false']),
        ("update --memory lots c1", ['--memory: "lots" is not a size']),
        ("events --interval 0s c1", ['--interval: "0s" is not a time above 0']),
    ],
)
def test_usage_errors_name_the_word_and_what_is_taken(line: str, texts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read(line)
    assert caught.value.code == 1
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    "line", ["--help", "-h", "-help", "create --help", "create x -h", "exec -h c1 sh", "create --bundle x --help"]
)
def test_help(line: str) -> None:
    assert read(line).wants == "help"


def test_help_behind_the_id_is_the_programs() -> None:
    call = read("exec c1 ls --help")
    assert call.wants == "run"
    assert call.options.command == ("ls", "--help")


@pytest.mark.parametrize("line", ["--version", "-v", "--root /x --version"])
def test_version(line: str) -> None:
    assert read(line).wants == "version"


def test_nothing_is_asked_for() -> None:
    call = parse([])
    assert call.verb is None
    assert call.wants == "run"


def test_given_names_what_was_on_the_command_line() -> None:
    call = read("--root /run/pyrun list --format table")
    assert call.globals.given == {"root"}
    assert call.options.given == {"format"}


def test_two_calls_share_nothing() -> None:
    parse(["exec", "-e", "A=1", "c1", "sh"])
    assert parse(["exec", "c1", "sh"]).options.env == ()


@pytest.mark.parametrize(
    ("word", "bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096b", 4096),
        ("1k", 1024),
        ("1K", 1024),
        ("1KiB", 1024),
        ("512M", 512 << 20),
        ("512mb", 512 << 20),
    ]
    + [("1.5G", 3 << 29), ("2g", 2 << 30), ("1T", 1 << 40), ("1P", 1 << 50), ("1 G", 1 << 30), ("-1", -1)],
)
def test_sizes(word: str, bytes: int) -> None:
    assert parse_size(word) == bytes


@pytest.mark.parametrize(
    "word", ["", "M", "-2", "-1M", "1X", "1..5G", "1e3", "0x10", "١k", "8192P", "1MM", "nan", "inf"]
)
def test_bad_sizes(word: str) -> None:
    with pytest.raises(ValueError):
        parse_size(word)


@pytest.mark.parametrize(
    ("word", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0), ("2us", 2e-6), ("2µs", 2e-6)]
)
def test_durations(word: str, seconds: float) -> None:
    assert parse_duration(word) == pytest.approx(seconds)


@pytest.mark.parametrize("word", ["", "5", "s", "0s", "-5s", "5x", "1.2.3s", ".s", "5 s", "5s3"])
def test_bad_durations(word: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(word)


def test_verbs_that_stop_after_the_id() -> None:
    assert {verb.name for verb in VERBS.values() if verb.stops} == {"exec", "kill", "ps"}
