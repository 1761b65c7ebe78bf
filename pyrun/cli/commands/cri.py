"""`pyrun cri`: serves the container runtime interface until a signal ends it."""

from __future__ import annotations

from pyrun.errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

ROOT, STATE = "/var/lib/pyrun", "/run/pyrun-cri"
NEEDS = ("google", "grpclib", "h2", "hpack", "hyperframe", "multidict", "urllib3", "h11", "wsproto")


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.cri.daemon import Places, serve
    except ModuleNotFoundError as error:
        raise missing_package(error)
    root, state = o.root or (g.root if g.root_given else ROOT), o.state or STATE
    return serve(Places(root, state, o.listen), o.config, g.warn)


def missing_package(error: ModuleNotFoundError) -> Exception:
    """What to tell of a package that `pyrun[cri]` brings; the error itself where it is one of ours."""
    name = (error.name or "").partition(".")[0]
    if name not in NEEDS:
        return error
    return PyrunError(
        f"the Python package {name} is not installed", hint="pip install 'pyrun[cri]' has all that it takes"
    )
