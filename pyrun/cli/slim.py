"""Code without what only people read, for hot.py: touching new memory costs more than what is done with it.

Docstrings of functions go, and the columns of the source; lines stay, for messages.
"""

from __future__ import annotations

from opcode import hasconst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

CO_OPTIMIZED = 1  # a function's


def slim(code: CodeType) -> CodeType:
    """The same code, and all in it, without docstrings of functions and columns."""
    consts = [slim(item) if hasattr(item, "co_code") else item for item in code.co_consts]
    # A function's first constant is its docstring, or else None or what its code loads.
    if code.co_flags & CO_OPTIMIZED and consts and isinstance(consts[0], str) and not _loads_first(code):
        consts[0] = None
    lean = code.replace(co_consts=tuple(consts), co_linetable=_lines(code))
    return lean if by_line(lean) == by_line(code) else code.replace(co_consts=tuple(consts))


def _loads_first(code: CodeType) -> bool:
    """Whether an instruction may refer to the first constant: LOAD_CONST 0, RETURN_CONST 0 and the like."""
    return any(op in hasconst and arg == 0 for op, arg in zip(code.co_code[::2], code.co_code[1::2], strict=True))


def by_line(code: CodeType) -> list[tuple[int, int | None]]:
    """(offset, line) where the line changes."""
    found: list[tuple[int, int | None]] = []
    for start, _, line in code.co_lines():
        if not found or found[-1][1] != line:
            found.append((start, line))
    return found


def _lines(code: CodeType) -> bytes:
    """co_linetable with lines alone (CPython, Objects/locations.md): entries of no columns, of 8 units at most."""
    out = bytearray()
    at = code.co_firstlineno
    for start, end, line in code.co_lines():
        left = (end - start) // 2
        while left > 0:
            units = min(left, 8)
            left -= units
            if line is None:
                out.append(0x80 | 15 << 3 | units - 1)
                continue
            out.append(0x80 | 13 << 3 | units - 1)
            delta = line - at
            rest = delta << 1 if delta >= 0 else -delta << 1 | 1
            while rest >= 64:
                out.append(64 | rest & 63)
                rest >>= 6
            out.append(rest)
            at = line
    return bytes(out)
