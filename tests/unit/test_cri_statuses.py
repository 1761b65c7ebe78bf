"""What the CRI's statuses say of a container, out of its record."""

from __future__ import annotations

from typing import Any

from pyrun import cri_api as v1
from pyrun.cri.statuses import container_status
from pyrun.pod.pod import Container, Pod
from pyrun.pod.records import COMPLETED, EXITED, ContainerRecord, PodRecord


def status(**record: Any) -> Any:
    config = v1.ContainerConfig(image=v1.ImageSpec(image="sha256:1", user_specified_image="app"))
    pod = Pod(PodRecord("p", b""), "/root", "/state")
    return container_status(Container(ContainerRecord("c", "p", config.SerializeToString(), **record), pod))


def test_a_message_is_never_a_warning_of_ours() -> None:
    """A kubelet shows it as the termination message, before what the program wrote there."""
    for code in (0, 3):
        assert status(state=EXITED, reason=COMPLETED, exit_code=code, warnings=["left out"]).message == ""
    assert status(state=EXITED, message="lost").message == "lost"


def test_an_image_is_told_by_name_and_by_digest() -> None:
    made = status(image_id="sha256:1", image_ref="q.io/app:1", image_digest="q.io/app@sha256:2")
    assert (made.image.image, made.image.user_specified_image) == ("q.io/app:1", "app")
    assert (made.image_ref, made.image_id) == ("q.io/app@sha256:2", "sha256:1")
    assert status(image_id="sha256:1", image_ref="q.io/app:1").image_ref == "sha256:1"
