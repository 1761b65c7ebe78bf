"""Which images go when the disk is full, and why the others stay: a plan, without a store."""

from __future__ import annotations

import pytest

from pyrun.image.garbage import Disk, Policy, Stored, plan_image_garbage

NOW = 1_800_000_000.0
GIB = 1 << 30
HOUR = 3600.0


def image(name: str, size: int = 10, *, idle: float = HOUR, age: float = 100 * HOUR, **more: object) -> Stored:
    """One layer of its own, of so many GiB; used so many seconds ago."""
    layers = more.pop("layers", {f"own-{name}": size * GIB})
    return Stored(f"sha256:{name}", name, layers, NOW - age, NOW - idle, **more)  # type: ignore[arg-type]


def disk(percent: int) -> Disk:
    return Disk(100 * GIB, (100 - percent) * GIB)


def going(images: list[Stored], percent: int, policy: Policy = Policy(), *, all: bool = False) -> list[str]:  # noqa: B008
    return [v.image.name for v in plan_image_garbage(images, disk(percent), policy, NOW, all=all).going]


def why(one: Stored, percent: int = 90) -> str:
    found = plan_image_garbage([one, image("other", 50)], disk(percent), Policy(), NOW)
    (verdict,) = [v for v in found.verdicts if v.image is one]
    assert not verdict.goes
    return verdict.why


def test_below_the_high_mark_nothing_goes() -> None:
    assert going([image("a")], 84) == []
    assert "84 %" in why(image("a"), 84)


def test_the_longest_unused_go_first_and_no_more_than_it_takes() -> None:
    images = [image("new", 4, idle=1), image("old", 4, idle=3 * HOUR), image("middle", 4, idle=2 * HOUR)]
    assert going(images, 85) == ["old", "middle"]  # 5 GiB to the low mark
    assert going(images, 90) == ["old", "middle", "new"]
    found = plan_image_garbage(images, disk(85), Policy(), NOW)
    assert (found.wanted, found.frees, found.short) == (5 * GIB, 8 * GIB, 0)
    assert [v.why for v in found.verdicts] == [
        "not used for 3 h", "not used for 2 h", "80 % is reached without it",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"holders": ("0123456789abcdef", "f")}, "container 0123456789abc and 1 more has it"),
        ({"pinned": True}, "it is pinned"),
        ({"wanted": "shop/web"}, "pod shop/web wants it"),
        ({"age": 60.0, "idle": 60.0}, "it is here for less than 2 min"),
    ],
)
def test_what_is_needed_stays(more: dict[str, object], told: str) -> None:
    assert why(image("a", **more)) == told  # type: ignore[arg-type]
    assert going([image("a", **more)], 99, all=True) == []  # type: ignore[arg-type]


def test_a_layer_goes_with_the_last_image_that_has_it() -> None:
    base = {"base": 20 * GIB}
    images = [
        image("a", idle=3 * HOUR, layers={**base, "a": GIB}),
        image("b", idle=2 * HOUR, layers={**base, "b": GIB}),
        image("c", idle=HOUR, layers={"c": GIB}),
    ]
    found = plan_image_garbage(images, disk(90), Policy(), NOW)
    assert [(v.image.name, v.goes, v.frees) for v in found.verdicts] == [
        ("a", True, GIB), ("b", True, 21 * GIB), ("c", False, 0),
    ]  # fmt: skip


def test_nothing_goes_in_vain() -> None:
    """It is not images that fill the disk: what they could give is told, and they stay."""
    found = plan_image_garbage([image("a", 1)], disk(99), Policy(), NOW)
    assert not found.going and found.verdicts[0].why == "it would not help"
    assert found.short == 19 * GIB
    assert "Images take 1 GiB, all else 98 GiB; images can give 1 GiB at most" in found.why
    assert going([image("a", 1)], 99, all=True) == ["a"]


def test_before_a_pod_is_evicted_all_go_that_may() -> None:
    assert going([image("a"), image("b", wanted="default/p")], 10, all=True) == ["a"]


def test_who_was_not_used_for_too_long_goes_whatever_the_disk() -> None:
    policy = Policy(most_age=24 * HOUR)
    images = [image("old", idle=25 * HOUR), image("new", idle=23 * HOUR), image("kept", idle=25 * HOUR, pinned=True)]
    found = plan_image_garbage(images, disk(10), policy, NOW)
    assert [(v.image.name, v.why) for v in found.going] == [("old", "not used for 25 h, longer than 24 h")]


def test_an_empty_disk() -> None:
    assert plan_image_garbage([], Disk(0, 0), Policy(), NOW).verdicts == ()
