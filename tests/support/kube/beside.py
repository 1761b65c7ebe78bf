"""Kubernetes' programs are built beside the tests of continuous integration, in the place of a guest (vm/host.py).

Elsewhere `make kubelet` and `make control-plane` build them: fifteen CPU minutes are not a test run's to spend unasked.
The tests of the cluster come behind the other tests of the host, and wait for the build. Where it fails, as where Go's
modules can't be reached, they are skipped and say why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.container.leaks import BESIDE
from tests.support.container.runner import REPO
from tests.support.kube import build
from tests.support.machines_network import machines_network

NAMES = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet")
ARGV = [sys.executable, "-m", "tests.support.kube.build", "--quick", *NAMES]
NICE = 5  # as guests
LONGEST_S = 3000.0  # from its beginning; the whole run has 5100
ROOM_GIB = 15  # of Go's caches
POLL_S = 0.05
END_S = 30.0


def wanted() -> bool:
    """Whether the programs are to be built beside the tests: in continuous integration, where one is missing. Leaves
    word where there is no room for it."""
    if not os.environ.get("CI") or all(map(build.built, NAMES)):
        return False
    if shutil.disk_usage(REPO).free >= ROOM_GIB << 30:
        return True
    build.CACHE.mkdir(parents=True, exist_ok=True)
    (build.CACHE / "why-not").write_text(f"not built beside the tests: less than {ROOM_GIB} GiB free")
    return False


class Building:
    """A process that builds, in a session of its own, which is no leak of a test's."""

    def __init__(self, argv: list[str] = ARGV, cache: Path = build.CACHE) -> None:
        self.argv = argv
        self.process: subprocess.Popen[bytes] | None = None
        self._log, self._why_not = cache / "build.log", cache / "why-not"

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._why_not.write_text("its build has not ended")
        argv = ["setpriv", "--pdeathsig", "TERM", "nice", "-n", str(NICE), *self.argv]
        with self._log.open("wb") as log, machines_network():
            self.process = subprocess.Popen(
                argv, cwd=REPO, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        BESIDE.add(self.process.pid)
        self._last = time.monotonic() + LONGEST_S

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """For its end; it is ended where that takes too long. Leaves word of why there are no programs."""
        if self.process is None:
            self.start()
        while self.is_running() and time.monotonic() < self._last:
            meanwhile()
            time.sleep(POLL_S)
        assert self.process is not None
        if self.is_running():
            self.stop()
            self._why_not.write_text(f"its build took more than {LONGEST_S:.0f} s")
        elif self.process.returncode:
            said = self._log.read_text(errors="replace").strip()[-800:]
            self._why_not.write_text(f"its build ended with {self.process.returncode}: {said}")
        else:
            self._why_not.unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends it and what it has started, if they still run."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
