"""The loader of config.json: the values it makes, the text it refuses, what it costs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pyrun.errors import ConfigError, PyrunError
from pyrun.oci import load, model, names, tables
from pyrun.oci.validate import validate
from tests.support.properties import given

REPO = Path(__file__).resolve().parents[2]


def config(**members: Any) -> bytes:
    """A small good config with some members replaced."""
    base = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"]}}
    return json.dumps({**base, **members}).encode()


def faults(data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load.load_bytes(data)
    return caught.value.faults


# --- values -----------------------------------------------------------------------------------------------------------


def test_absent_members_have_their_defaults() -> None:
    spec = load.load_bytes(config())
    assert spec.process is not None
    assert spec.process.user == model.User(uid=0, gid=0)
    assert spec.process.env == () and spec.process.rlimits == () and spec.mounts == ()
    assert spec.process.terminal is False and spec.process.oom_score_adj is None
    assert spec.annotations == {} and spec.linux is None and spec.hooks is None


def test_members_arrive_under_their_snake_case_names() -> None:
    linux = {
        "namespaces": [{"type": "user"}, {"type": "mount", "path": "/proc/1/ns/mnt"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 6}],
        "resources": {
            "blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "memory": {"kernelTCP": -1, "disableOOMKiller": True},
        },
        "intelRdt": {"closID": "x", "l3CacheSchema": "L3:0=f"},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {
                    "names": ["a"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
    }
    process = {"cwd": "/", "args": ["sh"], "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3}}
    process["execCPUAffinity"] = {"initial": "0-3,7"}
    spec = load.load_bytes(config(linux=linux, process=process))
    assert spec.linux is not None and spec.linux.resources is not None and spec.process is not None
    assert spec.linux.namespaces[1] == model.Namespace(type="mount", path="/proc/1/ns/mnt")
    assert spec.linux.uid_mappings[0].container_id == 0 and spec.linux.gid_mappings[0].size == 6
    assert spec.linux.resources.block_io is not None and spec.linux.resources.memory is not None
    assert spec.linux.resources.block_io.throttle_read_iops_device[0].rate == 9
    assert spec.linux.resources.hugepage_limits == (model.HugepageLimit(page_size="2MB", limit=1),)
    assert spec.linux.resources.memory.kernel_tcp == -1 and spec.linux.resources.memory.disable_oom_killer is True
    assert spec.linux.intel_rdt is not None and spec.linux.intel_rdt.clos_id == "x"
    assert spec.linux.intel_rdt.l3_cache_schema == "L3:0=f"
    assert spec.linux.seccomp is not None and spec.linux.seccomp.syscalls[0].args[0].value_two == 3
    assert spec.process.io_priority == model.IOPriority(class_="IOPRIO_CLASS_BE", priority=3)
    assert spec.process.exec_cpu_affinity is not None and spec.process.exec_cpu_affinity.initial == "0-3,7"


def test_values_are_immutable_and_compared_by_content() -> None:
    spec = load.load_bytes(config())
    with pytest.raises(AttributeError, match="can't be changed"):
        spec.hostname = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        spec.unheard_of = 1
    assert spec == load.load_bytes(config()) and spec != spec.replace(hostname="x")
    with pytest.raises(TypeError, match="has no cvd"):
        model.Process(cwd="/", args=("a",), cvd=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs cwd"):
        model.Process(args=("a",))  # type: ignore[call-arg]


def test_instances_do_not_share_their_empty_dicts() -> None:
    first, second = load.load_bytes(config()), load.load_bytes(config())
    assert first.annotations is not second.annotations
    assert model.Linux().sysctl is not model.Linux().sysctl
    assert model.Process(cwd="/", args=("a",)).user == model.User()


def test_a_relative_destination_is_below_the_root() -> None:
    spec = load.load_bytes(config(mounts=[{"destination": "data/x"}, {"destination": "/y"}]))
    assert [mount.destination for mount in spec.mounts] == ["/data/x", "/y"]


def test_unknown_capabilities_are_put_aside() -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_NOPE"], "effective": ["CAP_NOPE", "cap_chown", "CAP_CHOWN"]}
    sets["permitted"] = ["CAP_CHOWN"]
    process = load.load_process(json.dumps({"cwd": "/", "args": ["x"], "capabilities": sets}).encode())
    assert process.capabilities is not None
    assert process.capabilities.bounding == ("CAP_KILL",) and process.capabilities.effective == ("CAP_CHOWN",)
    assert process.capabilities.ignored == ("CAP_NOPE", "cap_chown")


@pytest.mark.parametrize(
    ("version", "kept"),
    [("1.0.2-dev", False), ("1.0", False), ("1.2.1", False), ("1.3.0", True), ("1.3.0-rc.1", True), ("1.10.0", True)],
)
def test_no_processes_was_no_limit_before_1_3(version: str, kept: bool) -> None:
    def pids(limit: int) -> model.Pids | None:
        spec = load.load_bytes(config(ociVersion=version, linux={"resources": {"pids": {"limit": limit}}}))
        assert spec.linux is not None and spec.linux.resources is not None
        return spec.linux.resources.pids

    assert (pids(0) is not None) == kept
    assert pids(1) == model.Pids(limit=1)


@pytest.mark.parametrize("mode", [0o666, 0o20666, 0o60666, 0o10666])
def test_a_device_mode_may_have_the_bits_of_its_type(mode: int) -> None:
    device = {"type": "c", "path": "/dev/f", "major": 1, "minor": 3, "fileMode": mode}
    spec = load.load_bytes(config(linux={"devices": [device]}))
    assert spec.linux is not None and spec.linux.devices[0].file_mode == 0o666


def test_unknown_members_are_ignored() -> None:
    assert load.load_bytes(config(extra={"deep": [1, {"x": None}]}, linux={"new": 1})).linux == model.Linux()


@pytest.mark.parametrize(
    "version", ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.17", "1.3.0-rc.1+build.5", "1.0.0-rc5-dev"]
)
def test_versions_taken(version: str) -> None:
    assert load.load_bytes(config(ociVersion=version)).oci_version == version


@pytest.mark.parametrize(
    ("version", "read_as"),
    [
        ("1.0", "1.0.0"),
        ("1.3", "1.3.0"),
        ("1.4", "1.3.0"),
        ("1.4.0", "1.3.0"),
        ("1.4.0-rc.1", "1.3.0"),
        ("1.10.2", "1.3.0"),
        ("1.4294967296.0", "1.3.0"),
    ],
)
def test_other_versions_of_the_major_version_are_taken(version: str, read_as: str) -> None:
    """A newer one is compatible but for members that are not known here, which are ignored. 1.0 is how people write
    1.0.0. What says of itself that it complies with a version (states) names one that is a version, and no newer one
    than is known."""
    assert load.load_bytes(config(ociVersion=version)).oci_version == read_as
    assert validate(config(ociVersion=version)) == []


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("0.5.0-dev", "takes versions 1.x"),
        ("2.0.0", "takes versions 1.x"),
        ("0.9", "takes versions 1.x"),
        ("10.0.0", "takes versions 1.x"),
        *(
            (version, "is not a version such as 1.3.0")
            for version in ("1", "", "v1.0.0", "1.0.0-", "1.0.0-a..b", "1.0.0-01", "1.01.0", "1.0.0 ", "1.0.²")
        ),
        *((version, "is not a version such as 1.3.0") for version in ("1.0-rc.1", "1.0+x", "1.", "1..0", "1.0.0.0")),
    ],
)
def test_versions_refused(version: str, text: str) -> None:
    ((pointer, said),) = faults(config(ociVersion=version))
    assert pointer == "/ociVersion" and text in said


def test_null_is_absent_as_in_go() -> None:
    """Engines are written in Go, whose nil is null in JSON; runc and crun read it as nothing."""
    nothing = ("env", "user", "rlimits", "apparmorProfile", "oomScoreAdj", "terminal", "consoleSize")
    process = {"cwd": "/", "args": ["sh"], "capabilities": {"ambient": None}, **dict.fromkeys(nothing)}
    linux: dict[str, Any] = dict.fromkeys(("namespaces", "maskedPaths", "sysctl", "seccomp", "uidMappings"))
    linux["resources"] = {"memory": {"limit": None}, "pids": None, "devices": None, "unified": None}
    given = config(process=process, linux=linux, mounts=None, hooks={"prestart": None}, annotations=None, windows=None)
    bare: dict[str, Any] = {"resources": {"memory": {}}}
    want = config(process={"cwd": "/", "args": ["sh"], "capabilities": {}}, linux=bare, hooks={})
    assert load.load_bytes(given) == load.load_bytes(want)
    assert validate(given) == []


def test_a_linux_section_of_null_is_none() -> None:
    assert load.load_bytes(config(linux=None)).linux is None
    assert [pointer for pointer, _ in faults(config(linux=None, vm={"kernel": {"path": "/k"}}))] == ["/vm"]


@pytest.mark.parametrize(
    ("changes", "at", "text"),
    [
        ({"root": None}, "/root", "must be an object, not null"),
        ({"process": {"cwd": None, "args": ["x"]}}, "/process/cwd", "must be a string, not null"),
        ({"process": {"cwd": "/", "args": [None]}}, "/process/args/0", "must be a string, not null"),
        ({"mounts": [None]}, "/mounts/0", "must be an object, not null"),
        ({"annotations": {"a": None}}, "/annotations/a", "must be a string, not null"),
    ],
)
def test_null_is_a_fault_where_something_is_required(changes: dict[str, Any], at: str, text: str) -> None:
    assert faults(config(**changes)) == [(at, text)]


def test_tables_name_each_attribute_of_the_model_in_its_order() -> None:
    """`make` fills attributes by position, so a row in the wrong place would go unnoticed."""
    tree = ast.parse(Path(tables.__file__).read_text())
    seen = set()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "record":
            target = call.args[0]
            assert isinstance(target, ast.Attribute)
            rows = [ast.literal_eval(row.args[0]) for row in call.args[1:] if isinstance(row, ast.Call)]
            cls = getattr(model, target.attr)
            assert [row.lower() for row in rows] == [slot.replace("_", "") for slot in cls.__slots__], target.attr
            seen.add(cls)
    every = {cls for cls in vars(model).values() if isinstance(cls, type) and issubclass(cls, model.Value)}
    assert every - seen == {model.Value, model.Capabilities}


def test_names_agree_with_the_machine() -> None:
    import resource
    import signal

    assert len(names.CAPABILITIES) == 41 and sorted(names.CAPABILITIES.values()) == list(range(41))
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert last >= 40
    for name, number in names.RLIMITS.items():
        assert getattr(resource, name, number) == number
    assert sorted(names.RLIMITS.values()) == list(range(16))
    for member in signal.Signals:
        assert names.SIGNALS[member.name[3:]] == member
    assert names.SIGNALS["RTMIN+15"] == 49 and names.SIGNALS["RTMAX-14"] == 50
    for kind, file in names.NAMESPACE_FILES.items():
        assert os.path.exists(f"/proc/self/ns/{file}") and kind in names.NAMESPACES


# --- text that is not a config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "is not JSON: line 1 column 1: the file is empty"),
        (b" \n ", "the file is empty"),
        (b'{"a": 1,\n "b" 2}', "is not JSON: line 2 column 6: expecting ':' delimiter"),
        (b'{"a": 1,\n "b": }', "is not JSON: line 2 column 7: expect"),
        (b'{"a": [1, 2', "is not JSON: line 1 column 12: the file ends too early"),
        (b'{"a": "x', "is not JSON: line 1 column 7: unterminated string"),
        (b"{} x", "is not JSON: line 1 column 4: expected the end of the file"),
        (b"{}{}", "expected the end of the file"),
        (b'{"a": "\x01"}', "is not JSON: line 1 column 8: invalid control character"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark"),
        (b"\xff\xfe{\0}\0", "is not UTF-8: byte 0xff at line 1 byte 1"),
        (b'{"a":\n  "\xc3"}', "is not UTF-8: byte 0xc3 at line 2 byte 4"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is nested too deeply"),
        (b'{"a": ' + b"9" * 100_000 + b"}", "a number has too many digits"),
        (b"[]", "must be an object, not an array"),
        (b"null", "must be an object, not null"),
        (b"3", "must be an object, not a number"),
    ],
)
def test_bad_text(data: bytes, text: str) -> None:
    found = faults(data)
    assert found[0][0] == "" and text in found[0][1], found


def test_a_file_over_the_limit_is_refused_before_parsing() -> None:
    blank = b" " * (load.LIMIT + 1)
    begin = time.process_time()
    assert faults(blank + b"!")[0][1].startswith(
        "is too large: 16,777,218 bytes, and the limit is 16,777,216 bytes (16 MiB)"
    )
    assert "line 1" in faults(blank[:-2] + b"!")[0][1]  # at the limit it is read
    assert time.process_time() - begin < 2


def test_a_name_that_stands_twice_in_an_object_is_a_fault() -> None:
    data = b'{"ociVersion": "1.0.0", "root": {"path": "a", "path": "b"}, "x": [{"y": 1, "z": 2, "y": 3}]}'
    assert faults(data) == [("/root/path", "stands twice in its object"), ("/x/0/y", "stands twice in its object")]


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "config.json"
    good.write_bytes(config())
    assert load.load_file(str(good)).root.path == "rootfs"
    for path, text in [
        (tmp_path / "none", "no such file or directory"),
        (tmp_path, "is a directory"),
        (f"{good}/x", "not a directory"),
        ("a\0b", "contains a NUL byte"),
    ]:
        with pytest.raises(PyrunError, match=text):
            load.load_file(str(path))
    with pytest.raises(ConfigError, match="zero.*is too large"):
        load.load_file("/dev/zero")


def test_all_faults_come_at_once_in_the_order_of_the_file() -> None:
    data = b"""{"hostname": 5, "mounts": [{"destination": "/a"}, {"type": "x"}, 7], "ociVersion": "9", "hooks": {},
               "process": {"env": [1, "A=\\u0000"], "args": []}, "linux": {"sysctl": {"a/b~c": 1}}}"""
    assert faults(data) == [
        ("/hostname", "must be a string, not a number"),
        ("/mounts/1/destination", "is missing"),
        ("/mounts/2", "must be an object, not a number"),
        ("/ociVersion", '"9" is not a version such as 1.3.0'),
        ("/process/env/0", "must be a string, not a number"),
        ("/process/env/1", "contains a NUL byte"),
        ("/process/args", "must have at least 1 item"),
        ("/process/cwd", "is missing"),
        ("/linux/sysctl/a~1b~0c", "must be a string, not a number"),
        ("/root", "is missing"),
    ]


def test_process_and_resources_alone() -> None:
    assert load.load_process(b'{"cwd": "/", "args": ["x"]}').args == ("x",)
    with pytest.raises(ConfigError) as caught:
        load.load_process(b'{"cwd": "x", "rlimits": [{"type": "RLIMIT_CPU", "hard": 1, "soft": 2}]}')
    assert [pointer for pointer, _ in caught.value.faults] == ["/cwd", "/rlimits/0/soft", "/args"]
    assert load.load_resources(b'{"pids": {"limit": 5}}').pids == model.Pids(limit=5)
    with pytest.raises(ConfigError, match="/unified/a~1b"):
        load.load_resources(b'{"unified": {"a/b": "1"}}')


GOOD = config(
    mounts=[{"destination": "/a", "options": ["ro", "é"]}], hostname="\u00e9", linux={"namespaces": [{"type": "uts"}]}
)


@given(st.integers(0, len(GOOD) - 1), st.binary(max_size=4), st.integers(0, 8))
def test_damaged_text_never_makes_a_traceback(position: int, put: bytes, cut: int) -> None:
    data = GOOD[:position] + put + GOOD[position + cut :]
    try:
        load.load_bytes(data)
    except PyrunError as error:
        assert "\n" not in error.text


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00x", "a\\udfff"])
def test_half_a_surrogate_pair_is_a_fault(half: str) -> None:
    data = GOOD.replace(b'"rootfs"', f'"{half}"'.encode())
    assert faults(data) == [("/root/path", "contains half of a surrogate pair")]


# --- cost -------------------------------------------------------------------------------------------------------------


def test_the_import_diet() -> None:
    """What create and exec import decides what they cost."""
    code = f"import sys; sys.path.insert(0, {str(REPO)!r}); import pyrun.oci.load as l; "
    code += f"l.load_bytes({GOOD!r}); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.split())
    assert "pyrun.oci.checks_linux" in loaded
    fat = {"json", "re", "enum", "dataclasses", "typing", "collections", "functools", "contextlib", "os", "pathlib"}
    assert loaded & fat == set()


def many_mounts(count: int) -> bytes:
    return config(
        mounts=[{"destination": f"/m/{n}", "type": "none", "source": "/s", "options": ["rbind"]} for n in range(count)]
    )


def load_time(data: bytes) -> float:
    best = 1e9
    for _ in range(3):
        begin = time.process_time()
        load.load_bytes(data)
        best = min(best, time.process_time() - begin)
    return best


def test_ten_thousand_mounts_take_time_in_proportion() -> None:
    small, large = load_time(many_mounts(1_000)), load_time(many_mounts(10_000))
    assert len(load.load_bytes(many_mounts(10_000)).mounts) == 10_000
    assert large < 1 and large < 40 * small


def test_ten_thousand_faults_take_time_in_proportion() -> None:
    data = config(mounts=[{"destination": ""} for _ in range(10_000)], annotations={f"k{n}": 1 for n in range(10_000)})
    begin = time.process_time()
    assert len(faults(data)) == 20_000
    assert time.process_time() - begin < 3


def test_faulty_json_where_json_decoder_is_not_imported() -> None:
    """As in `create`: there the scanner of Python 3.11 fails without a word."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pyrun.oci.load import load_bytes\n"
        "assert 'json.decoder' not in sys.modules\n"
        "try: load_bytes(b'{')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    argv = [sys.executable, "-I", "-S", "-c", script, str(REPO)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ConfigError") and "line 1 column 2" in done.stdout
