"""Where crictl and critest can't be built, the tests that need them are told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import cri_tools


def test_why_not_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cri_tools, "CACHE", tmp_path)
    monkeypatch.setattr(cri_tools, "WHY_NOT", tmp_path / "why-not")
    for name, value in {"GOPROXY": "off", "GOMODCACHE": str(tmp_path / "modules"), "GOTOOLCHAIN": "local"}.items():
        monkeypatch.setenv(name, value)
    cri_tools.build_cri_tools()
    why = (tmp_path / "why-not").read_text()
    assert "can't be had" in why or "Go is not on this machine" in why
    assert not (tmp_path / "crictl").exists()
