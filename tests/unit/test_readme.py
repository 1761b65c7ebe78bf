"""What README.md and the pages that it leads to say is so: commands, links, examples, pictures and figures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.verbs import VERBS
from tests.bench.bench import OURS, renew_figures, report_beside, report_verbs
from tests.bench.peer import VERBS as MEASURED
from tests.bench.where import BY_LAUNCHER, BY_PYTHON, COLUMNS, report_where
from tests.conformance.run import PROGRAMS, read_known
from tests.support.container.runner import REPO, Runner

FOLDERS = ("bundles", "docs", "tests", "vagrant")
README = (REPO / "README.md").read_text()
FIGURES = (REPO / "docs" / "figures.md").read_text()
MAX_LINES = 150
PAGES = sorted(
    path
    for path in [*REPO.glob("*.md"), *(page for name in FOLDERS for page in (REPO / name).rglob("*.md"))]
    if ".cache" not in path.parts
)
LINKS = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
BLOCKS = re.findall(r"^ *```\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
CODE = "\n".join([*BLOCKS, *re.findall(r"`([^`\n]+)`", README)])


def unwrapped(text: str) -> str:
    """What explain has wrapped, in one line again: where it breaks a line depends on the longest name of a step."""
    return re.sub(r"\n(?:│ {20,}| {19,})(?=\S)", " ", text)


def picture(command: str) -> list[str]:
    """The lines that README.md shows below a command, without those that stand for others."""
    block = next(block for block in BLOCKS if f"$ {command}\n" in block)
    return [line for line in block.splitlines()[1:] if line.strip() and line != "…"]


def plain(text: str) -> str:
    """A line as it is on every machine: without its step's number, and with the usual place of cgroups."""
    text = re.sub(r"/sys/fs/cgroup/[\w./-]*ID", "/sys/fs/cgroup/ID", text)
    text = re.sub(r"\b\d+(/\d+| steps)", "N", re.sub(r"^(│?) +\d+ ", r"\1 ", text))
    return " ".join(text.replace("│", " ").split())


def tables(page: str) -> list[list[list[str]]]:
    """Each table of a page as rows of cells, the header first."""
    found = re.findall(r"(?:^\|.*\|\n)+", (REPO / page).read_text(), re.MULTILINE)
    rows = [[line.strip("|").split("|") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in [table[0], *table[2:]]] for table in rows]


def table_of(page: str, first: str, *others: str) -> list[list[str]]:
    """The table of a page whose header begins so."""
    return next(table for table in tables(page) if table[0][: 1 + len(others)] == [first, *others])


