"""Plans as text and as data: what a reader of `explain` and a tool get to see."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.commands.spec import default_config
from pyrun.oci import names
from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Builder, Plan
from pyrun.plan.words import symbols
from pyrun.plan.words.explain import entry_of, explain_data, explain_text, format_step, format_trace, word
from pyrun.plan.words.symbols import OPERANDS, step_name

REPO = Path(__file__).resolve().parents[2]
PYTHON = [sys.executable, "-I", "-S", str(REPO / "pyrun" / "__main__.py")]
CLASSES = [cls for cls in vars(s).values() if isinstance(cls, type) and issubclass(cls, s.Step) and cls is not s.Step]


def small_plan() -> Plan:
    b = Builder()
    root, source, target = b.slot("root", inherit=True), b.slot("source"), b.slot("target")
    made = s.Mkdirat(path="/run/x", mode=0o700, why="takes the id")
    done = s.Label("done")
    b.add(s.PARENT, made, s.Openat2(path="/b/rootfs", flags=0o10200000, out=root, at="/root/path"), s.Await(point=3))
    b.add(
        s.STAGE2,
        s.OpenTree(path="/srv", flags=0x8001, out=source, at="/mounts/3/source", on=((2, None), (13, done))),
        s.MakeTarget(
            root=root, path="/data", like=source, mode=0o755, resolve=4, out=target, at="/mounts/3/destination"
        ),
        s.MoveMount(mount=source, onto=target, flags=0x44, at="/mounts/3", why="/srv on /data"),
        s.Goto(on=((s.ANY, done),)),
        done,
        s.Execve(argv=("sh", "-c", "echo a b"), env=("A=1", "B=2"), at="/process/args"),
    )
    b.add(s.UNDO, s.Unlinkat(path="/run/x", flags=0x200, guard=made))
    return b.plan()


TEXT = """\
create: 8 steps, and 1 that undo them if one fails

PARENT  pyrun, on the host
    1  mkdirat  path=/run/x mode=0700  # takes the id
    2  openat2  path=/b/rootfs flags=O_DIRECTORY|O_PATH → $root  /root/path
    3  await    point=ready

STAGE2  the container's init, up to its program
/mounts/3
│   4  open_tree    path=/srv flags=OPEN_TREE_CLONE|AT_RECURSIVE → $source [ENOENT → skip] [EACCES → step 8]  /source
│   5  make_target  root=$root path=/data like=$source mode=0755 resolve=RESOLVE_NO_SYMLINKS → $target  /destination
│   6  move_mount   mount=$source onto=$target  # /srv on /data
    7  goto         → step 8
    8  execve       argv=[sh -c "echo a b"] env=2 variables  /process/args

UNDO  only when a step fails: takes back what was made
    9  unlinkat  path=/run/x flags=AT_REMOVEDIR [if step 1 made it]
