"""Imports go one way: errors < oci, facts < plan < executor < runtime < image < pod < cri < cli; cri_api and rpc below
pod and cri."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "pyrun"
LAYERS = [
    "errors",
    "inotify",
    "nft",
    "openat2",
    "listen",
    "memfd",
    "ending",
    "protowire",
    "rights",
    "tls",
    "cri_api",
    "http",
    "oci",
    "facts",
    "facts_rare",
    "facts_refused",
    "plan",
    "executor",
    "runtime",
    "rpc",
    "kube",
    "proxy",
    "dns",
    "image",
    "pod",
    "cri",
    "logs",
    "metrics",
    "web",
    "node",
    "kubelet",
    "dashboard",
    "cli",
]
# Below everything; they import nothing of ours.
LEAVES = {"pyrun"}


def layer_of(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] != "pyrun" or len(parts) < 2 or parts[1] not in LAYERS:
        return None
    return LAYERS.index(parts[1])


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, absolute module) of every import in a file, those inside functions too; type-checking ones count as
    well."""
    package = ["pyrun", *path.relative_to(PACKAGE).with_suffix("").parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}" if module == "pyrun" else module) for alias in node.names]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_upward_import(path: Path) -> None:
    own = layer_of(".".join(["pyrun", *path.relative_to(PACKAGE).with_suffix("").parts]))
    if own is None:
        assert path.name in ("__init__.py", "__main__.py"), f"{path.name} is in no layer"
        return
    upward = [f"line {line}: {module}" for line, module in imports_of(path) if (layer_of(module) or 0) > own]
    assert not upward, upward


def files_by_module() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["pyrun", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_no_circle() -> None:
    """No module comes to itself by what it imports, be it in a function or for the type checker."""
    files = files_by_module()
    needs = {name: {found for _, found in imports_of(path) if found in files} for name, path in files.items()}
    while free := {name for name, wanted in needs.items() if not wanted & needs.keys()}:
        needs = {name: wanted for name, wanted in needs.items() if name not in free}
    assert not needs, f"in a circle, or above one: {sorted(needs)}"


def test_planners_read_nothing() -> None:
    """The planner's modules import no module that could read the host."""
    readers = {"os", "posix", "pathlib", "subprocess", "socket", "pwd", "grp", "io", "time", "resource"}
    for path in (PACKAGE / "plan").rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        # Constants are no reading: from posix import O_DIRECTORY.
        constants = {n.lineno for n in tree if isinstance(n, ast.ImportFrom) and all(a.name.isupper() for a in n.names)}
        used = {module.split(".")[0] for line, module in imports_of(path) if line not in constants} & readers
        assert not used, f"{path.name}: {used}"
