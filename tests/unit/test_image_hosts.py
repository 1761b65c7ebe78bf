"""hosts.toml, credentials, challenges, proxies and waits: what a pull decides before and between its requests."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.image.pull import Settings, credentials_for
from pyrun.image.reference import parse_reference
from pyrun.image.registry.client import retry_after
from pyrun.image.registry.credentials import Auth, find_auth, from_request
from pyrun.image.registry.hosts import Endpoint, endpoints
from pyrun.image.registry.tokens import parse_challenges
from pyrun.image.registry.transport import proxy_for


def write(root: Path, host: str, text: str) -> None:
    (root / host).mkdir()
    (root / host / "hosts.toml").write_text(text)


def of(root: Path, host: str) -> tuple[Endpoint, ...]:
    return endpoints(host, (str(root),))


def test_without_a_file(tmp_path: Path) -> None:
    bases = [
        of(tmp_path, host)[0].base for host in ("docker.io", "ghcr.io", "localhost:5000", "127.0.0.1", "[::1]:5000")
    ]
    assert bases == [
        "https://registry-1.docker.io/v2",
        "https://ghcr.io/v2",
        "http://localhost:5000/v2",
        "http://127.0.0.1/v2",
        "http://[::1]:5000/v2",
    ]
    assert of(tmp_path, "localhost:443")[0].scheme == "https"


def test_containerds_form(tmp_path: Path) -> None:
    write(
        tmp_path,
        "docker.io",
        """
server = "https://registry-1.docker.io"
[host."https://mirror.example:5000"]
  capabilities = ["pull"]
  ca = "ca.crt"
  client = [["a.cert", "a.key"], ["both.pem"]]
  [host."https://mirror.example:5000".header]
    x-one = ["1", "2"]
[host."http://plain.example/prefix"]
  skip_verify = true
[host."https://path.example/v2/proxy"]
  override_path = true
[host."bare.example"]
""",
    )
    first, second, third, fourth, last = of(tmp_path, "docker.io")
    assert (first.base, first.pull, first.resolve, first.mirror) == (
        "https://mirror.example:5000/v2",
        True,
        False,
        True,
    )
    assert first.ca == (f"{tmp_path}/docker.io/ca.crt",)
    assert [pair[1].rpartition("/")[2] for pair in first.client] == ["a.key", "both.pem"]
    assert first.headers == (("x-one", "1"), ("x-one", "2"))
    assert (second.base, second.skip_verify) == ("http://plain.example/prefix/v2", True)
    assert third.base == "https://path.example/v2/proxy"
    assert fourth.base == "https://bare.example/v2"
    assert (last.base, last.mirror) == ("https://registry-1.docker.io/v2", False)


def test_the_registry_as_its_own_host_is_no_mirror(tmp_path: Path) -> None:
    write(tmp_path, "q.example", 'server = "https://q.example"\n[host."https://q.example"]\nca = "/ca"\n')
    (only,) = of(tmp_path, "q.example")
    assert (only.mirror, only.ca) == (False, ("/ca",))


def test_directories_that_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, "_default", '[host."https://all.example"]\n')
    write(tmp_path, "q.example_5000_", 'server = "http://q.example:5000"\n')
    assert [one.base for one in of(tmp_path, "q.example:5000")] == ["http://q.example:5000/v2"]
    assert [one.base for one in of(tmp_path, "z.example")] == ["https://all.example/v2", "https://z.example/v2"]
    (tmp_path / "c.example").mkdir()
    for name in ("a.crt", "b.cert", "b.key", "other.txt"):
        (tmp_path / "c.example" / name).touch()
    (docker,) = of(tmp_path, "c.example")
    assert (len(docker.ca), len(docker.client)) == (1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("skip_verfy = true", "skip_verfy: unknown key"),
        ('[host."https://a"]\ncapabilites = []', 'host."https://a" capabilites: unknown key'),
        ('[host."https://a"]\ncapabilities = ["psuh"]', "none of pull, resolve, push"),
        ('[host."ftp://a"]', "is no http or https URL"),
        ('[host."https://user:word@a"]', "is no http or https URL"),
        ("server = 1", "it must be a URL"),
        ('skip_verify = "yes"', "it must be true or false"),
        ("ca = [1]", "a string or a list"),
        ('header = {x = "a\\nb"}', "can't be sent"),
        ("= x", "hosts.toml: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, "q.example", text)
    with pytest.raises(PyrunError) as caught:
        of(tmp_path, "q.example")
    assert said in str(caught.value) and "hosts.toml" in str(caught.value)


def test_cve_2020_15157_whose_credentials_go_where(tmp_path: Path) -> None:
    """CVE-2020-15157: each is for one host."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"mirror.example": {"auth": "bTptcHc="}}}))
    settings = Settings((), str(tmp_path / "config.json"))
    own, mirror = Endpoint("https://q.example/v2"), Endpoint("https://mirror.example/v2", mirror=True)
    reference = parse_reference("q.example/a")
    plain, named, foreign = (
        Auth("u", "p"),
        Auth("u", "p", server="mirror.example"),
        Auth("u", "p", server="evil.example"),
    )
    theirs = Auth("m", "mpw", server="mirror.example")
    assert credentials_for(own, reference, plain, settings) == plain
    assert credentials_for(mirror, reference, plain, settings) == theirs
    assert credentials_for(own, reference, named, settings) is None
    assert credentials_for(mirror, reference, named, settings) == named
    assert credentials_for(own, reference, foreign, settings) is None
    assert credentials_for(own, reference, None, settings) is None


