"""Lines sent to other stores: real ones take them all, whatever is killed or away meanwhile."""

from __future__ import annotations

import gzip
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.logs.line import Line
from pyrun.logs.ship import elasticsearch, journald, loki, otlp, syslog
from pyrun.logs.ship.http import seconds_of
from pyrun.logs.ship.record import Again, Record, Refused, parse_target
from pyrun.logs.ship.shipper import Shipper
from pyrun.logs.store import Keep, LogStore, read_status
from pyrun.logs.tree import Container
from tests.support.container.open_files import open_files
from tests.support.engines import victoria_logs
from tests.support.kube.authority import Authority
from tests.support.serving import HttpServer

from .test_logs import container, raw
from .test_logs_blocks import start_collector, wait_for

RECORD = Record(Container("shop", 'we"b]', "u", "app", "/d"), Line(10**18, "stderr", b"caf\xc3\xa9 \xff"), "node-1")
NOW = int(time.time()) - 3600


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Written:
    """A container's log that grows; each line is unlike every other. It begins an hour ago."""

    def __init__(self, root: Path, pod: str = "shop_cart_uid-1") -> None:
        self.live = Path(container(root, pod=pod).directory) / "0.log"
        self.number = self.rotations = 0

    def write(self, count: int) -> None:
        with self.live.open("ab", buffering=0) as file:
            for _ in range(count):
                file.write(self._next())

    def write_at_once(self, count: int) -> None:
        """By one call, so that a reader finds all of them or none."""
        with self.live.open("ab", buffering=0) as file:
            file.write(b"".join(self._next() for _ in range(count)))

    def _next(self) -> bytes:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW + self.number // 100))
        line = raw(0, f"line-{self.number}-end").split(b" ", 1)[1]
        self.number += 1
        return b"%s.%09dZ " % (stamp.encode(), self.number - 1) + line

    def rotate(self) -> None:
        os.rename(self.live, f"{self.live}.20261127-1200{self.rotations:02}")
        self.live.touch()
        self.rotations += 1


