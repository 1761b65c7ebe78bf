"""`pyrun node explain`: what this node would do for the pods of a file, with the line that asks for each thing."""

from __future__ import annotations

import os

from pyrun.cli.commands.node_validate import missing_package
from pyrun.cli.output import compact, write
from pyrun.errors import PyrunError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.kube.objects.apps import Deployment
        from pyrun.kube.objects.pods import Pod
        from pyrun.node.admission import Allocatable
        from pyrun.node.explain import as_text, explain_deployment, explain_pod
        from pyrun.node.manifests import read_objects
    except ModuleNotFoundError as error:
        raise missing_package(error)
    read, faults = read_objects(o.file, o.node_name or "")
    if faults:
        write("".join([printable(str(fault)) + "\n" for fault in faults]))
        raise PyrunError(f"{o.file} has faults", hint=f"pyrun node validate {o.file} tells them, too")
    found = [(one.document, one.object) for one in read if isinstance(one.object, Pod | Deployment)]
    if not found:
        raise PyrunError(f"there is no Pod and no Deployment in {o.file}")
    node = Allocatable(o.cpu or (os.cpu_count() or 1) * 1000, o.memory or _memory())
    for document, one in found:
        lines = explain_pod(one, node) if isinstance(one, Pod) else explain_deployment(one, node)
        if o.format == "json":
            for line in lines:
                write(compact({**line._asdict(), "place": document.place(line.pointer)}) + "\n")
            continue
        assert one.metadata is not None
        kind = "pod" if isinstance(one, Pod) else "deployment"
        write(printable(f"{kind} {one.metadata.namespace}/{one.metadata.name}, from {document.place()}") + "\n")
        write("".join([printable(text) + "\n" for text in as_text(lines, document.place)]))
    return 0


def _memory() -> int:
    """This machine's, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
