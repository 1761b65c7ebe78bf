"""Servers in the hosts of a topology that say who they are and whom they see, and clients that ask them."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from tests.support.proxy.topology import Place, family_of
from tests.support.serving import Serving

PATIENCE_S = 60.0
SILENT_S = 0.5  # how long a client waits where no answer is what is right


class Answer(NamedTuple):
    """endpoint: ADDRESS:PORT of who answered. source: the client's address as it was seen there."""

    endpoint: str
    source: str


def text_of(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Server:
    """On a port of a host, TCP and UDP, both of its addresses: answers with the endpoint and the source it sees."""

    def __init__(self, place: Place, port: int) -> None:
        self._serving = Serving()
        for address in (place.address4, place.address6):
            tcp = place.listen(port, address)
            udp = place.open(family_of(address), socket.SOCK_DGRAM)
            with place.inside():
                udp.bind((address, port))
            for made, serve in ((tcp, self._tcp), (udp, self._udp)):
                made.settimeout(None)
                self._serving.run(serve, self._serving.hold(made), text_of(address, port))

    def _tcp(self, server: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, peer = server.accept()
                with client, contextlib.suppress(OSError):
                    client.sendall(f"{name} {peer[0]}".encode())

    def _udp(self, server: socket.socket, name: str) -> None:
        while True:
            try:
                _, peer = server.recvfrom(100)
                if peer is None:  # shut down
                    return
                server.sendto(f"{name} {peer[0]}".encode(), peer)
            except ConnectionRefusedError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._serving.end()


def ask(client: Place, address: str, port: int, *, udp: bool = False, silent: bool = False) -> Answer | str:
    """One connection, or one datagram: the answer, or "reject" or "drop". silent: no answer is expected."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    source = client.address(family_of(address))
    with client.open(family_of(address), kind) as s:
        s.settimeout(SILENT_S if silent else PATIENCE_S)
        try:
            s.bind((source, 0))
            s.connect((address, port))
            if udp:
                with contextlib.suppress(PermissionError):  # the node's own: then comes an ICMP, or nothing
                    s.send(b"who")
            data = s.recv(200)
        except (TimeoutError, PermissionError):
            return "drop"
        except (ConnectionRefusedError, ConnectionResetError):
            return "reject"
    if not data:
        return "closed"
    endpoint, seen = data.decode().split()
    return Answer(endpoint, seen)
