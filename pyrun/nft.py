"""nft, which carries a transaction of nftables out: all of it or nothing."""

from __future__ import annotations

import subprocess

from .errors import PyrunError, Unavailable

PATIENCE_S = 30.0


def run_nft(text: str, what: str, needs: str, instead: str = "") -> None:
    """In the thread's network namespace. what: it is for; needs: what of nf_tables the kernel must have; instead: what
    goes without it; all for people. Unavailable without nft or its answer; PyrunError with its words."""
    way = f"; {instead}" if instead else ""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"], input=text, text=True, capture_output=True, timeout=PATIENCE_S, check=False
        )
    except FileNotFoundError:
        raise Unavailable("nft is not installed", hint=f"install nftables: it {what}{way}") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"nft took longer than {PATIENCE_S:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())[:1000]
        hint = f"does the kernel have nf_tables with {needs}, and does nft know it, as 1.0.6 does?{way}"
        raise PyrunError(f"nft, which {what}: {said}", hint=hint)
