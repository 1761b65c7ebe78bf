"""Verbs that need no container: spec, features, validate, and what list, ps, update and state print."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.commands import list as list_
from pyrun.cli.commands import ps, spec, update
from pyrun.cli.commands.features import features
from pyrun.cli.main import main
from pyrun.cli.output import columns, compact, indented
from pyrun.cli.parse import parse
from pyrun.errors import PyrunError
from pyrun.oci.load import load_bytes, load_resources

REPO = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).parent / "oci-schema"
VALUES: list[Any] = [
    {},
    [],
    {"a": {}, "b": [], "c": None, "d": True, "e": False, "f": -1, "g": 1.5},
    [{"a": [1, [2, {"b": 'ä\n"\\'}]]}],
    "\u2028\x7f\x00",
    [0.0, 12345678901234567890],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_is_jsons(value: Any) -> None:
    assert compact(value) == json.dumps(value, separators=(",", ":"))
    assert indented(value) == json.dumps(value, indent=2)
    assert indented(value, "\t") == json.dumps(value, indent="\t")


def test_columns_are_tabwriters() -> None:
    assert columns([("ID", "PID", "OWNER"), ("a-rather-long-id", "0", "root"), ("b", "1234567890", "#5")]) == (
        "ID                 PID          OWNER\n"
        "a-rather-long-id   0            root\n"
        "b                  1234567890   #5\n"
    )
    assert columns([("ID", "PID", "OWNER")]) == "ID          PID         OWNER\n"


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_match_the_official_schema(capfd: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    documents = {path.name: json.loads(path.read_text()) for path in SCHEMA.glob("*.json")}
    resources = {
        n: referencing.Resource(contents=d, specification=referencing.jsonschema.DRAFT4) for n, d in documents.items()
    }
    registry = referencing.Registry().with_resources(resources.items())
    validator = jsonschema.Draft4Validator(documents["features-schema.json"], registry=registry)
    assert main(["features"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert [error.message for error in validator.iter_errors(said)] == []
    wrong = {**said, "linux": {**said["linux"], "namespaces": ["nosuch"]}}
    assert list(validator.iter_errors(wrong))


def test_features_say_what_the_loader_takes() -> None:
    said = features()
    linux = said["linux"]
    assert said["ociVersionMin"] == "1.0.0"
    assert said["ociVersionMax"] == "1.3.0"
    assert linux["cgroup"]["v1"] is False
    assert {"rro", "ridmap", "tmpcopyup", "rprivate", "nosymfollow"} <= set(said["mountOptions"])
    assert len(linux["capabilities"]) == 41
    config = spec.default_config()
    config["linux"]["namespaces"] = [{"type": kind} for kind in linux["namespaces"] if kind not in ("user", "time")]
    config["process"]["capabilities"]["bounding"] = linux["capabilities"]
    loaded = load_bytes(json.dumps(config).encode())
    assert loaded.process is not None and loaded.process.capabilities is not None
    assert loaded.process.capabilities.ignored == ()


# --- spec -------------------------------------------------------------------------------------------------------------


def test_spec_writes_a_config_that_is_valid(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "--bundle", str(tmp_path)]) == 0
    text = (tmp_path / "config.json").read_text()
    assert text == json.dumps(json.loads(text), indent="\t") + "\n"
    assert main(["validate", str(tmp_path)]) == 0
    assert capfd.readouterr().out == f"{tmp_path}/config.json: no faults\n"


def test_spec_does_not_overwrite(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("mine")
    assert main(["spec", "-b", str(tmp_path)]) == 1
    assert (tmp_path / "config.json").read_text() == "mine"
    assert "exists" in capfd.readouterr().err


def test_spec_without_a_bundle_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["spec", "-b", str(tmp_path / "none")]) == 1
    assert "no such file or directory" in capfd.readouterr().err


def test_spec_is_runcs(tmp_path: Path) -> None:
    try:
        subprocess.run(["runc", "spec"], cwd=tmp_path, check=True)
    except FileNotFoundError:
        pytest.skip("needs runc")
    theirs = json.loads((tmp_path / "config.json").read_text())
    ours = spec.default_config()
    for config in (ours, theirs):
        for name in ("ociVersion", "hostname"):
            del config[name]
        # runc before 1.2 gave the ambient set too, which nobody can hold without the inheritable one.
        config["process"]["capabilities"].pop("ambient", None)
        config["linux"]["namespaces"] = [ns for ns in config["linux"]["namespaces"] if ns["type"] != "cgroup"]
        config["linux"]["maskedPaths"] = sorted(config["linux"]["maskedPaths"])
    assert ours == theirs


def test_rootless_spec(tmp_path: Path) -> None:
    config = spec.default_config()
    spec.make_rootless(
        config, [{"containerID": 0, "hostID": 1000, "size": 1}], [{"containerID": 0, "hostID": 100, "size": 1}]
    )
    loaded = load_bytes(json.dumps(config).encode())
    assert loaded.linux is not None
    kinds = [namespace.type for namespace in loaded.linux.namespaces]
    assert "user" in kinds
    assert "network" not in kinds
    assert loaded.linux.resources is None
    assert loaded.linux.uid_mappings[0].host_id == 1000
    assert loaded.linux.gid_mappings[0].host_id == 100
    (sys,) = [mount for mount in loaded.mounts if mount.destination == "/sys"]
    assert (sys.source, sys.type, sys.options[0]) == ("/sys", "none", "rbind")
    assert not [option for mount in loaded.mounts for option in mount.options if option.startswith(("uid=", "gid="))]


@pytest.mark.parametrize(
    ("table", "helper", "ranges"),
    [
        ("me:100000:65536\n", True, [(100000, 65536)]),
        ("other:5:5\n1234:200000:10\n", True, [(200000, 10)]),
        ("me:100000:65536\n", False, []),
        ("other:100000:65536\n", True, []),
        ("me:x:1\nme:5\n\n", True, []),
        (None, True, []),
    ],
)
def test_rootless_id_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str | None, helper: bool, ranges: list[tuple[int, int]]
) -> None:
    if table is not None:
        (tmp_path / "subuid").write_text(table)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(spec, "_names", lambda uid: ("me", str(uid)))
    monkeypatch.setattr(spec.shutil, "which", lambda name: f"/usr/bin/{name}" if helper else None)  # type: ignore[attr-defined]
    maps = spec.id_maps(1234, "uid", str(tmp_path))
    assert maps[0] == {"containerID": 0, "hostID": 1234, "size": 1}
    assert [(m["hostID"], m["size"]) for m in maps[1:]] == ranges
    assert all(m["containerID"] == 1 for m in maps[1:])


# --- validate ---------------------------------------------------------------------------------------------------------


def test_validate_says_all_faults(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = spec.default_config()
    config["process"]["cwd"] = "relative"
    config["mounts"][1]["options"] = [5]
    del config["ociVersion"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert main(["validate", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert [line.split(": ")[0].removeprefix(f"{path} ") for line in out.splitlines()] == [
        "/process/cwd",
        "/mounts/1/options/0",
        "/ociVersion",
    ]
    assert f"3 faults in {path}" in err
    assert main(["validate", "--format", "json", "--config", str(path)]) == 1
    assert {fault["pointer"] for fault in json.loads(capfd.readouterr().out)} == {
        "/process/cwd",
        "/mounts/1/options/0",
        "/ociVersion",
    }
    # More than an error message would show.
    path.write_text(json.dumps({**config, "mounts": [{}] * 200}))
    assert main(["validate", str(path)]) == 1
    assert len(capfd.readouterr().out.splitlines()) > 200


def test_validate_of_what_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)]) == 1
    assert "no such file or directory" in capfd.readouterr().err


# --- list, ps, update -------------------------------------------------------------------------------------------------


def test_an_empty_list(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    assert main(["--root", root, "list"]) == 0
    assert capfd.readouterr().out == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert main(["--root", root, "list", "--format", "json"]) == 0
    assert capfd.readouterr().out == "[]\n"
    assert main(["--root", root, "list", "-q"]) == 0
    assert capfd.readouterr().out == ""


def test_a_container_is_listed_as_json_without_spaces() -> None:
    state = {"id": "one", "pid": 7, "annotations": {'a": "b': ': "', "back\\\\": "x: y"}, "owner": "root"}
    assert list_._on_one_line(json.dumps(state, indent=2)) == json.dumps(state, separators=(",", ":"))


def test_a_root_that_was_named_must_be_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path / "typo"), "list"]) == 1
    assert "no such file or directory" in capfd.readouterr().err


def test_a_damaged_container_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hurt").mkdir()
    (tmp_path / "hurt" / "record").write_bytes(b"not a record")
    assert main(["--root", str(tmp_path), "list"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("ID ")
    assert "hurt" in err


PS = """\
UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 /sbin/init
root          12       1  0 10:00 ?        00:00:00 sh -c 1
root         123       1  0 10:00 ?        00:00:00 sleep 12
"""


@pytest.mark.parametrize(("pids", "kept"), [([12], [0, 2]), ([1, 123], [0, 1, 3]), ([], [0]), ([2], [0])])
def test_ps_keeps_the_rows_of_the_container(pids: list[int], kept: list[int]) -> None:
    assert ps.filtered(PS, pids).splitlines() == [PS.splitlines()[i] for i in kept]


def test_ps_without_pids_is_an_error() -> None:
    with pytest.raises(PyrunError, match="PID"):
        ps.filtered("UID CMD\nroot sh\n", [1])


def resources(line: str) -> dict[str, Any]:
    document = update.from_options(parse(["update", *line.split(), "c1"]).options)
    load_resources(json.dumps(document).encode())
    return document


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("", {}),
        ("--memory 512M", {"memory": {"limit": 512 << 20}}),
        ("--memory -1 --memory-swap -1", {"memory": {"limit": -1, "swap": -1}}),
        ("--memory-reservation 1k", {"memory": {"reservation": 1024}}),
        ("--pids-limit 0", {"pids": {"limit": 0}}),
        ("--pids-limit -1", {"pids": {"limit": -1}}),
        ("--cpu-quota -1 --cpu-period 1000", {"cpu": {"quota": -1, "period": 1000}}),
        ("--cpu-share 512 --cpu-burst 5 --cpu-idle 0", {"cpu": {"shares": 512, "burst": 5, "idle": 0}}),
        ("--cpu-idle 1 --cpuset-cpus 0-1 --cpuset-mems 0", {"cpu": {"idle": 1, "cpus": "0-1", "mems": "0"}}),
        ("--blkio-weight 100", {"blockIO": {"weight": 100}}),
        # dockerd and others pass zeros for what they leave alone
        ("--cpu-period 0 --cpu-quota 0 --cpu-share 0 --memory 0 --blkio-weight 0 --cpuset-cpus=", {}),
    ],
)
def test_update_options_become_resources(line: str, wanted: dict[str, Any]) -> None:
    assert resources(line) == wanted


def test_exec_needs_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "c1"]) == 1
    assert "COMMAND is missing" in capfd.readouterr().err


def test_no_pivot_is_refused_with_the_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for verb in ("create", "run"):
        assert main(["--root", str(tmp_path / "r"), verb, "--no-pivot", "c1"]) == 1
        assert "--no-pivot is not supported" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_PYRUN_COMPLETE" in capfd.readouterr().out


def test_completion_of_another_shell(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 1
    assert "bash, zsh, fish" in capfd.readouterr().err


def test_help_of_a_verb(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "kill"]) == 0
    assert "Usage: pyrun kill" in capfd.readouterr().out
    assert main(["help", "nosuch"]) == 1
    assert 'no verb "nosuch"' in capfd.readouterr().err


@pytest.mark.parametrize("verb", ["run", "create"])
def test_a_bundles_path_in_place_of_an_id(verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "hello"
    bundle.mkdir()
    root = str(tmp_path / "state")
    assert main(["--root", root, verb, f"{bundle}/"]) == 1
    assert "did you mean" not in capfd.readouterr().err  # it is none
    (bundle / "config.json").write_text("{}")
    assert main(["--root", root, verb, f"{bundle}/"]) == 1
    assert f"did you mean --bundle {bundle} hello?" in capfd.readouterr().err


def test_help_of_run_says_that_process_1_ignores_signals(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    assert "drops each signal that process 1 does not" in " ".join(capfd.readouterr().out.split())
