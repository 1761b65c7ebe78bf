"""The modules that a verb needs, in one file: Python's importer takes longer to find forty than they take to run.

`VERB.*.hot`, beside the package's own bytecode, holds what the verb imported when it last succeeded, in the order in
which it was done, so that each module finds what it imports: the code of Python's, and where the C ones lie. Each is
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

    # name, file, mtime in ns, size, is a package, how many bytes its code has: 0 where it is a C module
    Row = tuple[str, str, int, int, bool, int]

M32 = 0xFFFFFFFF
_order: "list[ModuleType]" = []
_whose: "list[str]" = []  # of record()


def load(rows: "list[Row]", here: str, fd: int) -> bool:
    """Imports all of the rows, or, where a file is another by now, none. here: where pyrun lies, for it may be a
    copy. fd: their code. Each is read when it is run, so that all pass through the same little memory."""
    whole = posix.fstat(fd).st_size - posix.lseek(fd, 0, 1) == sum([row[5] for row in rows])
    if not whole or rows[0][1] != here + "/__init__.py":
        return False
    for row in rows:
        file, time, size = row[1:4]
        info = posix.stat(file)
        if info.st_mtime_ns != time or info.st_size != size:
            return False
    for name, file, _, _, package, length in rows:
        data = posix.read(fd, length) if length else b""
        if name not in sys.modules:
            if length:
                _run(name, file, package, marshal.loads(data))
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
    try:
        rows, codes = zip(*[_row(module) for module in tuple(_order)], strict=True)
        own = marshal.loads(next(code for row, code in zip(rows, codes, strict=True) if row[0] == __name__))
        path = f"{here}/__pycache__/{verb}.{sys.implementation.cache_tag}.hot"
        new = f"{path}.{posix.getpid()}"
        fd = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
        try:
            head = marshal.dumps((own, rows))
            data = MAGIC_NUMBER + len(head).to_bytes(4, "little") + head + b"".join(codes)
            whole = posix.write(fd, data) == len(data)
        finally:
            posix.close(fd)
        if whole:
            posix.rename(new, path)
        else:
            posix.unlink(new)
    except (OSError, ValueError, EOFError):
        return


def _row(module: "ModuleType") -> "tuple[Row, bytes]":
    """A C module's place, or the code out of Python's own cache, if that is of the source as it is now."""
    name, file = module.__name__, module.__file__ or ""
    info = posix.stat(file)
    cached = getattr(module, "__cached__", None)
    if cached is None:
        return (name, file, info.st_mtime_ns, info.st_size, False, 0), b""
    fd = posix.open(cached, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)
    seen = int.from_bytes(data[8:12], "little"), int.from_bytes(data[12:16], "little")
    if data[:4] != MAGIC_NUMBER or any(data[4:8]) or seen != (int(info.st_mtime) & M32, info.st_size & M32):
        raise ValueError(f"{cached} is of another {file}")
    return (name, file, info.st_mtime_ns, info.st_size, hasattr(module, "__path__"), len(data) - 16), data[16:]
