"""Reads config.json: bytes in, an immutable Spec out, or a ConfigError with every fault and where it is.

On the path of create and exec, so the JSON is read by ``_json``'s scanner without importing ``json`` (10 ms). Input
is hostile until read: its size is bounded before anything parses it, and nesting by the interpreter's recursion
limit.
"""

from __future__ import annotations

import sys
from _json import make_scanner  # the C half of the json module, which costs 10 ms more

from pyrun.errors import ConfigError, PyrunError
from pyrun.oci import checks, model, tables
from pyrun.oci.readers import pointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.oci.readers import Faults, Reader

LIMIT = 16 * 1024 * 1024
_BLANK = " \t\n\r"
_READ_HINTS = {  # ENOENT, EMFILE
    2: "a bundle is a directory with a config.json; `pyrun spec` writes one",
    24: "pyrun needs some 20 descriptors: raise `ulimit -n`",
}


def load_bytes(data: bytes, *, file: str = "config.json") -> model.Spec:
    """The Spec of a config.json. Raises ConfigError."""
    spec: model.Spec = _load(data, file, tables.SPEC, checks.check_spec)
    return _without_old_zero(spec)


def _without_old_zero(spec: model.Spec) -> model.Spec:
    """A pids.limit of 0 is a limit since 1.3.0. Before, it was none, and podman 4 writes it for --pids-limit -1."""
    resources = spec.linux.resources if spec.linux is not None else None
    if resources is None or resources.pids is None or resources.pids.limit != 0:
        return spec
    if int(spec.oci_version.split(".")[1]) >= 3:
        return spec
    assert spec.linux is not None
    return spec.replace(linux=spec.linux.replace(resources=resources.replace(pids=None)))


def load_file(path: str) -> model.Spec:
    """The Spec of the config.json at ``path``. Raises ConfigError, or PyrunError when the file can't be read."""
    return load_bytes(read_file(path), file=path.rpartition("/")[2] or path)


def load_process(data: bytes, *, file: str = "process.json") -> model.Process:
    """The process object alone, as ``exec --process`` takes it; by the same checks. Raises ConfigError."""
    process: model.Process = _load(data, file, tables.PROCESS, checks.check_process)
    return process


def load_resources(data: bytes, *, file: str = "resources.json") -> model.Resources:
    """The linux.resources object alone, as ``update --resources`` takes it; by the same checks. Raises ConfigError."""
    resources: model.Resources = _load(data, file, tables.RESOURCES, checks.check_resources)
    return resources


def read_file(path: str) -> bytes:
    """The file's bytes, of at most one more than the limit: /dev/zero as a config must not fill the memory."""
    try:
        with open(path, "rb", buffering=0) as file:
            chunks = []
            left = LIMIT + 1
            while left > 0 and (chunk := file.read(min(left, 1 << 18))):  # room for it all would be mapped and unmapped
                chunks.append(chunk)
                left -= len(chunk)
            return b"".join(chunks)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PyrunError(f"read {path}: {reason}", hint=_READ_HINTS.get(error.errno or 0)) from None
    except ValueError:
        raise PyrunError(f"read {path!a}: the path contains a NUL byte") from None


def _load(data: bytes, file: str, read: Reader, check: checks.Check) -> Any:
    document, faults = parse(data, file)
    made = read(document, None, faults)
    told = len(faults)
    if made is not None:
        check(made, document, faults)
    if faults:
        faults[told:] = _independent(faults[:told], faults[told:])
        raise ConfigError(in_document_order(document, faults), file=file)
    return made


def _independent(read: Faults, rules: Faults) -> Faults:
    """The faults of rules without those at, or right above, a value that could not be read: they follow from it."""
    unread = {pointer(path) for path, _ in read}
    unread |= {place.rpartition("/")[0] for place in unread}
    return [fault for fault in rules if pointer(fault[0]) not in unread]


# --- JSON ------------------------------------------------------------------------------------------------------------


class _Context:
    """What make_scanner asks its caller for: the options of json.JSONDecoder, with names that it looks up."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}
        self.repeated: dict[int, tuple[dict[str, Any], str]] = {}

    def object_pairs_hook(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object; one with a name that stands twice in it is noted, since readers differ in which of the two they
        take.
        """
        made = dict(pairs)
        if len(made) != len(pairs):
            left = dict.fromkeys(made)
            name = next(name for name, _ in pairs if left.pop(name, self) is self)
            self.repeated[id(made)] = (made, name)
        return made

    def parse_constant(self, name: str) -> Any:
        raise _NotJSON(f"{name} is not JSON")


