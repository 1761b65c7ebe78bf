"""Runs the validation programs of opencontainers/runtime-tools against a runtime.

    python -m tests.conformance.run [--runtime PATH] [--json] [PROGRAM...]

Each is a Go program that calls $RUNTIME create, start, state … on bundles that it makes, and reports in TAP. Each gets
its own tests/view, so its cgroups and mounts are gone when it ends, its own --root, and its own TMPDIR. KNOWN.md names
those that do not pass and why; exit status 1 means that one failed which is not in it.

A program passes when it exits 0, reports no failed point and as many points as it planned. Some report no point at all:
their verdict is the exit status, or an "error" in a diagnostic under the plan 1..0, which a plain reader of TAP takes
for success; so the summary gives that reader's number too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.engines.golang import GO_ARCH, Unavailable, download_module, find_go

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
MODULE = "github.com/opencontainers/runtime-tools"
VERSION = "v0.9.1-0.20251205004911-5e639034dcdc"
CACHE = REPO / ".cache" / "conformance" / VERSION
VIEW = REPO / "tests" / "view"
KNOWN = HERE / "KNOWN.md"
TIMEOUT_S = 90.0
LAUNCHER = str(REPO / "pyrun" / "bin" / "pyrun")

PROGRAMS = tuple(
    """
    config_updates_without_affect create default delete delete_only_create_resources delete_resources hooks
    hooks_stdin hostname kill kill_no_effect killsig linux_cgroups_blkio linux_cgroups_cpus
    linux_cgroups_devices linux_cgroups_hugetlb linux_cgroups_memory linux_cgroups_network linux_cgroups_pids
    linux_cgroups_relative_blkio linux_cgroups_relative_cpus linux_cgroups_relative_devices
    linux_cgroups_relative_hugetlb linux_cgroups_relative_memory linux_cgroups_relative_network
    linux_cgroups_relative_pids linux_devices linux_masked_paths linux_mount_label linux_ns_itype
    linux_ns_nopath linux_ns_path linux_ns_path_type linux_process_apparmor_profile linux_readonly_paths
    linux_rootfs_propagation linux_seccomp linux_sysctl linux_uid_mappings misc_props mounts pidfile poststart
    poststart_fail poststop poststop_fail prestart prestart_fail process process_capabilities
    process_capabilities_fail process_oom_score_adj process_rlimits process_rlimits_fail process_user
    root_readonly_true start state
    """.split()
)


@dataclass
class Outcome:
    """What one program reported: points that held, the texts of those that did not, and what else went wrong."""

    program: str
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    trouble: str = ""
    rc: int = 0
    seconds: float = 0.0
    output: str = ""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.trouble

    @property
    def ok_by_tap(self) -> bool:
        return not self.failed and self.rc == 0

    @property
    def reason(self) -> str:
        return "; ".join([*self.failed, *([self.trouble] if self.trouble else [])])


def parse_tap(program: str, out: str) -> Outcome:
    """The points of a TAP report. Trouble: an error told outside of any point, or not as many points as planned."""
    outcome = Outcome(program)
    planned = 0
    for line in out.splitlines():
        if plan := re.match(r"1\.\.(\d+)", line):
            planned = int(plan[1])
        elif point := re.match(r"(not )?ok\b *\d* *-? *(.*)", line):
            if point[1]:
                outcome.failed.append(point[2].strip() or "a point without a name")
            else:
                outcome.passed += 1
    points = outcome.passed + len(outcome.failed)
    error = re.search(r'^ *"error": "(.+)"', out, re.MULTILINE)
    if planned != points:
        outcome.trouble = f"planned {planned} points and reported {points}"
    elif points == 0 and error:
        outcome.trouble = error[1].split("\\n")[0]
    return outcome


def build_suite() -> Path:
    """A directory with the programs, runtimetest and the root file system they unpack; built once per version."""
    archive = f"rootfs-{GO_ARCH.get(platform.machine(), platform.machine())}.tar.gz"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE.parent / "lock").open("w") as lock:  # the host's tests and a guest's may want them at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / archive).exists():
            install_suite(archive)
    return CACHE


def install_suite(archive: str) -> None:
    """Puts it into CACHE; the archive comes last."""
    go = find_go(CACHE)
    env = os.environ | {"GOBIN": str(CACHE), "CGO_ENABLED": "0"}
    packages = [f"{MODULE}/validation/...@{VERSION}", f"{MODULE}/cmd/runtimetest@{VERSION}"]
    built = subprocess.run(
        [go, "install", "-ldflags", "-s -w", *packages], env=env, cwd=CACHE, capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise Unavailable(f"go install failed: {built.stderr.strip()[-500:]}")
    source = download_module(go, f"{MODULE}@{VERSION}", CACHE) / archive
    if not source.exists():
        raise Unavailable(f"the suite has no root file system for {platform.machine()}")
    shutil.copyfile(source, CACHE / archive)


def run_program(suite: Path, program: str, runtime: str) -> Outcome:
    """Runs one program in a view of its own."""
    with tempfile.TemporaryDirectory(prefix=f"conf-{program}-", dir="/tmp") as scratch:
        wrapper = Path(scratch, "runtime")
        wrapper.write_text(f'#!/bin/sh\nexec "{runtime}" --root "{scratch}/state" "$@"\n')
        wrapper.chmod(0o755)
        os.chmod(scratch, 0o755)  # root of a user namespace has to reach the bundles
        bundles = Path(scratch, "tmp")
        bundles.mkdir(mode=0o777)
        env = os.environ | {"RUNTIME": str(wrapper), "TMPDIR": str(bundles)}
        command = ["timeout", "--kill-after=5", str(TIMEOUT_S), str(VIEW), str(suite / program)]
        start = time.monotonic()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
        done = subprocess.run(command, cwd=suite, env=env, check=False, **pipes)
        outcome = parse_tap(program, done.stdout)
        outcome.rc = done.returncode
        outcome.seconds = round(time.monotonic() - start, 1)
    outcome.output = done.stdout + done.stderr
    if done.returncode == 124:
        outcome.trouble = f"not done within {TIMEOUT_S:.0f} s"
    elif done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        outcome.trouble = f"exit status {done.returncode}: {last[0][:300]}"
    return outcome


def run_programs(programs: list[str], runtime: str, jobs: int) -> list[Outcome]:
    """Runs them, `jobs` at a time (they spend their time in sleep), and returns the outcomes in the order given."""
    suite = build_suite()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda program: run_program(suite, program, runtime), programs))


def read_known() -> dict[str, str]:
    """Program -> cause, from the table in KNOWN.md."""
    if not KNOWN.exists():
        return {}
    rows = re.findall(r"^\| *`(\w+)` *\|(.*)\|\s*$", KNOWN.read_text(), re.MULTILINE)
    return {program: cause.strip() for program, cause in rows}


def print_table(outcomes: list[Outcome], known: dict[str, str]) -> None:
    for outcome in outcomes:
        word = "pass" if outcome.ok else "known" if outcome.program in known else "FAIL"
        note = "in KNOWN.md, yet it passes here" if outcome.ok and outcome.program in known else outcome.reason[:200]
        print(f"{word:5} {outcome.program:32} {outcome.passed:4} ok {outcome.seconds:5.1f} s  {note}".rstrip())
    by_tap = sum(outcome.ok_by_tap for outcome in outcomes)
    print(f"{sum(outcome.ok for outcome in outcomes)} of {len(outcomes)} programs pass ({by_tap} by TAP points alone)")


def main() -> int:
    parser = argparse.ArgumentParser(description="runtime-tools' validation programs against a runtime")
    parser.add_argument("--runtime", default=LAUNCHER, help="default: the launcher in the tree")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="outcomes with the programs' output, as JSON")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    args = parser.parse_args()
    runtime = shutil.which(args.runtime)
    if runtime is None:
        parser.error(f"no runtime {args.runtime}")
    try:
        outcomes = run_programs(args.programs or list(PROGRAMS), os.path.abspath(runtime), args.jobs)
    except Unavailable as error:
        print(f"conformance skipped: {error}", file=sys.stderr)
        return 0
    if args.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
        return 0
    known = read_known()
    print_table(outcomes, known)
    unknown = [outcome.program for outcome in outcomes if not outcome.ok and outcome.program not in known]
    if unknown:
        print(f"not in KNOWN.md: {' '.join(unknown)}")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