def test_docker_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    config = {
        "auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOmE="},
            "q.example/team": {"username": "team", "password": "b"},
            "q.example": {"identitytoken": "t"},
        }
    }
    path.write_text(json.dumps(config))
    found = [
        find_auth(str(path), *where) for where in (("docker.io",), ("q.example", "team/x"), ("q.example", "teams"))
    ]
    assert [one and (one.username, one.identity_token) for one in found] == [("hub", ""), ("team", ""), ("", "t")]
    assert find_auth(str(path), "evil.example") is None
    assert find_auth(str(tmp_path / "none"), "docker.io") is None
    path.write_text('{"credHelpers": {"q.example": "../../bin/sh"}}')
    with pytest.raises(PyrunError, match="no name of a program"):
        find_auth(str(path), "q.example")
    assert "secret" not in repr(Auth("u", "secret", "secret", "secret"))


def test_auth_of_a_request() -> None:
    assert from_request("", "", "", "https://q.example/v1/", "", "") is None
    auth = from_request("", "", "dTpwOnE=", "https://q.example/v1/", "", "")
    assert auth is not None and (auth.username, auth.password, auth.server) == ("u", "p:q", "q.example")
    for broken in ("***", "dQ=="):
        with pytest.raises(InvalidArgument):
            from_request("", "", broken, "", "", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="r:x:pull,push"',
            {"realm": "https://a/t", "scope": "r:x:pull,push"},
        ),
        ("bearer realm=https://a/t", {"realm": "https://a/t"}),
        ('Bearer realm="a\\"b"', {"realm": 'a"b'}),
        ("Basic", {}),
        ("", None),
        ("=,=", None),
    ],
)
def test_challenges(text: str, found: dict[str, str] | None) -> None:
    made = parse_challenges(text)
    if found is None:
        assert made == []
    else:
        assert found.items() <= made[0].parameters.items()


def test_two_challenges() -> None:
    both = parse_challenges('Basic realm="x", Bearer realm="https://a",service="s"')
    assert [one.scheme for one in both] == ["basic", "bearer"]


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://q.example/", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://q.example/", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("http://q.example/", {"https_proxy": "http://p:1"}, None),
        ("https://q.example/", {"https_proxy": "http://p:1", "no_proxy": "other, .example"}, None),
        ("https://q.example/", {"https_proxy": "http://p:1", "NO_PROXY": "q.example:80"}, "http://p:1"),
        ("https://q.example/", {"https_proxy": "http://p:1", "no_proxy": "q.example:443"}, None),
        ("https://10.1.2.3/", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("https://11.1.2.3/", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("https://myq.example/", {"https_proxy": "http://p:1", "no_proxy": "q.example"}, "http://p:1"),
        ("https://q.example/", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("http://127.0.0.1:5000/", {"http_proxy": "http://p:1"}, None),
        ("http://localhost/", {"http_proxy": "http://p:1"}, None),
    ],
)
def test_proxies(url: str, environment: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(url, environment) == proxy


def test_retry_after() -> None:
    assert retry_after("7") == 7
    soon = retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30)))
    assert soon is not None and 25 < soon < 35
    assert [retry_after(text) for text in ("", "soon", "-1")] == [None, None, None]
