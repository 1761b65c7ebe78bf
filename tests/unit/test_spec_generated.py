"""Generated requests through the translation, the loader and the planner."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pyrun.errors import FailedPrecondition, InvalidArgument, PyrunError
from tests.support.cri.drafts import planned
from tests.support.cri.requests import (
    Pod,
    container,
    draft,
    mapped,
    node,
)
from tests.support.properties import given

# --- generated -------------------------------------------------------------------------------------------------------

_words = st.text("abc/.=:\0\n \u00e9", max_size=6)
_paths = st.one_of(
    st.sampled_from(["/a", "/a/b", "/dev", "/etc/hosts", "/proc/x", "/sys", ""]), _words.map("/".__add__)
)
_mount = st.fixed_dictionaries(
    {"container_path": _paths, "host_path": _paths},
    optional={
        "readonly": st.booleans(),
        "recursive_read_only": st.booleans(),
        "propagation": st.integers(0, 2),
        "mount_options": st.lists(st.sampled_from(["noexec", "nodev", "size=1"]), max_size=2),
    },
)
_numbers = st.one_of(st.integers(-2, 1000), st.integers(-(2**63), 2**63 - 1))
_resources = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("cpu_shares", "memory_limit_in_bytes", "memory_swap_limit_in_bytes"), _numbers),
        "oom_score_adj": st.integers(-1001, 1001),
        "cpuset_cpus": st.sampled_from(["0", "0-1", "x"]),
        "unified": st.dictionaries(st.sampled_from(["memory.high", "cpu.idle", "x/y", "new.max"]), _words, max_size=2),
    },
)
_context = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.booleans(),
        "readonly_rootfs": st.booleans(),
        "no_new_privs": st.booleans(),
        "namespace_options": st.fixed_dictionaries({"pid": st.integers(0, 2)}),
        "capabilities": st.fixed_dictionaries(
            {},
            optional={
                f"{kind}_capabilities": st.lists(st.sampled_from(["ALL", "CHOWN", "CAP_BPF", "NO"]), max_size=2)
                for kind in ("add", "drop", "add_ambient")
            },
        ),
        "masked_paths": st.lists(_paths, max_size=2),
        "seccomp": st.fixed_dictionaries({"profile_type": st.integers(0, 1)}),
        "selinux_options": st.fixed_dictionaries({"level": _words}),
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "command": st.lists(_words, max_size=2),
            "args": st.lists(_words, max_size=2),
            "working_dir": _words,
            "envs": st.lists(st.fixed_dictionaries({"key": _words, "value": _words}), max_size=2),
            "mounts": st.lists(_mount, max_size=4),
            "tty": st.booleans(),
            "linux": st.fixed_dictionaries({}, optional={"resources": _resources, "security_context": _context}),
        },
    ),
    st.sampled_from([Pod(), mapped(), Pod(net=None, ipc=None, uts=None)]),
    st.booleans(),
)
def test_each_request_is_refused_by_name_or_can_be_planned(fields: dict[str, Any], pod: Pod, bare: bool) -> None:
    host = node(facts={"controllers": frozenset()} if bare else {})
    config = container(**fields)
    try:
        made = draft(config, host=host, pod=pod)
    except PyrunError as error:
        assert isinstance(error, (InvalidArgument, FailedPrecondition)), error
        return
    try:
        planned(made.doc, config, pod, host)
    except PyrunError as error:
        # What only the planner can know; it names the place in config.json, and that one in the request.
        faults = getattr(error, "faults", None) or [(error.pointer, error.text)]
        assert all(made.origin(pointer) for pointer, _ in faults), faults
