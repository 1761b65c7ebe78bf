"""Images by way of a registry: Debian's docker-registry on loopback, pushed to and pulled from by podman and docker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.vm.engines.engine import IMAGE, ISOLATED, Client, wait_until

REGISTRY = "127.0.0.1:5000"
CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: {address}}}
log: {{level: error}}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("registry")
    config = directory / "config.yml"
    config.write_text(CONFIG.format(directory=directory / "images", address=REGISTRY))
    with (directory / "log").open("w") as log:
        with subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log) as process:
            try:
                wait_until(answers, "the registry")
                yield REGISTRY
            finally:
                process.terminate()


def answers() -> bool:
    try:
        return bool(urlopen(f"http://{REGISTRY}/v2/", timeout=10).status == 200)
    except URLError:
        return False


def test_podman_and_docker_exchange_images(registry: str, podman: Client, docker: Client) -> None:
    """What one pushes the other pulls, and runs on pyrun."""
    podman_run = ("run", "--rm", *ISOLATED, "--tls-verify=false", "--pull=always")
    docker_run = ("run", "--runtime", "pyrun", "--rm", "--network", "none")
    podman("push", "-q", "--tls-verify=false", IMAGE, f"{registry}/by-podman").ok()
    assert docker.says(*docker_run, f"{registry}/by-podman", "echo", "pulled") == "pulled"
    docker("tag", IMAGE, f"{registry}/by-docker").ok()
    docker("push", "-q", f"{registry}/by-docker").ok()
    assert podman.says(*podman_run, f"{registry}/by-docker", "echo", "pulled") == "pulled"
