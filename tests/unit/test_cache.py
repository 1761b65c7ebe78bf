"""Kept plans: a filled one is, byte for byte, what would be planned now; nothing that plans depend on is forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pyrun.facts import Facts
from pyrun.plan.model.request import Request
from pyrun.runtime import cache, create
from pyrun.runtime.create import Prepared, prepare
from pyrun.runtime.store import Store
from tests.support.container.bundle import make_config

HOOK = {"path": "/bin/true", "args": ["true", "x"], "env": ["A=1"], "timeout": 3}
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "annotations": {"annotations": {"a": "aaaa", "b": "2026-01-01T00:00:00.000000000Z", "bb": "\u0001\u0002é"}},
    "cgroup": {"linux": {"cgroupsPath": "/some/aaaa"}},
    "relative cgroup": {"linux": {"cgroupsPath": "beside/aaaa"}},
    "devices": {"linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}},
    "limits": {"linux": {"resources": {"pids": {"limit": 100}, "memory": {"limit": 1 << 30}}}},
    "hooks": {"hooks": {kind: [HOOK] for kind in ("prestart", "createRuntime", "createContainer", "startContainer")}},
    "poststop": {"hooks": {"poststart": [HOOK], "poststop": [HOOK, HOOK]}},
    "user namespace": {
        "linux": {
            "namespaces": [{"type": t} for t in ("user", "pid", "mount", "network", "uts")],
            "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        }
    },
    "binds": {"mounts": [{"destination": f"/m{i}", "source": "/tmp", "type": "bind"} for i in range(30)]},
    "seccomp": {
        "linux": {
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            }
        }
    },
}
IDS = ("aaaa", "bbbb", "9-+_", "abab", "init", "true")


@pytest.fixture(autouse=True)
def facts(monkeypatch: pytest.MonkeyPatch) -> Facts:
    """The host as planning sees it: always the same."""
    made = Facts(
        controllers=frozenset(("cpu", "io", "memory", "pids")), cgroup_own="/own/init", arch=os.uname().machine
    )
    monkeypatch.setattr(create, "collect_facts", lambda rootless=None: made)
    return made


def write_bundle(directory: Path, overrides: dict[str, Any]) -> Path:
    directory.mkdir()
    path = directory / "config.json"
    path.write_text(json.dumps(make_config(**overrides)))
    os.utime(path, (1e9, 1e9))
    return directory


def prepare_two(tmp_path: Path, first: str, second: str, overrides: dict[str, Any]) -> tuple[Store, Prepared, Prepared]:
    bundle = write_bundle(tmp_path / "bundle", overrides)
    store = Store("/run/some root")
    words: dict[str, Any] = {"pid_file": "/run/aaaa.pid"}
    return store, prepare(store, first, str(bundle), **words), prepare(store, second, str(bundle), **words)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("id", IDS)
def test_a_filled_plan_is_what_is_planned(tmp_path: Path, name: str, id: str) -> None:
    store, first, fresh = prepare_two(tmp_path, "aaaa" if id != "aaaa" else "qqqq", id, CONFIGS[name])
    second = create._plan_for(store, first, cache.other_id(first.request.id))
    entry = cache.make_entry(store.root, first, second)
    assert entry is not None
    assert cache.fill(entry.plan, entry.holes, fresh) == fresh.plan.encode()
    assert sum(kind == cache.ID for _, kind in entry.holes) >= 8


@pytest.mark.parametrize("park", [True, False])
def test_how_it_is_begun_is_part_of_the_key(tmp_path: Path, park: bool) -> None:
    bundle = str(write_bundle(tmp_path / "bundle", {}))
    store = Store("/run/x")
    words: list[dict[str, Any]] = [{}, {"keyring": False}, {"pid_file": "p"}, {"pid_file": "q"}]
    ways = [{**w, "park": p} for w in words for p in (park, not park)] + [{"park": False, "subreaper": True}]
    keys = {cache.key_of(store.root, prepare(store, "aaaa", bundle, **way).request) for way in ways}
    keys.add(cache.key_of("/run/y", prepare(store, "aaaa", bundle).request))
    keys.add(cache.key_of(store.root, prepare(store, "aaaaa", bundle).request))
    assert len(keys) == len(ways) + 2


def test_plans_that_differ_elsewhere_are_not_kept(tmp_path: Path) -> None:
    store, first, _ = prepare_two(tmp_path, "aaaa", "bbbb", {})
    other = make_config(hostname="nurup")
    (Path(first.request.bundle) / "config.json").write_text(json.dumps(other))
    second = prepare(store, "bbbb", first.request.bundle, pid_file="/run/aaaa.pid")
    assert len(second.plan.encode()) == len(first.plan.encode())
    assert cache.make_entry(store.root, first, second) is None


def test_an_id_that_stands_elsewhere_too_is_left_there(tmp_path: Path) -> None:
    """The config has "pyrun" as its host name, and so has the container."""
    store, first, fresh = prepare_two(tmp_path, "pyrun", "other", {})
    second = create._plan_for(store, first, cache.other_id("pyrun"))
    entry = cache.make_entry(store.root, first, second)
    assert entry is None or cache.fill(entry.plan, entry.holes, fresh) == fresh.plan.encode()


def test_every_fact_is_a_condition() -> None:
    assert set(cache.COVERED) == set(Facts.__slots__), "say in cache.py which condition holds a new fact"
    known = {*cache.FILES, *(path for path, _ in cache.LINES), "SAME_PLACE", "SAME_FILE", "cgroup.controllers"}
    assert set(cache.COVERED.values()) - known == {"root has none", "no plan that needs it is kept"}


def test_every_word_of_a_request_is_keyed_or_must_be_plain(tmp_path: Path) -> None:
    _, first, _ = prepare_two(tmp_path, "aaaa", "bbbb", {})
    assert cache.worth_keeping(first)
    for name in set(Request.__slots__) - set(cache._IN_KEY):
        plain = getattr(first.request, name)
        setattr(first.request, name, 1)
        assert not cache.worth_keeping(first), name
        setattr(first.request, name, plain)
    assert cache.worth_keeping(first)


@pytest.mark.parametrize(
    "change", [{"euid": 1000}, {"rootless": True}, {"in_userns": True}, {"cgroup_mount": "/elsewhere"}]
)
def test_only_the_plain_case_is_kept(tmp_path: Path, facts: Facts, change: dict[str, Any]) -> None:
    _, first, _ = prepare_two(tmp_path, "aaaa", "bbbb", {})
    for name, value in change.items():
        setattr(facts, name, value)
    assert not cache.worth_keeping(first)


def test_a_config_that_was_just_written_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, first, _ = prepare_two(tmp_path, "aaaa", "bbbb", {})
    kept = []
    monkeypatch.setattr(cache, "keep", lambda root, first, second: kept.append(second.request.id))
    create.keep_for_launcher(store, first)
    assert kept == [cache.other_id("aaaa")]
    os.utime(Path(first.request.bundle) / "config.json")
    create.keep_for_launcher(store, first)
    (Path(first.request.bundle) / "config.json").unlink()
    create.keep_for_launcher(store, first)
    assert len(kept) == 1


def test_the_number_of_entries_is_bounded(tmp_path: Path) -> None:
    directory = str(tmp_path / "plans")
    for i in range(3 * cache.MOST_ENTRIES):
        assert cache._write(directory, f"{i:016x}", b"x")
        assert len(os.listdir(directory)) <= cache.MOST_ENTRIES
    assert os.stat(directory).st_mode & 0o777 == 0o700


def test_nothing_is_written_where_others_could_write(tmp_path: Path) -> None:
    directory = tmp_path / "plans"
    directory.mkdir(mode=0o700)
    directory.chmod(0o770)
    assert not cache._write(str(directory), "0" * 16, b"x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "plans")
    directory.chmod(0o700)
    assert not cache._write(str(link), "0" * 16, b"x")
