"""Makes pyrun/kube/objects/*.py out of lightkube-models (PyPI, MIT), which has the types of Kubernetes' OpenAPI:

    pip install lightkube-models && python -m tests.support.kube.generate_objects        # or: make kube-objects

Its modules are read as text, so that nothing else of lightkube is needed. A room takes what its roots need and no
earlier room has; so imports go one way. Printed files are formatted by ruff.
"""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

PACKAGE = "lightkube-models"
OBJECTS = Path(__file__).resolve().parents[3] / "pyrun" / "kube" / "objects"
MODULES = ("meta_v1", "core_v1", "apps_v1", "coordination_v1", "discovery_v1", "certificates_v1")
# A file of ours, what it is about, and its roots.
ROOMS = (
    ("meta", "what every object has", ("ObjectMeta", "ListMeta", "LabelSelector", "Condition", "Status", "WatchEvent")),
    ("volumes", "a pod's volumes", ("Volume", "PersistentVolumeClaimSpec")),
    ("containers", "containers, their probes, variables and limits", ("Container", "EphemeralContainer")),
    ("scheduling", "where a pod may run", ("Affinity", "Toleration", "TopologySpreadConstraint")),
    ("status", "what became of a pod", ("PodStatus",)),
    ("pods", "pods", ("Pod", "PodList", "PodTemplateSpec")),
    ("config", "ConfigMaps and Secrets", ("ConfigMap", "ConfigMapList", "Secret", "SecretList")),
    ("services", "Services and their endpoints", ("Service", "ServiceList", "EndpointSlice", "EndpointSliceList")),
    ("nodes", "nodes, their leases, and events", ("Node", "NodeList", "Lease", "Namespace", "Event")),
    ("apps", "Deployments", ("Deployment", "DeploymentList")),
    ("certificates", "whom pods trust, and who they are", ("ClusterTrustBundle", "PodCertificateRequestStatus")),
)
# Plain types, which pyrun/kube/objects/base.py has.
BASE = {"Time": "Time", "MicroTime": "Time", "Quantity": "Quantity", "IntOrString": "IntOrString"}
# The server's own bookkeeping, as large as the rest of an object: never decoded.
LEFT_OUT = {("ObjectMeta", "managedFields")}
# lightkube says `dict` of every map; what is in those that do not map strings to strings.
MAPS = dict.fromkeys(("limits", "requests", "capacity", "allocatable", "overhead", "allocatedResources"), "Quantity")
# Fields of the three kinds that carry whatever they like.
ANY = {"RawExtension", "FieldsV1", "JSON"}


class Model:
    """A class of lightkube's: fields as (name, annotation, is optional)."""

    def __init__(self, node: ast.ClassDef) -> None:
        self.name = node.name
        self.fields: list[tuple[str, ast.expr, bool]] = []
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                annotation = line.annotation
                if isinstance(annotation, ast.Constant):
                    annotation = ast.parse(str(annotation.value), mode="eval").body
                if "dict" in ast.unparse(annotation):
                    annotation = ast.parse(f"Dict[str, {MAPS.get(line.target.id, 'str')}]", mode="eval").body
                if (node.name, line.target.id) not in LEFT_OUT:
                    self.fields.append((line.target.id, annotation, line.value is not None))


def read_models(directory: Path) -> dict[str, Model]:
    """Every class of MODULES by name; of equal names the first module's."""
    found: dict[str, Model] = {}
    for module in MODULES:
        tree = ast.parse((directory / f"{module}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, Model(node))
    return found


def type_of(annotation: ast.expr) -> tuple[str, set[str]]:
    """The type as we write it, and the names of models in it."""
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value)
        inner = annotation.slice
        if outer in ("Optional", "List"):
            text, names = type_of(inner)
            return (text if outer == "Optional" else f"list[{text}]"), names
        if outer in ("Dict", "dict"):
            assert isinstance(inner, ast.Tuple)
            text, names = type_of(inner.elts[1])
            return f"dict[str, {text}]", names
        raise ValueError(ast.unparse(annotation))
    name = ast.unparse(annotation).rpartition(".")[2]
    if name in ("str", "int", "bool", "float"):
        return name, set()
    if name in BASE:
        return BASE[name], {BASE[name]}
    if name in ANY or name in ("dict", "Dict", "Any", "object"):
        return "Any", {"Any"}
    return name, {name}


def needed(root: str, models: dict[str, Model], taken: set[str]) -> list[str]:
    """The root and all that it needs and nobody has taken: what is needed first comes first."""
    if root in taken or root not in models:
        return []
    taken.add(root)
    out: list[str] = []
    for _, annotation, _ in models[root].fields:
        for name in sorted(type_of(annotation)[1]):
            out += needed(name, models, taken)
    return [*out, root]


def print_model(model: Model) -> str:
    lines = [f"class {model.name}(Object):"]
    for required in (True, False):
        for name, annotation, optional in model.fields:
            if optional != required:
                text, _ = type_of(annotation)
                lines.append(f"    {name}: {text}" + (" | None = None" if optional else ""))
    return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"])


def print_room(about: str, own: list[str], models: dict[str, Model], where: dict[str, str], source: str) -> str:
    wanted: dict[str, set[str]] = {}
    for name in own:
        for _, annotation, _ in models[name].fields:
            for used in type_of(annotation)[1]:
                if used == "Any" or used in own:
                    continue
                wanted.setdefault("base" if used in BASE.values() else where[used], set()).add(used)
    wanted.setdefault("base", set()).add("Object")
    body = "\n\n\n".join(print_model(models[name]) for name in own)
    head = f'"""Types of Kubernetes: {about}.\n\nGenerated from {source} by `make kube-objects`; do not edit.\n"""\n\n'
    head += "from __future__ import annotations\n\n"
    if "Any" in body:
        head += "from typing import Any\n\n"
    for file in ("base", *where.values()):
        if names := wanted.pop(file, None):
            head += f"from .{file} import {', '.join(sorted(names))}\n"
    return f"{head}\n\n{body}\n"


def generate(directory: Path, source: str) -> dict[str, str]:
    """Texts by file name."""
    models = read_models(directory)
    where: dict[str, str] = {}
    taken: set[str] = set()
    out = {}
    for room, about, roots in ROOMS:
        own: list[str] = []
        for root in roots:
            own += needed(root, models, taken)
        where.update(dict.fromkeys(own, room))
        out[f"{room}.py"] = print_room(about, own, models, where, source)
    return out


def formatted(text: str) -> str:
    for command in (["check", "--select", "I,F401", "--fix", "-q"], ["format", "-q"]):
        words = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(OBJECTS / "x.py"), "-"]
        text = subprocess.run(words, input=text, capture_output=True, text=True, check=True, cwd=OBJECTS).stdout
    return text


def installed() -> tuple[Path, str] | None:
    """Where lightkube's modules lie, and which they are; None where they are not installed."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(found.locate_file("lightkube/models"))), f"{PACKAGE} {found.version}"


def main() -> int:
    there = installed()
    if there is None:
        print(f"{PACKAGE} is not installed: pip install {PACKAGE}", file=sys.stderr)
        return 1
    for name, text in generate(*there).items():
        (OBJECTS / name).write_text(formatted(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
