"""critest's images, made here: its own lie in registries that a test must not depend on.

A busybox under each of their names, with what its specs look for: `pgrep` and `ipcs`, which Debian's busybox has
not got, an `nginx` that writes its pid, a setuid program that tells its effective user, users and groups.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.container.runner import REPO
from tests.support.cri.tools import NNP, program
from tests.support.registry.made import Made, make_image, small_tar, tree_tar

PUBLIC = "registry.k8s.io/e2e-test-images/"
STAGING = "gcr.io/k8s-staging-cri-tools/"
# Of an image that must have its own digest: nobody can make another one.
NOT_TO_BE_MADE = f"{STAGING}test-image-digest"

PGREP = """#!/bin/sh
found=1
for directory in /proc/[0-9]*; do
    [ "$(cat "$directory/comm" 2>/dev/null)" = "$1" ] && { echo "${directory#/proc/}"; found=0; }
done
exit $found
"""
# As util-linux prints shared memory: key, shmid, owner, perms, bytes, nattch.
IPCS = """#!/bin/sh
echo '------ Shared Memory Segments --------'
echo 'key        shmid      owner      perms      bytes      nattch     status'
while read -r key id perms size _ _ attached _; do
    [ "$key" = key ] || printf '0x%08x %-10s root %-10s %-10s %s\\n' "$key" "$id" "$perms" "$size" "$attached"
done </proc/sysvipc/shm
"""
SERVER = """#!/bin/sh
echo "${0##*/} starts"
mkdir -p /var/run
echo $$ >/var/run/nginx.pid
httpd -f -p "${1:-80}" -h /www &
wait
"""
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\ndefault-user:x:1000:1000::/:/bin/sh\n"
    "nobody:x:65534:65534::/:/bin/sh\n",
    "group": "root:x:0:\nwww-data:x:33:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
}


def critest_images() -> dict[str, Made]:
    """Reference → image."""
    base = _base()
    shell = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}

    def image(name: str = "", **config: object) -> Made:
        return make_image([base, *([small_tar(name, name)] if name else [])], shell | config)

    tags = image("tags")
    pause = image("pause", Cmd=["sleep", "1000000"])
    made = {
        f"{PUBLIC}busybox:1.29-2": image(),
        f"{PUBLIC}nginx:1.14-2": image("nginx.conf", Cmd=["/bin/nginx", "80", "master process"]),
        f"{PUBLIC}httpd:2.4.39-4": image("httpd.conf", Cmd=["/bin/httpd-foreground"]),
        f"{PUBLIC}nonewprivs:1.3": image("nnp.conf", Entrypoint=["/nnp"], Cmd=None),
        "registry.k8s.io/pause:3.9": pause,
        "k8s.gcr.io/pause:3.9": pause,
        f"{STAGING}hostnet-nginx-amd64:latest": image("hostnet", Cmd=["/bin/nginx", "12003"]),
        f"{STAGING}test-image-predefined-group:latest": image("group", User="1000"),
        f"{STAGING}test-image-tag:test": image("test"),
        f"{STAGING}test-image-tag:all": image("all"),
        f"{STAGING}test-image-latest:latest": image("latest"),
        f"{STAGING}test-image-digest:latest": image("digest"),
    }
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004"}
    made |= {f"{STAGING}test-image-user-{how}:latest": image(how, User=user) for how, user in users.items()}
    made |= {f"{STAGING}test-image-{number}:latest": image(f"image-{number}") for number in (1, 2, 3)}
    made |= {f"{STAGING}test-image-tags:{tag}": tags for tag in (1, 2, 3)}
    return made


def _unlearn_ls(busybox: Path, shell: Path) -> None:
    """Debian's shell runs its own `ls` whatever lies at /bin/ls, and a spec masks that. So one of its applets gets
    another name, at which the table of names stays in order."""
    data = busybox.read_bytes()
    assert data.count(b"\0losetup\0ls\0lsmod\0") == 1
    shell.unlink()
    shell.write_bytes(data.replace(b"\0losetup\0ls\0lsmod\0", b"\0losetup\0lr\0lsmod\0"))
    shell.chmod(0o755)


def _base() -> bytes:
    """The layer that all share."""
    root = subprocess.run([REPO / "bundles/make-rootfs", "busybox"], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(root.strip(), tree, symlinks=True)
        tree.chmod(0o755)
        for link in (tree / "bin").iterdir():
            if link.is_symlink():  # a path that is masked must not be that of all others
                link.unlink()
                os.link(tree / "bin/busybox", link)
        _unlearn_ls(tree / "bin/busybox", tree / "bin/sh")
        for name, text in {"pgrep": PGREP, "ipcs": IPCS, "nginx": SERVER, "httpd-foreground": SERVER}.items():
            (tree / "bin" / name).unlink(missing_ok=True)
            (tree / "bin" / name).write_text(text)
            (tree / "bin" / name).chmod(0o755)
        for name, text in ACCOUNTS.items():
            (tree / "etc" / name).write_text(text)
        (tree / "www").mkdir()
        (tree / "www/index.html").write_text("<title>Welcome to nginx!</title>\n")
        shutil.copy(program(NNP), tree / NNP)
        (tree / NNP).chmod(0o4755)
        return tree_tar(tree)
