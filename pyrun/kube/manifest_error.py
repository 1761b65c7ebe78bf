"""The error that names a place in a file of Kubernetes objects."""

from __future__ import annotations

from ..errors import PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .positions import Position


class ManifestError(PyrunError):
    """A file, or a document in it, that is no manifest. The text begins with FILE:LINE:COLUMN."""

    def __init__(self, name: str, position: Position, text: str, *, hint: str | None = None) -> None:
        super().__init__(f"{name}:{position[0]}:{position[1]}: {text}", hint=hint)
        self.name = name
        self.position = position
        self.what = text
