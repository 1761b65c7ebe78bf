"""Prometheus' own check of what a page of metrics says: its form, and the habits of names, units and help."""

from __future__ import annotations

import shutil
import subprocess

import pytest

# Names of cAdvisor and kube-proxy that break a habit: gauges that are called totals. We have them as they are.
KNOWN = ("container_fs_inodes_total", "kubeproxy_sync_proxy_rules_no_local_endpoints_total")


def check_metrics(page: str, text: str) -> None:
    """Each of which there is anything has a right name, unit, type and help."""
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("Debian's prometheus is not installed: its promtool checks the text")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.split(" ")[0] not in KNOWN]
    assert not said, (page, said)
