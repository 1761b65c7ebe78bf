"""VictoriaLogs, which takes logs by the protocols of Loki, Elasticsearch and OpenTelemetry, and can be asked for them.

Run as ``python -m tests.support.engines.victoria_logs`` it is built, once; tests look whether it is there.
"""

from __future__ import annotations

import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, build, download_module, find_go, kept

MODULE, VERSION = "github.com/VictoriaMetrics/VictoriaLogs", "v1.52.1"
CACHE = REPO / ".cache" / "victoria-logs" / VERSION
PROGRAM = CACHE / "victoria-logs"
PATIENCE_S = 60.0


def make(program: Path) -> None:
    go = find_go(CACHE)
    build(go, download_module(go, f"{MODULE}@{VERSION}", CACHE), program, "build", *STRIPPED, "./app/victoria-logs")


def start(directory: Path, port: int) -> subprocess.Popen[bytes]:
    argv = [str(PROGRAM), f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={directory}", "-retentionPeriod=100y"]
    with (directory.parent / "victoria-logs.log").open("wb") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log)


def ask(port: int, query: str) -> str:
    """LogsQL's answer, in lines of JSON. OSError where it does not answer."""
    data = urllib.parse.urlencode({"query": query}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/select/logsql/query", data, PATIENCE_S) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    print(kept(PROGRAM, make))