"""


def test_the_text() -> None:
    assert "\n".join(explain_text(small_plan(), width=130, title="create")) + "\n" == TEXT


def test_long_steps_are_folded_between_words() -> None:
    lines = list(explain_text(small_plan(), width=70))
    assert max(map(len, lines)) <= 70
    folded = "\n".join(lines)
    assert re.search(r"^│ {10,}→ \$source \[ENOENT → skip\] \[EACCES → step 8\]$", folded, re.M)
    # Nothing is lost by folding.
    wide = "\n".join(explain_text(small_plan(), width=130))
    assert sorted(folded.replace("│", "").split()) == sorted(wide.replace("│", "").split())


def test_colours_only_when_asked_for() -> None:
    plain = "\n".join(explain_text(small_plan(), width=130))
    coloured = "\n".join(explain_text(small_plan(), width=130, color=True))
    assert "\033" not in plain
    assert "\033[36mopen_tree" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured) == plain


def test_the_trace_says_times_and_the_failure() -> None:
    plan = small_plan()
    took = [1500, 250_000, 10, 3000, -1, -1, -1, -1, -1]
    text = "\n".join(format_trace(plan, took, failed=3, width=130))
    assert text.startswith("4 steps ran")
    assert "PARENT  pyrun, on the host  251 µs" in text
    assert re.search(r"^    1 +1\.5  mkdirat", text, re.M)
    assert re.search(r"^    2 +250\.0  openat2", text, re.M)
    assert re.search(r"^│   4 +failed  open_tree", text, re.M)
    assert re.search(r"^    8 +·  execve", text, re.M)
    assert "UNDO" not in text


def test_the_data() -> None:
    lanes = {lane: list(steps) for lane, steps in explain_data(small_plan())}
    assert list(lanes) == ["parent", "stage1", "stage2", "undo"]
    assert [step["number"] for steps in lanes.values() for step in steps] == list(range(1, 10))
    assert lanes["stage2"][0] == {
        "number": 4,
        "step": "open_tree",
        "operands": {"path": "/srv", "flags": "OPEN_TREE_CLONE|AT_RECURSIVE"},
        "out": "$source",
        "at": "/mounts/3/source",
        "why": None,
        "on": [{"errno": "ENOENT", "then": "skip"}, {"errno": "EACCES", "then": "step 8"}],
    }
    assert lanes["stage2"][2]["operands"]["flags"] == "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"
    assert lanes["stage2"][4]["operands"] == {"argv": ["sh", "-c", "echo a b"], "env": ["A=1", "B=2"]}
    assert lanes["undo"][0]["operands"]["guard"] == 1
    json.dumps(lanes)


def test_a_step_in_a_message() -> None:
    plan = small_plan()
    assert [format_step(step, plan) for step in plan.steps[3:6]] == [
        "step 4/8 open_tree path=/srv flags=OPEN_TREE_CLONE|AT_RECURSIVE",
        "step 5/8 make_target root=/b/rootfs path=/data like=/srv mode=0755 resolve=RESOLVE_NO_SYMLINKS",
        "step 6/8 move_mount src=/srv dst=/data",
    ]
    assert format_step(plan.steps[8], plan) == "undo step 1/1 unlinkat path=/run/x flags=AT_REMOVEDIR"


def test_a_detached_mount_is_named_by_its_file_system() -> None:
    b = Builder()
    fs, mount, other = b.slot("fs"), b.slot("mount"), b.slot("handed in")
    move = s.MoveMount(mount=mount, dst="/data", flags=4)
    b.add(s.STAGE2, s.Fsopen(fstype="tmpfs", out=fs), s.Fsmount(fs=fs, out=mount), move, s.Close(fd=other))
    plan = b.plan()
    assert format_step(move, plan) == "step 3/4 move_mount src=tmpfs dst=/data"
    assert format_step(plan.steps[3], plan) == 'step 4/4 close fd="$handed in"'


def test_a_slot_is_named_by_what_was_in_it_then() -> None:
    """A container's mounts take turns in one slot."""
    b = Builder()
    mount = b.slot("mount")
    for path in ("/first", "/last"):
        b.add(s.STAGE2, s.OpenTree(path=path, flags=1, out=mount), s.MoveMount(mount=mount, dst="/data", flags=4))
    plan = b.plan()
    told = [format_step(plan.steps[i], plan) for i in (1, 3)]
    assert told == ["step 2/4 move_mount src=/first dst=/data", "step 4/4 move_mount src=/last dst=/data"]


def test_a_slot_is_named_by_what_it_was_made_from_then() -> None:
    """The slot that it was made from holds another thing meanwhile; and of a child's slots undo knows nothing."""
    b = Builder()
    fs, mount, root = b.slot("fs"), b.slot("mount"), b.slot("root")
    b.add(s.PARENT, s.Openat2(path="/state", flags=0, out=root))
    for fstype in ("tmpfs", "proc"):
        b.add(s.STAGE2, s.Fsopen(fstype=fstype, out=fs), s.Fsmount(fs=fs, attrs=0, out=mount))
        if fstype == "tmpfs":
            b.add(s.STAGE2, s.OpenTree(dir=mount, path="", flags=0x1000, out=root))
    used, undone = s.Fchownat(dir=root, name="", uid=1), s.Unlinkat(dir=root, path="x")
    b.add(s.STAGE2, used)
    b.add(s.UNDO, undone)
    plan = b.plan()
    assert "dir=tmpfs" in format_step(used, plan)
    assert "dir=/state" in format_step(undone, plan)


