"""Whose credentials an image came by: a pod that has none of them is not given it for being here already (KEP-2535).

Of an image that nobody has pulled for a pod, as one that was imported, nothing is known here, and the policy says whose
it is. A pull is noted before it begins, so an image of which only that is known (the agent was killed, the note could
not be written) is nobody's until it is pulled again. Passwords are kept as digests.

Source: kubernetes pkg/kubelet/images/pullmanager.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ...errors import InvalidArgument, NotFound, PyrunError, reason
from ...image.reference import parse_reference
from ...image.registry.credentials import Auth
from ...image.store import Images
from ...kube.certificates import write_private
from ...kube.objects.config import Secret

PRELOADED, NEVER, ALWAYS = "NeverVerifyPreloadedImages", "NeverVerify", "AlwaysVerify"
POLICIES = (PRELOADED, NEVER, ALWAYS)
MOST_SECRETS = 100  # of one image's name: who comes after these asks the registry each time


class Login(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret's credentials. uid: "" of one of a file. digest: of the credentials."""

    namespace: str
    name: str
    uid: str = ""
    digest: str = ""

    def opens(self, other: Login) -> bool:
        """The same secret, whatever is in it by now, or the same credentials, whoever has them."""
        return self.digest == other.digest or (self.namespace, self.name, self.uid) == (
            other.namespace,
            other.name,
            other.uid,
        )


class Access(msgspec.Struct, omit_defaults=True):
    """Who has been given an image by a name. everybody: it came without a pod's secret."""

    everybody: bool = False
    logins: list[Login] = []


class Notes(msgspec.Struct):
    """pulling: names, of which nobody has heard the end. pulled: id → repository → access: empty where only the
    beginning was noted."""

    pulling: list[str] = []
    pulled: dict[str, dict[str, Access]] = {}


def login_of(secret: Secret, auth: Auth) -> Login:
    metadata = secret.metadata
    assert metadata is not None
    words = (auth.username, auth.password, auth.identity_token, auth.registry_token)
    digest = hashlib.sha256(msgspec.json.encode(words)).hexdigest()
    return Login(metadata.namespace or "default", metadata.name or "", metadata.uid or "", digest)


class Pulled:
    """For any number of threads. path: a file, root's alone."""

    def __init__(self, path: str, images: Images, policy: str, warn: Callable[[str], None]) -> None:
        self._path, self._images, self._policy, self._warn = path, images, policy, warn
        self._lock = threading.Lock()
        self._under_way = Counter[str]()
        self._notes = self._read()

    def _read(self) -> Notes:
        try:
            with open(self._path, "rb") as file:
                notes = msgspec.json.decode(file.read(), type=Notes)
        except FileNotFoundError:
            return Notes()
        except (OSError, msgspec.MsgspecError) as error:
            text = reason(error) if isinstance(error, OSError) else str(error)
            raise PyrunError(
                f"{self._path}: {text}",
                hint="with it removed, all images that are here are for every pod, as imported ones are",
            ) from None
        for name in notes.pulling:  # those that are not here have never come
            if id := self._find(name):
                notes.pulled.setdefault(id, {})
        notes.pulling = []
        return notes

    def _find(self, name: str) -> str:
        """The image's id; "" without one."""
        try:
            return self._images.find(name).id
        except (NotFound, InvalidArgument):
            return ""

    # --- pulls --------------------------------------------------------------------------------------------------------

    def begin(self, image: str) -> None:
        """Before a pull, which must not begin where this raises PyrunError."""
        with self._lock:
            self._under_way[image] += 1
            try:
                if image not in self._notes.pulling:
                    self._notes.pulling.append(image)
                    self._write()
            except BaseException:
                self._end(image)
                raise

    def failed(self, image: str) -> None:
        with self._lock:
            self._end(image)
            self._write_if_possible()

    def done(self, image: str, id: str, login: Login | None) -> None:
        """login: None where it came without a pod's secret, and so is everybody's."""
        with self._lock:
            self._note(image, id, login)
            pulling = list(self._notes.pulling)
            self._end(image)
            present = {one.id for one in self._images.list()} | {id}
            self._notes.pulled = {key: value for key, value in self._notes.pulled.items() if key in present}
            if not self._write_if_possible():
                self._notes.pulling = pulling  # it is tried with the next one, and asked for until then

    def _end(self, image: str) -> None:
        self._under_way[image] -= 1
        if self._under_way[image] <= 0:
            del self._under_way[image]
            if image in self._notes.pulling:
                self._notes.pulling.remove(image)

    def _note(self, image: str, id: str, login: Login | None) -> None:
        access = self._notes.pulled.setdefault(id, {}).setdefault(parse_reference(image).name, Access())
        if login is None:
            access.everybody, access.logins = True, []
        elif not access.everybody and login not in access.logins:
            same = [one for one in access.logins if (one.namespace, one.name) == (login.namespace, login.name)]
            access.logins = [one for one in access.logins if one not in same][-MOST_SECRETS + 1 :] + [login]

    def _write(self) -> None:
        write_private(self._path, msgspec.json.encode(self._notes))

    def _write_if_possible(self) -> bool:
        try:
            self._write()
        except PyrunError as error:
            self._warn(f"whose an image is can't be noted, so pods have to show their credentials again: {error}")
            return False
        return True

    # --- who may have it ----------------------------------------------------------------------------------------------

    def is_everybodys(self, image: str, id: str) -> bool:
        """Of one that is here: whether no pod has to show credentials for it."""
        with self._lock:
            ours = id in self._notes.pulled or any(self._find(name) == id for name in self._notes.pulling)
            if self._policy == NEVER or (self._policy == PRELOADED and not ours):
                return True
            access = self._access(image, id)
            return access is not None and access.everybody

    def opens(self, image: str, id: str, logins: Iterable[Login]) -> bool:
        """Whether one of these has brought it before."""
        with self._lock:
            access = self._access(image, id)
            known: Sequence[Login] = access.logins if access is not None else ()
            for login in logins:
                if any(one.opens(login) for one in known):
                    if login not in known:
                        self._note(image, id, login)
                        self._write_if_possible()
                    return True
        return False

    def _access(self, image: str, id: str) -> Access | None:
        try:
            return self._notes.pulled.get(id, {}).get(parse_reference(image).name)
        except InvalidArgument:  # an id: whoever knows it has shown nothing
            return None
