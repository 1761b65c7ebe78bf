"""How each action of the planner is carried out: the runtime's own functions are called, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ... import cri_api as v1
from ...cri.images.pull_image import pull_image
from ...cri.runtime.containers import create_container, start_container
from ...cri.runtime.pods import run_pod_sandbox
from ...ending import beside
from ...errors import NotFound, PyrunError
from ...image.fetch import Tell
from ...image.registry.credentials import Auth
from ...kube.objects.containers import Container, EphemeralContainer, ResourceRequirements
from ...listen import private_directory
from ...pod import container as life
from ...pod.joined import Joined
from ...pod.records import CREATED, EXITED
from ..downward import PodFacts
from ..plan import actions as act
from ..plan.back_off import after
from ..plan.images import images_of
from ..plan.observed import BackOff, CgroupLimits, Hook
from ..plan.pod import containers_of
from ..plan.resize import failure
from ..probes import Target
from ..qos import pod_limits
from ..volumes import VolumeError
from .container_config import ConfigFault, Made, container_config
from .files import hosts_file, remove_tree
from .kept import Kept
from .messages import make_file
from .observe import attempts_of
from .pod_cgroup import make_cgroup, remove_cgroup, weigh_burstable
from .pod_slice import has_slice, make_slice, remove_slice
from .probing import Probing
from .pull_secrets import pull_auths
from .pulled import Login
from .pulling import Pulling
from .resizing import carry_out as carry_out_resize
from .sandbox_config import API, FILE, limit_dns, parent_of, sandbox_config
from .user_ids import first_free, ids_of_people, ids_of_sandbox, mapping
from .variables import environment

SECRETS_S = 1.0  # that a plan waits for a pod's secrets; a pull waits longer
HOOK_FAULTS = {"postStart": "FailedPostStartHook", "preStop": "FailedPreStopHook"}


class Carrier:
    """images: reference → id, of those that may be used. pulls, creations, sandbox_error, resize_error: what failed.
    starting: ids of containers. news: how often something that it refers to has become another. None of it outlives the
    agent."""

    def __init__(self, kept: Kept) -> None:
        self._kept, self._host = kept, kept.host
        self.images: dict[str, str] = {}
        self.pulls: dict[str, BackOff] = {}
        self.creations: dict[str, BackOff] = {}
        self.starting: set[str] = set()
        self.sandbox_error: BackOff | None = None
        self.news = 0
        self.resize_error: BackOff | None = None
        self._noted = Joined()  # pulls, by image
        self._volumes_made = False
        self._volumes = asyncio.Lock()  # one call at a time for a pod, as they want it
        self.probing = Probing(kept, self._address)

    def forget_containers(self, alive: set[str]) -> None:
        self.probing.forget_containers(alive)

    async def carry_out(self, action: act.Action) -> float | None:
        """PyrunError where it could not be done, and no back-off is made of that. When the same is to be done again,
        where nothing has come of it that a plan would look at."""
        match action:
            case act.RunSandbox():
                await self._run_sandbox(action)
            case act.StopSandbox():
                await self._host.cri.pods.stop(action.id)
            case act.Pull():
                await self._pull(action)
            case act.Run():
                await self._run(action)
            case act.RunProbe():
                return await self.probing.run(action)
            case act.RunHook():
                await self._hook(action)
            case act.Resize():
                await self._resize(action)
            case act.Remove():
                self._kept.record.past.pop(action.id, None)
                if (c := self._host.cri.pods.containers.get(action.id)) is not None:
                    await life.remove(self._host.cri.pods, c)
                await self._remove_old_sandboxes()
            case act.Forget():
                await self._forget()
            case _:
                raise PyrunError(f"{action}: is not for a carrier")
        return None

    # --- the sandbox ---

    async def _run_sandbox(self, action: act.RunSandbox) -> None:
        kept, host = self._kept, self._host
        pod, uid = kept.record.pod, kept.record.uid
        known = self.news
        try:
            await asyncio.to_thread(private_directory, kept.directory)
            await self._make_volumes()
            source, ids = API if kept.record.api else FILE, await self._ids()
            config = sandbox_config(
                pod, uid, action.attempt, host.logs, host.dns, systemd=host.systemd, source=source, ids=ids
            )
            limits = pod_limits(kept.record.desired().spec)
            for text in limit_dns(config.dns_config):
                kept.events.add("Warning", "DNSConfigForming", text)
            await self._make_cgroup(config.linux.cgroup_parent, limits)
            kept.record.given = limits
            await run_pod_sandbox(host.cri, v1.RunPodSandboxRequest(config=config))
        except PyrunError as error:
            now, before = time.time(), self.sandbox_error
            back_off = after(before, before.failed if before else now, now, host.facts.longest_back_off)
            if not isinstance(error, VolumeError) or self.news == known:  # it may have come while that was tried
                self.sandbox_error = replace(back_off, failed=now, error=str(error))
            if isinstance(error, VolumeError):
                kept.events.add("Warning", error.reason, str(error))
            else:
                kept.events.add("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        else:
            self.sandbox_error = None
            await self._remove_old_sandboxes()

    async def _ids(self) -> int:
        """The first of the users that it has for its own, kept as long as the pod; 0 of one that has the node's."""
        kept = self._kept
        record = kept.record
        if record.desired().spec.hostUsers is False and not record.ids:
            had = [ids for pod in kept.sandboxes() for ids in ids_of_sandbox(pod)]  # of an agent that lost its records
            record.ids = had[0].start if had else first_free([*self._host.ids(), *ids_of_people()])
            await kept.save()
        return record.ids

    async def _make_cgroup(self, parent: str, limits: CgroupLimits) -> None:
        """Of one that is there the limits."""
        kept, mount = self._kept, self._host.cri.facts.cgroup_mount
        if self._host.systemd:
            await asyncio.to_thread(make_slice, parent, "/".join(kept.record.key), limits)
            return
        left = await asyncio.to_thread(make_cgroup, mount, parent, limits)
        if left:
            text = f"{' and '.join(left)} of the pod can't be set: this node's cgroup lacks the controller"
            kept.events.add("Warning", "FailedToSetLimits", text)
        await asyncio.to_thread(weigh_burstable, mount, self._host.burstable())

    async def _resize(self, action: act.Resize) -> None:
        try:
            await carry_out_resize(self._kept, action, self._make_cgroup)
        except PyrunError as error:
            if self.resize_error is None or self.resize_error.error != str(error):
                self._kept.events.add("Warning", "ResizeError", f"Pod resize error: {error}")
            self.resize_error = failure(str(error), time.time())
        else:
            self.resize_error = None

    async def _remove_cgroup(self) -> None:
        """Of both drivers: an earlier agent may have had the other one."""
        record, mount = self._kept.record, self._host.cri.facts.cgroup_mount
        slice, path = (parent_of(record.desired().spec, record.uid, systemd=systemd) for systemd in (True, False))
        if self._host.systemd or has_slice(mount, slice):
            await asyncio.to_thread(remove_slice, slice)
        await asyncio.to_thread(remove_cgroup, mount, path)
        if not self._host.systemd:
            await asyncio.to_thread(weigh_burstable, mount, self._host.burstable())

    async def _make_volumes(self) -> None:
        """Once in the agent's life: who is there already stays as it is."""
        kept = self._kept
        async with self._volumes:
            if not self._volumes_made:
                objects = await kept.objects()
                await beside(self._host.volumes.make, kept.record.desired().pod, kept.record.uid, objects)
                self._volumes_made = True

    async def update_volumes(self) -> None:
        """Files of ConfigMaps, Secrets and the pod's own fields, where they say something else now."""
        kept = self._kept
        async with self._volumes:
            if not self._volumes_made and not kept.sandboxes():
                return
            try:
                objects = await kept.objects()
                pod = kept.record.desired().pod
                await asyncio.to_thread(self._host.volumes.update, pod, kept.record.uid, objects)
            except PyrunError as error:
                kept.events.add("Warning", "FailedMount", str(error))

    async def _remove_old_sandboxes(self) -> None:
        """Those before the newest in which no container is left."""
        for pod in self._kept.sandboxes()[:-1]:
            if not pod.containers and not pod.ready:
                await self._host.cri.pods.remove(pod.id)

    # --- images ---

    async def _pull(self, action: act.Pull) -> None:
        events = self._kept.events
        events.add("Normal", "Pulling", f'Pulling image "{action.image}"')
        begun = time.monotonic()
        progress = Pulling(action.image, events)
        try:
            done = await progress.told_while(self._pull_noted(action.image, progress.tell))
        except PyrunError as error:
            self.pulls[action.image] = replace(action.back_off, failed=time.time(), error=str(error))
            events.add("Warning", "Failed", f'Failed to pull image "{action.image}": {error}')
        else:
            self.pulls.pop(action.image, None)
            self.images[action.image] = done.image_ref
            took = time.monotonic() - begun
            events.add("Normal", "Pulled", f'Successfully pulled image "{action.image}" in {took:.1f} s')

    async def _pull_noted(self, image: str, tell: Tell) -> Any:
        """With a note of whose credentials it came by. Who gives up loses the answer: the pull goes on, and the note
        follows it."""
        done, login = await self._noted.run(image, lambda: self._pull_and_note(image, tell))
        if login is not None:
            await self._shown(image, done.image_ref)
        return done

    async def _pull_and_note(self, image: str, tell: Tell) -> tuple[Any, Login | None]:
        """Cancelled, as at the agent's end, it leaves the note as it is: the image may come yet."""
        pulled = self._host.pulled
        await asyncio.to_thread(pulled.begin, image)
        try:
            done, login = await self._pull_as(image, tell)
        except Exception:
            await asyncio.to_thread(pulled.failed, image)
            raise
        await asyncio.to_thread(pulled.done, image, done.image_ref, login)
        return done, login

    async def _shown(self, image: str, id: str) -> None:
        """The pod has shown its credentials: it may have the image from now on, also where nobody can be asked."""
        self._kept.record.shown[image] = id
        await self._kept.save()

    async def may_use(self, image: str, id: str) -> bool:
        """Of an image that is here and not everybody's: whether the pod has shown credentials that have brought it."""
        record = self._kept.record
        if record.shown.get(image) == id:
            return True
        if not record.desired().spec.imagePullSecrets:
            return False
        try:
            objects = await asyncio.wait_for(self._kept.objects(), SECRETS_S)
            logins = [login for _, login in pull_auths(record.pod, objects, image)[0]]
        except (PyrunError, TimeoutError):  # the pull will tell
            return False
        if not await asyncio.to_thread(self._host.pulled.opens, image, id, logins):
            return False
        await self._shown(image, id)
        return True

    async def _pull_as(self, image: str, tell: Tell) -> tuple[Any, Login | None]:
        """By one after the other of the pod's credentials for it, and then by the node's, which are everybody's. Also
        which of the pod's it was."""
        kept = self._kept
        auths: list[tuple[Auth, Login]] = []
        missing: list[str] = []
        if kept.record.desired().spec.imagePullSecrets:
            auths, missing = pull_auths(kept.record.pod, await kept.objects(), image)
        if missing:
            text = f"Unable to retrieve some image pull secrets ({', '.join(missing)})"
            kept.events.add("Warning", "FailedToRetrieveImagePullSecret", text)
        refused: PyrunError | None = None
        for auth, login in auths:
            given = v1.AuthConfig(
                username=auth.username,
                password=auth.password,
                identity_token=auth.identity_token,
                registry_token=auth.registry_token,
                server_address=auth.server,
            )
            request = v1.PullImageRequest(image=v1.ImageSpec(image=image), auth=given)
            try:
                return await pull_image(self._host.cri, request, tell), login
            except PyrunError as error:
                refused = error
        try:
            request = v1.PullImageRequest(image=v1.ImageSpec(image=image))
            return await pull_image(self._host.cri, request, tell), None
        except PyrunError as error:
            raise refused or error from None

    # --- containers ---

    async def _run(self, action: act.Run) -> None:
        record = self._kept.record
        c = containers_of(record.desired())[action.name]
        if action.back_off is not None:
            record.restarts[action.name] = action.back_off
            await self._kept.save()
        try:
            id = await self._create(c, action.attempt)
        except (PyrunError, ValueError) as error:  # protobuf's, of a value that the message can't have
            self._not_made(c, error)
            return
        self.creations.pop(c.name, None)
        self.starting.add(id)
        try:
            await start_container(self._host.cri, v1.StartContainerRequest(container_id=id))
        except PyrunError as error:
            self._kept.events.add("Warning", "Failed", f"Error: {error}")
            made = self._host.cri.pods.containers.get(id)
            if made is not None and made.record.state == CREATED:  # it may be tried again, from the beginning
                await life.remove(self._host.cri.pods, made)
                self._not_made(c, error)
        else:
            self._kept.events.add("Normal", "Started", f"Started container {c.name}")
        finally:
            self.starting.discard(id)

    def _not_made(self, c: Container | EphemeralContainer, error: Exception) -> None:
        asked = isinstance(error, ConfigFault | VolumeError)
        reason = "CreateContainerConfigError" if asked else "CreateContainerError"
        if isinstance(error, NotFound):  # an image was removed meanwhile
            for image, _ in images_of(self._kept.record.desired().spec, c):
                self.images.pop(image, None)
        now, before = time.time(), self.creations.get(c.name)
        back_off = after(before, before.failed if before else now, now, self._host.facts.longest_back_off)
        self.creations[c.name] = replace(back_off, failed=now, error=f"{reason}: {error}")
        self._kept.events.add("Warning", "Failed", f"Error: {reason}: {error}")

    async def _create(self, c: Container | EphemeralContainer, attempt: int) -> str:
        kept, host = self._kept, self._host
        record = kept.record
        namespace, _ = record.key
        pods = kept.sandboxes()
        if not pods:
            raise PyrunError("the pod's sandbox is gone")
        image = await asyncio.to_thread(host.cri.images.find, self.images.get(c.image or "", c.image or ""))
        await self._make_volumes()
        addresses = self._addresses()
        pod = record.desired().pod
        texts = await beside(host.volumes.texts, pod, record.uid, c)
        env = environment(c, pod, record.uid, await kept.objects(), self._facts(addresses), texts)
        mounts = await self._mounts(c, attempt, env)
        made = Made(record.uid, attempt, (image.id, image.config.user), env, mounts, host.memory, await self._ids())
        config = container_config(pod, c, made, self._target(c))
        request = v1.CreateContainerRequest(pod_sandbox_id=pods[-1].id, config=config, sandbox_config=pods[-1].config)
        done = await create_container(host.cri, request)
        record.resources[done.container_id] = c.resources or ResourceRequirements()
        await kept.save()
        kept.events.add("Normal", "Created", f"Created container: {c.name}")
        for name, policy in images_of(record.desired().spec, c):
            if policy == "Always":  # the next one asks the registry again
                self.images.pop(name, None)
        return str(done.container_id)

    def _facts(self, addresses: tuple[str, ...]) -> PodFacts:
        node, spec = self._host.facts, self._kept.record.desired().spec
        return PodFacts(node.name, spec.serviceAccountName or "default", node.addresses, addresses)

    def _target(self, c: Container | EphemeralContainer) -> str:
        """The container whose processes an ephemeral one sees."""
        if not isinstance(c, EphemeralContainer) or not c.targetContainerName:
            return ""
        attempts = attempts_of(self._kept.sandboxes(), self._kept.record)
        last = next((a for a in reversed(attempts) if a.name == c.targetContainerName), None)
        if last is None or not last.running:
            raise PyrunError(f"container {c.targetContainerName}, whose processes it is to see, does not run")
        return last.id

    def _addresses(self) -> tuple[str, ...]:
        """The pod's; the node's where it is on that one's network."""
        pods = self._kept.sandboxes()
        if self._kept.record.desired().spec.hostNetwork:
            return self._host.facts.addresses
        return tuple(pods[-1].ips) if pods else ()

    async def _mounts(self, c: Container | EphemeralContainer, attempt: int, env: Mapping[str, str]) -> list[Any]:
        kept = self._kept
        volumes, uid = self._host.volumes, kept.record.uid
        async with self._volumes:
            found = await beside(volumes.mounts, kept.record.pod, uid, c, env, self.images)
        if all(mount.mountPath != "/etc/hosts" for mount in c.volumeMounts or ()):
            path = f"{kept.directory}/hosts"
            await asyncio.to_thread(hosts_file, path, kept.record.pod, self._addresses(), self._host.dns.domain)
            found.append(v1.Mount(container_path="/etc/hosts", host_path=path))
        if c.terminationMessagePath:
            path = kept.message_file(c.name, attempt)
            await asyncio.to_thread(make_file, path)
            found.append(v1.Mount(container_path=c.terminationMessagePath, host_path=path))
        if ids := await self._ids():  # what lies there belongs to the pod's users by the numbers that they have inside
            for one in [one for one in found if not one.image.image]:  # the runtime does that with an image's itself
                one.uidMappings.append(mapping(ids))
                one.gidMappings.append(mapping(ids))
        return found

    async def _hook(self, action: act.RunHook) -> None:
        record, begun = self._kept.record, time.time()
        c = containers_of(record.desired())[action.name]
        assert isinstance(c, Container) and c.lifecycle is not None
        handler = c.lifecycle.postStart if action.which == "postStart" else c.lifecycle.preStop
        assert handler is not None
        hooks = record.hooks.setdefault(action.id, {})
        hooks[action.which] = Hook(begun)
        await self._kept.save()
        patience = None if action.deadline is None else max(0.1, action.deadline - begun)
        error = await self._host.prober.hook(handler, Target(action.id, c, self._address()), patience)
        hooks[action.which] = Hook(begun, time.time(), error)
        if error:
            self._kept.events.add("Warning", HOOK_FAULTS[action.which], f"{action.which} of {action.name}: {error}")

    def _address(self) -> str:
        found = self._addresses()
        return found[0] if found else ""

    # --- the end ---

    async def release_sub_paths(self) -> None:
        """Of a pod that will not run again: what was mounted for them keeps no file system busy."""
        record = self._kept.record
        async with self._volumes:
            for name in containers_of(record.desired()):
                try:
                    await asyncio.to_thread(self._host.volumes.release, record.uid, name)
                except PyrunError as error:
                    self._kept.events.add("Warning", "FailedUnMount", str(error))

    async def clear_ended(self, *, volumes: bool) -> None:
        """Removes the containers that have ended; volumes: and those, of a pod that will not run again."""
        for pod in self._kept.sandboxes():
            for c in [c for c in pod.containers.values() if c.record.state == EXITED]:
                await life.remove(self._host.cri.pods, c)
        if volumes:
            async with self._volumes:
                await asyncio.to_thread(self._host.volumes.remove, self._kept.record.uid)
            await asyncio.to_thread(remove_tree, self._kept.directory)

    async def _forget(self) -> None:
        kept, host = self._kept, self._host
        pods = kept.sandboxes()
        for pod in pods:
            await host.cri.pods.remove(pod.id)
        await self._remove_cgroup()
        async with self._volumes:
            await asyncio.to_thread(host.volumes.remove, kept.record.uid)
        for directory in (kept.directory, kept.log_directory):
            await asyncio.to_thread(remove_tree, directory)
        await kept.forget()
