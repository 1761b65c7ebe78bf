"""What the hot verbs import. An import of any of these modules costs more than the kernel's part of a container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import _cffi_backend  # type: ignore[import-untyped]
import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGES = str(Path(_cffi_backend.__file__).parent)
FAT = {
    "argparse",
    "asyncio",
    "click",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "datetime",
    "email",
    "enum",
    "functools",
    "importlib.metadata",
    "inspect",
    "json",
    "jsonschema",
    "logging",
    "pathlib",
    "re",
    "selectors",
    "shutil",
    "signal",
    "site",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "typing",
    "urllib",
    "uuid",
}
MISSING = "no-such-container"

# Runs a command line as __main__.py does and prints its status and what is loaded then. `more` is done afterwards.
HARNESS = """
import sys
sys.path.insert(0, {repo!r})
sys.path.append({packages!r})
from pyrun.cli.main import main
code = main({argv!r})
{more}
loaded = sorted(sys.modules)
import json
print(json.dumps([code, loaded]))
"""
# A create up to its first step: the plan, encoded, and the executor's C module.
PLAN = """
from pyrun.executor import native
from pyrun.runtime.prepare import prepare
from pyrun.runtime.store import Store
prepare(Store({root!r}), "c1", {bundle!r}).plan.encode()
native()
"""


def loaded_by(argv: list[str], more: str = "") -> tuple[int, set[str]]:
    source = HARNESS.format(repo=str(REPO), packages=PACKAGES, argv=argv, more=more)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", source], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / "state").mkdir()
    return str(tmp_path / "state")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["create", "--bundle", "/nonexistent", "c1"], 1),
        (["run", "--bundle", "/nonexistent", "c1"], 1),
        (["start", MISSING], 1),
        (["state", MISSING], 1),
        (["kill", MISSING, "KILL"], 1),
        (["delete", MISSING], 1),
        (["delete", "--force", MISSING], 0),
        (["exec", MISSING, "true"], 1),
        (["list"], 0),
        (["list", "--format", "json"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_hot_verbs_stay_lean(root: str, argv: list[str], code: int) -> None:
    got, modules = loaded_by(["--root", root, *argv])
    assert modules & FAT == set()
    assert got == code
    assert f"pyrun.cli.commands.{argv[0]}" in modules
    commands = {name for name in modules if name.startswith("pyrun.cli.commands.")}
    assert commands <= {f"pyrun.cli.commands.{argv[0]}", "pyrun.cli.commands.create"}
    # Half of the planner's code, which only these two run.
    assert ("pyrun.plan.create" in modules) == (argv[0] in ("create", "run"))


def test_a_create_that_plans_stays_lean(root: str) -> None:
    bundle = REPO / "bundles" / "hello"
    _, modules = loaded_by(["--root", root, "state", MISSING], PLAN.format(root=root, bundle=str(bundle)))
    assert "pyrun.plan.create" in modules
    assert "_cffi_backend" in modules
    assert modules & FAT == set()
    # The error path's words cost nothing while all goes well.
    assert not modules & {f"pyrun.plan.words.{name}" for name in ("explain", "hints", "step_errors", "symbols")}


def test_the_check_can_fail(root: str) -> None:
    """A verb off the hot path does import what the others must not."""
    _, modules = loaded_by(["--root", root, "update", MISSING])
    assert "json" in modules & FAT


def test_parser_and_table_import_nothing_to_speak_of() -> None:
    _, modules = loaded_by(["--root", "/nonexistent/x", "list"])
    ours = {name for name in modules if name.startswith("pyrun")}
    assert len(ours) <= 16, sorted(ours)


PLANNED = """
import json, sys
from pyrun.cli.commands.planner import LATER
for name in LATER:
    __import__(name)
from pyrun.facts import Facts
from pyrun.runtime.prepare import Config, prepare
from pyrun.runtime.store import Store
before = set(sys.modules)
prepare(Store("/nonexistent"), "x", "/", Config(sys.stdin.buffer.read()), facts=Facts(), imagine=True)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
MAP = [{"containerID": 0, "hostID": 1000, "size": 10}]
RARE = {
    "ociVersion": "1.3.0",
    "root": {"path": "/r"},
    "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
    "hooks": {"prestart": [{"path": "/bin/true"}]},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "network", "cgroup", "pid", "user")],
        "uidMappings": MAP,
        "gidMappings": MAP,
        "personality": {"domain": "LINUX32"},
        "memoryPolicy": {"mode": "MPOL_LOCAL"},
        "netDevices": {"eth9": {}},
        "intelRdt": {"closID": "c"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    },
}


def test_a_planner_imports_nothing_while_a_caller_waits() -> None:
    """Nor what it would not see change."""
    command = [sys.executable, "-c", PLANNED]
    done = subprocess.run(command, cwd=REPO, input=json.dumps(RARE), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and json.loads(done.stdout) == [], done
