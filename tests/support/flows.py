"""Scenarios of tests/unit/flows: objects, and what becomes of packets by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pyrun.cli import parse
from pyrun.cli.commands.proxy_trace import given, target
from pyrun.cli.main import Globals
from pyrun.kube.addresses import parse_address, port_text
from pyrun.kube.manifest import load
from pyrun.proxy.files import Files
from pyrun.proxy.model import Node, Options
from pyrun.proxy.rules import ACTIONS, FORWARD, Key
from pyrun.proxy.trace import Verdict

FLOWS = Path(__file__).resolve().parents[1] / "unit" / "flows"
WHO = {
    "pod": "10.0.0.2",
    "node": "192.168.0.2",
    "other": "192.168.1.2",
    "outside": "203.0.113.2",
    "blocked": "203.0.113.130",
    "pod6": "fd00:10::2",
    "node6": "2001:db8::1",
    "other6": "2001:db8:1::2",
    "outside6": "2600:5200::1",
    "blocked6": "2600:5201::1",
}
BASE = {
    "--node": ["n1"],
    "--node-ip": ["192.168.0.2", "192.168.1.2", "2001:db8::1", "2001:db8:1::2"],
    "--cluster-cidr": ["10.0.0.0/8", "fd00:10::/64"],
    "--service-cidr": ["172.30.0.0/16", "fd00:172:30::/112"],
}


class Scenario(NamedTuple):
    """options: words of the command line. flows: {(client, `to`): what is right}, in a word or two and endpoints."""

    name: str
    path: Path
    options: list[str]
    flows: dict[tuple[str, str], str]

    def read(self) -> tuple[Files, Node, Options]:
        """As `pyrun proxy trace` reads it, without its warnings."""
        call = parse.parse(["proxy", "trace", "--objects", str(self.path), *self.options])
        return given(_Silent(), call.options)


class _Silent(Globals):
    """Tells nobody what is wrong with objects: of some scenarios that is what they are for."""

    def warn(self, text: str) -> None: ...


def scenarios() -> list[Scenario]:
    """Each file as it is, and with each of its variants."""
    found = []
    for path in sorted(FLOWS.glob("*.yaml")):
        said = next(one.value for one in load(str(path)) if one.value["kind"] == "Flows")
        options, flows = said.get("options", []), _flows(said["flows"])
        found.append(Scenario(path.stem, path, _words(options), flows))
        for number, variant in enumerate(said.get("variants", [])):
            changed = _flows(variant["flows"])
            unknown = changed.keys() - flows.keys()
            assert not unknown, f"{path.name} has variants of flows that it has not: {unknown}"
            words = _words([*options, *variant["options"]], variant["options"])
            found.append(Scenario(f"{path.stem}-{number + 1}", path, words, {**flows, **changed}))
    return found


def _words(options: list[str], last: list[str] | None = None) -> list[str]:
    """Options over those that all scenarios have; of one that is in both lists those of `last` count."""
    chosen = {name: list(values) for name, values in BASE.items()}
    chosen |= _pairs(options) | _pairs(last or [])
    made: list[str] = []
    for name, values in chosen.items():
        for value in values:
            made += [name, value]
        if not values:
            made.append(name)  # a flag
    return made


def _pairs(options: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in options:
        if word.startswith("--"):
            name = word
            found.setdefault(name, [])
        else:
            found[name].append(word)
    return found


def _flows(text: str) -> dict[tuple[str, str], str]:
    found = {}
    for line in text.splitlines():
        source, to, right = line.split(maxsplit=2)
        assert (source, to) not in found, f"twice: {line}"
        found[source, to] = right
    return found


def packet(flow: tuple[str, str]) -> tuple[bytes, Key]:
    return parse_address(WHO.get(flow[0], flow[0])), target(flow[1])


def words_of(verdict: Verdict) -> str:
    """A verdict as the files have it."""
    if verdict.action != FORWARD:
        return ACTIONS[verdict.action]
    some = sorted(port_text(each.address, each.port) for each in verdict.endpoints)
    return " ".join(["masq" if verdict.masquerade else "keep", *some])


def right_of(words: str) -> str:
    """What is right, with endpoints in the order of words_of()."""
    first, *endpoints = words.split()
    return " ".join([first, *sorted(endpoints)])


def to_json(verdict: Any) -> str:
    """What `--format json` says, in the files' words."""
    if verdict["action"] != "forward":
        return str(verdict["action"])
    return " ".join(["masq" if verdict["masquerade"] else "keep", *sorted(verdict["endpoints"])])
