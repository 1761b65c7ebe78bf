"""Pulls from a registry that fails in every way that registries fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import Aborted, NotFound, PyrunError
from pyrun.image.pull import Settings
from pyrun.image.registry.credentials import Auth
from pyrun.image.store import Images
from tests.support.layers import Tar, wait_unfilled
from tests.support.registry import stub as faults
from tests.support.registry.made import Made, digest_of, make_image, small_tar
from tests.support.registry.stub import Answer, Stub, running

SECRET = Auth("me", "secret")


def big_tar(name: str = "big", size: int = 3 << 20) -> bytes:
    return Tar().dir("./").file(name, os.urandom(size)).bytes()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Stub]:
    with running() as made:
        yield made


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setattr("pyrun.image.registry.client.WAIT_FIRST_S", 0.03)
    (tmp_path / "certs.d").mkdir()
    settings = Settings((str(tmp_path / "certs.d"),), str(tmp_path / "config.json"), 1.0)
    return Images(str(tmp_path / "image"), settings=settings)


@pytest.fixture
def hosts(tmp_path: Path) -> Callable[[str, str], None]:
    def write(host: str, text: str) -> None:
        (tmp_path / "certs.d" / host).mkdir(parents=True)
        (tmp_path / "certs.d" / host / "hosts.toml").write_text(text)

    return write


def left(images: Images) -> list[str]:
    root = images.contents.root
    return os.listdir(f"{root}/ingest") + os.listdir(f"{root}/layers")


# --- that it works ---------------------------------------------------------------------------------------------------


def test_pull_and_pull_again(images: Images, stub: Stub) -> None:
    made = make_image([small_tar("a"), small_tar("b")], {"Cmd": ["sh"]})
    name = stub.add("org/app", "1", made)
    seen: dict[str, str] = {}
    image = images.pull(name, progress=lambda p: seen.__setitem__(p.digest, p.state))
    assert (image.id, image.tags, image.digests) == (made.id, (name,), (f"{stub.host}/org/app@{made.top}",))
    assert set(seen.values()) == {"done"} and len(seen) == 2
    images.pull(name)
    assert len(stub.asked("/blobs/sha256")) == 3 + 1  # the config again, no layer
    by_digest = images.pull(f"{stub.host}/org/app@{made.top}")
    assert by_digest.tags == (name,)


def test_three_layers_at_a_time(images: Images, stub: Stub) -> None:
    made = make_image([small_tar(f"f{number}", "x" * 200_000) for number in range(7)], form="")
    for digest in made.layers:
        stub.fault(digest, faults.silent(1000, 0.3))
    images.pull(stub.add("a", "1", made))
    assert stub.most_active == 3


def test_equal_requests_are_one(images: Images, stub: Stub) -> None:
    made = make_image([big_tar()])
    name = stub.add("a", "1", made)
    stub.fault("/manifests/", faults.silent(10, 0.5))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(images.pull(name).id)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [made.id] * 5
    assert len(stub.asked("/manifests/")) == 1
    assert len(stub.asked(made.layers[0])) == 1


def test_a_layer_of_two_pulls_is_fetched_once(images: Images, stub: Stub) -> None:
    shared = big_tar()
    made = [make_image([shared, small_tar(f"t{number}")]) for number in range(3)]
    stub.fault(made[0].layers[0], faults.silent(100_000, 0.5))
    names = [stub.add(f"a{number}", "1", one) for number, one in enumerate(made)]
    threads = [threading.Thread(target=images.pull, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images.list()) == 3
    assert len(stub.asked(made[0].layers[0])) == 1


def test_other_credentials_are_another_request(images: Images, stub: Stub) -> None:
    stub.basic = ("me", "secret")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    stub.fault("/manifests/", faults.silent(10, 0.5), 10)
    errors: list[PyrunError] = []

    def stranger() -> None:
        try:
            images.pull(name, auth=Auth("eve", "guess"))
        except PyrunError as error:
            errors.append(error)

    thread = threading.Thread(target=stranger)
    thread.start()
    images.pull(name, auth=SECRET)
    thread.join()
    assert "refuses the credentials" in str(errors[0]) or "access is denied" in str(errors[0])


# --- faults that end well --------------------------------------------------------------------------------------------


def test_a_cut_is_resumed_where_it_was(images: Images, stub: Stub) -> None:
    made = make_image([big_tar()], form="")
    stub.fault(made.layers[0], faults.cut(1_000_000))
    stub.fault(made.layers[0], faults.cut(1_000_001))
    images.pull(stub.add("a", "1", made))
    ranges = [request.headers.get("Range") for request in stub.asked(made.layers[0])]
    assert ranges == [None, "bytes=1000000-", "bytes=2000001-"]


def test_a_cut_without_ranges_begins_anew_and_skips(images: Images, stub: Stub) -> None:
    made = make_image([big_tar()], form="zstd")
    stub.ranges = False
    stub.fault(made.layers[0], faults.cut(1_000_000))
    assert images.pull(stub.add("a", "1", made)).id == made.id


def test_silence_is_given_up_and_resumed(images: Images, stub: Stub) -> None:
    made = make_image([big_tar()])
    stub.fault(made.layers[0], faults.silent(500_000, 3.0))
    begun = time.monotonic()
    images.pull(stub.add("a", "1", made))
    assert time.monotonic() - begun > 1.0
    ranges = [request.headers.get("Range") for request in stub.asked(made.layers[0])]
    assert ranges == [None, "bytes=500000-"], "whoever waits until the registry goes on asks once"


def test_drops_are_given_up_and_cancel_is_seen_between_them(
    images: Images, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then is no silence, and would hold a place among the pulls for weeks."""
    made = make_image([big_tar()])
    name = stub.add("a", "1", made)
    stub.fault(made.layers[0], faults.dripping(0.02), 10)
    begun = time.monotonic()
    with pytest.raises(Aborted):
        images.pull(name, cancel=lambda: time.monotonic() - begun > 0.3)
    deadline = time.monotonic() + 5
    while left(images) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left(images) == []
    monkeypatch.setattr("pyrun.image.registry.reading.PACE_S", 0.5)
    with pytest.raises(PyrunError, match="bytes a while"):
        images.pull(name)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_is_tried_again(images: Images, stub: Stub, status: int) -> None:
    made = make_image([small_tar("a")])
    for match in ("/manifests/", made.layers[0]):
        stub.fault(match, faults.busy(status), 2)
    assert images.pull(stub.add("a", "1", made)).id == made.id


