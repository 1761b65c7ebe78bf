"""The disk with which a guest is booted: pyrun as `bootstrap install` installs it, the tests, and what to run.

It is made without a mount, by mke2fs -d. In the guest it is /job; `prefix/` goes to /usr/local, and `run` is started.
Pytest and what it needs come from the virtual environment of here, so both sides speak the same version's reports.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.container.runner import REPO

CACHE = REPO / ".cache" / "vm"
LOGS = CACHE / "logs"
SUITE = os.environ.get("PYRUN_VM_SUITE", "")  # of Debian, for the guest; this machine's unless it is set
SLACK_MIB = 1024
SOURCES = ("pyrun", "cffi_build", "pyproject.toml", "setup.py", "bootstrap")
# What the tests would make themselves, which takes longer in the guest, or needs what it has not.
CACHED = (
    ".cache/rootfs/busybox*",
    ".cache/conformance/*/process_capabilities",
    ".cache/conformance/*/process_oom_score_adj",
    ".cache/conformance/*/linux_process_apparmor_profile",
    ".cache/conformance/*/runtimetest",
    ".cache/conformance/*/rootfs-*.tar.gz",
    ".cache/cri-tools/*/*",
)
BUILT = {".so", ".pyc", ".hot", ".o"}


def installed_prefix() -> Path:
    """A prefix with pyrun installed in it, made now unless it is there for the same sources; or PYRUN_VM_PREFIX."""
    if "PYRUN_VM_PREFIX" in os.environ:
        return Path(os.environ["PYRUN_VM_PREFIX"])
    kind = f"prefix-{SUITE or 'here'}"
    target = CACHE / f"{kind}-{source_digest()}"
    if not target.exists():
        for old in sorted(CACHE.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)[:-1]:
            shutil.rmtree(old)  # all but the last, which another run may be at
        partial = CACHE / "partial-prefix"
        shutil.rmtree(partial, ignore_errors=True)
        run_maker(REPO / "vagrant" / "make-prefix", partial)
        partial.rename(target)
    return target


def run_maker(*argv: str | Path) -> str:
    """The output of a script that cleans up after itself: when this process is told to end, it waits for the script.
    It is told the guest's suite.
    """
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    env = {**os.environ, "SUITE": SUITE} if SUITE else None
    with subprocess.Popen(argv, text=True, stdin=null, stdout=pipe, stderr=pipe, env=env) as process:
        out, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))} ended with {process.returncode}:\n{out}{errors}")
    return out


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Guest and prefix are made once, however many runs want them."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def source_digest() -> str:
    """Of everything that goes into the wheel."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = REPO / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.suffix not in BUILT and "bin" not in path.relative_to(REPO).parts[:2]:
                digest.update(f"{path.relative_to(REPO)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def required_files(name: str, seen: set[str]) -> Iterator[tuple[Path, Path]]:
    """(where it is, where it goes in site-packages) of a distribution's files and of those that it requires."""
    key = name.lower().replace("_", "-")
    if key in seen:
        return
    seen.add(key)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:  # required on other versions of Python only
        return
    for file in distribution.files or ():
        if ".." not in file.parts:
            yield Path(str(distribution.locate_file(file))), Path(file)
    for requirement in distribution.requires or ():
        if "extra ==" not in requirement:
            bare = re.match(r"[\w.-]+", requirement)
            assert bare, requirement
            yield from required_files(bare[0], seen)


def copy_packages(directory: Path, *names: str) -> None:
    """Puts these distributions and what they require into a directory for PYTHONPATH."""
    seen: set[str] = set()
    for name in names:
        for source, place in required_files(name, seen):
            if source.is_file():
                (directory / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, directory / place)


def copy_tree(directory: Path) -> None:
    """The tests, the bundles and a busybox root, laid out as in the repository; pyrun is the installed one."""
    ignore = shutil.ignore_patterns("*.partial.*", ".hypothesis", "*.pyc.*")
    for name in ("tests", "bundles", "vagrant", "docs"):
        shutil.copytree(REPO / name, directory / name, symlinks=True, ignore=ignore)
    shutil.copy2(REPO / "pyproject.toml", directory)
    (directory / "pyrun").symlink_to("/usr/local/lib/pyrun/pyrun")
    (directory / ".venv" / "bin").mkdir(parents=True)
    (directory / ".venv" / "bin" / "python").symlink_to("/usr/bin/python3")
    for pattern in CACHED:
        for path in REPO.glob(pattern):
            target = directory / path.relative_to(REPO)
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "-T", path, target], check=True)


@contextmanager
def job_disk(run: str, with_tests: bool = True, **files: str) -> Iterator[Path]:
    """A disk with this `run` script and these text files; with pyrun, and with the tests if asked for."""
    with one_at_a_time():
        prefix = installed_prefix()
    with tempfile.TemporaryDirectory(prefix="job-", dir=CACHE) as name:
        tree, disk = Path(name) / "tree", Path(name) / "job.ext4"
        tree.mkdir()
        subprocess.run(["cp", "-a", prefix, tree / "prefix"], check=True)
        if with_tests:
            (tree / "src").mkdir()
            copy_tree(tree / "src")
            copy_packages(tree / "site", "pytest")
        for file, text in {"run": run, **files}.items():
            (tree / file).write_text(text)
        (tree / "run").chmod(0o755)
        used = int(subprocess.run(["du", "-sm", tree], stdout=subprocess.PIPE, text=True, check=True).stdout.split()[0])
        options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", "job", "-d", str(tree)]
        subprocess.run(["mke2fs", *options, disk, f"{used + SLACK_MIB}M"], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
        yield disk
