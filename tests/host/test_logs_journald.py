"""Lines of pods sent to a real journald, which runs in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrun.logs.line import LONGEST
from tests.unit.test_logs import raw
from tests.unit.test_logs_blocks import wait_for
from tests.unit.test_logs_ship import Written, collecting, shipped, work

PROGRAM = Path("/usr/lib/systemd/systemd-journald")
CONFIG = Path("/etc/systemd/journald.conf")
START = """set -e
mount --make-rprivate /
mount --bind "$0/journald.conf" /etc/systemd/journald.conf
mount --bind "$0/run" /run
exec /usr/lib/systemd/systemd-journald"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path is short enough for a socket's."""
    made = Path(tempfile.mkdtemp(prefix="pyrun-j-"))
    for name in ("logs", "store", "run"):
        (made / name).mkdir()
    (made / "run/systemd/journal").mkdir(parents=True)
    (made / "run/log/journal").mkdir(parents=True)
    (made / "journald.conf").write_text("[Journal]\nStorage=volatile\nRateLimitBurst=0\nReadKMsg=no\n")
    yield made
    shutil.rmtree(made)


@contextmanager
def a_journald(place: Path) -> Iterator[None]:
    server = subprocess.Popen(["unshare", "-m", "sh", "-c", START, str(place)], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait(60)


def entries(place: Path, *fields: str) -> list[dict[str, object]]:
    argv = ["journalctl", "-q", "-D", str(place / "run/log/journal"), "-o", "json", "--all", *fields]
    done = subprocess.run(argv, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(
    os.geteuid() != 0 or not PROGRAM.exists() or not CONFIG.exists() or not Path("/etc/machine-id").exists(),
    reason="there is no journald, no machine-id, or no root",
)
def test_journald_takes_all(place: Path) -> None:
    written = Written(place / "logs")
    written.write(200)
    large = bytes(range(256)).replace(b"\n", b"") * 2000
    assert 212992 < len(large) < LONGEST  # more than a datagram can be
    with collecting(place / "logs", place / "store", f"journald+unix://{place}/run/systemd/journal/socket") as running:
        wait_for(lambda: [bool(row["failures"]) for row in shipped(place / "store")] == [True], "it is away")
        with a_journald(place):
            work(written, running)
            with written.live.open("ab", buffering=0) as file:
                pieces = [large[at : at + 16384] for at in range(0, len(large), 16384)]
                file.write(b"".join(raw(0, one, stream="stderr", tag="P") for one in pieces[:-1]))
                file.write(raw(0, pieces[-1], stream="stderr"))

            def messages() -> set[str]:
                return {str(one["MESSAGE"]) for one in entries(place, "POD_NAME=cart", "PRIORITY=6")}

            wait_for(lambda: len(messages()) == written.number, "all lines are there")
            wait_for(lambda: entries(place, "LOG_STREAM=stderr") != [], "the large line is there")
            [one, *_] = entries(place, "LOG_STREAM=stderr")
            assert one["MESSAGE"] == list(large) and one["PRIORITY"] == "3"
            [one, *_] = entries(place, "MESSAGE=line-7-end")
            fields = ("CONTAINER_NAME", "POD_NAMESPACE", "POD_NAME", "POD_UID", "SYSLOG_IDENTIFIER")
            assert [one[name] for name in fields] == ["app", "shop", "cart", "uid-1", "app"]
            [row] = shipped(place / "store")
            assert row["dropped"] == 0
