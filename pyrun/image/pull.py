"""Pulls: from a reference and credentials to an image of the store. Equal requests are one.

A pull runs in a thread of its own. Who asks waits for it, and stops waiting when cancelled; the pull ends when nobody
waits any more. Requests are equal only if their credentials are too: otherwise a stranger could be let in by another's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pyrun.errors import Aborted
from pyrun.image.fetch import Progress, Source, Tell
from pyrun.image.reference import Reference
from pyrun.image.registry.client import Registry
from pyrun.image.registry.credentials import Auth, default_path, find_auth, same_host
from pyrun.image.registry.hosts import CERTS_DIRS, Endpoint, endpoints
from pyrun.image.registry.transport import SILENCE_S, Transport

ASK_S = 0.1


@dataclass(frozen=True)
class Settings:
    """How to pull. certs_dirs: where hosts.toml are. docker_config: where `docker login` keeps credentials; "" for
    nowhere. silence_s: how long a connection may bring nothing before it is given up and resumed."""

    certs_dirs: tuple[str, ...] = CERTS_DIRS
    docker_config: str = field(default_factory=default_path)
    silence_s: float = SILENCE_S


def open_registry(reference: Reference, auth: Auth | None, settings: Settings) -> Registry:
    """The source for a reference. Raises PyrunError where hosts.toml is wrong."""
    places = endpoints(reference.host, settings.certs_dirs)

    def lookup(endpoint: Endpoint) -> Auth | None:
        return credentials_for(endpoint, reference, auth, settings)

    return Registry(reference, places, lookup, Transport(settings.silence_s, os.environ))


def credentials_for(endpoint: Endpoint, reference: Reference, auth: Auth | None, settings: Settings) -> Auth | None:
    """Those of the request for the host that they name, or else for the reference's registry, which a mirror is not;
    for others, and without a request's, what docker's config.json has for that very host."""
    if auth is not None:
        if auth.server and (
            same_host(auth.server, endpoint.host) or auth.server == reference.host and not endpoint.mirror
        ):
            return auth
        if not auth.server and not endpoint.mirror:
            return auth
        if not endpoint.mirror:
            return None
    if not settings.docker_config:
        return None
    host = endpoint.host if endpoint.mirror else reference.host
    return find_auth(settings.docker_config, host, reference.repository)


class Pull:
    """One that is under way, and who waits for it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.waiting = 0
        self.cancelled = False
        self.result = ""
        self.error: BaseException | None = None
        self.tells: list[Tell] = []
        self.told: dict[str, Progress] = {}

    def tell(self, progress: Progress) -> None:
        self.told[progress.digest] = progress
        for tell in list(self.tells):
            tell(progress)


class Pulls:
    """All pulls of a process."""

    def __init__(self, settings: Settings, run: Callable[[Reference, Source, Callable[[], bool], Tell], str]) -> None:
        self.settings = settings
        self._run = run
        self._lock = threading.Lock()
        self._under_way: dict[tuple[Reference, Auth | None], Pull] = {}

    def pull(
        self, reference: Reference, auth: Auth | None, tell: Tell | None, cancel: Callable[[], bool] | None
    ) -> str:
        """The id of the image. Raises Aborted when `cancel` says so."""
        key = (reference, auth)
        pull = self._join(key, tell)
        try:
            while not pull.ended.wait(ASK_S):
                if cancel is not None and cancel():
                    raise Aborted(f"the pull of {reference} was cancelled")
        finally:
            self._leave(key, pull, tell)
        if pull.error is not None:
            raise pull.error.with_traceback(None)
        return pull.result

    def _join(self, key: tuple[Reference, Auth | None], tell: Tell | None) -> Pull:
        with self._lock:
            pull = self._under_way.get(key)
            fresh = pull is None
            if pull is None:
                pull = self._under_way[key] = Pull()
            pull.waiting += 1
            if tell is not None:
                for progress in list(pull.told.values()):
                    tell(progress)
                pull.tells.append(tell)
        if fresh:
            threading.Thread(target=self._work, args=(key, pull), name=f"pull {key[0]}", daemon=True).start()
        return pull

    def _leave(self, key: tuple[Reference, Auth | None], pull: Pull, tell: Tell | None) -> None:
        with self._lock:
            pull.waiting -= 1
            if tell is not None:
                pull.tells.remove(tell)
            if not pull.waiting and not pull.ended.is_set():
                pull.cancelled = True
                if self._under_way.get(key) is pull:  # who comes now begins anew
                    del self._under_way[key]

    def _work(self, key: tuple[Reference, Auth | None], pull: Pull) -> None:
        try:
            with open_registry(*key, self.settings) as source:
                source.cancelled = lambda: pull.cancelled
                pull.result = self._run(key[0], source, source.cancelled, pull.tell)
        except BaseException as error:
            pull.error = error
        finally:
            with self._lock:
                if self._under_way.get(key) is pull:
                    del self._under_way[key]
                pull.ended.set()