def headings(page: Path) -> list[str]:
    """Its anchors, as they are made of headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found]


@pytest.mark.parametrize(("page", "target"), LINKS, ids=lambda value: str(value).removeprefix(f"{REPO}/"))
def test_link_resolves(page: Path, target: str) -> None:
    if target.startswith("https://"):
        return
    path, _, anchor = target.partition("#")
    found = page.parent / path if path else page
    assert found.exists()
    assert not anchor or anchor in headings(found)


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set(), {REPO / "README.md"}
    while new:
        reached |= new
        targets = {(page.parent / target.partition("#")[0]).resolve() for page, target in LINKS if page in new}
        new = {target for target in targets if target.suffix == ".md"} - reached
    assert set(PAGES) - reached == set()


def test_the_index_names_every_page_of_docs() -> None:
    named = {target.partition("#")[0] for page, target in LINKS if page == REPO / "docs" / "README.md"}
    assert {path.name for path in (REPO / "docs").glob("*.md")} - named == {"README.md"}


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_bootstrap_verbs_exist() -> None:
    named = set(re.findall(r"\./bootstrap (\w+)", CODE))
    known = set(re.findall(r"^(\w+)(?: \| [-\w |]+)?\) ", (REPO / "bootstrap").read_text(), re.MULTILINE))
    assert {"demo", "test", "install", "uninstall", "clean"} <= named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_make_targets_exist(page: Path) -> None:
    named = set(re.findall(r"(?:^|`)(?:sudo )?make ([a-z0-9-]+)", page.read_text(), re.MULTILINE))
    known = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    assert named <= known


def test_pyrun_verbs_exist() -> None:
    named = set(re.findall(r"(?:^|\$ |sudo )pyrun ([a-z]+)\b", CODE, re.MULTILINE))
    verbs = {name.split()[0] for name in VERBS}
    assert {"explain", "validate", "run"} <= named <= verbs
    row = next(row[0] for table in tables("docs/comparison.md") for row in table if row[0].startswith("`create "))
    assert set(row.strip("`").split()) <= verbs


def test_examples_are_those_that_exist() -> None:
    listed = {re.sub(r"\[(.*)\].*", r"\1", row[0]) for row in table_of("bundles/README.md", "bundle")[1:]}
    assert listed == {path.parent.name for path in (REPO / "bundles").glob("*/config.json")}


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """The bundle of the pictures. Its parent is where the commands run."""
    (tmp_path / "web" / "rootfs").mkdir(parents=True)
    shutil.copy(REPO / "bundles" / "web" / "config.json", tmp_path / "web")
    return tmp_path / "web"


def test_picture_of_explain(pyrun: Runner, web: Path) -> None:
    out = subprocess.run(
        [*pyrun.argv, "explain", "web"], cwd=web.parent, check=True, capture_output=True, text=True
    ).stdout
    shown = {plain(line) for line in unwrapped(out).splitlines()}
    told = unwrapped("\n".join(picture("pyrun explain web"))).splitlines()
    assert len(told) > 10
    assert [line for line in told if plain(line) not in shown] == []


@pytest.mark.root
@pytest.mark.skipif(os.path.exists("/srv/data"), reason="the picture is of a machine without /srv/data")
def test_picture_of_an_error(pyrun: Runner, web: Path) -> None:
    failed = pyrun("run", "--bundle", "web", "web1", cwd=web.parent).fails(1)
    assert [*map(plain, failed.err.splitlines())] == [*map(plain, picture("sudo pyrun run --bundle web web1"))]


def test_picture_of_validate(pyrun: Runner, web: Path) -> None:
    config = json.loads((web / "config.json").read_text())
    config["process"]["user"]["uid"] = -1
    config["process"]["cwd"] = "srv"
    config["linux"]["namespaces"].append({"type": "pid"})
    config["linux"]["resources"]["memory"] = {"limit": "1G"}
    (web / "config.json").write_text(json.dumps(config))
    result = pyrun("validate", "web", cwd=web.parent).fails(1)
    assert (result.out + result.err).splitlines() == picture("pyrun validate web")


def test_figures_of_the_verbs() -> None:
    """All that the benchmark prints, and the ratios are those of the times."""
    table = table_of("docs/figures.md", "verb", "runc ms")
    names = ("runc", "crun", *OURS)
    expected = report_verbs({name: dict.fromkeys(MEASURED, 1.0) for name in names})
    assert table[0] == [cell.strip() for cell in expected[0].strip("|").split("|")]
    assert [row[0] for row in table[1:]] == list(MEASURED)
    for row in table[1:]:
        times = dict(zip(names, map(float, row[1:5]), strict=True))
        for title, ratio in zip(table[0][5:9], row[5:9], strict=True):
            mine, other = title.split(" / ")
            low, high = (times[mine] - 0.06) / (times[other] + 0.06), (times[mine] + 0.06) / (times[other] - 0.06)
            assert low - 0.01 <= float(ratio) <= high + 0.01, (row[0], title)


def test_figures_of_where_the_time_goes() -> None:
    table = table_of("docs/figures.md", "verb", "total")
    assert table[0] == ["verb", "total", *COLUMNS]
    assert [row[0] for row in table[1:]] == [*BY_PYTHON, *BY_LAUNCHER]


def test_figures_beside_the_tables() -> None:
    """In the words of the benchmark, next to the command that prints them."""
    assert "`sudo make bench`" in FIGURES
    for start in ("parked init, PSS: runc ", "installed wheel: ", "explain, CPU seconds by number of mounts: 1000: "):
        assert re.search(rf"^{re.escape(start)}.*\d", FIGURES, re.MULTILINE), start


def test_benchmark_renews_every_figure() -> None:
    """`bench.py --write` finds the places of all figures."""
    parts = dict.fromkeys(("total", *COLUMNS), 7.7)
    result: dict[str, Any] = {
        "rounds": 77,
        "cores": 7,
        "medians_ms": {name: dict.fromkeys(MEASURED, 7.7) for name in ("runc", "crun", *OURS)},
        "parked_pss_kb": {"runc": 7.7},
        "wheel_bytes": 7700000,
        "explain_cpu_s": {"1000": 7.7},
        "where_ms": {"python": dict.fromkeys(BY_PYTHON, parts), "launcher": dict.fromkeys(BY_LAUNCHER, parts)},
    }
    renewed = renew_figures(FIGURES, result)
    lines = [*report_verbs(result["medians_ms"]), *report_beside(result), *report_where(result["where_ms"])]
    assert [line for line in lines if line not in renewed.splitlines()] == []
    assert "77 rounds on a machine with 7 cores" in renewed
    assert len(renewed.splitlines()) == len(FIGURES.splitlines())
    assert renew_figures(renewed, result) == renewed
    assert "1.00 of runc's time, and 1.00 of crun's; with `pyrun planner` 1.00 and 1.00" in renew_figures(
        README, result
    )


def test_engines_table_is_all_tests() -> None:
    """A column's names are tests of that engine's files, or of those of all engines; and no test is missing."""
    defined = {
        path.stem: set(re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE))
        for path in (REPO / "tests" / "vm" / "engines").glob("test_*.py")
    }
    of = {
        "containerd 1.6": ("test_containerd", "test_cri", "test_critest"),
        "podman 4.3": tuple(stem for stem in defined if stem.startswith("test_podman")),
        "docker 20.10": tuple(stem for stem in defined if stem.startswith("test_docker")),
    }
    shared = set(defined) - {stem for stems in of.values() for stem in stems}
    header, *rows = table_of("docs/engines.md", "", *of)
    for column, (engine, stems) in enumerate(of.items(), 1):
        told = [name for row in rows for name in re.findall(r"`(\w+)`", row[column])]
        assert set(told) <= set().union(*(defined[stem] for stem in (*stems, *shared))), engine
        assert set().union(*(defined[stem] for stem in stems)) <= set(told), engine
    everything = {name for row in rows for cell in row[1:] for name in re.findall(r"`(\w+)`", cell)}
    assert set().union(*defined.values()) == everything


def test_count_of_conformance_programs() -> None:
    told = re.findall(r"(\d+) of (\d+)(?: pass)?\*\*", (REPO / "docs" / "conformance.md").read_text())
    strict, by_tap = int(told[0][0]), int(told[1][0])
    assert {int(total) for _, total in told} == {len(PROGRAMS)}
    assert len(PROGRAMS) - len(read_known()) <= strict <= by_tap < len(PROGRAMS)


def numbers_of(name: str) -> list[float]:
    """Those that README.md has in its row of this name."""
    text = next(row[1] for table in tables("README.md") for row in table if row[0] == name)
    return [float(number) for number in re.findall(r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*\d)", text)]


def test_the_readmes_speed_is_that_of_the_figures() -> None:
    row = next(row for row in table_of("docs/figures.md", "verb", "runc ms") if row[0] == "create+start+delete")
    assert numbers_of("speed") == [float(cell) for cell in row[5:9]]


def test_the_readmes_tests_of_engines_are_there() -> None:
    tests = (path.read_text() for path in (REPO / "tests" / "vm" / "engines").glob("test_*.py"))
    (told,) = numbers_of("engines")
    assert told < sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in tests)


def test_the_readmes_kills_are_those_of_the_soak() -> None:
    rows = [row for row in table_of("docs/soak.md", "", "kills")[1:] if not row[0].startswith("no engine")]
    assert numbers_of("robustness") == [sum(int(row[1]) for row in rows), sum(int(row[4]) for row in rows)]


def test_the_readmes_conformance_is_that_of_its_page() -> None:
    page = (REPO / "docs" / "conformance.md").read_text()
    passed, total, runc = numbers_of("conformance")[0:2] + numbers_of("conformance")[-1:]
    assert f"**{passed:.0f} of {total:.0f} pass**" in page
    assert f"passes {runc:.0f} and" in page
