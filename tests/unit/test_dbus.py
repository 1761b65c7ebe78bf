"""What dbus.py writes and reads, against jeepney's; test_systemd.py drives a real bus with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from jeepney.low_level import Endianness, parse_signature

from pyrun.runtime import dbus
from tests.support.properties import given

PROPERTIES = [("Slice", ("s", "ä.slice")), ("PIDs", ("au", [1, 2])), ("Delegate", ("b", True))]
UNITS: tuple[Any, ...] = ("p-n.scope", "replace", PROPERTIES, [])
VALUES: list[tuple[str, tuple[Any, ...]]] = [
    ("ssa(sv)a(sa(sv))", UNITS),
    ("yqnuitxdogb", (1, 2, -3, 4, -5, 6, -7, 1.5, "/a/b", "a{sv}", False)),
    ("aayas", ([[1, 2], [], [3]], ["", "x"])),
    ("va(sv)", (("v", ("t", 1 << 40)), [])),
]


@pytest.mark.parametrize(("signature", "values"), VALUES)
def test_bytes_are_those_of_a_library(signature: str, values: tuple[Any, ...]) -> None:
    made = bytearray()
    dbus.put_all(made, signature, values)
    tree = parse_signature(list(f"({signature})"))
    theirs, _ = tree.parse_data(bytes(made), 0, Endianness.little)
    assert bytes(made) == tree.serialise(theirs, 0, Endianness.little)
    assert dbus.get_all(bytes(made), 0, signature)[0] == values


@given(st.binary(max_size=200), st.sampled_from([signature for signature, _ in VALUES]))
def test_damage_is_a_value_error_or_a_value(data: bytes, signature: str) -> None:
    try:
        dbus.get_all(data, 0, signature)
    except (ValueError, IndexError, KeyError):
        pass


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("unix:path=/run/user/7/bus", "/run/user/7/bus"),
        ("tcp:host=h;unix:guid=1,path=/a%20b%c3%a4", "/a bä"),
        ("unix:abstract=x,guid=2", "\0x"),
    ],
)
def test_addresses(address: str, name: str) -> None:
    assert dbus.socket_name(address) == name


def test_the_users_bus_without_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """conmon starts the runtime so."""
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert dbus.user_address() == "unix:path=/run/user/7/bus"