@pytest.mark.parametrize(
    ("pointer", "entry"),
    [("/mounts/3/options/1", "/mounts/3"), ("/mounts/3", "/mounts/3"), ("/process/cwd", "/process/cwd"), ("", "")]
    + [("/hooks/poststart/0/path", "/hooks/poststart/0"), ("/linux/sysctl/net.ipv4~1x", "/linux/sysctl/net.ipv4~1x")],
)
def test_entries(pointer: str, entry: str) -> None:
    assert entry_of(pointer) == entry


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/a/b-c_d.e", "/a/b-c_d.e"),
        ("", '""'),
        ("a b", '"a b"'),
        ('q"\\', '"q\\"\\\\"'),
        ("a\n\t\x1b[31m\x00", '"a\\n\\t\\x1b[31m\\x00"'),
        ("\u202eevil", '"\\u202eevil"'),
        ("ä", '"ä"'),
        ("x" * 300, "x" * 199 + "…"),
        (b"abc", "3 bytes"),
        (("a", "b c"), '[a "b c"]'),
        (tuple("abcdefghijklmnopqrstuvwxyz"), "[a b c d e f g h i j k l m n o p q r s t …]"),
        (5, "5"),
    ],
)
def test_words(value: Any, shown: str) -> None:
    """Nothing from a config gets to the terminal that could move its cursor."""
    assert word(value) == shown


# --- the tables -------------------------------------------------------------------------------------------------------


def test_the_tables_name_operands_that_there_are() -> None:
    for cls, shown in OPERANDS.items():
        taken = set(cls.FIELDS) | set(re.findall(r"\w+", cls.__doc__ or ""))
        assert set(shown) <= taken, cls.__name__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_number_is_too_odd_to_show(cls: type[s.Step]) -> None:
    """Each operand as 0, all ones and something in between; as strings, what is not text."""
    for number, raw in ((0, b""), (1, b"x"), (0o10200777, b"\xff" * 48), ((1 << 64) - 1, bytes(7))):
        args: dict[str, Any] = {}
        for name, place in cls.FIELDS.items():
            shown = OPERANDS.get(cls, {}).get(name)
            is_bytes = shown in (symbols.instructions, symbols.netlink, symbols.numbers, symbols.scheduler)
            is_text = place >= s.S0
            args[name] = (
                raw if is_bytes else (raw.decode("latin-1") if is_text else number % 3 if place <= s.OUT else number)
            )
        for name in ("guard", "groups", "args", "env", "argv"):
            if name in args:
                args[name] = () if name != "guard" else None
        b = Builder()
        for name in "abc":
            b.slot(name)
        b.add(s.PARENT, cls(**args, at="/x", on=((s.ANY, None), (9999, None))))
        plan = b.plan()
        assert step_name(cls) in "\n".join(explain_text(plan))
        assert format_step(plan.steps[0], plan).startswith(f"step 1/1 {step_name(cls)}")
        json.dumps([list(steps) for _, steps in explain_data(plan)])


def test_numbers_agree_with_the_other_tables() -> None:
    assert {name.removeprefix("CLONE_"): bit for bit, name in symbols.CLONE.items()} == {
        {"mount": "NEWNS", "network": "NEWNET"}.get(kind, "NEW" + kind.upper()): bit
        for kind, bit in names.NAMESPACES.items()
    }
    assert {name: bit for bit, name in symbols.SECCOMP.items()}.items() >= names.SECCOMP_FLAGS.items()
    assert [names.MEMORY_POLICY_MODES[name] for name in symbols.MPOL] == list(range(len(symbols.MPOL)))
    assert {name: bit for bit, name in symbols.MPOL_F.items()} == names.MEMORY_POLICY_FLAGS
    assert [names.SCHEDULER_POLICIES[name] for name in symbols.SCHED] == list(range(len(symbols.SCHED)))
    for bit, name in symbols.OPEN.items():
        assert getattr(os, name) == bit
    import errno

    for number in symbols.ERRNO_TEXTS:
        said = os.strerror(number)
        assert symbols.errno_text(number) == said[0].lower() + said[1:]
        assert symbols.errno_name(number) == errno.errorcode[number]


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (0, "none"),
        ((1 << 41) - 1, "all"),
        (1 << 5, "KILL"),
        (1 << 5 | 1, "CHOWN|KILL"),
        ((1 << 41) - 1 & ~1, "all but CHOWN"),
    ],
)
def test_cve_2022_24769_and_27652_capabilities(mask: int, shown: str) -> None:
    assert symbols.capabilities(mask) == shown


