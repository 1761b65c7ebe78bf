"""Writes the first corpus of the unpacker's fuzzer: small layers with an entry of each kind, in each format and form.

Run as ``python cffi_build/hosted/layer_seeds.py DIR``. The first byte of a seed is the fuzzer's own: 1 has it put the
checksums of tar headers right, 2 has it make an image.
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
}


def add(tar: tarfile.TarFile, kind: str, name: str, data: bytes = b"", **more: object) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = KINDS[kind], len(data), 0o755
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def write(form: int) -> dict[str, bytes]:
    """A tar of each theme."""
    themes: dict[str, list[tuple[str, str, bytes, dict[str, object]]]] = {
        "plain": [("dir", "d", b"", {}), ("file", "d/f", b"data", {"uid": 5}), ("fifo", "p", b"", {})],
        "links": [
            ("symlink", "l", b"", {"linkname": "../.."}),
            ("file", "l/f", b"x", {}),
            ("link", "h", b"", {"linkname": "l/f"}),
            ("symlink", "h", b"", {"linkname": "/"}),
        ],
        "white": [
            ("file", ".wh.a", b"", {}),
            ("dir", "a", b"", {}),
            ("file", "a/.wh..wh..opq", b"", {}),
            ("char", "c", b"", {}),
        ],
        "twice": [("file", "a/b/c", b"1", {}), ("file", "a", b"2", {}), ("dir", "a", b"", {}), ("dir", ".", b"", {})],
        "long": [("file", "n" * 90 + "/" + "m" * 120, b"3", {}), ("symlink", "s", b"", {"linkname": "t" * 200})],
        "up": [("file", "../x", b"", {})],
    }
    if form == tarfile.PAX_FORMAT:
        xattrs = {"SCHILY.xattr.user.a": "v", "SCHILY.xattr.trusted.overlay.opaque": "y"}
        sparse = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "s",
            "GNU.sparse.realsize": "9000",
        }
        table = b"2\n0\n3\n8000\n3\n".ljust(512, b"\0")
        themes["pax"] = [("file", "\xe9\u0301", b"x", {"pax_headers": xattrs, "mtime": 1.5})]
        themes["sparse"] = [("file", "GNUSparseFile.0/s", table + b"abcdef", {"pax_headers": sparse})]
    made = {}
    for theme, entries in themes.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for kind, name, data, more in entries:
                add(tar, kind, name, data, **more)
        made[theme] = out.getvalue()[: -8 * 1024]  # of the zeros at its end the first are enough
    return made


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, form in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT)):
        for theme, tar in write(form).items():
            (directory / f"{name}-{theme}").write_bytes(b"\1" + tar)
            (directory / f"{name}-{theme}-image").write_bytes(b"\3" + tar)
            (directory / f"{name}-{theme}-gz").write_bytes(b"\0" + gzip.compress(tar[:700]) + gzip.compress(tar[700:]))
    (directory / "zstd").write_bytes(b"\0\x28\xb5\x2f\xfd\x20\x04\x21\x00\x00data\x50\x2a\x4d\x18\x00\x00\x00\x00")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
