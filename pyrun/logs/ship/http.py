"""Sends batches over HTTP, by urllib3: compressed, and with what the answer's status says."""

from __future__ import annotations

import email.utils
import gzip
import time
from types import ModuleType

import urllib3

from ...errors import printable
from .record import Again, Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_S, ANSWER_S = 10.0, 60.0
ANSWER_BYTES = 8 << 20


class Sender:
    """Posts to one URL, over a connection that stays."""

    def __init__(self, url: str) -> None:
        self._url = url
        timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, timeout=timeout, retries=False)

    def post(self, body: bytes, headers: dict[str, str], sent: int) -> tuple[int, bytes]:
        """Status and text of an answer that took it. Again or Refused, of `sent` lines or samples."""
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={"User-Agent": "pyrun", **headers},
                redirect=False,
                preload_content=False,
            )
            try:
                text = answer.read(ANSWER_BYTES)
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Again(" ".join(str(error).split())[:200]) from None
        _judge(answer.status, text, answer.headers.get("Retry-After", ""), sent)
        return answer.status, text

    def close(self) -> None:
        self._pool.clear()


class HttpTarget(Sender):
    """protocol: the module that encodes, and checks answers."""

    def __init__(self, url: str, protocol: ModuleType) -> None:
        super().__init__(url)
        self._protocol = protocol

    def send(self, records: Sequence[Record]) -> None:
        """Returns when they were taken. Again or Refused."""
        body = gzip.compress(self._protocol.encode(records), 1)
        headers = {"Content-Type": self._protocol.KIND, "Content-Encoding": "gzip"}
        status, text = self.post(body, headers, len(records))
        self._protocol.check(status, text, len(records))


def _judge(status: int, text: bytes, retry_after: str, sent: int) -> None:
    if 200 <= status < 300:
        return
    said = f"HTTP {status}: {printable(text[:200].decode('utf-8', 'replace')).strip()}"
    # What does not depend upon the lines is not their fault: an address or a password can be set right.
    if status in (401, 403, 404, 405, 407, 408, 415, 425, 429) or status >= 500 or status < 400:
        raise Again(said, seconds_of(retry_after))
    raise Refused(said, sent, whole=status in (400, 413))


def seconds_of(text: str) -> float | None:
    """Of a Retry-After, in either form (RFC 9110, 10.2.3); None where it is neither."""
    text = text.strip()[:64]
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
