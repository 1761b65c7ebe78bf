"""Which other servers the cluster's DNS asks, by a resolv.conf that comes, changes and goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrun import inotify
from pyrun.dns import daemon
from pyrun.errors import PyrunError
from tests.support.dns_served import serving, wait_until


def test_a_changed_resolv_conf_is_followed(tmp_path: Path) -> None:
    """Also one that is moved into place, as systemd-resolved and NetworkManager do. Its servers have port 53, so that
    here nobody is asked: what is looked at is whom it would ask."""
    path = tmp_path / "resolv.conf"
    path.write_text("search x\nnameserver 127.0.0.53\nnameserver nonsense\n")
    with serving(None, str(path)) as served:
        assert served.daemon.forwarder.servers.all() == [("127.0.0.53", 53)]
        assert any("line 3: nonsense is no IP address" in line for line in served.said)
        new = tmp_path / "new"
        new.write_text("nameserver 127.0.0.54\n")
        os.rename(new, path)
        wait_until("it is followed", lambda: served.daemon.forwarder.servers.all() == [("127.0.0.54", 53)])
        path.unlink()
        wait_until("it is told", lambda: any("the servers stay as they were" in line for line in served.said))
        assert served.daemon.forwarder.servers.all() == [("127.0.0.54", 53)]


def test_a_resolv_conf_that_is_a_link_to_what_is_not_there_yet(tmp_path: Path) -> None:
    """As where systemd-resolved starts later; and the link may lead elsewhere one day. A server may be on a link."""
    link, early, late = tmp_path / "resolv.conf", tmp_path / "run" / "resolve" / "stub", tmp_path / "else" / "conf"
    link.symlink_to(early)
    with serving(None, str(link)) as served:

        def asks(*wanted: str) -> None:
            addresses = [(word, 53) for word in wanted]
            wait_until(f"{wanted} are asked", lambda: served.daemon.forwarder.servers.all() == addresses)

        assert [line for line in served.said if "the servers stay as they were" in line] == served.said
        early.parent.mkdir(parents=True)
        early.write_text("nameserver 127.0.0.53\n")
        asks("127.0.0.53")
        early.write_text("nameserver 127.0.0.53\nnameserver fe80::1%lo\n")
        asks("127.0.0.53", "fe80::1%lo")
        late.parent.mkdir()
        late.write_text("nameserver 127.0.0.54\n")
        (tmp_path / "new").symlink_to(late)
        os.rename(tmp_path / "new", link)
        asks("127.0.0.54")
        late.write_text("nameserver 127.0.0.55\n")
        asks("127.0.0.55")
        assert len([line for line in served.said if "the servers stay as they were" in line]) == 1


def test_directories_that_a_link_has_left_are_watched_no_more(tmp_path: Path) -> None:
    """A link that is changed each hour would take up the machine's watches by and by."""
    link = tmp_path / "resolv.conf"
    with serving(None, str(link)) as served:
        for turn in range(1, 8):
            (tmp_path / f"d{turn}").mkdir()
            (tmp_path / f"d{turn}" / "conf").write_text(f"nameserver 127.0.1.{turn}\n")
            (tmp_path / "new").symlink_to(tmp_path / f"d{turn}" / "conf")
            os.rename(tmp_path / "new", link)
            wanted = [(f"127.0.1.{turn}", 53)]
            wait_until("it is followed", lambda wanted=wanted: served.daemon.forwarder.servers.all() == wanted)  # type: ignore[misc]
        assert served.daemon.watch is not None
        about = Path(f"/proc/self/fdinfo/{served.daemon.watch.fileno()}")
        wait_until("two are watched", lambda: about.read_text().count("inotify wd:") == 2)


def test_a_machine_without_inotify_instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is looked at from time to time."""

    def none() -> None:
        raise PyrunError("inotify: too many open files")

    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\n")
    monkeypatch.setattr(inotify, "Watch", none)
    monkeypatch.setattr(daemon, "LOOK_S", 0.1)
    with serving(None, str(path)) as served:
        assert any("too many open files; " in line for line in served.said)
        path.write_text("nameserver 127.0.0.54\n")
        wait_until("it is followed", lambda: served.daemon.forwarder.servers.all() == [("127.0.0.54", 53)])
