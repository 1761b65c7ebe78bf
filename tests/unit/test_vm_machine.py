"""The words for a guest's end, from its console and QEMU's status alone."""

from __future__ import annotations

import pytest

from tests.support.vm.job import required_files
from tests.support.vm.machine import acceleration, diagnose, parse_event, tail, why_not

OOPS = "\n".join(
    [
        "test output",
        "[ 11.1] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "[ 11.2] RIP: 0010:sysrq_handle_crash+0x16/0x20",
        "[ 11.3] Call Trace:",
        "[ 11.4] Kernel panic - not syncing: Fatal exception",
        "[ 11.5] Rebooting in 1 seconds..",
    ]
)


@pytest.mark.parametrize(
    ("console", "rc", "hung", "first", "shown"),
    [
        (OOPS, 0, 0, "the guest's kernel panicked: Fatal exception", "RIP: 0010:sysrq_handle_crash"),
        ("cp: x: No space left on device\n", 0, 0, "the guest's disk is full: cp: x: No space", "cp: x"),
        ("a\nb\n", 0, 0, "the guest ended without a word", "b"),
        ("a\nb\n", None, 30, "the guest hangs: it said nothing for 30 s", "b"),
        ("a\n", 1, 0, "QEMU ended with status 1: could not open", "a"),
        ("a\n", -9, 0, "QEMU ended with status -9", "a"),
    ],
)
def test_diagnose(console: str, rc: int | None, hung: float, first: str, shown: str) -> None:
    text = diagnose(console, rc, hung, "could not open")
    assert text.splitlines()[0].startswith(first)
    assert shown in text


def test_a_panic_is_shown_from_its_start() -> None:
    assert "test output" not in diagnose(OOPS, 0)


def test_tail() -> None:
    assert tail("\x1b[2Ja\r\n\n b \x1b[0m\nc\n", 2) == " b \nc"


@pytest.mark.parametrize("line", [b"garbage", b'{"no": "event"}', b"[1]", b"\xff\xfe", b'{"event": "repo'])
def test_what_is_no_event(line: bytes) -> None:
    assert parse_event(line) == {"event": "noise", "text": line.decode(errors="replace")}


def test_event() -> None:
    assert parse_event(b'{"event": "exit", "rc": 3}') == {"event": "exit", "rc": 3}


def test_a_machine_without_qemu_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name.startswith("qemu") else name)
    assert why_not() == "not installed: qemu-system-x86_64 (Debian's qemu-system-x86, e2fsprogs, mmdebstrap)"
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "x86_64" in why_not() and "aarch64" in why_not()


def test_kvm_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A /dev/kvm may be there and not work."""
    monkeypatch.delenv("PYRUN_VM_ACCEL", raising=False)
    assert acceleration()[1].startswith("tcg")
    monkeypatch.setenv("PYRUN_VM_ACCEL", "kvm")
    assert acceleration()[1] == "kvm"
    monkeypatch.setenv("PYRUN_VM_ACCEL", "warp")
    with pytest.raises(ValueError, match="PYRUN_VM_ACCEL=warp: tcg or kvm"):
        acceleration()


def test_required_files_follow_requirements() -> None:
    seen: set[str] = set()
    places = {str(place) for _, place in required_files("pytest", seen)}
    assert {"pytest/__init__.py", "_pytest/main.py", "pluggy/__init__.py", "iniconfig/__init__.py"} <= places
    assert "pluggy" in seen
