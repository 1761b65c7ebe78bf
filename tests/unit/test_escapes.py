"""What comes of an image, a bundle or a command line may hold sequences for a terminal; none gets to one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pyrun.cli.commands.ps import filtered
from pyrun.cli.main import Globals, main
from pyrun.cli.output import columns, write
from pyrun.errors import ConfigError, PyrunError, printable
from tests.support.container.bundle import make_config

HOSTILE = "\x1b]0;owned\x07 \x9b31m \u202etxt.exe\u202c \u2028 \x00 \x7f \udc9b"
TOLD = r"\x1b]0;owned\x07 \x9b31m \u202etxt.exe\u202c \u2028 \x00 \x7f \x9b"

NAME = "/" + HOSTILE.replace("\0", "")


def is_fit(data: bytes) -> bool:
    text = data.decode("utf-8")
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_what_a_terminal_may_have() -> None:
    assert printable("plain: ärger, 日本 \t end") == "plain: ärger, 日本 \t end"
    assert printable(HOSTILE) == TOLD
    assert printable("one\n  hint: forged") == r"one\x0a  hint: forged"


def test_an_error_has_no_lines_but_its_own() -> None:
    error = PyrunError(f"no {HOSTILE}\n  hint: rm -rf /", pointer="/a\n\x1b", hint="\x1b")
    assert error.lines() == [rf"no {TOLD}\x0a  hint: rm -rf /", r"  from config.json /a\x0a\x1b", r"  hint: \x1b"]
    faults = ConfigError([("/a\x1b", "one\x1b"), ("/b", "two\n")])
    assert all(is_fit(line.encode()) and "\n" not in line for line in faults.lines())


@pytest.mark.parametrize("options", [[], ["--log-format", "json"]], ids=["text", "json"])
def test_messages_and_the_log(options: list[str], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Of a bundle's name, on stderr and in --log."""
    log = tmp_path / "log"
    for more in ([], ["--log", str(log)]):
        assert main([*options, *more, "--root", str(tmp_path / "state"), "create", "-b", NAME, "a"]) == 1
    said = capfdbinary.readouterr().err
    assert b"owned" in said and is_fit(said), said
    assert b"owned" in log.read_bytes() and is_fit(log.read_bytes())


def test_warnings(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Globals().warn(f"ignoring {HOSTILE}")
    assert capfdbinary.readouterr().err == f"pyrun: warning: ignoring {TOLD}\n".encode()


def test_tables(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A cell is one cell, and wide enough for what is shown."""
    table = columns([("ID", "BUNDLE", "OWNER"), ("a", f"/{HOSTILE}\nb   0   running", "root")])
    title, row = table.splitlines()
    assert title.index("OWNER") == row.index("root") and TOLD in row
    write(filtered("PID CMD\n7 \x1b[2J\n8 x\n", [7]))
    assert capfdbinary.readouterr().out == b"PID CMD\n7 \\x1b[2J\n"


def test_explain_and_validate(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    config = make_config(["/bin" + NAME[:-1]], hostname="h", annotations={f"a{HOSTILE[:5]}": "\x1b"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    os.mkdir(tmp_path / "rootfs")
    main(["explain", str(tmp_path)])
    config["mounts"][0]["type"] = 7
    config["process"]["\x1b[2J"] = 7
    config["process"]["cwd"] = "\x1b[2J"
    (tmp_path / "config.json").write_text(json.dumps(config))
    main(["validate", str(tmp_path)])
    said = capfdbinary.readouterr()
    assert said.out and is_fit(said.out) and is_fit(said.err)
