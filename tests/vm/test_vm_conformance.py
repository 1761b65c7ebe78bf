"""Those of runtime-tools' validation programs for which the host lacks a kernel or a right (tests/conformance)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.conformance.run import CACHE, run_program
from tests.support.container.runner import runtime_argv

PROFILE = "acme_secure_profile"  # the program's own choice; nobody loads it


@pytest.fixture
def profile() -> Iterator[None]:
    text = (
        f"profile {PROFILE} flags=(attach_disconnected) {{ file, capability, network, mount, umount, signal, ptrace, }}"
    )
    command = ["apparmor_parser", "--skip-cache"]
    subprocess.run([*command, "--replace"], input=text, text=True, check=True)
    yield
    subprocess.run([*command, "--remove"], input=text, text=True, check=True)


@pytest.mark.parametrize("program", ["process_capabilities", "linux_process_apparmor_profile", "process_oom_score_adj"])
def test_program(program: str, profile: None) -> None:
    if not (CACHE / program).exists():
        pytest.skip("the validation programs are not built: make conformance")
    outcome = run_program(CACHE, program, runtime_argv()[0])
    assert outcome.ok and outcome.passed, f"{outcome.reason}\n{outcome.output}"