class _NotJSON(Exception):
    pass


def parse(data: bytes, file: str) -> tuple[Any, Faults]:
    """The JSON document and the faults of its text that do not hinder the reading (names that stand twice in an
    object).
    """
    if len(data) > LIMIT:
        size = f"{len(data):,} bytes" if len(data) > LIMIT + 1 else "more"
        raise ConfigError([("", f"is too large: {size}, and the limit is {LIMIT:,} bytes (16 MiB)")], file=file)
    text = _decoded(data, file)
    context = _Context()
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        document, end = make_scanner(context)(text, start)  # type: ignore[arg-type]  # typeshed wants a JSONDecoder
    except StopIteration as stop:
        raise _bad_json("expected a value", text, stop.value, file) from None
    except (RecursionError, MemoryError):
        raise ConfigError([("", "is nested too deeply")], file=file) from None
    except _NotJSON as error:
        raise ConfigError([("", f"is not JSON: {error}")], file=file) from None
    except SystemError:
        # Python 3.11's scanner has no words for a fault unless json.decoder is imported. A faulty file may cost that.
        if "json.decoder" in sys.modules:
            raise
        import json.decoder  # noqa: F401

        return parse(data, file)
    except ValueError as error:
        position = getattr(error, "pos", None)
        if position is None:
            raise ConfigError([("", "is not readable: a number has too many digits")], file=file) from None
        raise _bad_json(str(getattr(error, "msg", error)), text, position, file) from None
    if rest := text[end:].lstrip(_BLANK):
        raise _bad_json("expected the end of the file", text, len(text) - len(rest), file)
    return document, _repeated(document, context.repeated)


def _decoded(data: bytes, file: str) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError([("", "starts with a byte order mark, which JSON does not allow")], file=file)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        text = f"is not UTF-8: byte 0x{data[error.start]:02x} at line {line} byte {column}"
        raise ConfigError([("", text)], file=file) from None


def _bad_json(what: str, text: str, position: int, file: str) -> ConfigError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    if not text[position:].strip(_BLANK):
        what = (
            "the file is empty" if not text.strip(_BLANK) else f"the file ends too early, {what[0].lower()}{what[1:]}"
        )
    return ConfigError([("", f"is not JSON: line {line} column {column}: {what[0].lower()}{what[1:]}")], file=file)


def _repeated(document: Any, repeated: dict[int, tuple[dict[str, Any], str]]) -> Faults:
    """A fault for each noted object that is still part of the document, found by identity."""
    faults: Faults = []
    waiting: list[tuple[Any, Any]] = [(None, document)] if repeated else []
    while waiting:
        path, value = waiting.pop()
        if type(value) is dict:
            if id(value) in repeated:
                faults.append(((path, repeated[id(value)][1]), "stands twice in its object"))
            waiting += [((path, name), entry) for name, entry in value.items()]
        elif type(value) is list:
            waiting += [((path, index), entry) for index, entry in enumerate(value)]
    return faults


# --- the order of faults ---------------------------------------------------------------------------------------------


def in_document_order(document: Any, faults: Faults) -> list[tuple[str, str]]:
    """The faults as (pointer, text), each once, sorted as their places stand in the file; a missing member after its
    siblings.
    """
    ranks: dict[int, dict[str, int]] = {}
    placed = {}
    for path, text in faults:
        name = pointer(path)
        placed[name, text] = _place(document, name, ranks)
    return sorted(placed, key=lambda fault: placed[fault])


def _place(document: Any, name: str, ranks: dict[int, dict[str, int]]) -> list[int]:
    """Where a pointer's value stands, as a path of ranks."""
    place = []
    value = document
    for token in name.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if type(value) is dict:
            if id(value) not in ranks:
                ranks[id(value)] = {member: index for index, member in enumerate(value)}
            place.append(ranks[id(value)].get(key, len(value)))
            value = value.get(key)
        elif type(value) is list and key.isdigit():
            place.append(int(key))
            value = value[int(key)] if int(key) < len(value) else None
        else:
            place.append(0)
            value = None
    return place
