#!/usr/bin/python3
"""Serves a root file system as an image of one layer on loopback, for `pyrun image pull` and the demo.

    bundles/registry.py ROOTFS NAME:TAG [PORT]      then: pyrun image pull 127.0.0.1:PORT/NAME:TAG

PORT is 5000 where none is named. All of the image is in memory; nothing can be pushed. The paths are those of the OCI's
distribution spec (/v2/NAME/manifests/TAG, /v2/NAME/blobs/DIGEST), and each request is told on stderr.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OCI = "application/vnd.oci.image"
UNKNOWN = ("application/json", b'{"errors": [{"code": "NAME_UNKNOWN"}]}')
# Debian's word for a processor, and Go's, which images have.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(root: str) -> bytes:
    """All below it, in the order of names and without times: the same bytes each time."""
    held = io.BytesIO()

    def timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = 0
        return member

    with tarfile.open(fileobj=held, mode="w") as tar:
        for name in sorted(os.listdir(root)):
            tar.add(os.path.join(root, name), arcname=name, filter=timeless)
    return held.getvalue()


def blobs_of(root: str) -> tuple[str, dict[str, tuple[str, bytes]]]:
    """An image of this root: its manifest's digest, and (media type, bytes) of manifest, config and layer by digest."""
    tar = tar_of(root)
    blobs: dict[str, tuple[str, bytes]] = {}

    def keep(media_type: str, data: bytes) -> dict[str, object]:
        blobs[digest_of(data)] = (media_type, data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    config = {
        "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": keep(f"{OCI}.config.v1+json", json.dumps(config).encode()),
        "layers": [keep(f"{OCI}.layer.v1.tar+gzip", gzip.compress(tar, 6, mtime=0))],
    }
    kept = keep(f"{OCI}.manifest.v1+json", json.dumps(manifest).encode())
    return str(kept["digest"]), blobs


def serve(root: str, name: str, tag: str, port: int) -> None:
    """Until it is killed."""
    top, blobs = blobs_of(root)
    found = {f"/v2/{name}/manifests/{tag}": top, f"/v2/{name}/manifests/{top}": top}
    found.update({f"/v2/{name}/blobs/{digest}": digest for digest in blobs})

    class Registry(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            digest = found.get(self.path)
            media_type, data = blobs[digest] if digest else UNKNOWN
            self.send_response(200 if digest or self.path == "/v2/" else 404)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(data)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", port), Registry) as server:
        print(f"registry: 127.0.0.1:{port}/{name}:{tag} is {top}", file=sys.stderr, flush=True)
        server.serve_forever()


def main() -> None:
    words = sys.argv[1:]
    name, colon, tag = words[1].partition(":") if len(words) in (2, 3) else ("", "", "")
    if not (name and colon and tag):
        sys.exit("usage: bundles/registry.py ROOTFS NAME:TAG [PORT]")
    try:
        serve(words[0], name, tag, int(words[2]) if len(words) == 3 else 5000)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError) as error:
        sys.exit(f"registry: {error}")


if __name__ == "__main__":
    main()
