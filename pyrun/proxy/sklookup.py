"""What catches TCP connections to services: a BPF program at sk_lookup, and the maps that it asks.

The kernel asks it which socket a packet for the local stack belongs to, before its own table of sockets. One listening
socket so takes the connections to any number of addresses and ports, and getsockname() of an accepted one tells which.
What is in no map goes on to the kernel's table: a port of a service address that no service has is refused with a RST.

The link and the maps live as long as anybody holds their descriptors (a pin in a bpffs, the data plane): a daemon that
comes after one that was killed finds them by the kernel's numbers, and nothing that passes meets a gap. The program
changes by a swap on the link, a listener by a swap in the map.
Source: Documentation/bpf/prog_sk_lookup.rst (Linux 5.9).
"""

from __future__ import annotations

import contextlib
import errno
import os

from ..errors import FailedPrecondition, PyrunError, Unavailable, reason
from . import bpf
from .skprogram import KEY, U32, decode_key, encode_key, lookup_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from .skprogram import Key

    _T = TypeVar("_T")

LISTENERS = 64  # the most workers
PROGRAM = "pyrun_services"
_MAPS = {"keys": "pyrun_keys", "listeners": "pyrun_listen", "workers": "pyrun_workers"}
_NOTHING = bytes(4)


class SkLookup:
    """The program in one network namespace. Not for two threads at once.

    netns: the path of the namespace. entries: the most keys. beside: attached although another's program is. pin: a
    directory in a bpffs where link and maps get names, which keep them; "" where another process keeps descriptors().

    Takes over what an earlier daemon left in the namespace; ``found`` is how many keys that were. FailedPrecondition
    where another's program is attached; Unavailable where the kernel has no sk_lookup or the caller may not load it.
    """

    def __init__(
        self, netns: str = "/proc/thread-self/ns/net", *, entries: int = 1 << 17, beside: bool = False, pin: str = ""
    ) -> None:
        self.netns = netns
        self._entries = entries
        self._pin = pin
        self._fds: dict[str, int] = {}
        self._held: set[bytes] = set()
        ns = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with _named(f"sk_lookup in {netns}"):
                self._open(ns, beside)
        except BaseException:
            self.close(detach=False)
            raise
        finally:
            os.close(ns)
        self.found = len(self._held)

    # --- at start ---

    def _open(self, ns: int, beside: bool) -> None:
        others = []
        for number in bpf.attached(ns):
            info = _program(number)
            if info is None:
                continue
            if info.name != PROGRAM:
                others.append(info.name or f"number {number}")
            elif "link" not in self._fds:
                self._adopt(os.fstat(ns).st_ino, info)
        if others and not beside:
            raise FailedPrecondition(
                f"a BPF program of another ({', '.join(others)}) answers sk_lookup in {self.netns}",
                hint="Cilium or tubular catches services here: stop it, or allow both, where its rules come first",
            )
        if "link" not in self._fds:
            self._make_maps()
            self._fds["link"] = self._with_program(lambda program: bpf.attach(program, ns))
        if self._pin:
            self._make_pins()

    def _adopt(self, inode: int, info: bpf.ProgramInfo) -> None:
        """Link and maps of a program of ours; where the maps or the program are another version's, new ones."""
        for link in bpf.links():
            if bpf.link_info(link) == (bpf.LINK_NETNS, info.number, inode):
                self._fds["link"] = os.dup(link)
                break
        else:  # its link is just going
            return
        words = {name: word for word, name in _MAPS.items()}
        for number in info.maps:
            fd = bpf.map_of(number)
            word = words.get(bpf.MapInfo(fd).name, "")
            if not word or word in self._fds:
                os.close(fd)
            else:
                self._fds[word] = fd
        if self._is_ours(info):
            self._held = {key for key, _ in bpf.entries(self._fds["keys"], KEY.size, 4)}
            return
        for word in _MAPS.keys() & self._fds.keys():
            os.close(self._fds.pop(word))
        self._make_maps()
        self._with_program(lambda program: bpf.replace_program(self._fds["link"], program))

    def _is_ours(self, info: bpf.ProgramInfo) -> bool:
        if not _MAPS.keys() <= self._fds.keys() or bpf.MapInfo(self._fds["keys"]).entries < self._entries:
            return False
        return bool(self._with_program(lambda program: bpf.ProgramInfo(program).tag == info.tag))

    def _make_maps(self) -> None:
        fds = self._fds
        fds["keys"] = bpf.map_create(bpf.MAP_HASH, KEY.size, 4, self._entries, _MAPS["keys"], bpf.F_NO_PREALLOC)
        fds["listeners"] = bpf.map_create(bpf.MAP_SOCKMAP, 4, 8, LISTENERS, _MAPS["listeners"])
        fds["workers"] = bpf.map_create(bpf.MAP_ARRAY, 4, 4, 1, _MAPS["workers"])
        self.set_workers(1)

    def _with_program(self, what: Callable[[int], _T]) -> _T:
        """`what` of the program's descriptor, which is closed then: the link keeps it."""
        fds = self._fds
        program = bpf.load_sk_lookup(lookup_program(fds["keys"], fds["listeners"], fds["workers"]), PROGRAM)
        try:
            return what(program)
        finally:
            os.close(program)

    def _make_pins(self) -> None:
        for word, fd in self._fds.items():
            path = f"{self._pin}/{word}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            bpf.pin(fd, path)

    # --- listeners ---

    def set_listener(self, index: int, fd: int) -> None:
        """The worker's listening socket: connections from now on come to it. Those in the former's queue are the
        former's. It must be a TCP socket that listens, of either family or both."""
        with _named("the listener of the data plane"):
            bpf.map_put(self._fds["listeners"], U32.pack(index), fd.to_bytes(8, "little"))

    def unset_listener(self, index: int) -> None:
        """Its connections come to the first worker."""
        with contextlib.suppress(FileNotFoundError, OSError):
            bpf.map_delete(self._fds["listeners"], U32.pack(index))

    def set_workers(self, count: int) -> None:
        """Among how many listeners, from the first, connections are shared by a hash of the client."""
        if not 1 <= count <= LISTENERS:
            raise ValueError(f"{count} workers")
        bpf.map_put(self._fds["workers"], U32.pack(0), U32.pack(count))

    # --- keys ---

    def apply(self, wanted: Iterable[Key]) -> int:
        """Exactly these keys: those with an endpoint or more. What differs is changed, puts before deletes; returns how
        many that are."""
        encoded = {encode_key(key) for key in wanted}
        put, gone = encoded - self._held, self._held - encoded
        self._change(put, gone)
        return len(put) + len(gone)

    def update(self, put: Iterable[Key], delete: Iterable[Key] = ()) -> None:
        """Puts some keys and deletes others."""
        self._change({encode_key(key) for key in put}, {encode_key(key) for key in delete})

    def keys(self) -> set[Key]:
        """What the kernel has."""
        return {decode_key(key) for key, _ in bpf.entries(self._fds["keys"], KEY.size, 4)}

    def _change(self, put: set[bytes], gone: set[bytes]) -> None:
        with _named("the keys of sk_lookup"):
            bpf.put_many(self._fds["keys"], [(key, _NOTHING) for key in put])
            self._held |= put
            bpf.delete_many(self._fds["keys"], list(gone))
            self._held -= gone

    # --- the end ---

    def descriptors(self) -> dict[str, int]:
        """link, keys, listeners, workers: whoever holds them keeps everything as it is."""
        return dict(self._fds)

    def close(self, *, detach: bool = True) -> None:
        """Closes the descriptors; with detach nothing is caught any more, whoever else holds what."""
        if detach and "link" in self._fds:
            with contextlib.suppress(OSError):
                bpf.detach(self._fds["link"])
            for word in self._fds if self._pin else ():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._pin}/{word}")
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def _program(number: int) -> bpf.ProgramInfo | None:
    try:
        fd = bpf.program_of(number)
    except FileNotFoundError:
        return None
    try:
        return bpf.ProgramInfo(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSYS, errno.EPERM):
            hint = "it needs Linux 5.9 with BPF, and root or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
            raise Unavailable(f"{what}: {reason(e)}", hint=hint) from None
        raise PyrunError(f"{what}: {reason(e)}") from None