@contextmanager
def collecting(
    logs: Path, store: Path, *targets: str, more: Sequence[str] = ()
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A collector that may be killed: `again` begins another one."""
    argv = [sys.executable, "-m", "pyrun", "collect", "--dir", str(logs), "--store", str(store), *more]
    running: list[subprocess.Popen[bytes]] = []
    for target in targets:
        argv += ["--ship", target]
    running.append(start_collector(argv))
    try:
        yield running
    finally:
        running[-1].terminate()
        assert running[-1].wait(60) == 0


def kill_and_go_on(running: list[subprocess.Popen[bytes]]) -> None:
    running[-1].kill()
    running[-1].wait()
    running.append(start_collector(argv_of(running[-1])))


def argv_of(started: subprocess.Popen[bytes]) -> list[str]:
    assert isinstance(started.args, list)
    return [str(word) for word in started.args]


def work(written: Written, running: list[subprocess.Popen[bytes]]) -> None:
    """What a busy container does, while collectors are killed."""
    for turn in range(4):
        written.write(700)
        written.rotate()
        written.write(50)
        if turn % 2:
            kill_and_go_on(running)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("logs", "store"):
        (tmp_path / name).mkdir()
    return tmp_path / "logs", tmp_path / "store"


def test_victoria_logs_takes_all_by_three_protocols(place: tuple[Path, Path], tmp_path: Path) -> None:
    if not victoria_logs.PROGRAM.exists():
        pytest.skip("VictoriaLogs is not built (make victoria-logs)")
    port = free_port()
    written = Written(place[0])
    written.write(1000)
    fields = "_msg_field=message&_time_field=@timestamp&_stream_fields=namespace,pod"
    base = f"http://127.0.0.1:{port}/insert"
    targets = (
        f"loki+{base}/loki/api/v1/push",
        f"elasticsearch+{base}/elasticsearch/_bulk?{fields}",
        f"otlp+{base}/opentelemetry/v1/logs",
    )
    (tmp_path / "data").mkdir()
    with collecting(*place, *targets) as running:
        wait_for(
            lambda: [bool(row["failures"]) for row in shipped(place[1])] == [True] * 3, "each has seen that it is away"
        )
        server = victoria_logs.start(tmp_path / "data", port)
        try:
            work(written, running)

            def counted() -> list[int]:
                try:
                    answer = victoria_logs.ask(port, "* | stats by (_stream) count_uniq(_msg) as lines")
                except OSError:
                    return []
                return [int(json.loads(line)["lines"]) for line in answer.splitlines()]

            wait_for(lambda: counted() == [written.number] * 3, "all lines are in all three")
            assert [row["dropped"] for row in shipped(place[1])] == [0, 0, 0]
            [answer] = victoria_logs.ask(port, f'"line-{written.number - 1}-end" container:app').splitlines()[:1]
            assert json.loads(answer)["pod"] == "cart"
        finally:
            server.terminate()
            server.wait()


def shipped(store: Path) -> list[dict[str, object]]:
    try:
        rows = read_status(str(store))["shipped"]
    except PyrunError:  # it has just begun
        return []
    assert isinstance(rows, list)
    return rows


@contextmanager
def rsyslog(directory: Path, port: int, head: str = "", tls: str = "") -> Iterator[Path]:
    """One that listens; the file in which it writes. head: of its configuration; tls: of its listener."""
    program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
    assert program is not None
    out, config = directory / "out", directory / "rsyslog.conf"
    config.write_text(
        f'{head}module(load="imtcp" {tls})\n'
        f'input(type="imtcp" port="{port}" address="127.0.0.1")\n'
        'template(name="all" type="string" string="%app-name% %msgid% %pri% %structured-data% %msg%\\n")\n'
        f'action(type="omfile" file="{out}" template="all" flushOnTXEnd="on")\n'
    )
    argv = [program, "-n", "-f", str(config), "-i", str(directory / "pid")]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield out
    finally:
        server.terminate()
        server.wait()


needs_rsyslog = pytest.mark.skipif(
    shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin") is None, reason="rsyslog is not installed"
)


@needs_rsyslog
def test_rsyslog_takes_all(place: tuple[Path, Path], tmp_path: Path) -> None:
    port, written = free_port(), Written(place[0])
    written.write(200)
    with (
        collecting(*place, f"syslog+tcp://127.0.0.1:{port}") as running,
        rsyslog(tmp_path, port) as out,
    ):
        work(written, running)
        wait_for(lambda: len(lines_of(out)) == written.number, "all lines are there")
    assert out.read_text().startswith(
        'cart app 14 [pod@32473 namespace="shop" pod="cart" pod_uid="uid-1" container="app"'
    )


@needs_rsyslog
@pytest.mark.skipif(
    not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")), reason="rsyslog-gnutls is not installed"
)
def test_rsyslog_takes_all_over_tls(place: tuple[Path, Path], tmp_path: Path) -> None:
    """From who has a certificate that it knows; and nobody sends to a server that he does not know."""
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    server = authority.client("server", "/CN=server", use="serverAuth", names="IP:127.0.0.1")
    client = authority.client("client", "/CN=client")
    files = f'DefaultNetstreamDriverCAFile="{authority.ca}" DefaultNetstreamDriverCertFile="{server}"'
    head = f'global({files} DefaultNetstreamDriverKeyFile="{server}")\n'
    tls = 'StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid"'
    port, written = free_port(), Written(place[0])
    written.write(200)
    url = f"syslog+tls://127.0.0.1:{port}"
    right, without, wrong = f"{url}?ca={authority.ca}&cert={client}", f"{url}?ca={authority.ca}", f"{url}?ca={other.ca}"
    with (
        collecting(*place, right, without, wrong) as running,
        rsyslog(tmp_path, port, head, tls) as out,
    ):
        work(written, running)
        wait_for(lambda: len(lines_of(out)) == written.number, "all lines are there")

        def errors() -> dict[object, str]:
            return {row["target"]: str(row["last_error"]) for row in shipped(place[1])}

        wait_for(lambda: "certificate verify failed" in errors()[wrong], "an unknown server is refused")
        wait_for(lambda: "Connection refused" not in errors()[without], "an unknown client is refused")
        assert [row["lines"] for row in shipped(place[1]) if row["target"] == wrong] == [0]


def lines_of(out: Path) -> set[str]:
    text = out.read_text() if out.exists() else ""
    return {word for line in text.split("\n")[:-1] for word in line.split() if word.startswith("line-")}


BAD, MOST_LINES = b"line-333-end", 100


class Moody(http.server.BaseHTTPRequestHandler):
    """A store that says what it was told to, and then takes everything but what is bad."""

    answers: list[tuple[int, dict[str, str]]] = []
    taken: list[bytes] = []
    times: list[float] = []

    def judge(self, body: bytes) -> int:
        """A bad line spoils a batch, and a proxy before it has its bound."""
        return 413 if body.count(b"-end") > MOST_LINES else 400 if BAD in body else 204

    def do_POST(self) -> None:
        body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        self.times.append(time.monotonic())
        status, headers = self.answers.pop(0) if self.answers else (self.judge(body), {})
        if status == 204:
            self.taken.append(body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


NO_HEADERS: dict[str, str] = {}


@contextmanager
def a_store(*answers: tuple[int, dict[str, str]]) -> Iterator[int]:
    """A Moody one with these answers; its port."""
    Moody.answers, Moody.taken, Moody.times = list(answers), [], []
    server = HttpServer(("127.0.0.1", 0), Moody)
    with server.running():
        yield server.server_port


def texts_of(bodies: list[bytes]) -> list[str]:
    """In the order in which they came."""
    return [text for body in bodies for stream in json.loads(body)["streams"] for _, text in stream["values"]]


def test_what_a_store_asks_for_is_done(place: tuple[Path, Path]) -> None:
    """429 with a time is waited for; 400, also to each line alone, drops that batch alone, and says so."""
    written = Written(place[0])
    written.write(10)
    refused = [(400, NO_HEADERS)] * (10 + 9)  # the lines, and what was halved
    with (
        a_store((429, {"Retry-After": "3"}), (503, {}), *refused) as port,
        collecting(*place, f"loki+http://127.0.0.1:{port}/push"),
    ):
        wait_for(lambda: [row["dropped"] for row in shipped(place[1])] == [10], "the batch is refused")
        written.write_at_once(5)
        wait_for(lambda: [row["lines"] for row in shipped(place[1])] == [5], "the next one is taken")
    assert Moody.times[1] - Moody.times[0] >= 2.4
    assert texts_of(Moody.taken) == [f"line-{number}-end" for number in range(10, 15)]


def test_a_bad_line_drops_no_other(place: tuple[Path, Path]) -> None:
    """Nor does a bound of a proxy's, or an address that is set right later."""
    written = Written(place[0])
    written.write_at_once(500)
    with (
        a_store((405, {}), (415, {})) as port,
        collecting(*place, f"loki+http://127.0.0.1:{port}/push"),
    ):
        wait_for(lambda: [row["lines"] for row in shipped(place[1])] == [499], "all but one are taken")
        assert [row["dropped"] for row in shipped(place[1])] == [1]
    assert texts_of(Moody.taken) == [f"line-{number}-end" for number in range(500) if number != 333]


TRACE = ["Traceback (most recent call last):", '  File "x.py", line 3, in f', "KeyError: 'unheard'"]


def late_raw(*texts: str) -> bytes:
    """Lines of one time, which is not yet over: what they are of is whole when another line says so."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(NOW + 86400))
    return "".join(f"{stamp}.000000000Z stderr F {text}\n" for text in texts).encode()


def test_lines_that_belong_together_are_sent_as_one(place: tuple[Path, Path]) -> None:
    """Also where they come one after the other, and where the collector is killed in between."""
    written = Written(place[0])
    written.write_at_once(3)
    with a_store() as port, collecting(*place, f"loki+http://127.0.0.1:{port}/push") as running:
        wait_for(lambda: len(texts_of(Moody.taken)) == 3, "what was there is taken")
        with written.live.open("ab", buffering=0) as file:
            file.write(late_raw("request 7 failed"))
            for line in TRACE:
                file.write(late_raw(line))
            file.write(late_raw("request 8", "request 9 failed", *TRACE[:2]))
            wait_for(lambda: "request 8" in texts_of(Moody.taken), "what is whole is taken")
            kill_and_go_on(running)
            file.write(late_raw(TRACE[2], "request 10", "request 11"))
        wait_for(lambda: "request 10" in texts_of(Moody.taken), "all that is whole is taken")
    found = texts_of(Moody.taken)[3:]
    assert found[:2] == ["\n".join(["request 7 failed", *TRACE]), "request 8"]
    assert found[-2:] == ["\n".join(["request 9 failed", *TRACE]), "request 10"]


def test_each_line_by_itself(place: tuple[Path, Path]) -> None:
    written = Written(place[0])
    written.live.write_bytes(late_raw("request 7 failed", *TRACE))
    with a_store() as port, collecting(*place, f"loki+http://127.0.0.1:{port}/push", more=["--no-join"]):
        wait_for(lambda: len(texts_of(Moody.taken)) == 4, "all is taken")
    assert texts_of(Moody.taken) == ["request 7 failed", *TRACE]


def test_the_last_lines_of_a_removed_pod_are_sent_once(place: tuple[Path, Path]) -> None:
    """Its directory goes, and some seconds later a block comes."""
    written = Written(place[0])
    written.write_at_once(5)
    with a_store() as port, collecting(*place, f"loki+http://127.0.0.1:{port}/push") as running:
        wait_for(lambda: [row["lines"] for row in shipped(place[1])] == [5], "the first lines are taken")
        wait_for(
            lambda: list(open_files(running[-1].pid).values()).count(str(written.live)) == 2,
            "sealer and shipper hold the file",
        )
        written.write_at_once(3)
        shutil.rmtree(written.live.parent.parent)
        wait_for(lambda: any(place[1].glob("blocks/*/*/*.zst")), "what was removed is sealed")
        # Who finds this pod has found the block as well.
        Written(place[0], "shop_later_uid-2").write_at_once(1)
        wait_for(lambda: b"later" in b"".join(Moody.taken), "the next pod's line is taken")
    assert texts_of(Moody.taken) == [*(f"line-{number}-end" for number in range(8)), "line-0-end"]


def test_no_error_ends_sending(place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a compressed file that is damaged, nor a fault of our own."""
    written = Written(place[0])
    written.write_at_once(3)
    packed = bytearray(gzip.compress(raw(0, "of the damaged one") * 1000))
    packed[10:40] = b"\xff" * 30
    written.live.with_name("0.log.20261127-120000.gz").write_bytes(packed)
    encode, faults = loki.encode, [AttributeError("of our own")]

    def faulty(records: Sequence[Record]) -> bytes:
        if faults:
            raise faults.pop()
        return encode(records)

    monkeypatch.setattr(loki, "encode", faulty)
    warned: list[str] = []
    with a_store() as port:
        store = LogStore(str(place[1]), Keep())
        shipper = Shipper(f"loki+http://127.0.0.1:{port}/push", str(place[0]), str(place[1]), warned.append)
        shipper.start()
        try:
            wait_for(lambda: [row["lines"] for row in shipped(place[1])] == [3], "it has gone on")
        finally:
            shipper.stop(60)
            store.close()
    assert texts_of(Moody.taken) == [f"line-{number}-end" for number in range(3)]
    assert len(warned) == 1 and "AttributeError: of our own" in warned[0]
    [row] = shipped(place[1])
    assert (row["failures"], row["last_error"]) == (1, "AttributeError: of our own")


def test_an_answer_for_each_line() -> None:
    elasticsearch.check(200, b'{"errors": false}', 1)
    for odd in (
        b"[]",
        b'"x"',
        b'{"errors": 1, "items": [1]}',
        b'{"errors": 1, "items": [{"create": {"status": "no"}}]}',
    ):
        with pytest.raises(Again, match="none of the bulk API"):
            elasticsearch.check(200, odd, 1)
    full = {"errors": True, "items": [{"create": {"status": 201}}, {"create": {"status": 429}}]}
    with pytest.raises(Again):
        elasticsearch.check(200, json.dumps(full).encode(), 2)
    bad = {"errors": True, "items": [{"create": {"status": 201}}, {"create": {"status": 400, "error": "mapping"}}]}
    with pytest.raises(Refused) as refused:
        elasticsearch.check(200, json.dumps(bad).encode(), 2)
    assert refused.value.lines == 1
    otlp.check(200, b"", 5)
    with pytest.raises(Refused) as refused:
        otlp.check(200, b"\x0a\x02\x08\x03", 5)
    assert refused.value.lines == 3


def test_a_message_of_syslog() -> None:
    length, message = syslog.encode(RECORD).split(b" ", 1)
    assert int(length) == len(message)
    assert message.startswith(b'<11>1 2001-09-09T01:46:40.000000Z node-1 we"b] - app [pod@32473 namespace=')
    assert b'pod="we\\"b\\]"' in message and message.endswith(b"] caf\xc3\xa9 \xff")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("tcp://x:1/path", "no place"),
        ("tcp://x:99999", "out of range"),
        ("tcp://x:1?ca=f", "tcp has no ca"),
        ("tls://x:1?verify=no", "tls has no verify"),
        ("tls://x:1?ca=/nonexistent", "/nonexistent: "),
        ("tls://x:1?key=/nonexistent", "a key without a certificate"),
        ("tls://x:1?cert=/dev/null", "/dev/null: "),
    ],
)
def test_what_is_no_place_for_syslog(url: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        syslog.SyslogTarget(url)


def test_fields_of_the_journal() -> None:
    assert journald.encode(RECORD) == (
        b"PRIORITY=3\nSYSLOG_IDENTIFIER=app\nSYSLOG_TIMESTAMP=2001-09-09T01:46:40.000000000Z\nCONTAINER_NAME=app\n"
        b'POD_NAMESPACE=shop\nPOD_NAME=we"b]\nPOD_UID=u\nLOG_STREAM=stderr\nMESSAGE=caf\xc3\xa9 \xff\n'
    )
    line = Line(0, "stdout", b"a\nPRIORITY=0", cut=True)
    assert journald.encode(Record(RECORD.container, line, "")).endswith(
        b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nCONTAINER_PARTIAL_MESSAGE=true\n"
    )


@pytest.mark.parametrize("url", ["unix://", "unix:///", "unix://host/run/x", "unix:///run/x?a=b"])
def test_what_is_no_socket_of_the_journal(url: str) -> None:
    with pytest.raises(InvalidArgument, match="no socket"):
        journald.JournaldTarget(url)


@pytest.mark.parametrize("text", ["", "loki", "loki+tcp://x:1", "http://x/", "kafka+tcp://x:1", "syslog+http://x"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--ship"):
        parse_target(text)


@pytest.mark.parametrize(("text", "least", "most"), [("7", 7, 7), ("Fri, 27 Nov 2026 12:00:00 GMT", 0, 10**9)])
def test_retry_after(text: str, least: float, most: float) -> None:
    found = seconds_of(text)
    assert found is not None and least <= found <= most
    assert seconds_of("soon") is None and seconds_of("") is None
