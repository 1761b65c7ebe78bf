"""The images that the node's end-to-end specs name, made here: theirs lie in a registry that a test must not depend on.

agnhost and nonewprivs are upstream's programs; busybox is the machine's. Where a spec only wants a page on port 80 or a
program that waits, agnhost stands in for nginx, pause and the rest.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.kube import build
from tests.support.registry.made import Made, make_image, tree_tar

E2E = "e2e-test-images"
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}
ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]


def node_images(rootfs: Path) -> dict[tuple[str, str], Made]:
    """(repository at registry.k8s.io, tag) → image. rootfs: a busybox's."""
    with tempfile.TemporaryDirectory() as directory:
        base = tree_tar(_base(rootfs, Path(directory) / "base"))
        host = tree_tar(_agnhost(Path(directory) / "agnhost"))
        privileges = tree_tar(_nonewprivs(Path(directory) / "nnp"))

    def image(*layers: bytes, **config: object) -> Made:
        return make_image([base, *layers], {"Env": ENV, **config}, form="")

    agnhost = image(host, Entrypoint=["/agnhost"], Cmd=["pause"], ExposedPorts={"80/tcp": {}})
    web = image(host, Entrypoint=["/agnhost"], Cmd=["netexec", "--http-port=80"])
    pause = image(host, Entrypoint=["/agnhost", "pause"], User="65535:65535")
    made = {(f"{E2E}/busybox", tag): image(Cmd=["sh"]) for tag in ("1.37.0-2", "1.37.0-1", "1.29-4")}
    made |= {(f"{E2E}/agnhost", tag): agnhost for tag in ("2.66.1", "2.55")}
    made |= {(f"{E2E}/nginx", tag): web for tag in ("1.27.0-2", "1.28.0-2")}
    made |= {("pause", tag): pause for tag in ("3.10.2", "3.10.1", "3.10", "3.9")}
    made[f"{E2E}/nonroot", "1.5"] = image(host, User="1234:1234", Entrypoint=["/agnhost"], Cmd=["pause"])
    made[f"{E2E}/nonewprivs", "1.4"] = image(privileges, Entrypoint=["/nnp"])
    return made


def cluster_images(rootfs: Path) -> dict[tuple[str, str], Made]:
    """Those that the cluster's specs name besides, and agnhost with the programs that they call in it."""
    with tempfile.TemporaryDirectory() as directory:
        base = tree_tar(_base(rootfs, Path(directory) / "base"))
        host = tree_tar(_agnhost(Path(directory) / "agnhost"))
        tools = tree_tar(_netcat(_tools(Path(directory) / "tools", "dig", "getent")))
        pages = {}
        for name in ("kitten", "nautilus"):
            (page := Path(directory) / name).mkdir()
            (page / "data.json").write_text(json.dumps({"image": f"{name}.jpg"}))
            pages[name] = tree_tar(page)

    def image(*layers: bytes, **config: object) -> Made:
        return make_image([base, *layers], {"Env": ENV, **config}, form="")

    agnhost = image(host, tools, Entrypoint=["/agnhost"], Cmd=["pause"], ExposedPorts={"80/tcp": {}})
    made = node_images(rootfs) | {(f"{E2E}/agnhost", tag): agnhost for tag in ("2.66.1", "2.55")}
    made[f"{E2E}/glibc-dns-testing", "2.1.1"] = image(tools, Cmd=["sh"])
    for name, tar in pages.items():
        made[f"{E2E}/{name}", "1.8"] = image(host, tar, Entrypoint=["/agnhost"], Cmd=["test-webserver"])
    return made


def _base(rootfs: Path, to: Path) -> Path:
    subprocess.run(["cp", "-a", rootfs, to], check=True)
    for name, text in ACCOUNTS.items():
        (to / "etc" / name).unlink(missing_ok=True)
        (to / "etc" / name).write_text(text)
    (to / "tmp").mkdir(exist_ok=True)
    (to / "tmp").chmod(0o1777)
    return to


def _agnhost(to: Path) -> Path:
    """With curl, which some network specs call in it, and its libraries."""
    _put(build.program("agnhost"), to / "agnhost")
    (to / "agnhost-2").symlink_to("agnhost")
    (to / "uploads").mkdir(mode=0o777)
    files = ("-keyout", f"{to}/localhost.key", "-out", f"{to}/localhost.crt")  # of its servers; probes ask for one, too
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *files]
    subprocess.run(made, check=True, capture_output=True)
    (to / "localhost.key").chmod(0o644)
    return _tools(to, "curl")


def _tools(to: Path, *names: str) -> Path:
    """Programs of this machine with their libraries, those that it has."""
    for program in filter(None, map(shutil.which, names)):
        _put(Path(program), to / program[1:])
        _libraries(Path(program), to)
    return to


def _libraries(program: Path, to: Path) -> None:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(", listed):
        _put(Path(path), to / path[1:])


def _netcat(to: Path) -> Path:
    """OpenBSD's, which knows UDP and -v, and a shell that does not prefer busybox' own to it."""
    with tempfile.TemporaryDirectory() as directory:
        there = Path(directory)
        subprocess.run(["apt-get", "-qq", "download", "netcat-openbsd"], cwd=there, check=True, capture_output=True)
        (package,) = there.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, there / "unpacked"], check=True)
        (program,) = there.glob("unpacked/bin/nc.openbsd")
        _put(program, to / "usr/bin/nc")
        _libraries(program, to)
    _put(Path("/bin/dash"), to / "bin/sh")
    return to


def _nonewprivs(to: Path) -> Path:
    _put(build.program("nonewprivs"), to / "nnp", 0o4755)
    return to


def _put(source: Path, to: Path, mode: int = 0o755) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
    to.chmod(mode)
