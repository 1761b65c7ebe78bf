"""What is told as JSON beside a status, and how much of a command's output fits into an answer."""

from __future__ import annotations

import pytest

from pyrun import cri_api as v1
from pyrun.cri.info import plain
from pyrun.cri.runtime.exec_sync import fit


def test_a_message_as_peers_print_it() -> None:
    """Names of the proto, 64-bit numbers as numbers, enums by number, bytes in base64, and nothing that is unset."""
    config = v1.ContainerConfig(
        metadata=v1.ContainerMetadata(name="c"),
        command=["a", "b"],
        envs=[v1.KeyValue(key="A", value=b"\xff")],
        labels={"x": "y"},
        log_path="0.log",
        tty=True,
    )
    config.linux.resources.memory_limit_in_bytes = 1 << 40
    config.linux.security_context.namespace_options.pid = v1.NODE
    config.linux.security_context.run_as_user.value = 0
    assert plain(config) == {
        "metadata": {"name": "c"},
        "command": ["a", "b"],
        "envs": [{"key": "A", "value": "/w=="}],
        "labels": {"x": "y"},
        "log_path": "0.log",
        "tty": True,
        "linux": {
            "resources": {"memory_limit_in_bytes": 1 << 40},
            "security_context": {"namespace_options": {"pid": 2}, "run_as_user": {}},
        },
    }


@pytest.mark.parametrize(
    ("out", "err", "kept"),
    [
        (3, 4, (3, 4)),
        (10, 0, (10, 0)),
        (0, 10, (0, 10)),
        (20, 20, (5, 5)),
        (20, 2, (8, 2)),
        (2, 20, (2, 8)),
        (7, 4, (6, 4)),
    ],
)
def test_what_fits_into_an_answer(out: int, err: int, kept: tuple[int, int]) -> None:
    """Half of the room is each stream's, and what the other one leaves."""
    found = fit(b"o" * out, b"e" * err, 10)
    assert found == (b"o" * kept[0], b"e" * kept[1])
