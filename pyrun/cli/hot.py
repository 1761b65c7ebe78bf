"""The modules that a verb needs, in one file: Python's importer takes longer to find forty than they take to run.

`VERB.*.hot`, beside the package's own bytecode, holds what the verb imported when it last succeeded, in the order in
which it was done, so that each module finds what it imports: the code of Python's, without docstrings and asserts, and
where the C ones lie. It is one value of marshal, so that a name which many modules use is made once. Each is
held against its file by time and size, as Python does it; where one differs, nothing of the file is used. A module
that is not in it is imported as ever. pyrun/__main__.py reads the file and runs this module's code out of it; so this
module imports nothing that would have to be looked for, not even __future__.
"""

import marshal
import posix
import sys
from _frozen_importlib import _load  # type: ignore[attr-defined]
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader, SourceFileLoader, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    # name, file, mtime in ns, size, is a package, its code: none where it is a C module
    Row = tuple[str, str, int, int, bool, CodeType | None]

_order: "list[ModuleType]" = []
_whose: "list[str]" = []  # of record()


def load(rows: "tuple[Row, ...]", here: str) -> bool:
    """Imports all of the rows, or, where a file is another by now, none. here: where pyrun lies, for it may be a
    copy."""
    if rows[0][1] != here + "/__init__.py":
        return False
    for row in rows:
        info = posix.stat(row[1])
        if info.st_mtime_ns != row[2] or info.st_size != row[3]:
            return False
    for name, file, _, _, package, code in rows:
        if name not in sys.modules:
            if code:
                _run(name, file, package, code)
            else:
                _run_native(name, file)
    return True


def _run(name: str, file: str, package: bool, code: "CodeType") -> None:
    """What Python's importer would do, without looking for anything."""
    parent, _, tail = name.rpartition(".")
    module = type(sys)(name)
    module.__file__ = file
    module.__package__ = name if package else parent
    if package:
        module.__path__ = [file.rpartition("/")[0]]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    if parent:
        setattr(sys.modules[parent], tail, module)


def _run_native(name: str, file: str) -> None:
    try:
        module = _load(spec_from_file_location(name, file, loader=ExtensionFileLoader(name, file)))
    except ImportError:  # who imports it says so
        return
    parent, _, tail = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], tail, module)


def record(here: str, verb: str) -> None:
    """Notes each module when it has been imported: after those that it imports itself."""
    _whose.extend((here, verb))
    _order.extend(sys.modules[name] for name in ("pyrun", "pyrun.cli", __name__))
    for kind in (SourceFileLoader, ExtensionFileLoader):
        _note(kind, kind.exec_module)


def _note(kind: type, plain: object) -> None:
    def exec_module(loader: object, module: "ModuleType") -> None:
        plain(loader, module)  # type: ignore[operator]
        name = module.__name__
        if name.startswith("pyrun.") or "." not in name:
            _order.append(module)

    kind.exec_module = exec_module  # type: ignore[attr-defined]


def finish() -> None:
    """The verb has succeeded: keeps what has been imported since record(), if that was called. That it can't be written
    is no error: the next import takes longer."""
    if not _whose:
        return
    here, verb = _whose
    path = f"{here}/__pycache__/{verb}.{sys.implementation.cache_tag}.hot"
    new = f"{path}.{posix.getpid()}"
    try:  # first, since the rest is some 100 ms of CPU, and all in vain where nothing can be written
        fd = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except OSError:
        return
    try:
        rows = tuple([_row(module) for module in tuple(_order)])
        own = next(row[5] for row in rows if row[0] == __name__)
        data = MAGIC_NUMBER + marshal.dumps((own, rows))
        if posix.write(fd, data) == len(data):
            posix.rename(new, path)
    except (OSError, ValueError, SyntaxError):
        pass
    finally:
        posix.close(fd)
        try:
            posix.unlink(new)
        except OSError:  # it has its name
            pass


def _row(module: "ModuleType") -> "Row":
    """A C module's place, or the code of the source as it is now."""
    name, file = module.__name__, module.__file__ or ""
    info = posix.stat(file)
    code = None
    if file.endswith(".py"):
        with open(file, "rb", 0) as source:
            code = compile(source.read(), file, "exec", dont_inherit=True, optimize=2)
    return (name, file, info.st_mtime_ns, info.st_size, hasattr(module, "__path__"), code)
