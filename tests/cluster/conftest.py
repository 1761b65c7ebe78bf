"""The tests in this directory run Kubernetes' own programs over `pyrun cri`: root, tests/view, and a kubelet that
`make kubelet` builds, or continuous integration beside other tests; where it has not been built they are skipped, as
ten minutes of building are not a test's to spend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube import build
from tests.support.kube.kubelet import Kubelet, a_kubelet
from tests.support.threads import thread_check as thread_check

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[Kubelet]:
    program = build.built("kubelet")
    if program is None:
        how = f"`make kubelet` builds it (ten CPU minutes, once){build.why_not()}"
        pytest.skip(f"kubelet {build.VERSION} has not been built: {how}")
    with a_kubelet(tmp_path_factory.mktemp("kubelet"), busybox_rootfs, program) as made:
        yield made
