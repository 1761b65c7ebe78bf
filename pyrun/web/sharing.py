"""Before a fork: what this process has is shared with its children as long as nobody writes to it, page by page.

Small objects that are made later would fill the holes in pages that all have, and each would copy its whole page. So
the holes are filled beforehand with objects that are never touched, free memory goes back to the kernel, and the
collector leaves alone what is there."""

from __future__ import annotations

import ctypes
import gc

# CPython's allocator of small objects (Objects/obmalloc.c): sizes are multiples of STEP, LARGEST at most; objects of
# one size lie side by side in a pool, behind its head.
STEP, LARGEST = 16, 512
POOL, HEAD = 1 << 14, 48
# What bytes take beside their content.
BYTES = 33
# Bytes of holes of a size; what more there is is not filled. With another allocator (PYTHONMALLOC) no pool is found.
MOST = 1 << 20

_fillings: list[list[object]] = []


def prepare_fork() -> None:
    """For good; to be called when all that children share has been imported."""
    gc.collect()
    _trim()
    _fillings.extend(_fill(size) for size in range(STEP, LARGEST + 1, STEP))
    gc.freeze()


def _fill(size: int) -> list[object]:
    """Objects of this size, until three in a row are the first ones of a pool: it is new, so none has a hole."""
    found: list[object] = []
    row = 0
    while row < 3 and len(found) * size < MOST:
        made = _make(size)
        found.append(made)
        row = row + 1 if id(made) % POOL == HEAD + row * size else int(id(made) % POOL == HEAD)
    return found


def _make(size: int) -> object:
    match size:
        case 16:
            return object()
        case 32:
            return float.fromhex("0x1.8p1")
        case _:
            return bytes(size - BYTES)


def _trim() -> None:
    """malloc_trim(3), which a libc other than glibc has not."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        pass
