"""References: docker's rules, and what must never become a part of a URL or a path."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.image.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, parse_document
from pyrun.image.reference import parse_reference

D = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("org/app", "docker.io/org/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/org/app:2", "docker.io/org/app:2"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b/c:x", "localhost:5000/a/b/c:x"),
        ("Host/app", "Host/app:latest"),
        ("ghcr.io/a/b_c/d--e__f.g:V1.2-x_y", "ghcr.io/a/b_c/d--e__f.g:V1.2-x_y"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        (f"busybox@{D}", f"docker.io/library/busybox@{D}"),
        (f"q.io/a:tag@{D}", f"q.io/a@{D}"),
    ],
)
def test_docker_rules(text: str, full: str) -> None:
    assert str(parse_reference(text)) == full
    assert parse_reference(full) == parse_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Upper",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "q.io/../etc",
        "q.io/a:",
        "a:b/c:d:e",
        "a b",
        "q.io/a?x",
        "q.io/a#x",
        "user@host/a",
        "q.io/a@sha256:00",
        "a@md5:" + "0" * 32,
        "http://q.io/a",
        "-q.io/a",
        "q.io:99999999/a",
        "a" * 300,
        "a:" + "t" * 129,
        "0f" * 32,
        "a\n",
        "q.io/a\0b",
        "a__ _b",
        "é",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_reference(text)


@given(st.text(alphabet="abA0.:/@-_[]%\\\n ", max_size=30))
def test_what_is_taken_is_safe(text: str) -> None:
    try:
        made = parse_reference(text)
    except InvalidArgument:
        return
    parts = made.repository.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert not set("@%\\\n ") & set(made.name + made.wanted.replace("sha256:", ""))


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "0" * 63 + "/", "../" + "0" * 64, "sha512:" + "0" * 128]
)
def test_cve_2024_3727_a_digest_is_a_digest_before_it_is_a_path(digest: str) -> None:
    layer = {"mediaType": OCI_LAYER, "digest": digest, "size": 1}
    config = {"mediaType": OCI_CONFIG, "digest": D, "size": 1}
    for words in ({"config": config, "layers": [layer]}, {"config": {**config, "digest": digest}, "layers": []}):
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, **words}
        with pytest.raises(PyrunError, match="is no sha256 digest"):
            parse_document(json.dumps(document).encode(), OCI_MANIFEST)
