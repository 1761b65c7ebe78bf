"""The modules that a verb needs, in one file: Python's importer takes longer to find forty than they take to run.

`VERB.*.hot`, beside the package's own bytecode, holds the code of every module of ours that the verb imported when it
last succeeded, in the order in which they were done, so that each finds what it imports. Each is held against its
source by time and size, as Python does it; where one differs, nothing of the file is used. A module that is not in it
is imported as ever.
"""

from __future__ import annotations

import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    Row = tuple[str, str, int, int, bool, CodeType]  # name, file, mtime in ns, size, is a package, code

# Those that come often, and are not the launcher's.
VERBS = frozenset(("create", "run", "exec", "list"))
M32 = 0xFFFFFFFF
_PACKAGE = __file__.rpartition("/")[0].rpartition("/")[0]
_order: list[ModuleType] = []


def load(argv: list[str]) -> str | None:
    """Imports what the verb of a command line needs. The verb, where no such file serves and save() may write one."""
    verb = next((word for word in argv if word in VERBS), None)
    if verb is None or not _PACKAGE.startswith("/"):
        return None
    rows = _read(verb)
    if rows is None:
        _record()
        return verb
    for name, file, _, _, package, code in rows:
        if name not in sys.modules:
            _run(name, file, package, code)
    return None


def save(verb: str) -> None:
    """Keeps what has been imported since load(). That it can't be written is no error: the next import takes longer."""
    try:
        rows = [row for row in map(_row, _order) if row is not None]
        path = _path(verb)
        new = f"{path}.{posix.getpid()}"
        fd = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
        try:
            data = MAGIC_NUMBER + marshal.dumps(rows)
            whole = posix.write(fd, data) == len(data)
        finally:
            posix.close(fd)
        if whole:
            posix.rename(new, path)
        else:
            posix.unlink(new)
    except (OSError, ValueError, EOFError):
        return


def _path(verb: str) -> str:
    return f"{_PACKAGE}/__pycache__/{verb}.{sys.implementation.cache_tag}.hot"


def _read(verb: str) -> list[Row] | None:
    try:
        fd = posix.open(_path(verb), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
        if data[:4] != MAGIC_NUMBER:
            return None
        rows: list[Row] = marshal.loads(memoryview(data)[4:])
        for _, file, time, size, _, _ in rows:
            info = posix.stat(file)
            if info.st_mtime_ns != time or info.st_size != size:
                return None
        return rows
    except (OSError, ValueError, EOFError, TypeError):
        return None
    finally:
        posix.close(fd)


def _run(name: str, file: str, package: bool, code: CodeType) -> None:
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
    setattr(sys.modules[parent], tail, module)


def _record() -> None:
    """Notes each module when it has been imported: after those that it imports itself."""
    plain = SourceFileLoader.exec_module

    def exec_module(loader: SourceFileLoader, module: ModuleType) -> None:
        plain(loader, module)
        if module.__name__.startswith("pyrun."):
            _order.append(module)

    SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign,assignment]


def _row(module: ModuleType) -> Row | None:
    """The module's code out of Python's own cache, if that is of the source as it is now."""
    file, cached = module.__file__, module.__cached__
    if file is None or cached is None:
        return None
    fd = posix.open(cached, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)
    info = posix.stat(file)
    seen = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
    if data[:4] != MAGIC_NUMBER or any(data[4:8]) or seen != (int(info.st_mtime) & M32, info.st_size & M32):
        raise ValueError(f"{cached} is of another {file}")
    code = marshal.loads(memoryview(data)[16:])
    return module.__name__, file, info.st_mtime_ns, info.st_size, hasattr(module, "__path__"), code
