"""What a plan of create needs besides config.json and the host's facts: the words of the command line."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .overlay import Overlay


class Request:
    """id; bundle, rootfs and state_dir absolute; record: the bytes of the container's record file (runtime/record.py).

    park: wait for `start` (create), else exec at once (run). preserve_fds: descriptors 3.. that the program keeps,
    those of LISTEN_FDS among them. config: the bytes of config.json, kept for exec. cgroup: absolute path or None.
    systemd: make a scope of systemd's. no_cgroup: make none. console: number of an already connected console socket,
    or console_socket its path. stdio: the numbers of the descriptors that the program gets as its 0, 1 and 2, None:
    our own. plain_output: what the terminal shows goes to a file or a pipe. subreaper: adopt what
    the container leaves behind. subcgroup: the cgroup below the container's that exec is to be in. notify: it has a
    $NOTIFY_SOCKET. overlay: what the root is made of, in place of the directory rootfs, on which it then is.
    may_be_frozen: exec into a paused container, which waits until that goes on. late: a program that can't be run fails
    `start` and not create.
    """

    __slots__ = (
        "bundle",
        "cgroup",
        "config",
        "console",
        "console_socket",
        "environ",
        "id",
        "keyring",
        "late",
        "may_be_frozen",
        "no_cgroup",
        "notify",
        "overlay",
        "park",
        "pid_file",
        "pidfd_socket",
        "plain_output",
        "preserve_fds",
        "record",
        "rootfs",
        "state_dir",
        "stdio",
        "subcgroup",
        "subreaper",
        "systemd",
    )

    def __init__(self, **values: object) -> None:
        self.id = ""
        self.bundle = ""
        self.rootfs = ""
        self.state_dir = ""
        self.record = b""
        self.config = b""
        self.park = True
        self.environ: tuple[str, ...] = ()
        self.preserve_fds = 0
        self.keyring = True
        self.subreaper = False
        self.plain_output = self.late = False
        self.notify = self.may_be_frozen = False
        self.console: int | None = None
        self.stdio: tuple[int, int, int] | None = None
        self.subcgroup: str | None = None
        self.pid_file: str | None = None
        self.console_socket: str | None = None
        self.pidfd_socket: str | None = None
        self.cgroup: str | None = None
        self.systemd = False
        self.no_cgroup = False
        self.overlay: Overlay | None = None
        for name, value in values.items():
            setattr(self, name, value)
