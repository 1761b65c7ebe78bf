"""Rules as records: golden bytes, and that C lays them out alike."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import pytest

from pyrun.errors import PyrunError
from pyrun.proxy import encode, messages
from pyrun.proxy import ready as ready_module
from pyrun.proxy.carriers import UserSpace
from pyrun.proxy.ready import Ready
from pyrun.proxy.rules import DROP, FORWARD, TCP, UDP, Change, Choice, Endpoint, EndpointSet, Frontend, Rules

WIRE = Path(__file__).resolve().parents[2] / "cffi_build" / "dataplane" / "wire.h"

RULES = Rules(
    frontends=(
        Frontend("a", TCP, bytes([10, 96, 0, 1]), 80, (Choice((), FORWARD, "web", True),), affinity=10800),
        Frontend(
            "b",
            UDP,
            bytes.fromhex("fd000000000000000000000000000001"),
            53,
            (Choice(((bytes([10, 0, 0, 0]), 8),), FORWARD, "web"), Choice((), DROP)),
        ),
    ),
    sets=(EndpointSet("web", (Endpoint(bytes([10, 1, 0, 2]), 8080), Endpoint(bytes([10, 1, 0, 3]), 81, *[True] * 3))),),
)
MAPPED = "00000000000000000000ffff"


def test_an_image_is_these_bytes() -> None:
    number = struct.pack("<Q", encode.set_number("web")).hex()
    assert encode.encode_rules(RULES, 7).hex() == (
        "50584450" "0100" "0100" "0700000000000000" "0000000000000000"
        "01000000" "02000000" "02000000" "03000000" "01000000" "00000000"
        + number + "00000000" "02000000" "00000000" "00000000"
        + MAPPED + "0a010002" "901f" "0000" "00000000"
        + MAPPED + "0a010003" "5100" "0300" "00000000"
        + MAPPED + "0a600001" "5000" "06" "00" "302a0000" "00000000" "01000000"
        "fd000000000000000000000000000001" "3500" "11" "00" "00000000" "01000000" "02000000"
        + number + "00000000" "00000000" "00" "01" "0000" "00000000"
        + number + "00000000" "01000000" "00" "00" "0000" "00000000"
        "0000000000000000" "01000000" "00000000" "02" "00" "0000" "00000000"
        + MAPPED + "0a000000" "68" "000000"
    )  # fmt: skip


def test_endpoints_of_any_kind_are_records_one_after_another() -> None:
    """By column where they are of one family, else one by one."""
    four = [Endpoint(bytes([10, 1, 2, at]), 8080 + at, at != 1, at == 2, at > 1) for at in range(4)]
    six = [Endpoint(bytes(range(at, at + 16)), 53, False, at == 1, at == 0) for at in range(3)]
    for some in ([], four, six, four + six):
        found = EndpointSet("x", tuple(some))
        assert found.count == len(some) and found.endpoints == tuple(some)
        assert encode._endpoints(found) == b"".join(map(encode._endpoint, some))


def test_what_is_ready_is_all_there_is() -> None:
    """As it was told, and what has changed since: each once, as it is now."""
    ready = Ready()
    assert ready.whole == -1
    ready.begin(encode.encode_rules(RULES, 7))
    first, second = RULES.frontends
    other = EndpointSet("other", RULES.sets[0].endpoints)
    ready.note(Change(sets_put=(other,), frontends_gone=(first.key,)))
    ready.note(Change(sets_gone=("other",), frontends_put=(first, second)))
    assert ready.since() == Change(sets_gone=("other",), frontends_put=(first, second))
    assert os.pread(ready.whole, 1 << 16, 0) == encode.encode_rules(RULES, 7)
    with pytest.raises(PermissionError):
        os.write(ready.whole, b"x")
    ready.begin(encode.encode_rules(RULES, 8))
    assert not ready.since()
    ready.close()


def test_what_is_ready_stays_so_where_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next data plane began without any rules."""
    ready = Ready()
    ready.begin(encode.encode_rules(RULES, 7))
    ready.note(Change(sets_gone=("other",)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", lambda *_: os.open("/nowhere/at/all", os.O_RDONLY))
        with pytest.raises(PyrunError, match="memory for rules"):
            ready.begin(encode.encode_rules(RULES, 8))
    assert os.pread(ready.whole, 1 << 16, 0) == encode.encode_rules(RULES, 7) and ready.since()
    ready.close()


def test_what_has_changed_since_stays_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services come and go for months, and what is put together while nobody is served has a bound."""
    monkeypatch.setattr(ready_module, "MOST", 10)
    told: list[Change] = []
    plane = SimpleNamespace(change=told.append, generation=9)
    fake = SimpleNamespace(_lock=Lock(), _plane=plane, _ready=Ready(), _own_rules=lambda: RULES, _told=print)
    fake._ready.begin(encode.encode_rules(RULES, 7))
    for number in range(100):
        UserSpace._tell(fake, Change(sets_put=(EndpointSet(f"s{number}", ()),), sets_gone=(f"s{number - 1}",)))  # type: ignore[arg-type]
        since = fake._ready.since()
        assert len(since.sets_put) + len(since.sets_gone) <= 10
    assert len(told) == 100
    assert os.pread(fake._ready.whole, 1 << 16, 0) == encode.encode_rules(RULES, 9)
    fake._ready.close()


def test_a_set_keeps_its_number() -> None:
    """It is what a data plane that outlived us knows the set by."""
    assert encode.set_number("web") == 0x7496A59A64098050


def test_a_change_names_what_is_gone_and_what_it_changes() -> None:
    change = Change(frontends_gone=(RULES.frontends[0].key,), sets_gone=("web",))
    image = encode.encode_change(change, 8, 7)
    magic, version, flags, generation, base, n_sets, n_endpoints, n_frontends, *_ = encode.HEAD.unpack_from(image)
    assert (magic, version, flags, generation, base) == (encode.MAGIC, encode.VERSION, 0, 8, 7)
    assert (n_sets, n_endpoints, n_frontends) == (1, 0, 1)
    assert encode.SET.unpack_from(image, encode.HEAD.size)[3] == encode.GONE


def test_two_sets_of_one_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "set_number", lambda key: 1)
    with pytest.raises(PyrunError, match="a and b have the same number"):
        encode.encode_rules(Rules(sets=(EndpointSet("a", ()), EndpointSet("b", ()))), 1)


def test_addresses_are_wide_and_narrow_again() -> None:
    for address in (bytes([10, 0, 0, 1]), bytes(range(16))):
        assert len(encode.wide(address)) == 16 and encode.narrow(encode.wide(address)) == address


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("image", encode.HEAD.size),
        ("set", encode.SET.size),
        ("endpoint", encode.ENDPOINT.size),
        ("frontend", encode.FRONTEND.size),
        ("choice", encode.CHOICE.size),
        ("prefix", encode.PREFIX.size),
        ("request", messages.REQUEST.size),
        ("reply", messages.REPLY.size),
        ("state", messages.STATE.size),
        ("settings", messages.SETTING.size),
        ("counters", messages.COUNTERS_HEAD.size),
        ("frontend_counters", messages.FRONTEND.size),
        ("endpoint_counters", messages.ENDPOINT.size),
    ],
)
def test_records_are_as_long_as_in_c(name: str, size: int) -> None:
    """wire.h asserts these to the compiler."""
    assert re.search(rf"sizeof\(struct wire_{name}\) == {size}\b", WIRE.read_text())


def test_kinds_are_numbered_as_in_c() -> None:
    numbers = {name: int(n) for name, n in re.findall(r"WIRE_(\w+) = (\d+)\b", WIRE.read_text())}
    kinds = {name: n for name, n in numbers.items() if name not in ("MAGIC", "VERSION", "MESSAGE", "FDS")}
    assert len(kinds) == 19 and kinds == {name: getattr(messages, name) for name in kinds}
