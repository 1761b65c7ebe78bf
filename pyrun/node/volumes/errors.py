from __future__ import annotations

from ...errors import PyrunError


class VolumeError(PyrunError):
    """A volume that can't be had now. reason: of the event, as a kubelet names it."""

    reason = "FailedMount"

    def __init__(self, volume: str, text: str, hint: str | None = None) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}": {text}', hint=hint)
        self.volume = volume
