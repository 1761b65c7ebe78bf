"""What ends a SPDY connection."""

from __future__ import annotations

from pyrun.errors import PyrunError


class SpdyError(PyrunError):
    """The peer has broken the protocol: the connection ends."""
