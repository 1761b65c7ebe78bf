"""The typed, immutable values that config.json becomes: one class per object of the OCI runtime spec 1.3 (Linux).

An attribute is the spec's name in snake_case (``oomScoreAdj`` -> ``oom_score_adj``); a Python keyword gets a trailing
``_``. Lists are tuples and absent ones ``()``; string maps are dicts and absent ones ``{}``; any other absent member
is None, but a boolean whose default is false is False. So a planner never meets a missing attribute. The classes cost
an import in every create, so they are built by a metaclass of ten lines and not by dataclasses (26 ms).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_options):
        return lambda made: made


_set = object.__setattr__
_new = object.__new__
_REQUIRED = object()


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Frozen(type):
    """Turns a body's annotations into slots and its values into defaults; the type checker sees a frozen dataclass."""

    def __new__(mcls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Frozen:
        names = tuple(body.get("__annotations__", ()))
        body["_defaults"] = tuple([body.pop(field, _REQUIRED) for field in names])
        body["__slots__"] = names
        return type.__new__(mcls, name, bases, body)


class Value(metaclass=Frozen):
    """Base of every class here: made with keywords, compared by content, never changed (``replace`` makes another)."""

    if TYPE_CHECKING:
        __slots__: ClassVar[tuple[str, ...]]
        _defaults: ClassVar[tuple[Any, ...]]
    else:

        def __init__(self, **given):
            for name, default in zip(self.__slots__, self._defaults, strict=True):
                value = given.pop(name, default)
                if value is _REQUIRED:
                    raise TypeError(f"{type(self).__name__} needs {name}")
                _set(self, name, {} if value == {} else value)
            if given:
                raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def replace(self, **changes: Any) -> Self:
        """The same value with some attributes changed."""
        return type(self)(**{name: getattr(self, name) for name in self.__slots__} | changes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can't be removed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name)!r}"
            for name in self.__slots__
            if getattr(self, name) not in (None, (), {}, False)
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def make(cls: type[T], values: list[Any]) -> T:
    """An instance from its attributes in the order of the class body; for the loader, which has checked them."""
    made = _new(cls)
    for name, value in zip(cls.__slots__, values, strict=True):  # type: ignore[attr-defined]
        _set(made, name, value)
    return made


# --- config.md: the parts that all POSIX platforms share -------------------------------------------------------------


class Root(Value):
    path: str
    readonly: bool = False


class IdMapping(Value):
    container_id: int
    host_id: int
    size: int


class Mount(Value):
    """``destination`` is always absolute: a relative one is taken below ``/``, as runc does."""

    destination: str
    type: str | None = None
    source: str | None = None
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class ConsoleSize(Value):
    height: int
    width: int


class User(Value):
    """Absent ids are 0, as in every runtime."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str | None = None


class Capabilities(Value):
    """Known names only (names.CAPABILITIES), in the order given; ``ignored`` are the unknown ones, which are warned
    about.
    """

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


class Rlimit(Value):
    type: str
    hard: int
    soft: int


class Scheduler(Value):
    policy: str
    nice: int | None = None
    priority: int | None = None
    flags: tuple[str, ...] = ()
    runtime: int | None = None
    deadline: int | None = None
    period: int | None = None


class IOPriority(Value):
    class_: str
    priority: int | None = None


class ExecCPUAffinity(Value):
    initial: str | None = None
    final: str | None = None


class Process(Value):
    """``user`` is there even when config.json has none; ``args`` is never empty."""

    cwd: str
    args: tuple[str, ...]
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    command_line: str | None = None
    env: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str | None = None
    oom_score_adj: int | None = None
    selinux_label: str | None = None
    scheduler: Scheduler | None = None
    io_priority: IOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None


class Hook(Value):
    """``timeout`` is in seconds. ``env``: None where it is not given."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class Hooks(Value):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


# --- config-linux.md: resources --------------------------------------------------------------------------------------


class DeviceCgroup(Value):
    """``type`` a, b or c (absent: a); an absent ``major`` or ``minor`` matches all, and so does -1."""

    allow: bool
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Memory(Value):
    """Bytes; -1 is unlimited."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool = False
    use_hierarchy: bool = False
    check_before_update: bool = False


class Cpu(Value):
    """``quota``, ``burst``, ``period`` in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None


class Pids(Value):
    limit: int


class WeightDevice(Value):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Value):
    major: int
    minor: int
    rate: int | None = None


class BlockIO(Value):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = ()


class HugepageLimit(Value):
    page_size: str
    limit: int


class InterfacePriority(Value):
    name: str
    priority: int


class Network(Value):
    class_id: int | None = None
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Value):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Value):
    devices: tuple[DeviceCgroup, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: dict[str, Rdma] = {}  # noqa: RUF012 (a fresh one for each instance, see Value)
    unified: dict[str, str] = {}  # noqa: RUF012


# --- config-linux.md: the rest ---------------------------------------------------------------------------------------


class Namespace(Value):
    """``path`` is of a namespace to join; None makes a new one."""

    type: str
    path: str | None = None


class Device(Value):
    """``type`` c, b, u or p; ``major`` and ``minor`` are there unless it is p."""

    type: str
    path: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(Value):
    name: str | None = None


class SeccompArg(Value):
    index: int
    value: int
    value_two: int | None = None
    op: str


class SeccompSyscall(Value):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArg, ...] = ()


class Seccomp(Value):
    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None  # absent means SPEC_ALLOW, an empty list none, as in runc
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: tuple[SeccompSyscall, ...] = ()


class IntelRdt(Value):
    clos_id: str | None = None
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str | None = None
    mem_bw_schema: str | None = None
    enable_monitoring: bool = False


class MemoryPolicy(Value):
    mode: str
    nodes: str | None = None
    flags: tuple[str, ...] = ()


class Personality(Value):
    domain: str
    flags: tuple[str, ...] = ()


class TimeOffset(Value):
    secs: int = 0
    nanosecs: int = 0


class TimeOffsets(Value):
    monotonic: TimeOffset | None = None
    boottime: TimeOffset | None = None


class Linux(Value):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: TimeOffsets | None = None
    devices: tuple[Device, ...] = ()
    net_devices: dict[str, NetDevice] = {}  # noqa: RUF012
    cgroups_path: str | None = None
    rootfs_propagation: str | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str | None = None
    sysctl: dict[str, str] = {}  # noqa: RUF012
    resources: Resources | None = None
    seccomp: Seccomp | None = None
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None


class Spec(Value):
    oci_version: str
    root: Root
    process: Process | None = None
    hostname: str | None = None
    domainname: str | None = None
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    linux: Linux | None = None
    annotations: dict[str, str] = {}  # noqa: RUF012
