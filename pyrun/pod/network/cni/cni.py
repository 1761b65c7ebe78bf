"""Pods on a CNI network: ADD, DEL, CHECK, GC and STATUS of a list of plug-ins.

A pod's record is on disk before its first plug-in is run, and holds the configuration that it is added with and then
the result: DEL has to be given both, though files in /etc/cni/net.d may have changed since, or we been killed in the
middle. A plug-in whose DEL has succeeded is not asked again; the record goes when all of them have.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time

from ....errors import FailedPrecondition, PyrunError, reason
from ..model import NetResult, PodNet
from .capabilities import cni_args, runtime_config
from .conflist import HAS_CHECK, HAS_GC, Conflist, files_of, load
from .plugin import PluginFailed, find_plugin, run_plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

INTERFACE = "eth0"
ADD_S, DEL_S, ASK_S = 90.0, 60.0, 10.0  # the patience with a plug-in
STATUS_FOR_S = 5.0  # an answer of STATUS is good for so long
MAX_BYTES = 8 << 20


class Cni:
    """Thread-safe. root: of the records; conf_dir, bin_dirs: of configurations and plug-ins."""

    def __init__(self, root: str, conf_dir: str, bin_dirs: tuple[str, ...], warn: Callable[[str], None]) -> None:
        self._root = root
        self._conf_dir = conf_dir
        self._bin_dirs = bin_dirs
        self._warn = warn
        self._lock = threading.Lock()
        self._status: tuple[float, str] = (-STATUS_FOR_S, "")
        os.makedirs(root, 0o700, exist_ok=True)

    # --- the configuration ---

    def is_configured(self) -> bool:
        return bool(files_of(self._conf_dir))

    def name(self) -> str:
        try:
            return load(self._conf_dir).name
        except PyrunError:
            return files_of(self._conf_dir)[0]

    def ready(self) -> tuple[bool, str, str]:
        """(ready, reason, message): a configuration that can be read, whose plug-ins are there and say that they are
        well (STATUS, CNI 1.1)."""
        try:
            conf = load(self._conf_dir)
            for plugin in conf.plugins:
                find_plugin(plugin["type"], self._bin_dirs)
        except PyrunError as e:
            return False, "NetworkPluginNotReady", " ".join(e.lines())
        fault = self._ask_status(conf) if conf.version >= HAS_GC else ""
        return (False, "NetworkPluginNotReady", fault) if fault else (True, "", "")

    def _ask_status(self, conf: Conflist) -> str:
        with self._lock:
            since, fault = self._status
            if time.monotonic() - since < STATUS_FOR_S:
                return fault
            fault = ""
            for plugin in conf.plugins:
                try:
                    run_plugin(plugin["type"], "STATUS", conf.given_to(plugin, {}, None), {}, self._bin_dirs, ASK_S)
                except PyrunError as e:
                    fault = e.text
                    break
            self._status = (time.monotonic(), fault)
            return fault

    # --- pods ---

    def has(self, pod: str) -> bool:
        return os.path.exists(self._path(pod))

    def add(self, pod: PodNet) -> NetResult:
        """ADD of each plug-in, each with the result of the one before. After an error all are asked to DEL."""
        conf, runtime = load(self._conf_dir), runtime_config(pod)
        for name in ("portMappings", "bandwidth", "ips"):
            if name in runtime and name not in conf.capabilities():
                self._warn(f"pod {pod.name or pod.id[:13]}: no plug-in of CNI network {conf.name} takes {name}")
        if self.has(pod.id):  # half made by a daemon that was killed
            self.remove(pod)
        record: dict[str, Any] = {"pod": pod.id, "conf": conf.data(), "netns": pod.netns, "args": cni_args(pod)}
        record |= {"runtime": runtime, "result": None, "deleted": []}
        self._write(record)
        result: Any = None
        try:
            for plugin in conf.plugins:
                given = conf.given_to(plugin, runtime, result)
                kind = plugin["type"]
                result = run_plugin(kind, "ADD", given, _environment(record), self._bin_dirs, ADD_S)
            found = parse_result(result)
            self._write({**record, "result": result})
            return found
        except BaseException:
            try:
                self.remove(pod)
            except PyrunError as e:
                self._warn(f"after a failed ADD: {e.text}")
            raise

    def remove(self, pod: PodNet) -> None:
        """DEL of each plug-in, the last one first. All are tried; the errors of those that fail, together, and the
        record stays for them. Nothing for a pod that has none."""
        record = self._read(pod.id)
        if record is None:
            return
        conf = Conflist(record["conf"], self._path(pod.id))
        netns = record["netns"] if _is_there(record["netns"]) else ""
        previous = record["result"] if conf.version >= HAS_CHECK else None
        faults: list[PyrunError] = []
        for index in reversed(range(len(conf.plugins))):
            if index in record["deleted"]:
                continue
            plugin = conf.plugins[index]
            given = conf.given_to(plugin, record["runtime"], previous)
            try:
                env = {**_environment(record), "CNI_NETNS": netns}
                run_plugin(plugin["type"], "DEL", given, env, self._bin_dirs, DEL_S)
                record["deleted"].append(index)
            except PyrunError as e:
                faults.append(e)
        if not faults:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(pod.id))
            return
        with contextlib.suppress(PyrunError):
            self._write(record)
        raise PyrunError("; ".join(e.text for e in faults), hint=faults[0].hint)

    def check(self, pod: PodNet) -> None:
        """CHECK of each plug-in. FailedPrecondition with its words."""
        record = self._read(pod.id)
        if record is None or record["result"] is None:
            raise FailedPrecondition(f"pod {pod.id[:13]} was not added to a CNI network")
        conf = Conflist(record["conf"], self._path(pod.id))
        if conf.version < HAS_CHECK or conf.disable_check:
            return
        for plugin in conf.plugins:
            given = conf.given_to(plugin, record["runtime"], record["result"])
            try:
                run_plugin(plugin["type"], "CHECK", given, _environment(record), self._bin_dirs, ASK_S)
            except PluginFailed as e:
                raise FailedPrecondition(e.text) from None

    def gc(self, live: set[str]) -> None:
        """DEL for records of no living pod; then GC, where the configuration has it, with the attachments that are."""
        for name in os.listdir(self._root):
            if name.startswith("."):
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._root}/{name}")
            elif name not in live:
                try:
                    self.remove(PodNet(name))
                except PyrunError as e:
                    self._warn(f"pod {name[:13]} is gone, and its network is not: {e.text}")
        if self.is_configured():
            try:
                self._collect(load(self._conf_dir), live)
            except PyrunError as e:
                self._warn(e.text)

    def _collect(self, conf: Conflist, live: set[str]) -> None:
        if conf.version < HAS_GC or conf.disable_gc:
            return
        valid = [{"containerID": pod, "ifname": INTERFACE} for pod in sorted(live) if self.has(pod)]
        for plugin in conf.plugins:
            given = {**conf.given_to(plugin, {}, None), "cni.dev/valid-attachments": valid}
            try:
                run_plugin(plugin["type"], "GC", given, {}, self._bin_dirs, DEL_S)
            except PyrunError as e:
                self._warn(e.text)

    # --- records ---

    def _path(self, pod: str) -> str:
        return f"{self._root}/{pod}"

    def _read(self, pod: str) -> dict[str, Any] | None:
        try:
            with open(self._path(pod), "rb") as file:
                data = json.loads(file.read(MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as e:  # nothing of it can be known any more
            self._warn(f"{self._path(pod)}: {e}: the record is lost, and what its plug-ins made may be left")
            with contextlib.suppress(OSError):
                os.unlink(self._path(pod))
            return None
        return data if isinstance(data, dict) else None

    def _write(self, record: dict[str, Any]) -> None:
        path, new = self._path(record["pod"]), f"{self._root}/.{record['pod']}"
        try:
            with open(new, "w", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600)) as file:
                json.dump(record, file)
            os.rename(new, path)
        except OSError as e:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise PyrunError(f"{path}: {reason(e)}") from None


def _environment(record: dict[str, Any]) -> dict[str, str]:
    return {
        "CNI_CONTAINERID": record["pod"],
        "CNI_NETNS": record["netns"],
        "CNI_IFNAME": INTERFACE,
        "CNI_ARGS": record["args"],
    }


def _is_there(netns: str) -> bool:
    """Whether a namespace is still mounted there."""
    try:
        return bool(netns) and os.stat(netns).st_dev != os.stat(os.path.dirname(netns)).st_dev
    except OSError:
        return False


def parse_result(result: dict[str, Any]) -> NetResult:
    """The pod's addresses of a plug-in's result. PyrunError where there is none."""
    interfaces = result.get("interfaces") or []
    ips: list[str] = []
    for entry in result.get("ips") or []:
        index = entry.get("interface")
        place = interfaces[index] if isinstance(index, int) and 0 <= index < len(interfaces) else None
        if place is None or (place.get("sandbox") and place.get("name") == INTERFACE):
            ips.append(str(entry.get("address", "")).partition("/")[0])
    for key in ("ip4", "ip6"):  # before 0.3.0
        ips += [str((result.get(key) or {}).get("ip", "")).partition("/")[0]]
    ips = [ip for ip in ips if ip]
    if not ips:
        raise PyrunError("the CNI network gave the pod no address", hint="its configuration has no ipam?")
    return NetResult(tuple(ips), INTERFACE, _dns(result.get("dns") or {}))


def _dns(dns: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(servers, searches, options): what they contain is looked at where they are written."""
    servers, searches, options = (dns.get(key) or [] for key in ("nameservers", "search", "options"))
    if not searches and dns.get("domain"):
        searches = [dns["domain"]]
    for name, words in (("nameservers", servers), ("search", searches), ("options", options)):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise PyrunError(f"the CNI network's dns.{name} is no list of strings")
    return tuple(servers), tuple(searches), tuple(options)
