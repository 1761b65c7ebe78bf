"""Our table of the CRI against the official description, and that what is made of it looks like a generated module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from tests.support.cri_api import MODULE, official
from tests.support.engines.golang import Unavailable, download_module, find_go


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("go")
    try:
        return official(download_module(find_go(directory), MODULE, directory))
    except Unavailable as error:
        pytest.skip(str(error))


def fields_of(message: Any) -> dict[str, tuple[int, int, int, str]]:
    return {field.name: (field.number, field.type, field.label, field.type_name) for field in message.field}


def enum_of(enum: Any) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def messages_of(file: Any) -> dict[str, Any]:
    """Each message by name: its fields, its enums, and the entries of its maps."""
    return {
        message.name: (
            fields_of(message),
            {enum.name: enum_of(enum) for enum in message.enum_type},
            {nested.name: (fields_of(nested), nested.options.map_entry) for nested in message.nested_type},
            [oneof.name for oneof in message.oneof_decl],
        )
        for message in file.message_type
    }


def test_the_messages_are_the_official_ones(theirs: Any) -> None:
    ours, official_ones = messages_of(v1.FILE), messages_of(theirs)
    assert len(official_ones) == 175
    assert ours.keys() == official_ones.keys()
    assert {name: ours[name] for name in ours if ours[name] != official_ones[name]} == {}


def test_the_enums_are_the_official_ones(theirs: Any) -> None:
    assert v1.FILE.package == theirs.package
    expected = {enum.name: enum_of(enum) for enum in theirs.enum_type}
    assert {enum.name: enum_of(enum) for enum in v1.FILE.enum_type} == expected


def test_the_rpcs_are_the_official_ones(theirs: Any) -> None:
    expected = {
        (service.name, method.name): (method.input_type, method.output_type, method.server_streaming)
        for service in theirs.service
        for method in service.method
    }
    assert not any(method.client_streaming for service in theirs.service for method in service.method)
    ours = {
        (service, name): (
            f".{rpc.request.DESCRIPTOR.full_name}",
            f".{rpc.response.DESCRIPTOR.full_name}",
            rpc.streaming,
        )
        for service, rpcs in v1.SERVICES.items()
        for name, rpc in rpcs.items()
    }
    assert ours == expected
    assert len(ours) == 43


def test_it_looks_like_a_generated_module() -> None:
    options = v1.NamespaceOption(pid=v1.NODE, network=v1.POD)
    config = v1.PodSandboxConfig(
        metadata=v1.PodSandboxMetadata(name="web", attempt=2),
        labels={"app": "web"},
        linux=v1.LinuxPodSandboxConfig(
            security_context=v1.LinuxSandboxSecurityContext(namespace_options=options),
        ),
    )
    again = v1.PodSandboxConfig.FromString(config.SerializeToString())
    assert again == config
    assert v1.NamespaceMode.Name(again.linux.security_context.namespace_options.pid) == "NODE"
    assert v1.SecurityProfile.Localhost == v1.SecurityProfile.ProfileType.Value("Localhost") == 2
    assert not again.HasField("dns_config")
    assert v1.SERVICES["ImageService"]["PullImage"].path == "/runtime.v1.ImageService/PullImage"
    assert v1.Signal.Value("SIGNAL_SIGTERM") == 23  # not the kernel's number
    with pytest.raises(AttributeError, match="no PodSandBoxConfig"):
        v1.PodSandBoxConfig  # noqa: B018


def test_a_field_of_a_newer_client_is_kept() -> None:
    """A kubelet that is newer than this table sends fields that it has not: they are no error."""
    newer = v1.VersionRequest(version="v1").SerializeToString() + b"\xa2\x06\x03abc"
    assert v1.VersionRequest.FromString(newer).SerializeToString() == newer