@pytest.mark.parametrize(
    ("show", "value", "shown"),
    [
        (symbols.bits(symbols.MOUNT_ATTR), 0x70 | 1, "MOUNT_ATTR_RDONLY|MOUNT_ATTR__ATIME"),
        (symbols.bits(symbols.MOUNT_ATTR), 0x10, "MOUNT_ATTR_NOATIME"),
        (symbols.bits(symbols.AT), 0x1000 | 0x40000000, "AT_EMPTY_PATH|0x40000000"),
        (symbols.open_flags, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, "O_RDWR|O_CREAT|O_CLOEXEC"),
        (symbols.open_flags, 0, "O_RDONLY"),
        (symbols.node_mode, 0o020666, "char:0666"),
        (symbols.device, 5 << 32 | 2, "5:2"),
        (symbols.numbers, bytes([0b10001111, 1]), "0-3,7-8"),
        (symbols.limit, (1 << 64) - 1, "unlimited"),
        (symbols.limit, 1024, "1024"),
        (symbols.ioprio, 2 << 13 | 4, "be:4"),
        (symbols.signal, 9, "SIGKILL"),
        (symbols.persona, 8 | 0x40000, "LINUX32|ADDR_NO_RANDOMIZE"),
    ],
)
def test_symbols(show: Any, value: Any, shown: str) -> None:
    assert show(value) == shown


# --- the command ------------------------------------------------------------------------------------------------------


def explain(*argv: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYTHON, "explain", *map(str, argv)], capture_output=True, text=True, timeout=60, **more)


BUNDLES = sorted(path.parent.name for path in (REPO / "bundles").glob("*/config.json"))


@pytest.mark.parametrize("name", BUNDLES)
def test_example_bundles(name: str) -> None:
    text = explain(REPO / "bundles" / name)
    if "controller is not available" in text.stderr:
        pytest.skip(text.stderr.strip())
    assert (text.returncode, text.stderr) == (0, "")
    assert "\033" not in text.stdout
    assert max(map(len, text.stdout.splitlines())) <= 250
    data = json.loads(explain("--format", "json", REPO / "bundles" / name).stdout)
    steps = [step for lane in data["lanes"] for step in lane["steps"]]
    assert [step["number"] for step in steps] == list(range(1, len(steps) + 1))
    known = {"ociVersion", "root", "process", "hostname", "domainname", "mounts", "hooks", "linux", "annotations"}
    assert {step["at"].split("/")[1] for step in steps if step["at"]} <= known
    assert [lane["steps"][-1]["step"] for lane in data["lanes"] if lane["lane"] == "stage2"] == ["execve"]


def test_explain_makes_nothing_and_needs_no_root(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(default_config()))
    before = sorted(os.listdir(tmp_path))
    nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent, bundle):
            directory.chmod(0o755)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    done = explain(bundle, **nobody)
    if nobody and "Permission denied" in done.stderr:
        pytest.skip("the repository can't be read by another user")
    assert (done.returncode, done.stderr) == (0, "")
    assert "pivot_root" in done.stdout
    assert sorted(os.listdir(tmp_path)) == before


def test_another_config_or_a_file(tmp_path: Path) -> None:
    other = tmp_path / "try.json"
    other.write_text(json.dumps({**default_config(), "hostname": "elsewhere"}))
    for argv in (["--config", other, REPO / "bundles" / "hello"], [other]):
        done = explain(*argv)
        assert done.returncode == 0, done.stderr
        assert "name=elsewhere" in done.stdout


def test_faults_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.0"}')
    done = explain(tmp_path)
    assert done.returncode == 1
    assert "/root" in done.stderr
    assert "Traceback" not in done.stderr


def cpu_of(count: int, directory: Path) -> float:
    config = default_config()
    config["mounts"] += [
        {"destination": f"/d/{i}", "type": "bind", "source": f"/s/{i}", "options": ["rbind", "ro"]}
        for i in range(count)
    ]
    (directory / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = explain(directory)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("/mounts/") >= count
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_ten_thousand_mounts(tmp_path: Path) -> None:
    """Twice the mounts cost about twice the time. The bound in seconds is loose; the benchmark has the strict one."""
    five, ten = cpu_of(5_000, tmp_path), cpu_of(10_000, tmp_path)
    assert ten < 4.0
    assert ten < 3.0 * five
