"""A certificate authority of the test's own, and clients of the kubelet's API that it knows or does not."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """path: a directory, in which it has ca.crt and NAME.pem of each client, certificate and key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        uses = "keyUsage=critical,keyCertSign,cRLSign"
        self._openssl("req", "-x509", *_NEW, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-addext", uses)

    @property
    def ca(self) -> str:
        return str(self.path / "ca.crt")

    def client(self, name: str, subject: str, *, use: str = "clientAuth", names: str = "") -> str:
        """The path of its file. names: of a server, as OpenSSL's subjectAltName has them."""
        self._openssl("req", *_NEW, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        also = f"subjectAltName={names}\n" if names else ""
        (self.path / "ext").write_text(f"keyUsage=critical,digitalSignature\nextendedKeyUsage={use}\n{also}")
        signed = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        self._openssl(*signed, "-days", "30", "-extfile", "ext", "-out", f"{name}.crt")
        made = self.path / f"{name}.pem"
        made.write_text((self.path / f"{name}.crt").read_text() + (self.path / f"{name}.key").read_text())
        return str(made)

    def _openssl(self, *argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=self.path, check=True, capture_output=True)


def children(pid: int) -> list[int]:
    """Of an agent or of a process of its own; pods' supervisors and their prober are left out."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [
        one for one in found if os.path.basename(os.readlink(f"/proc/{one}/exe")) not in ("pyrun-pod", "pyrun-probe")
    ]


class KubeletClient:
    """serving: the server's certificate, which is checked. certificate: a client's file."""

    def __init__(self, host: str, port: int, serving: Path, certificate: str | None = None, token: str = "") -> None:
        self.url = f"https://{host}:{port}"
        self.tls = ssl.create_default_context(cafile=str(serving))
        if certificate:
            self.tls.load_cert_chain(certificate)
        self._place = host, port
        self._token = token

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """(status, body)."""
        connection = http.client.HTTPSConnection(*self._place, timeout=PATIENCE_S, context=self.tls)
        bearer = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(method, path, headers={**bearer, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> str:
        status, body = self.ask(path)
        assert status == 200, (path, status, body)
        return body

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))
