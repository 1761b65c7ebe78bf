"""What an id of a user namespace is on the host, by its mappings (user_namespaces(7))."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.model import IdMapping


def host_id(maps: tuple[IdMapping, ...], id: int) -> int | None:
    """The host's id for the container's; None where no mapping covers it."""
    for m in maps:
        if m.container_id <= id < m.container_id + m.size:
            return id - m.container_id + m.host_id
    return None
