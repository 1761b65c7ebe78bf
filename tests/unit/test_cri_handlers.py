"""Runtime handlers in the configuration, and what their runtimes say of themselves."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pyrun.cri.config import load_configuration
from pyrun.errors import InvalidArgument
from pyrun.pod.handler.features import USUAL, read_features
from tests.support.container.runner import REPO


def test_configuration(tmp_path: Path) -> None:
    path = tmp_path / "pyrun.toml"
    path.write_text('strict_limits = true\n[runtimes.runc]\npath = "/usr/sbin/runc"\n[runtimes.crun-1]\npath = "/c"\n')
    assert load_configuration(str(path)).runtimes == {"runc": "/usr/sbin/runc", "crun-1": "/c"}


def test_the_page_has_every_key() -> None:
    """With its default, where that is not a list or of the node."""
    text = (REPO / "docs/cri.md").read_text().partition("## Configuration")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (`.*?) \| (.*?) \|", text, re.MULTILINE))
    told = {key: default for keys, default in rows.items() for key in re.findall(r"`([a-z_]+)`", keys)}
    made = load_configuration(None)
    keys = {item.name for item in fields(made)} - {"runtimes"}
    assert set(told) == keys
    for key in keys:
        value = getattr(made, key)
        word = str(value).lower() if isinstance(value, bool) else value
        assert not value or isinstance(value, tuple) or f"`{word}`" in told[key], key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('runtimes = "/usr/sbin/runc"', "runtimes must be tables"),
        ('[runtimes.pyrun]\npath = "/p"', "runtimes.pyrun: the name of a handler"),
        ('[runtimes.Runc]\npath = "/p"', "runtimes.Runc: the name of a handler"),
        ('[runtimes."../x"]\npath = "/p"', "the name of a handler"),
        ("[runtimes.runc]", "runtimes.runc has one key, path"),
        ('[runtimes.runc]\npath = "runc"', "an absolute path|the absolute path"),
        ('[runtimes.runc]\npath = "/p"\noptions = []', "runtimes.runc has one key, path"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "pyrun.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=said):
        load_configuration(str(path))


def test_features() -> None:
    old = read_features(json.dumps({"mountOptions": ["rro", "nosymfollow", 7], "linux": {"seccomp": {}}}), "runc 1.1")
    assert (old.version, old.recursive_read_only, old.idmap, old.user_namespaces) == ("runc 1.1", True, False, False)
    assert old.mount_options == USUAL | {"rro", "nosymfollow"}
    new = read_features('{"linux": {"mountExtensions": {"idmap": {"enabled": true}}}}', "")
    assert new.idmap and new.user_namespaces and not new.recursive_read_only


@pytest.mark.parametrize("text", ["", "unknown command features", "[]", '{"mountOptions": 3, "linux": []}', "null"])
def test_what_is_no_features_says_nothing(text: str) -> None:
    found = read_features(text, "crun 1.8")
    assert found.mount_options == USUAL and not (found.recursive_read_only or found.idmap or found.user_namespaces)
