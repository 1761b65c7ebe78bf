"""What nft is given names nothing that it would look up in a file which a minimal Debian does not have (netbase's)."""

from __future__ import annotations

import subprocess

import pytest

from pyrun.pod.network.firewall import plan_table
from pyrun.pod.network.leases import Lease, parse_ranges
from pyrun.proxy.routes import plan_mark_table

KINDS = ("tcp", "udp", "sctp")
# /etc as nft would find it there: nothing in it.
BARE = "mount -t tmpfs -o size=1m none /etc && ip link set lo up && exec nft -c -f -"


def _pods() -> str:
    ports = [[kind, at, 8000 + turn, 80] for turn, kind in enumerate(KINDS) for at in ("", "10.77.0.1")]
    lease = Lease("p" * 64, 2, ("10.86.0.2", "fd86::2"), ports)
    return plan_table("pyrun_names", parse_ranges(("10.86.0.0/16", "fd86::/64")), [lease])


def _check(text: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "-mn", "sh", "-c", BARE]
    return subprocess.run(command, input=text, text=True, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("text", [plan_mark_table("1"), _pods()], ids=["transparent", "pods"])
def test_nft_takes_it_without_etc(text: str) -> None:
    done = _check(text)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_of_etc_protocols_is_missed_there() -> None:
    done = _check("table inet t {\nchain c {\nmeta l4proto ipv6-icmp accept\n}\n}\n")
    assert "Could not resolve protocol name" in done.stderr
