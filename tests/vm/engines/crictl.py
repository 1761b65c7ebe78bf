"""Pods and containers through the CRI, as a kubelet has them; crictl is the client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.container.runner import Result
from tests.vm.engines.engine import IMAGE, Client, wait_until

HOST, POD, CONTAINER = 2, 0, 1  # of a NamespaceMode
DEADLINE = "60s"


def merged(into: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree with the leaves of another one on top."""
    result = dict(into)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class Kubelet:
    """Makes pods and containers and forgets none. Configurations are api.proto's messages as JSON."""

    def __init__(self, program: Path, socket: str, directory: Path) -> None:
        self.crictl = Client(str(program), "-r", f"unix://{socket}", "-t", DEADLINE)
        self._directory = directory
        self._configs: dict[str, Path] = {}
        self._names = 0

    def __call__(self, *argv: str, input: str | None = None) -> Result:
        return self.crictl(*argv, input=input)

    def _write(self, config: dict[str, Any]) -> Path:
        self._names += 1
        file = self._directory / f"{self._names}.json"
        file.write_text(json.dumps(config))
        return file

    def pod(self, handler: str, linux: dict[str, Any] | None = None, **changes: Any) -> str:
        """Runs a pod's sandbox on the host's network, unless `linux` says another; its id."""
        name = f"pod{self._names}"
        config = {
            "metadata": {"name": name, "uid": name, "namespace": "default", "attempt": 0},
            "log_directory": str(self._directory / f"{name}.logs"),
            "linux": {"security_context": {"namespace_options": {"network": HOST}}},
        }
        file = self._write(merged(config, {"linux": linux or {}, **changes}))
        id = self("runp", "--runtime", handler, str(file)).ok().out.strip()
        self._configs[id] = file
        return id

    def create(self, pod: str, *argv: str, linux: dict[str, Any] | None = None, **changes: Any) -> Result:
        """What `crictl create` says for a container of this command, which shares its pod's namespaces."""
        config = {
            "metadata": {"name": f"c{self._names}", "attempt": 0},
            "image": {"image": IMAGE},
            "command": list(argv) or ["sleep", "100000"],
            "log_path": f"{self._names}.log",
            "linux": {"security_context": {"namespace_options": self._namespaces(pod)}},
        }
        file = self._write(merged(config, {"linux": linux or {}, **changes}))
        return self("create", "--no-pull", pod, str(file), str(self._configs[pod]))

    def _namespaces(self, pod: str) -> Any:
        return json.loads(self._configs[pod].read_text())["linux"]["security_context"]["namespace_options"]

    def run(self, pod: str, *argv: str, linux: dict[str, Any] | None = None, **changes: Any) -> str:
        """Creates a container and starts it; its id."""
        id = self.create(pod, *argv, linux=linux, **changes).ok().out.strip()
        self("start", id).ok()
        return id

    def exec(self, container: str, *argv: str) -> Result:
        """As a probe does it, by ExecSync. crictl puts a line feed after each of stdout and stderr."""
        result = self("exec", "--sync", container, *argv)
        return replace(result, out=result.out.removesuffix("\n\n"))

    def status(self, container: str) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self("inspect", container).ok().out)["status"]
        return status

    def info(self, container: str) -> dict[str, Any]:
        """What containerd itself knows: the pid, the configuration of the runtime."""
        info: dict[str, Any] = json.loads(self("inspect", container).ok().out)["info"]
        return info

    def wait(self, container: str) -> dict[str, Any]:
        """Its status, when it has ended."""
        wait_until(lambda: self.status(container)["state"] == "CONTAINER_EXITED", "the container to end")
        return self.status(container)

    def output(self, container: str) -> str:
        """What it printed."""
        return self("logs", container).ok().out

    def told(self, pod: str, *argv: str, linux: dict[str, Any] | None = None, **changes: Any) -> str:
        """The output of a container that ends by itself, with success."""
        id = self.run(pod, *argv, linux=linux, **changes)
        status = self.wait(id)
        assert status["exitCode"] == 0, f"{status}\n{self.output(id)}"
        return self.output(id)

    def remove(self, pod: str) -> None:
        """The pod and its containers."""
        self("stopp", pod).ok()
        self("rmp", pod).ok()
        del self._configs[pod]

    @contextmanager
    def only_for_now(self) -> Iterator[None]:
        """Removes whatever is made meanwhile."""
        before = set(self._configs)
        yield
        for pod in set(self._configs) - before:
            self.remove(pod)
        if self("ps", "-aq").ok().out:
            self("rm", "--force", "--all").ok()
