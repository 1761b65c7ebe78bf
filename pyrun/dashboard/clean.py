"""Foreign text, fit to be shown. Pure.

A page shows it as text and never as markup, so what is left to do is what a reader could be misled by: escape sequences
of terminals are taken out, other control characters and those that turn the direction of what follows become visible.
"""

from __future__ import annotations

import re

LONGEST = 16 * 1024

# ECMA-48: strings (OSC, DCS, SOS, PM, APC) that end, with ST or BEL; CSI sequences; other escapes. A string that does
# not end hides nothing: only its beginning is taken out.
_ESCAPES = re.compile(
    r"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b[ -/]*[0-~]?"
)
_HIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]")


def clean(text: str, longest: int = LONGEST) -> str:
    """One line at most `longest` characters long, with an ellipsis where it was longer."""
    cut = len(text) > longest
    text = text[:longest]
    if not text.isprintable():
        text = _HIDDEN.sub(_visible, _ESCAPES.sub("", text))
    return text + "…" if cut else text


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def clean_bytes(data: bytes, longest: int = LONGEST) -> str:
    """Bytes that are no UTF-8 are U+FFFD."""
    return clean(data[: 4 * longest].decode("utf-8", "replace"), longest)