def test_retry_after_is_waited_for(images: Images, stub: Stub) -> None:
    stub.fault("/manifests/", faults.busy(429, "2"))
    begun = time.monotonic()
    images.pull(stub.add("a", "1", make_image([small_tar("a")])))
    assert time.monotonic() - begun > 2.0


def test_a_redirect_of_blobs_is_followed(images: Images, stub: Stub, other: Stub) -> None:
    made = make_image([big_tar()])
    other.add("store", "1", made)
    stub.basic = ("me", "secret")
    stub.fault(made.layers[0], faults.redirect(f"{other.url}/v2/store/blobs/{made.layers[0]}"), 9)
    images.pull(stub.add("a", "1", made), auth=SECRET)
    (request,) = other.asked("/blobs/")
    assert "Authorization" not in request.headers


# --- faults that must not end well ---------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[Made], Any], str]] = {
    "one bit is another": (lambda made: faults.flipped, "that came are sha256|not sha256|gzip|damaged|broken"),
    "another blob": (lambda made: faults.replaced(b"x" * 10), "bytes are sent, not"),
    "more than promised": (lambda made: faults.length(1 << 30), "are sent, not"),
    "less than promised": (lambda made: faults.length(10), "are sent, not"),
    "without an end": (lambda made: faults.endless, "more than the"),
    "not there": (lambda made: faults.busy(404), "not found"),
    "always busy": (lambda made: faults.busy(503), "503"),
    "always cut": (lambda made: faults.cut(3), "IncompleteRead|ended after|broken"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_blob_leaves_nothing(images: Images, stub: Stub, what: str) -> None:
    change, said = WRONG[what]
    made = make_image([small_tar("a", "x" * 100_000), big_tar()], form="gzip")
    stub.fault(made.layers[1], change(made), 1000)
    begun = time.monotonic()
    with pytest.raises(PyrunError, match=said):
        images.pull(stub.add("a", "1", made))
    assert time.monotonic() - begun < 20
    assert images.list() == []
    images.contents.collect()
    assert left(images) == []


def test_cve_2023_25153_a_manifest_without_an_end(images: Images, stub: Stub) -> None:
    """CVE-2023-25153: no more than 8 MiB of it are read."""
    stub.fault("/manifests/", faults.endless, 100)
    with pytest.raises(PyrunError, match="more than 8388608 bytes"):
        images.pull(stub.add("a", "1", make_image([small_tar("a")])))


def test_a_manifest_in_drops(images: Images, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never silent for long, and never done: it is given up and asked for again; who cancels is not kept either."""
    monkeypatch.setattr("pyrun.image.registry.reading.PACE_S", 0.8)
    name = stub.add("a", "1", make_image([small_tar("a")]))
    stub.fault("/manifests/", faults.dripping(0.1))
    images.pull(name)
    assert len(stub.asked("/manifests/")) == 2
    monkeypatch.setattr("pyrun.image.registry.reading.PACE_S", 60.0)
    stub.fault("/manifests/", faults.dripping(0.1))
    begin = time.monotonic()
    with pytest.raises(Aborted):
        images.pull(name, cancel=lambda: time.monotonic() > begin + 0.5)
    while (
        left := [one for one in threading.enumerate() if one.name.startswith("pull ")]
    ) and time.monotonic() < begin + 6:
        time.sleep(0.05)
    assert left == []


def test_cve_2021_41190_manifest_and_index_at_once(images: Images, stub: Stub) -> None:
    made = make_image([small_tar("a")], manifests=[])
    with pytest.raises(PyrunError, match="manifests and layers at once"):
        images.pull(stub.add("a", "1", made))
    plain = make_image([small_tar("a")])
    plain.types[plain.top] = "application/vnd.oci.image.index.v1+json"
    with pytest.raises(PyrunError, match="was sent as"):
        images.pull(stub.add("b", "1", plain))


def test_digest_manifest_swapped(images: Images, stub: Stub) -> None:
    made, evil = make_image([small_tar("a")]), make_image([small_tar("evil")])
    stub.add("a", "1", made)
    stub.fault("/manifests/", faults.replaced(evil.blobs[evil.top]), 10)
    with pytest.raises(PyrunError, match="the manifest that came is"):
        images.pull(f"{stub.host}/a@{made.top}")


def test_cve_2020_15157_a_redirect_gets_no_credentials(images: Images, stub: Stub, other: Stub) -> None:
    """Neither at once nor when it asks for them."""
    made = make_image([big_tar()])
    stub.basic = other.basic = ("me", "secret")
    other.add("store", "1", made)
    stub.fault(made.layers[0], faults.redirect(f"{other.url}/v2/store/blobs/{made.layers[0]}"), 9)
    with pytest.raises(PyrunError, match="access is denied"):
        images.pull(stub.add("a", "1", made), auth=SECRET)
    assert all("Authorization" not in request.headers for request in other.log)


def test_cve_2020_15157_urls_of_a_layer_are_not_asked(images: Images, stub: Stub, other: Stub) -> None:
    made = make_image([small_tar("a")])
    manifest = json.loads(made.blobs[made.top])
    manifest["layers"][0] |= {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": [f"{other.url}/layer"],
    }
    foreign = make_image([small_tar("a")], **{"layers": manifest["layers"]})
    with pytest.raises(PyrunError, match="none is fetched from elsewhere"):
        images.pull(stub.add("a", "1", foreign))
    assert other.log == []


def test_a_mirror_gets_no_credentials_of_the_registry(
    images: Images, stub: Stub, other: Stub, hosts: Callable[[str, str], None]
) -> None:
    hosts("q.example", f'server = "{stub.url}"\n[host."{other.url}"]\n')
    stub.basic = other.basic = ("me", "secret")
    stub.add("a", "1", make_image([small_tar("a")]))
    images.pull("q.example/a:1", auth=SECRET)
    assert other.log and all("Authorization" not in request.headers for request in other.log)


def test_cve_2019_10214_and_2020_15157_a_realm_without_tls_gets_nothing(tmp_path: Path, stub: Stub) -> None:
    from pyrun.image.registry.hosts import Endpoint
    from pyrun.image.registry.tokens import Tokens
    from pyrun.image.registry.transport import Transport

    tokens = Tokens(Transport(1.0, {}), "a", lambda _: SECRET)
    with pytest.raises(PyrunError, match="is not https"):
        tokens.answer(Endpoint("https://q.example/v2"), f'Bearer realm="{stub.url}/token"', None)
    assert stub.log == []


def test_who_stops_waiting_cancels_only_when_alone(images: Images, stub: Stub) -> None:
    made = make_image([big_tar()])
    name = stub.add("a", "1", made)
    stub.fault(made.layers[0], faults.silent(200_000, 0.9), 5)
    found: list[str] = []
    patient = threading.Thread(target=lambda: found.append(images.pull(name).id))
    patient.start()
    time.sleep(0.2)
    with pytest.raises(Aborted):
        images.pull(name, cancel=lambda: True)
    patient.join()
    assert found == [made.id]
    images.remove(name)
    begun = time.monotonic()
    with pytest.raises(Aborted):
        images.pull(name, cancel=lambda: time.monotonic() - begun > 0.2)
    deadline = time.monotonic() + 10
    while left(images) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (left(images), images.list()) == ([], [])


# --- who asks --------------------------------------------------------------------------------------------------------


def test_token_here_and_elsewhere(images: Images, stub: Stub, other: Stub) -> None:
    stub.token = other.token = ("me", "secret")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    images.pull(name, auth=SECRET)
    assert len(stub.asked("/token")) == 1
    stub.realm, stub.tokens = f"{other.url}/token", other.tokens
    images.pull(name, auth=SECRET)
    assert len(other.asked("/token")) == 1


def test_a_token_in_drops(images: Images, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a manifest: given up and asked for again, and who cancels is let go though a token is waited for."""
    monkeypatch.setattr("pyrun.image.registry.reading.PACE_S", 0.8)
    stub.token = ("me", "secret")
    name, auth = stub.add("a", "1", make_image([small_tar("a")])), Auth("me", "secret")
    stub.fault("/token", faults.dripping(0.1))
    images.pull(name, auth=auth)
    assert len(stub.asked("/token")) == 2
    monkeypatch.setattr("pyrun.image.registry.reading.PACE_S", 60.0)
    stub.tokens.clear()
    stub.fault("/token", faults.dripping(1.0))
    asked = len(stub.asked("/token"))
    with pytest.raises(Aborted):
        images.pull(name, auth=auth, cancel=lambda: len(stub.asked("/token")) > asked)
    last = time.monotonic() + 30
    while any(one.name.startswith("pull ") for one in threading.enumerate()):
        assert time.monotonic() < last, "the token's drops keep the pull: they last for a minute"
        time.sleep(0.05)


def test_identity_token_and_registry_token(images: Images, stub: Stub) -> None:
    stub.token = ("me", "refresh")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    images.pull(name, auth=Auth(identity_token="refresh"))
    assert stub.asked("/token")[0].method == "POST"
    stub.tokens.add("ready-made")
    images.pull(name, auth=Auth(registry_token="ready-made"))
    assert len(stub.asked("/token")) == 1


def test_a_token_that_ends_in_the_middle(images: Images, stub: Stub) -> None:
    stub.token = ("", "")
    made = make_image([small_tar("a")])
    name = stub.add("a", "1", made)

    def end_tokens(answer: Answer) -> None:
        stub.tokens.clear()
        answer.stop = 10

    stub.fault(made.layers[0], end_tokens)
    assert images.pull(name).id == made.id


@pytest.mark.parametrize("how", ["auths", "store", "helper"])
def test_docker_login(images: Images, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    stub.basic = ("me", "secret")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    helper = tmp_path / "docker-credential-ours"
    helper.write_text(
        f'#!/bin/sh\nread host; [ "$host" = {stub.host} ] && echo \'{{"Username":"me","Secret":"secret"}}\''
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = {
        "auths": {"auths": {stub.host: {"auth": "bWU6c2VjcmV0"}}},
        "store": {"credsStore": "ours"},
        "helper": {"credHelpers": {stub.host: "ours"}},
    }[how]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert images.pull(name).tags == (name,)


def test_wrong_and_no_credentials(images: Images, stub: Stub) -> None:
    stub.basic = ("me", "secret")
    name = stub.add("a", "1", make_image([small_tar("a")]))
    with pytest.raises(PyrunError, match="wants credentials"):
        images.pull(name)
    with pytest.raises(PyrunError, match="access is denied"):
        images.pull(name, auth=Auth("me", "guess"))
    with pytest.raises(PyrunError, match="wants credentials"):
        images.pull(name, auth=Auth("me", "secret", server="elsewhere.example"))


def test_not_found(images: Images, stub: Stub) -> None:
    with pytest.raises(NotFound):
        images.pull(f"{stub.host}/nobody/nothing:1")


# --- where it asks ---------------------------------------------------------------------------------------------------


def test_mirrors_in_their_order(
    images: Images, stub: Stub, other: Stub, hosts: Callable[[str, str], None], tmp_path: Path
) -> None:
    """One that has nothing and one that is damaged are passed by; what a mirror may do is heeded."""
    made = make_image([big_tar()])
    stub.add("a", "1", made)
    other.add("a", "1", made)
    other.fault(made.layers[0], faults.flipped)
    with running() as empty:
        hosts(
            "q.example",
            f'server = "{stub.url}"\n[host."{empty.url}"]\n[host."{other.url}"]\ncapabilities = ["pull"]\n'
            '[host."http://127.0.0.1:1"]\n',
        )
        assert images.pull("q.example/a:1").tags == ("q.example/a:1",)
        assert empty.asked("ns=q.example")
    assert other.asked("/manifests/1") == []
    assert len(other.asked(made.layers[0])) == 1
    assert len(stub.asked(made.layers[0])) == 1


def test_path_header_and_override(images: Images, stub: Stub, hosts: Callable[[str, str], None]) -> None:
    hosts(
        "q.example",
        f'[host."{stub.url}/v2/proxy/q"]\noverride_path = true\nheader = {{x-who = ["me"]}}\n',
    )
    stub.add("proxy/q/a", "1", make_image([small_tar("a")]))
    images.pull("q.example/a:1")
    assert stub.log[0].headers["x-who"] == "me"


def test_private_authority(images: Images, tmp_path: Path, hosts: Callable[[str, str], None]) -> None:
    certificate, key = tmp_path / "ca.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=stub", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    with running((certificate, key)) as stub:
        stub.add("a", "1", make_image([small_tar("a")]))
        hosts("unknown.example", f'server = "{stub.url}"\n')
        hosts("known.example", f'server = "{stub.url}"\nca = "{certificate}"\n')
        hosts("blind.example", f'server = "{stub.url}"\nskip_verify = true\n')
        with pytest.raises(PyrunError, match="(?i)certificate"):
            images.pull("unknown.example/a:1")
        images.pull("known.example/a:1")
        images.pull("blind.example/a:1")


def test_proxy_from_the_environment(images: Images, stub: Stub, monkeypatch: pytest.MonkeyPatch, hosts: Any) -> None:
    hosts("q.example", 'server = "http://q.example"\n')
    stub.add("a", "1", make_image([small_tar("a")]))
    monkeypatch.setenv("http_proxy", stub.url)
    # A proxy is asked for whole URLs.
    answer = stub._answer
    monkeypatch.setattr(
        stub, "_answer", lambda r: answer(type(r)(r.method, r.path.removeprefix("http://q.example"), r.headers))
    )
    images.pull("q.example/a:1")
    assert stub.log[0].path == "http://q.example/v2/a/manifests/1"


# --- killed ----------------------------------------------------------------------------------------------------------

PULLER = """
import sys
from pyrun.image.pull import Settings
from pyrun.image.store import Images
Images(sys.argv[1], settings=Settings((), "", 5.0)).pull(sys.argv[2])
print("pulled", flush=True)
"""


@pytest.mark.parametrize("moment", range(8))
def test_killed_at_any_byte(stub: Stub, tmp_path: Path, moment: int) -> None:
    """Nothing is half visible afterwards, and nothing is left after the next start."""
    made = make_image([big_tar("a", 1 << 20), big_tar("b", 1 << 20)], form="gzip")
    name = stub.add("a", "1", made)
    if moment < 6:
        stub.fault(made.layers[1], faults.silent(150_000 * moment, 1.0))
    root = str(tmp_path / "image")
    process = subprocess.Popen([sys.executable, "-c", PULLER, root, name], stdout=subprocess.PIPE, text=True)
    try:
        if moment < 6:
            deadline = time.monotonic() + 20
            while not stub.asked(made.layers[1]) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
        else:
            assert process.stdout is not None and process.stdout.readline() == "pulled\n"
    finally:
        process.kill()
        process.wait()
    wait_unfilled(Path(root))
    again = Images(root)
    again.settle()
    whole = moment >= 6
    assert [image.id for image in again.list()] == ([made.id] if whole else [])
    assert os.listdir(f"{root}/ingest") == []
    assert len(os.listdir(f"{root}/layers")) == (2 if whole else 0)
    again.pull(name)
    assert [image.id for image in again.list()] == [made.id]


def test_the_disk_is_full(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a layer: nothing of it stays, what was there is whole, and room lets the next pull in."""
    monkeypatch.setattr("pyrun.image.contents.RESERVE", 1 << 20)
    small, large = make_image([small_tar("a")]), make_image([big_tar("b", 24 << 20)], form="")
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", root], check=True)
    try:
        images = Images(str(root / "image"), settings=Settings((), "", 5.0))
        images.pull(stub.add("small", "1", small))
        with pytest.raises(PyrunError, match="(?i)no space|full|more than|limit"):
            images.pull(stub.add("large", "1", large))
        assert [image.id for image in images.list()] == [small.id]
        assert os.listdir(root / "image" / "ingest") == []
        subprocess.run(["mount", "-o", "remount,size=64m", root], check=True)
        assert images.pull(f"{stub.host}/large:1").id == large.id
        images.close()
    finally:
        subprocess.run(["umount", root], check=True)


def test_bytes_that_nobody_promised_are_bounded_in_memory(stub: Stub, images: Images) -> None:
    """A config as large as its descriptor likes is not read; one that has no end ends."""
    made = make_image([small_tar("a")])
    manifest = json.loads(made.blobs[made.top])
    manifest["config"]["size"] = 9 << 20
    large = make_image([small_tar("a")])
    data = json.dumps(manifest).encode()
    large.top = digest_of(data)
    large.blobs[large.top], large.types[large.top] = data, large.media_type
    with pytest.raises(PyrunError, match="the config has 9437184 bytes"):
        images.pull(stub.add("a", "1", large))
    stub.fault(f"/blobs/{made.id}", faults.endless, 100)
    with pytest.raises(PyrunError, match="more than the"):
        images.pull(stub.add("b", "1", made))
