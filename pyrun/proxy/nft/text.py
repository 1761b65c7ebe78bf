"""nft, for the one table that marks packets of transparent sockets (routes.py). Services never pass by it."""

from __future__ import annotations

import subprocess

from ...errors import PyrunError, Unavailable

PATIENCE_S = 30.0


def run_nft(text: str) -> None:
    """Carries a transaction out in the thread's network namespace. Unavailable without nft, PyrunError else."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, text=True, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except FileNotFoundError:
        raise Unavailable("nft is not installed", hint="install nftables: it carries the base rules out") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"nft took longer than {PATIENCE_S:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:1000]
        raise PyrunError(f"nft: {said}", hint="does the kernel have nf_tables with maps, NAT, numgen, fib and socket?")
