"""`pyrun kubelet`: `pyrun node run`, asked in a kubelet's words."""

from __future__ import annotations

import os
import shlex
import sys

from pyrun.cli.commands import node_run, node_validate
from pyrun.errors import InvalidArgument, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.kube.manifest import Document

# A kubelet's flag → the option of `node run`; and flags that do nothing here.
SAME = {
    "hostname-override": "node-name",
    "kubeconfig": "kubeconfig",
    "node-ip": "node-ip",
    "node-labels": "node-labels",
    "container-runtime-endpoint": "listen",
    "image-service-endpoint": "image-service-endpoint",
    "runtime-config": "config",
    "state": "state",
}
IDLE = ("v", "runtime-cgroups", "feature-gates")


def run(g: Globals, o: Options) -> int:
    from pyrun.cli.parse import parse

    try:
        from pyrun.kubelet.drop_in import merge, plan_drop_in
    except ModuleNotFoundError as error:
        raise node_validate.missing_package(error)
    files = [o.config] if o.config else []
    if o.config_dir:
        files += _drop_ins(o.config_dir)
    given = {name: getattr(o, name.replace("-", "_")) for name in o.given}
    flags: dict[str, Any] = {SAME[name]: value for name, value in given.items() if name in SAME}
    if o.root_dir:
        flags["root"] = o.root_dir
    documents = [_load(path) for path in files]

    def place(pointer: str) -> str:
        """Where the last file that has it says so."""
        having = [one for one in documents if one.line(pointer) != one.line(pointer.rpartition("/")[0])]
        return f"{having[-1].place(pointer)}: {pointer}" if having else pointer

    plan = plan_drop_in(merge([one.value for one in documents]), flags, place)
    for name in IDLE:
        if name in given:
            g.warn(f"--{name}: has no effect")
    for line in plan.warnings:
        g.warn(line)
    if o.explain:
        sys.stdout.write(shlex.join(["pyrun", "node", "run", *plan.options]) + "\n")
        return 0
    return node_run.run(g, parse(["node", "run", *plan.options]).options)


def _drop_ins(directory: str) -> list[str]:
    """Files of --config-dir that end in .conf, in the order of their names."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise InvalidArgument(f"--config-dir {directory}: {reason(error)}") from None
    return [os.path.join(directory, name) for name in names if name.endswith(".conf")]


def _load(path: str) -> Document:
    from pyrun.kube.manifest import load

    try:
        with open(path, "rb") as file:
            documents = load(file.read(), path)
    except OSError as error:
        raise InvalidArgument(f"--config {path}: {reason(error)}") from None
    if len(documents) != 1:
        raise InvalidArgument(f"{path}: {len(documents)} documents, and one KubeletConfiguration is wanted")
    return documents[0]
