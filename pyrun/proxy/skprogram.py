"""The BPF program at sk_lookup, assembled, and the entries of its maps as bytes. Pure.

A key is protocol, address and port; its value is four bytes that nobody reads. SK_DROP is not used: for TCP it is
answered by a RST as a missing socket is (bpf_sk_lookup_run_v4() in the kernel), so silence is nftables' part.
Source: struct bpf_sk_lookup and the instructions in linux/bpf.h.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    Key = tuple[int, bytes, int]  # protocol, address (4 or 16 bytes), port

TCP = 6
AF_INET, AF_INET6 = 2, 10
KEY = Struct("<I16s")  # port | protocol << 16 | family << 24; address
U32 = Struct("<I")

_instruction = Struct("<BBhi").pack
_FP = 10
_LOOKUP_ELEM, _SK_RELEASE, _SK_ASSIGN = 1, 86, 124
# Offsets in struct bpf_sk_lookup.
_FAMILY, _PROTOCOL, _REMOTE4, _REMOTE6, _REMOTE_PORT, _LOCAL4, _LOCAL6, _LOCAL_PORT = 8, 12, 16, 20, 36, 40, 44, 60


class _Assembler:
    """Instructions, with jumps to names that come later."""

    def __init__(self) -> None:
        self.code: list[tuple[int, int, int, int]] = []
        self._names: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def add(self, code: int, to: int, immediate: int = 0, *, source: int = 0, offset: int = 0) -> None:
        self.code.append((code, to | source << 4, offset, (immediate + 0x80000000) % 0x100000000 - 0x80000000))

    def load(self, to: int, source: int, offset: int, size: int = 4) -> None:
        self.add({4: 0x61, 2: 0x69}[size], to, source=source, offset=offset)

    def store(self, source: int, at: int) -> None:
        self.add(0x63, _FP, source=source, offset=at)

    def store_number(self, number: int, at: int) -> None:
        self.add(0x62, _FP, number, offset=at)

    def move(self, to: int, source: int) -> None:
        self.add(0xBF, to, source=source)

    def map(self, to: int, fd: int) -> None:
        self.add(0x18, to, fd, source=1)  # BPF_PSEUDO_MAP_FD
        self.add(0, 0)

    def look_up(self, fd: int, at: int) -> None:
        """r0 = what the map has for the key on the stack, or 0."""
        self.map(1, fd)
        self.move(2, _FP)
        self.add(0x07, 2, at)
        self.add(0x85, 0, _LOOKUP_ELEM)

    def jump(self, name: str, code: int = 0x05, register: int = 0, number: int = 0) -> None:
        self._jumps.append((len(self.code), name))
        self.add(code, register, number)

    def jump_equal(self, register: int, number: int, name: str) -> None:
        self.jump(name, 0x15, register, number)

    def jump_unequal(self, register: int, number: int, name: str) -> None:
        self.jump(name, 0x55, register, number)

    def name(self, name: str) -> None:
        self._names[name] = len(self.code)

    def bytes(self) -> bytes:
        for at, name in self._jumps:
            code, registers, _, immediate = self.code[at]
            self.code[at] = code, registers, self._names[name] - at - 1, immediate
        return b"".join([_instruction(*one) for one in self.code])


def lookup_program(keys: int, listeners: int, workers: int) -> bytes:
    """The program as struct bpf_insn after struct bpf_insn, of the maps' descriptors. Pure."""
    a = _Assembler()
    a.move(6, 1)
    a.load(1, 6, _PROTOCOL)
    a.jump_unequal(1, TCP, "pass")  # a datagram finds the socket that is bound to the address
    _look_up_key(a, keys)
    a.jump_equal(0, 0, "pass")
    _pick_listener(a, listeners, workers)
    a.move(7, 0)
    a.move(1, 6)
    a.move(2, 7)
    a.add(0xB7, 3, 0)
    a.add(0x85, 0, _SK_ASSIGN)
    a.move(1, 7)
    a.add(0x85, 0, _SK_RELEASE)
    a.name("pass")
    a.add(0xB7, 0, 1)
    a.add(0x95, 0)
    return a.bytes()


def _look_up_key(a: _Assembler, keys: int) -> None:
    at = -KEY.size
    a.load(1, 6, _LOCAL_PORT)
    a.load(2, 6, _PROTOCOL)
    a.load(3, 6, _FAMILY)
    a.add(0x67, 2, 16)
    a.add(0x4F, 1, source=2)
    a.move(2, 3)
    a.add(0x67, 2, 24)
    a.add(0x4F, 1, source=2)
    a.store(1, at)
    a.jump_equal(3, AF_INET6, "six")
    a.load(1, 6, _LOCAL4)
    a.store(1, at + 4)
    for word in range(1, 4):
        a.store_number(0, at + 4 + 4 * word)
    a.jump("key")
    a.name("six")
    for word in range(4):
        a.load(1, 6, _LOCAL6 + 4 * word)
        a.store(1, at + 4 + 4 * word)
    a.name("key")
    a.look_up(keys, at)


def _pick_listener(a: _Assembler, listeners: int, workers: int) -> None:
    """r0 = a worker's socket by a hash of the client, which a cookie's ACK comes to again; the first one where it has
    none."""
    at = -24
    a.store_number(0, at)
    a.look_up(workers, at)
    a.jump_equal(0, 0, "pass")
    a.load(3, 0, 0)
    a.load(1, 6, _REMOTE4)
    a.load(2, 6, _REMOTE6 + 12)
    a.add(0xAF, 1, source=2)  # one of both is 0
    a.load(2, 6, _REMOTE_PORT, 2)
    a.add(0xAF, 1, source=2)
    a.add(0x67, 2, 16)
    a.add(0xAF, 1, source=2)
    a.add(0x24, 1, 0x9E3779B1)  # 32 bits, as the next two
    a.add(0x74, 1, 16)
    a.add(0x2C, 1, source=3)
    a.add(0x74, 1, 16)
    a.store(1, at)
    a.look_up(listeners, at)
    a.jump_unequal(0, 0, "found")
    a.store_number(0, at)
    a.look_up(listeners, at)
    a.jump_equal(0, 0, "pass")
    a.name("found")


# --- what the maps hold -----------------------------------------------------------------------------------------------


def encode_key(key: Key) -> bytes:
    """The key of an entry: protocol, address, port."""
    protocol, address, port = key
    family = AF_INET if len(address) == 4 else AF_INET6
    return KEY.pack(port | protocol << 16 | family << 24, address)


def decode_key(data: bytes) -> Key:
    word, address = KEY.unpack(data)
    return word >> 16 & 0xFF, address[: 4 if word >> 24 == AF_INET else 16], word & 0xFFFF
