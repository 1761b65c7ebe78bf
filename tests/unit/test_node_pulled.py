"""Whose an image is that has been pulled for a pod."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.ending import cancel
from pyrun.errors import NotFound, PyrunError
from pyrun.image.reference import parse_reference
from pyrun.image.registry.credentials import Auth
from pyrun.kube.certificates import write_private
from pyrun.kube.objects.config import Secret
from pyrun.kube.objects.meta import ObjectMeta
from pyrun.node.agent import carry
from pyrun.node.agent import pulled as module
from pyrun.node.agent.carry import Carrier
from pyrun.node.agent.pulled import ALWAYS, NEVER, PRELOADED, Login, Pulled, login_of

APP, ID = "q.example/app:1", "sha256:" + "a" * 64
MINE = Login("default", "mine", "1", "d")
PATIENCE_S = 60.0


class Store:
    """The images that are here, by name."""

    def __init__(self, **names: str) -> None:
        self.names = {APP: ID, **names}

    def find(self, name: str) -> Any:
        name = name if name.startswith("sha256:") else str(parse_reference(name))
        if name not in self.names:
            raise NotFound(name)
        return SimpleNamespace(id=self.names[name])

    def list(self) -> list[Any]:
        return [SimpleNamespace(id=id) for id in self.names.values()]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Pulled]:
    """Each is the next agent's."""

    def made(policy: str = PRELOADED, store: Any = None) -> Pulled:
        images: Any = store or Store()
        return Pulled(str(tmp_path / "pulled.json"), images, policy, pytest.fail)

    return made


def bring(pulled: Pulled, login: Login | None) -> None:
    pulled.begin(APP)
    pulled.done(APP, ID, login)


def test_what_was_imported_is_everybodys_and_what_a_secret_has_brought_is_not(make: Callable[..., Pulled]) -> None:
    pulled = make()
    assert pulled.is_everybodys(APP, ID)
    bring(pulled, MINE)
    for one in (pulled, make()):
        assert not one.is_everybodys(APP, ID)
        assert not one.is_everybodys(ID, ID), "an id is no credential"
        assert one.opens(APP, ID, [MINE]) and not one.opens(APP, ID, [])
        assert not one.opens(APP, ID, [Login("other", "mine", "2", "e")])
        assert not one.opens("q.example/other:1", ID, [MINE]), "another repository has other rights"


def test_a_secret_with_other_words_and_the_same_words_in_another(make: Callable[..., Pulled]) -> None:
    pulled = make()
    bring(pulled, MINE)
    assert pulled.opens(APP, ID, [Login("other", "theirs", "9", "d")])
    assert pulled.opens(APP, ID, [Login("default", "mine", "1", "new")])
    assert make().opens(APP, ID, [Login("third", "x", "3", "new")]), "what was seen is kept"
    assert not pulled.opens(APP, ID, [Login("default", "mine", "2", "?")]), "a secret that was made anew"


def test_what_came_without_a_secret_is_everybodys(make: Callable[..., Pulled]) -> None:
    bring(make(), MINE)
    bring(make(), None)
    assert make().is_everybodys(APP, ID)
    bring(make(), MINE)
    assert make().is_everybodys(APP, ID), "it was already"


@pytest.mark.parametrize(
    ("policy", "preloaded", "secret"), [(PRELOADED, True, False), (NEVER, True, True), (ALWAYS, False, False)]
)
def test_policies(make: Callable[..., Pulled], policy: str, preloaded: bool, secret: bool) -> None:
    pulled = make(policy)
    assert pulled.is_everybodys(APP, ID) is preloaded
    bring(pulled, MINE)
    assert pulled.is_everybodys(APP, ID) is secret
    assert pulled.opens(APP, ID, [MINE])


def test_an_agent_that_is_killed_in_a_pull_has_noted_it(make: Callable[..., Pulled]) -> None:
    make().begin(APP)
    pulled = make()
    assert not pulled.is_everybodys(APP, ID) and not pulled.opens(APP, ID, [MINE])
    bring(pulled, MINE)
    assert make().opens(APP, ID, [MINE])
    make(store=Store()).begin("q.example/never:1")
    assert make().is_everybodys("q.example/never:1", "sha256:imported"), "what had not come is not ours"


def test_nor_is_it_everybodys_after_a_pull_of_somebody_who_is_refused(make: Callable[..., Pulled]) -> None:
    make().begin(APP)
    pulled = make()
    pulled.begin(APP)
    pulled.failed(APP)
    assert not pulled.is_everybodys(APP, ID) and not make().is_everybodys(APP, ID)


@pytest.mark.parametrize("name", ["app", "docker.io/library/app:latest", "sha256:" + "d" * 64, ID])
def test_while_it_is_pulled_it_is_nobodys_by_whatever_name(make: Callable[..., Pulled], name: str) -> None:
    store = Store(**{"docker.io/library/app:latest": ID})
    pulled = make(store=store)
    pulled.begin("app")
    assert not pulled.is_everybodys(name, ID)
    assert not make(store=store).is_everybodys(name, ID), "nor when the agent was killed then"


