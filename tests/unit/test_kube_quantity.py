"""Quantities, as k8s.io/apimachinery reads them."""

from __future__ import annotations

import pytest

from pyrun.kube.quantity import human_bytes, milli, whole


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [
        ("0", 0), ("1", 1000), (1, 1000), (0.5, 500), ("100m", 100), ("0.1", 100), (".5", 500), ("5.", 5000),
        ("1.5", 1500), ("+1", 1000), ("-1", -1000), ("1u", 1), ("1n", 1), ("1k", 10**6), ("1Ki", 1024_000),
        ("1e3", 10**6), ("1E3", 10**6), ("1e-3", 1), ("12E", 12 * 10**21), ("0.0001", 1),
    ],
)  # fmt: skip
def test_milli(text: str | int | float, thousandths: int) -> None:
    assert milli(text) == thousandths


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("64Mi", 64 << 20), ("1Gi", 1 << 30), ("1.5Gi", 3 << 29), ("1G", 10**9), ("100m", 1), ("1Ei", 1 << 60)],
)
def test_whole(text: str, bytes: int) -> None:
    assert whole(text) == bytes


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1mi", "1KI", "Mi", "1.2.3", "--1", "1e", "1e3k", "0x10", "١", "1_0", "1K", "9" * 65]
)
def test_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        milli(text)


def test_what_equals_a_number_is_none() -> None:
    assert milli(1) == 1000
    with pytest.raises(ValueError, match="'True' is not a quantity"):
        milli(True)


def test_for_people() -> None:
    assert [human_bytes(n) for n in (512, 1 << 20, 3 << 29)] == ["512", "1 Mi", "1.5 Gi"]
