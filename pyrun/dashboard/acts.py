"""What somebody who is logged in may ask the reader beyond the state and logs: each act with the role that it needs and
whether it is audited. The secrets of his session come with each question and are looked at here, so the process that
talks to browsers can do nothing for which nobody has logged in there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from .. import cri_api as v1
from ..errors import FailedPrecondition, InvalidArgument, NotFound, PyrunError, Unavailable, reason
from ..listen import is_held
from ..node.agent.ask import ask
from ..proxy.ask import ask as ask_proxy
from ..rpc.client import call_all
from ..web.ask import Forbidden, LoggedOut
from .agent import nanoseconds
from .audit import Audit
from .clean import clean
from .fields import check_fields
from .guard import ADMIN, OPERATE, VIEW, Guard, Who
from .services import plan_service
from .tokens import Tokens
from .volumes import plan_volumes

PATIENCE_S = 20.0
LONGEST_COMMAND = 32
DNS_STATE = "/run/pyrun-dns"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_RUNTIME, _IMAGES = v1.SERVICES["RuntimeService"], v1.SERVICES["ImageService"]
Question = dict[str, Any]


class Acts:
    """cri: the runtime's socket, beside which the agent has its own. proxy: the state directory of `pyrun proxy`.
    stores: of figures and of logs, where `pyrun metrics` and `pyrun collect` keep them; "" where none is known."""

    def __init__(
        self,
        cri: str,
        proxy: str,
        guard: Guard,
        tokens: Tokens,
        audit: Audit,
        stores: tuple[str, str] = ("", ""),
    ) -> None:
        self._cri, self._proxy, self._stores = cri, proxy, stores
        self._guard, self._tokens, self._audit = guard, tokens, audit
        # name → (role, audited, what does it, which field says to what)
        self._acts: dict[str, tuple[str, bool, Callable[[Question], Any], str]] = {
            "yaml": (VIEW, False, self._yaml, "pod"),
            "plan": (VIEW, False, self._plan, "pod"),
            "services": (VIEW, False, self._services, ""),
            "service": (VIEW, False, self._service, "service"),
            "volumes": (VIEW, False, self._volumes, ""),
            "garbage": (VIEW, False, self._garbage, ""),
            "parts": (VIEW, False, self._parts, ""),
            "retry": (OPERATE, True, self._retry, "pod"),
            "remove-image": (OPERATE, True, self._remove_image, "image"),
            "manifest": (ADMIN, True, self._manifest, "pod"),
            "change": (ADMIN, True, self._change, "file"),
            "terminal": (ADMIN, True, self._terminal, "container"),
            "tokens": (ADMIN, False, self._list_tokens, ""),
            "make-token": (ADMIN, True, self._make_token, "name"),
            "revoke-token": (ADMIN, True, self._revoke_token, "name"),
        }

    def knows(self, name: str) -> bool:
        return name in self._acts

    def login(self, question: Question) -> dict[str, str] | None:
        """{cookie, key, name, role}; None for a wrong token."""
        try:
            made = self._guard.login(str(question["token"]))
        except PyrunError:
            self._note(None, "login", "", "too many wrong tokens")
            raise
        who = self._guard.admits(*made) if made else None
        self._note(who, "login", "", "done" if who else "a wrong token")
        return {"cookie": made[0], "key": made[1], "name": who.name, "role": who.role} if made and who else None

    def logout(self, question: Question) -> None:
        self._guard.logout(str(question["cookie"]))

    def who(self, question: Question) -> dict[str, str] | None:
        """{name, role} of who has the secrets `with`: a bearer, or a cookie and a key."""
        found = self._who(question["with"])
        return {"name": found.name, "role": found.role} if found else None

    def _who(self, given: dict[str, str]) -> Who | None:
        if "bearer" in given:
            return self._guard.admits_bearer(str(given["bearer"]))
        return self._guard.admits(str(given["cookie"]), str(given["key"]))

    def check(self, name: str, question: Question) -> tuple[Who, str]:
        """(who asks, to what). Raises LoggedOut, Forbidden, and InvalidArgument of a field that the act has not."""
        role, _, _, field = self._acts[name]
        who = self._who(question["with"])
        if who is None:
            raise LoggedOut("log in with a token, or send it as a bearer")
        of = _of(question, field)
        if not who.may(role):
            self._note(who, name, of, f"refused: it takes {role}")
            raise Forbidden(f"this takes the role {role}, and {who.name} has {who.role}")
        check_fields(name, question.keys() - {"ask", "act", "with"})
        return who, of

    def act(self, name: str, question: Question) -> Any:
        """Raises as check(), and what the act raises."""
        _, audited, carry_out, _ = self._acts[name]
        who, of = self.check(name, question)
        # The one act with a dry run, which changes nothing.
        if not audited or (name == "change" and question["dry"] is True):
            return carry_out(question)
        self._note(who, name, of, "asked")  # before it is done: what can't be written down is not done
        try:
            found = carry_out(question)
        except PyrunError as error:
            self._note(who, name, of, f"failed: {error.text}")
            raise
        self._note(who, name, of, "done")
        return found

    def _note(self, who: Who | None, action: str, of: str, outcome: str) -> None:
        try:
            self._audit.note(who, action, of, outcome)
        except OSError as error:
            raise PyrunError(f"audit.log: {reason(error)}", hint="nothing is done that can't be written down") from None

    # --- what the agent does ---

    def _ask(self, *path: str, **more: Any) -> Any:
        return ask(os.path.dirname(self._cri), *path, patience=PATIENCE_S, **more)

    def _yaml(self, question: Question) -> Any:
        text = str(self._ask("yaml", *_pod(question))["yaml"])
        return {"lines": [clean(line) for line in text.splitlines()]}

    def _plan(self, question: Question) -> Any:
        found = self._ask("plan", *_pod(question))
        return {"lines": [{name: clean(str(value), 2000) for name, value in line.items()} for line in found]}

    def _volumes(self, question: Question) -> Any:
        return {"volumes": plan_volumes(self._ask("pods"))}

    def _garbage(self, question: Question) -> Any:
        """The agent's own plan (image/garbage.py): those that go first, in the order in which they would."""
        found = self._ask("garbage")
        images = [
            {
                "id": clean(one["id"]),
                "goes": bool(one["goes"]),
                "frees": int(one["frees"]),
                "used": nanoseconds(one["used"]),
                "why": clean(one["why"], 2000),
            }
            for one in found["images"]
        ]
        return {"why": clean(found["why"], 2000), "images": images}

    def _retry(self, question: Question) -> Any:
        return self._ask("retry", *_pod(question), method="POST")

    def _manifest(self, question: Question) -> Any:
        return self._ask("manifest", "Pod", *_pod(question))

    def _change(self, question: Question) -> Any:
        if not isinstance(question["dry"], bool):
            raise InvalidArgument("dry: true or false")
        body = {name: str(question[name]) for name in ("file", "version", "text")}
        return self._ask("manifest", method="POST", body=body | {"dry": question["dry"]})

    # --- what others do ---

    def _services(self, question: Question) -> Any:
        """Or {missing}: where none of them is; that no proxy runs is no fault."""
        place = self._place("proxy", self._proxy, self._told())
        try:
            return {"status": ask_proxy(place, "/status"), "counters": ask_proxy(place, "/counters")}
        except Unavailable:
            if is_held(place):
                raise
            return {"missing": f"{place}/proxy.sock"}

    def _service(self, question: Question) -> Any:
        """Its selector, and each endpoint with what it gets."""
        namespace, slash, name = str(question["service"]).partition("/")
        if not (namespace and slash and name):
            raise InvalidArgument("service: NAMESPACE/NAME")
        place = self._place("proxy", self._proxy, self._told())
        found = ask_proxy(place, f"/services/{quote(namespace, safe='')}/{quote(name, safe='')}")
        if "missing" in found:
            raise NotFound(f"the proxy knows no Service {namespace}/{name}")
        return plan_service(found)

    def _parts(self, question: Question) -> Any:
        """Which of the node's optional parts run; and the agent's configuration, with where each value comes from."""
        told = self._told()
        metrics, logs = self._stores
        held = {"proxy": self._place("proxy", self._proxy, told), "dns": self._place("dns", DNS_STATE, told)}
        held |= {"metrics": metrics, "collect": logs}
        given = [{name: clean(str(one[name]), 2000) for name in ("key", "value", "from")} for one in _given(told)]
        given_limits = self._limits() if told else []
        runs = {name: bool(where) and is_held(where) for name, where in held.items()}
        return {"node": told is not None, "configuration": given, "limits": given_limits} | runs

    def _told(self) -> dict[str, Any] | None:
        """The agent's status: of one that runs and can't say it nothing. None where none runs."""
        try:
            found: dict[str, Any] = self._ask("status")
            return found
        except Unavailable:
            return None
        except PyrunError:
            return {}

    def _limits(self) -> list[dict[str, Any]]:
        """Thresholds of eviction; none of an agent that does not tell them."""
        try:
            found = self._ask("limits")
        except PyrunError:
            return []
        numbers = ("limit", "available", "grace")
        return [
            {"signal": clean(str(one["signal"]), 100), "condition": clean(str(one["condition"]), 100)}
            | {"met": bool(one["met"])}
            | {name: None if one[name] is None else int(one[name]) for name in numbers}
            for one in found
        ]

    @staticmethod
    def _place(name: str, usual: str, told: dict[str, Any] | None) -> str:
        """The directory of the proxy or the DNS: the usual one, or the agent's, which may run them itself."""
        own = str((told or {}).get("services") or "")
        return f"{own}/{name}" if own and not is_held(usual) else usual

    def _remove_image(self, question: Question) -> Any:
        """One that no container has: the runtime itself would take any."""
        id = str(question["image"])
        containers, images = call_all(
            self._cri,
            [(_RUNTIME["ListContainers"], v1.ListContainersRequest()), (_IMAGES["ListImages"], v1.ListImagesRequest())],
            PATIENCE_S,
        )
        image = next((one for one in images.images if one.id == id), None)
        if image is None:
            raise NotFound(f"there is no image {id}")
        names = {id, *image.repo_tags, *image.repo_digests}
        if image.pinned or any(names & {c.image_id, c.image_ref, c.image.image} for c in containers.containers):
            raise FailedPrecondition(f"{id} is in use, or pinned")
        call_all(self._cri, [(_IMAGES["RemoveImage"], v1.RemoveImageRequest(image=v1.ImageSpec(image=id)))], PATIENCE_S)
        return {}

    def _terminal(self, question: Question) -> Any:
        """{host, port, path}: where a command waits for its one client, who has a minute."""
        argv = [str(word) for word in question["command"]]
        if not 0 < len(argv) <= LONGEST_COMMAND or any("\0" in word for word in argv):
            raise InvalidArgument(f"command: 1 to {LONGEST_COMMAND} words")
        tty = question["tty"] is True
        request = v1.ExecRequest(
            container_id=str(question["container"]), cmd=argv, tty=tty, stdin=True, stdout=True, stderr=not tty
        )
        [made] = call_all(self._cri, [(_RUNTIME["Exec"], request)], PATIENCE_S)
        parts = urlsplit(made.url)
        if parts.scheme != "http" or parts.hostname not in LOOPBACK or not parts.port:
            raise FailedPrecondition("the runtime's streaming server is not on loopback", hint=clean(made.url, 200))
        return {"host": parts.hostname, "port": parts.port, "path": parts.path}

    # --- tokens ---

    def _list_tokens(self, question: Question) -> Any:
        return {"tokens": self._tokens.listed(), "audit": self._audit.newest()}

    def _make_token(self, question: Question) -> Any:
        return {"token": self._tokens.make(str(question["name"]), str(question["role"]))}

    def _revoke_token(self, question: Question) -> Any:
        self._tokens.revoke(str(question["name"]))
        return {}


def _given(told: dict[str, Any] | None) -> list[dict[str, Any]]:
    return (told or {}).get("configuration") or []


def _pod(question: Question) -> tuple[str, str]:
    namespace, slash, name = str(question["pod"]).partition("/")
    if not (namespace and slash and name):
        raise InvalidArgument("pod: NAMESPACE/NAME")
    return namespace, name


def _of(question: Question, field: str) -> str:
    of = str(question.get(field, "")) if field else ""
    return f"{of} {question.get('command')}" if "command" in question else of
