"""`pyrun cri`: one event loop that serves the CRI; what blocks is done in threads.

The order of a start: directories and locks, so that it is the only one; then what an earlier one has left is taken up
or swept away; only then the socket, so that nobody is told of a pod that is not known yet. A signal ends it in the
reverse order: no new connection, what was begun is finished, and pods and containers run on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from .. import __version__
from ..cri_api import SERVICES
from ..ending import apart, run
from ..errors import PyrunError, Unavailable
from ..facts import Facts, collect_facts
from ..image import layers
from ..image.pull import Settings as Pulling
from ..image.store import LOST, Images
from ..listen import listen, notify, only_one, parse_address, private_directory, unlink_ours
from ..pod.handler import handler_root, probe
from ..pod.network import Network
from ..pod.pods import Pods
from ..pod.recovery import recover
from ..pod.sandbox.cgroups import cgroup_parent
from ..pod.spec import Settings
from ..rpc.server import Service, make_server
from .backend import PodBackend
from .cgroup_driver import choose_driver
from .config import Configuration, load_configuration
from .cri import Cri
from .events import Events
from .server import functions
from .stream.server import Streams

Result = TypeVar("Result")

THREADS = 128  # execs and stops that wait have one each
FINISH_S = 60.0  # for what was begun, when a signal ends the daemon
DESCRIPTORS = 65_536
BOTH = "--root and a --state"


class Places(NamedTuple):
    """root, state: directories. listen: as --listen has it."""

    root: str
    state: str
    listen: str | None = None


Beside = Callable[[Cri], contextlib.AbstractAsyncContextManager[None]]


def serve(places: Places, config: str | None, warn: Callable[[str], None], beside: Beside | None = None) -> int:
    """Until a signal ends it. PyrunError when it can't start. beside: entered before anybody is served, and left
    after."""
    if os.geteuid() != 0:
        raise PyrunError("pyrun cri needs root", hint="sudo pyrun cri, or a systemd unit")
    places = Places(os.path.abspath(places.root), os.path.abspath(places.state), places.listen)
    configuration = load_configuration(config)
    path = parse_address(places.listen, places.state)
    os.umask(0o022)  # also of the directories that are made for a pod's mounts; what is ours says its mode itself
    _raise_limits()
    for directory in (places.root, places.state):
        private_directory(directory)
    with only_one(places.root, "pyrun cri", BOTH), contextlib.ExitStack() as stack:
        if not os.path.samefile(places.root, places.state):
            stack.enter_context(only_one(places.state, "pyrun cri", BOTH))
        run(_serve(places, path, configuration, warn, beside), warn, THREADS)
    return 0


async def _serve(
    places: Places, path: str, configuration: Configuration, warn: Callable[[str], None], beside: Beside | None
) -> None:
    loop = asyncio.get_running_loop()
    ended, signals = asyncio.Event(), list[int]()

    def end(number: int) -> None:
        signals.append(number)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    cri = await _unless(ended, asyncio.to_thread(_assemble, places, configuration, warn))
    try:
        await cri.streams.start()
    except OSError as error:
        raise PyrunError(f"stream_address {configuration.stream_address}: {error.strerror or error}") from None
    try:
        await _unless(ended, recover(cri.pods))
        cri.pods.changed = cri.events.tell
        gc.collect()
        gc.freeze()  # what is there now stays: no look for garbage among it
        async with beside(cri) if beside is not None else contextlib.nullcontext():
            await _listen_until(path, cri, ended)
            cri.ended_by = signals[0]
    finally:
        await cri.streams.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(cri.pods.joined.finish(), FINISH_S)
        await apart(lambda: cri.images.close(wait=False))
        _remove_empty(cri.facts)


async def _unless(ended: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result:
    """What a part of the start returns. Unavailable where it still goes on FINISH_S after a signal: on a disk that
    hangs it goes on for ever."""
    task, told = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not (await asyncio.wait((task,), timeout=FINISH_S))[0]:
        task.cancel()
        raise Unavailable("it was told to end before it had started, which hangs", hint="does the disk answer?")
    return task.result()


def _remove_empty(facts: Facts) -> None:
    """The cgroup of pods that name no parent, where there are none."""
    if facts.cgroup_mount is not None:
        with contextlib.suppress(OSError):
            os.rmdir(facts.cgroup_mount.rstrip("/") + cgroup_parent("", "").rstrip("/"))


def _assemble(places: Places, configuration: Configuration, warn: Callable[[str], None]) -> Cri:
    """The daemon's parts, nothing of which runs yet."""
    root, state = places.root, places.state
    facts = collect_facts(False)
    driver = choose_driver(configuration.cgroup_driver, facts, warn)
    notes = [text for text in (layers.what_is_missing(),) if text]
    for note in notes:
        warn(note)
    images = Images(
        f"{root}/image",
        layers=configuration.layers,
        pinned=configuration.pinned_images,
        settings=Pulling(certs_dirs=(configuration.certs_dir,)),
        warn=warn,
        behind=True,
    )
    if (why := images.contents.why_dir) is not None:
        notes.append(f"layers become directories, not EROFS images: {why}")
        warn(notes[-1])
    for image in images.damaged:
        warn(f"image {image}: {LOST}")
    network = Network(
        f"{root}/network",
        conf_dir=configuration.cni_conf_dir,
        bin_dirs=configuration.cni_bin_dirs,
        ranges=configuration.pod_cidrs,
        warn=warn,
    )
    settings = Settings(
        strict_limits=configuration.strict_limits,
        default_seccomp=configuration.default_seccomp,
        cdi_dirs=configuration.cdi_dirs,
        cgroup_driver=driver,
    )
    peers = {}
    for name, program in configuration.runtimes.items():
        try:
            peers[name] = probe(name, program, handler_root(state, name), facts)
        except PyrunError as error:
            notes.append(f"there is no runtime handler {name}: {error.text}")
            warn(notes[-1])
    pods = Pods(root, state, images, network, facts, settings, warn, peers)
    streams = Streams(PodBackend(pods), (configuration.stream_address, 0))
    return Cri(pods, images, network, Events(), streams, configuration, facts, root, state, notes)


async def _listen_until(path: str, cri: Cri, ended: asyncio.Event) -> None:
    """Serves until the event is set."""
    found = functions()
    server = make_server([Service(rpcs, found[name], cri, cri.durations) for name, rpcs in SERVICES.items()])
    listener = listen(path)
    inode = os.lstat(path).st_ino
    lag = asyncio.create_task(cri.durations.watch())
    try:
        await server.start(sock=listener)
        notify(f"READY=1\nSTATUS=pyrun {__version__} serves {path}")
        await ended.wait()
        notify("STOPPING=1\nSTATUS=what was begun is being finished")
    finally:
        lag.cancel()
        unlink_ours(path, inode)
        server.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), FINISH_S)


def _raise_limits() -> None:
    """Of descriptors: some five for each container."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
