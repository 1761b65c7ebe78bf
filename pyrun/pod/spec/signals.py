"""Stop signals. The CRI numbers them in its own way (SIGTERM is 23), images have a name or Linux' number."""

from __future__ import annotations

import signal

from .draft import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# enum Signal of cri-api, in its order; 0 is RUNTIME_DEFAULT.
NAMES = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ"
).split()
RTMIN, RTMAX = 34, 64  # as glibc and musl leave them to programs
_SAME = {"CLD": "CHLD", "POLL": "IO", "IOT": "ABRT"}


def _numbers() -> dict[str, int]:
    found = {name: getattr(signal, "SIG" + _SAME.get(name, name), 16) for name in NAMES}  # 16: STKFLT
    found["RTMIN"] = RTMIN
    found.update({f"RTMIN+{n}": RTMIN + n for n in range(1, 16)})
    found.update({f"RTMAX-{n}": RTMAX - n for n in range(14, 0, -1)})
    found["RTMAX"] = RTMAX
    return found


NUMBERS = _numbers()
ENUM = dict(enumerate(NUMBERS, 1))  # number in the CRI -> name, as the real-time ones follow in the same way


def parse_signal(text: str) -> int:
    """SIGTERM, term, 15 or SIGRTMIN+3 as Linux' number. ValueError."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit():
        if 1 <= int(word) <= RTMAX:
            return int(word)
        raise ValueError(text)
    try:
        return NUMBERS[word.removeprefix("SIG")]
    except KeyError:
        raise ValueError(text) from None


def stop_signal(config: Any, image: Any) -> int:
    """Linux' number of the signal by which the container is asked to end: the request's, the image's, TERM. An image
    with a signal that there is not ends by TERM, as it would have to end somehow."""
    if config.stop_signal:
        if config.stop_signal not in ENUM:
            refuse("stop_signal", f"{config.stop_signal} is no signal")
        return NUMBERS[ENUM[config.stop_signal]]
    try:
        return parse_signal(image.stop_signal) if image.stop_signal else int(signal.SIGTERM)
    except ValueError:
        return int(signal.SIGTERM)


def signal_enum(number: int) -> int:
    """The CRI's number of Linux' signal, for ContainerStatus; 0 where it has none."""
    return next((enum for enum, name in ENUM.items() if NUMBERS[name] == number and name not in _SAME), 0)
