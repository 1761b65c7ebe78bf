"""What the runs of upstream's end-to-end suites share: images' registry, reports, and what is known not to pass."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.kube import build
from tests.support.registry.made import Made
from tests.support.registry.stub import Stub

KNOWN = Path(__file__).parents[2] / "cluster" / "KNOWN.md"


@contextlib.contextmanager
def a_registry(path: Path, images: Mapping[tuple[str, str], Made]) -> Iterator[str]:
    """registry.k8s.io, for the daemon; yields the directory of its hosts.toml. images: by repository and tag."""
    stub = Stub()
    try:
        for (repository, tag), made in images.items():
            stub.add(repository, tag, made)
        hosts = path / "certs.d" / "registry.k8s.io"
        hosts.mkdir(parents=True)
        lines = [f'server = "{stub.url}"', f'[host."{stub.url}"]', 'capabilities = ["pull", "resolve"]']
        (hosts / "hosts.toml").write_text("\n".join(lines) + "\n")
        yield str(hosts.parent)
    finally:
        stub.close()


def ginkgo(path: Path, procs: int, minutes: int, labels: str) -> list[str]:
    """The command, up to the suite's program. The report goes to path/report.json."""
    command = [str(build.program("ginkgo")), "run", f"--procs={procs}", "--no-color", f"--label-filter={labels}"]
    return [*command, f"--timeout={minutes}m", "--poll-progress-after=0", f"--json-report={path}/report.json"]


def results(path: Path) -> dict[str, tuple[str, str]]:
    """Name of each spec that began → (how it ended, its first words about it); with what else went wrong of a run: a
    step before or after all specs, and why it was cut short."""
    found = {}
    for line in [path / "report.json", *path.glob("report/report.json")]:
        for suite in json.loads(line.read_text()) if line.exists() else ():
            for reason in suite.get("SpecialSuiteFailureReasons") or ():
                found[f"[suite] {reason}"] = ("failed", "")
            for spec in suite["SpecReports"] or []:
                is_spec = spec["LeafNodeType"] == "It"
                if spec["State"] in ("skipped", "pending") or (not is_spec and spec["State"] == "passed"):
                    continue
                words = [*(spec["ContainerHierarchyTexts"] or []), spec["LeafNodeText"]]
                name = " ".join(words if is_spec else [f"[{spec['LeafNodeType']}]", *filter(None, words)])
                found[name] = (spec["State"], spec.get("Failure", {}).get("Message", "").split("\n")[0])
    return found


def known(section: str) -> list[re.Pattern[str]]:
    """The specs that KNOWN.md names below this heading."""
    (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", KNOWN.read_text(), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)
    return [re.compile(row.replace("\\|", "|")) for row in rows]


def tell(path: Path, name: str, section: str) -> int:
    """The score and each spec that did not pass; 1 where one did not that KNOWN.md does not name."""
    found = results(path)
    if not found:
        print((path / "e2e.log").read_text()[-3000:], f"\n{name}: nothing was run")
        return 1
    failed = {spec: how for spec, how in found.items() if how[0] != "passed"}
    rows = known(section)
    new = [spec for spec in failed if not any(row.search(spec) for row in rows)]
    for spec, (state, words) in sorted(failed.items()):
        print(f"{state}{'' if spec in new else ' (known)'}: {spec}\n    {words[:300]}")
    print(f"{name}: {len(found) - len(failed)} of {len(found)} specs passed, {len(new)} that KNOWN.md does not name")
    return 1 if new else 0
