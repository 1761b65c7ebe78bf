"""A daemon to be killed: `python -m tests.support.pod.daemon DIRECTORY STATE BUNDLE CTR...` makes containers.

It prints a line for each that is created and started, then sleeps.
"""

from __future__ import annotations

import os
import sys
import time

from pyrun.pod.calls import Gone
from pyrun.pod.supervisor import Supervisor
from pyrun.runtime.prepare import prepare
from pyrun.runtime.start import start
from pyrun.runtime.store import Store


def main(directory: str, state: str, bundle: str, *names: str) -> None:
    store = Store(state)
    try:
        pod = Supervisor.connect(directory)
    except Gone:
        pod = Supervisor.launch(directory, "pod")
    for name in names:
        print("begin", name, flush=True)
        log = os.open(f"{directory}/../{name}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        made = pod.create(name, prepare(store, name, bundle), log=log)
        os.close(log)
        print("created", name, made.pid, flush=True)
        start(store, name, print)
        print("started", name, flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
