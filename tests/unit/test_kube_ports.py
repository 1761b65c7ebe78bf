"""The ports that a control plane of the tests is told."""

from __future__ import annotations

import socket

import pytest

from tests.support.kube.control_plane import HOST, a_port


def test_a_port_is_for_who_is_told_it_alone_and_again() -> None:
    with a_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, port))  # as a program that was told another one, or a client's end that the kernel chose
        for _ in range(2):
            with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
                pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port))