def test_a_pod_that_goes_in_a_pull_leaves_its_image_to_nobody(
    make: Callable[..., Pulled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the end of the agent."""
    store, auth = Store(), Auth("me", "x", server="q.example")
    store.names.clear()
    pulled = make(store=store)
    record: Any = SimpleNamespace(
        probes={}, shown={}, pod=None, desired=lambda: SimpleNamespace(spec=SimpleNamespace(imagePullSecrets=[1]))
    )
    monkeypatch.setattr(carry, "pull_auths", lambda *given: ([(auth, MINE)], []))

    async def main() -> None:
        begun, comes = asyncio.Event(), asyncio.Event()

        async def pull(*given: Any) -> Any:
            begun.set()
            await comes.wait()
            store.names[APP] = ID
            return SimpleNamespace(image_ref=ID)

        async def objects() -> None:
            return None

        monkeypatch.setattr(carry, "pull_image", pull)
        host = SimpleNamespace(pulled=pulled, cri=None)
        carrier = Carrier(SimpleNamespace(host=host, record=record, objects=objects, save=pytest.fail))  # type: ignore[arg-type]
        gone = asyncio.create_task(carrier._pull_noted(APP, lambda _: None))
        async with asyncio.timeout(PATIENCE_S):
            await begun.wait()
            gone.cancel()
            await asyncio.wait([gone])
            comes.set()
            while not await asyncio.to_thread(pulled.opens, APP, ID, [MINE]):
                await asyncio.sleep(0.001)
            assert not pulled.is_everybodys(APP, ID)
            begun.clear()
            comes.clear()
            last = asyncio.create_task(carrier._pull_and_note("q.example/last:1", lambda _: None))
            await begun.wait()
            await cancel({last})

    asyncio.run(main())
    assert "q.example/last:1" in Path(pulled._path).read_text()


def test_a_pull_that_fails_leaves_an_image_as_it_was(make: Callable[..., Pulled]) -> None:
    pulled = make()
    pulled.begin(APP)
    pulled.begin(APP)
    pulled.failed(APP)
    assert not pulled.is_everybodys(APP, ID), "the other one goes on"
    pulled.failed(APP)
    assert pulled.is_everybodys(APP, ID) and make().is_everybodys(APP, ID)


def test_a_disk_that_takes_nothing(
    make: Callable[..., Pulled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pull begins that could not be noted, and one that was not noted is nobody's for the next agent."""

    def full(path: str, data: bytes) -> None:
        raise PyrunError(f"{path}: No space left on device")

    said: list[str] = []
    pulled = Pulled(str(tmp_path / "pulled.json"), Store(), PRELOADED, said.append)  # type: ignore[arg-type]
    write = write_private
    monkeypatch.setattr(module, "write_private", full)
    with pytest.raises(PyrunError, match="No space"):
        pulled.begin(APP)
    assert pulled.is_everybodys(APP, ID)
    monkeypatch.setattr(module, "write_private", write)
    pulled.begin(APP)
    monkeypatch.setattr(module, "write_private", full)
    pulled.done(APP, ID, MINE)
    assert pulled.opens(APP, ID, [MINE]) and "No space" in said[0]
    monkeypatch.setattr(module, "write_private", write)
    assert not make().is_everybodys(APP, ID)


def test_images_that_are_gone_are_forgotten(make: Callable[..., Pulled], tmp_path: Path) -> None:
    store = Store()
    pulled = make(store=store)
    bring(pulled, MINE)
    store.names = {"q.example/next:1": "sha256:next"}
    pulled.begin("q.example/next:1")
    pulled.done("q.example/next:1", "sha256:next", None)
    assert ID not in (tmp_path / "pulled.json").read_text()


def test_a_broken_file_is_told(make: Callable[..., Pulled], tmp_path: Path) -> None:
    (tmp_path / "pulled.json").write_text("{")
    with pytest.raises(PyrunError, match="pulled.json"):
        make()


def test_passwords_are_not_kept(make: Callable[..., Pulled], tmp_path: Path) -> None:
    login = login_of(Secret(metadata=ObjectMeta(name="s", uid="u")), Auth("me", "secret-word"))
    assert (login.namespace, login.name, login.uid) == ("default", "s", "u")
    assert login.digest != login_of(Secret(metadata=ObjectMeta(name="s", uid="u")), Auth("me", "other")).digest
    bring(make(), login)
    assert "secret-word" not in (tmp_path / "pulled.json").read_text()
    assert (tmp_path / "pulled.json").stat().st_mode & 0o777 == 0o600


def test_many_threads(make: Callable[..., Pulled]) -> None:
    pulled = make()
    logins = [Login("default", f"s{n}", str(n), str(n)) for n in range(8)]
    threads = [threading.Thread(target=bring, args=(pulled, login)) for login in logins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(make().opens(APP, ID, [login]) for login in logins)
