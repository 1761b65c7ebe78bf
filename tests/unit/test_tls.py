"""A private key that has a password is refused by its file's name, by whoever is given it: nobody is asked for one.

Plain HTTP reads no certificate at all.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.image.registry import transport
from pyrun.kube.client import Client
from pyrun.kube.kubeconfig import Cluster
from pyrun.logs.ship.syslog import SyslogTarget
from pyrun.tls import load_certificate

PACKAGE = Path(__file__).resolve().parents[2] / "pyrun"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate, and its key with a password."""
    at = tmp_path_factory.mktemp("tls")
    argv = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=a -passout pass:word".split()
    subprocess.run(
        [*argv, "-keyout", at / "key", "-out", at / "cert"], check=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    assert "ENCRYPTED" in (at / "key").read_text()
    return str(at / "cert"), str(at / "key")


def test_it_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=f"{re.escape(pair[1])} needs a password"):
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *pair)


def test_by_every_client(pair: tuple[str, str]) -> None:
    certificate, key = pair
    with pytest.raises(PyrunError, match="needs a password"):
        Client(Cluster("https://127.0.0.1:1", certificate_file=certificate, key_file=key)).get("/version")
    data = Path(certificate).read_bytes(), Path(key).read_bytes()
    with pytest.raises(PyrunError, match="the key in the kubeconfig needs a password"):
        Client(Cluster("https://127.0.0.1:1", certificate=data[0], key=data[1])).get("/version")
    with pytest.raises(InvalidArgument, match="--ship syslog.*needs a password"):
        SyslogTarget(f"tls://127.0.0.1:1?cert={certificate}&key={key}")
    with pytest.raises(PyrunError, match="needs a password"):
        transport._make_context((), ((certificate, key),), False)


def test_plain_http_reads_no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes longer than many a pull. Where TLS is spoken, to the registry or to the proxy, they are read."""

    def read() -> ssl.SSLContext:
        raise LookupError("authorities are read")

    monkeypatch.setattr(ssl, "create_default_context", read)
    transport.Transport(1.0, {})._pool(None, "http://registry/v2/")
    transport.Transport(1.0, {"http_proxy": "http://proxy:3128"})._pool(None, "http://registry/v2/")
    for url, environment in (
        ("https://registry/v2/", {}),
        ("HTTPS://registry/v2/", {}),
        ("http://registry/v2/", {"http_proxy": "https://proxy:3128"}),
    ):
        with pytest.raises(LookupError):
            transport.Transport(1.0, environment)._pool(None, url)


def test_there_is_one_place_that_reads_them() -> None:
    found = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if "load_cert_chain" in path.read_text()]
    assert found == ["tls.py"]
