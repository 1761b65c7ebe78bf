"""The forms of names: labels, subdomains, ports, environment, sysctls, and paths.

Source: k8s.io/apimachinery pkg/util/validation, RFC 1123, RFC 1035, RFC 6335 section 5.1.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ..strict import Fault, escaped

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_SYSCTL = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
_PORT = re.compile(r"[-a-z0-9]+")


def label_fault(text: str) -> str | None:
    """What is wrong with a DNS label, such as a container's name."""
    if not text:
        return "is empty"
    if len(text) > 63:
        return f"is {len(text)} characters long; a DNS label has at most 63"
    if not _LABEL.fullmatch(text):
        return f"{text!r} is no DNS label: small letters, digits and -, a letter or digit at both ends"
    return None


def service_name_fault(text: str) -> str | None:
    """RFC 1035's label, as Services have it: it begins with a letter."""
    if not text or len(text) > 63 or not _SERVICE.fullmatch(text):
        return f"{text!r} is no name of a Service: at most 63 small letters, digits and -, a letter first"
    return None


def subdomain_fault(text: str) -> str | None:
    """What is wrong with a DNS subdomain, such as a pod's name."""
    if not text:
        return "is empty"
    if len(text) > 253:
        return f"is {len(text)} characters long; a DNS name has at most 253"
    if not _SUBDOMAIN.fullmatch(text):
        return f"{text!r} is no DNS name: small letters, digits, - and ., a letter or digit at both ends of each part"
    return None


def key_fault(text: str) -> str | None:
    """Of a label's or an annotation's key: [PREFIX/]NAME."""
    prefix, slash, name = text.rpartition("/")
    if slash and (fault := subdomain_fault(prefix)):
        return f"its prefix {fault}"
    if not name or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return f"{name!r} must be 1 to 63 letters, digits, -, _ and ., a letter or digit at both ends"
    return None


def label_value_fault(text: str) -> str | None:
    if text and (len(text) > 63 or not _QUALIFIED.fullmatch(text)):
        return f"{text!r} must be at most 63 letters, digits, -, _ and ., a letter or digit at both ends"
    return None


def port_name_fault(text: str) -> str | None:
    """RFC 6335: at most 15 characters, a letter among them, no -- and no - at an end."""
    if (
        not 1 <= len(text) <= 15
        or not _PORT.fullmatch(text)
        or not any(c.isalpha() for c in text)
        or "--" in text
        or text[0] == "-"
        or text[-1] == "-"
    ):
        return f"{text!r} is no port's name: at most 15 small letters, digits and single -, one letter at least"
    return None


def env_name_fault(text: str) -> str | None:
    """Any printable ASCII but =, since 1.34 (KEP-4369)."""
    if not text:
        return "is empty"
    if "=" in text or not text.isascii() or not text.isprintable():
        return f"{text!r} must be printable ASCII without ="
    return None


def config_key_fault(text: str) -> str | None:
    """A key of a ConfigMap or Secret, which becomes a file's name."""
    if not text or len(text) > 253 or not _CONFIG_KEY.fullmatch(text):
        return f"{text!r} must be 1 to 253 letters, digits, -, _ and ."
    if text in (".", "..") or text.startswith(".."):
        return f"{text!r} must not begin with .."
    return None


def sysctl_fault(text: str) -> str | None:
    if len(text) > 253 or not _SYSCTL.fullmatch(text):
        return f"{text!r} is no sysctl's name"
    return None


def relative_path_fault(text: str, *, may_be_dotdot_prefixed: bool = True) -> str | None:
    """A path below something: not absolute, without a part `..`; a projected file's may not begin with .. either."""
    if text.startswith("/"):
        return "must be relative"
    if ".." in text.split("/"):
        return "must not have a part .."
    if not may_be_dotdot_prefixed and text.startswith(".."):
        return "must not begin with .."
    return None


def ip_fault(text: str) -> str | None:
    """Any spelling of an address but those that others may read as another one: leading zeros, a link's name, and
    IPv4 in IPv6's form however that is written.

    Source: k8s.io/apimachinery pkg/util/validation/ip.go, IsValidIPForLegacyField, strict as 1.37 is."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return f"{text!r} is no IP address"
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return f"{text!r} is no IP address: it names a link"
        if found.ipv4_mapped is not None:
            return f"{text!r} is an IPv4 address in IPv6's form: write {found.ipv4_mapped}"
    return None


def one_of(value: str | None, words: tuple[str, ...], at: str) -> Iterator[Fault]:
    """A fault where a value is there and none of the words."""
    if value is not None and value not in words:
        several = f"{', '.join(words[:-1])} or " if words[1:] else ""
        yield Fault(at, f"must be {several}{words[-1]}, is {value!r}")


def check(fault: str | None, at: str) -> Iterator[Fault]:
    if fault:
        yield Fault(at, fault)


def number_range(value: int | None, low: int, high: int, at: str) -> Iterator[Fault]:
    if value is not None and not low <= value <= high:
        yield Fault(at, f"must be {low} to {high}, is {value}")


def at_least(value: int | None, low: int, at: str) -> Iterator[Fault]:
    if value is not None and value < low:
        yield Fault(at, f"must be at least {low}, is {value}")


def keys(found: dict[str, str] | None, at: str, *, values: bool) -> Iterator[Fault]:
    """Labels (values too) or annotations."""
    for key, value in (found or {}).items():
        yield from check(key_fault(key), f"{at}/{escaped(key)}")
        if values:
            yield from check(label_value_fault(value), f"{at}/{escaped(key)}")
