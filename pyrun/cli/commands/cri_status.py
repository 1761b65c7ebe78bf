"""`pyrun cri status`: what a running `pyrun cri` says of itself."""

from __future__ import annotations

import json
from typing import Any

from pyrun.cli.commands.cri import STATE, missing_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

PATIENCE_S = 10.0
DURATIONS = "durations"  # of Status' info: rpc/durations.py


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun import cri_api as v1
        from pyrun.listen import parse_address
        from pyrun.rpc.client import call_all
    except ModuleNotFoundError as error:
        raise missing_package(error)
    path = parse_address(o.listen, STATE)
    rpcs = v1.SERVICES["RuntimeService"]
    version, status = call_all(
        path,
        [(rpcs["Version"], v1.VersionRequest()), (rpcs["Status"], v1.StatusRequest(verbose=True))],
        PATIENCE_S,
    )
    found = _collect(version, status)
    print(json.dumps(found) if o.format == "json" else _text(path, found))
    return 0 if all(condition["status"] for condition in found["conditions"].values()) else 1


def _collect(version: Any, status: Any) -> dict[str, Any]:
    return {
        "name": version.runtime_name,
        "version": version.runtime_version,
        "api": version.runtime_api_version,
        "conditions": {
            condition.type: {"status": condition.status, "reason": condition.reason, "message": condition.message}
            for condition in status.status.conditions
        },
        "handlers": {
            handler.name: sorted(field.name for field, _ in handler.features.ListFields())
            for handler in status.runtime_handlers
        },
        "features": sorted(field.name for field, _ in status.features.ListFields()),
        "info": {key: _parsed(text) for key, text in sorted(status.info.items())},
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(path: str, found: dict[str, Any]) -> str:
    lines = [f"{found['name']} {found['version']}, CRI {found['api']}, on {path}"]
    for name, condition in found["conditions"].items():
        why = ": ".join(part for part in (condition["reason"], condition["message"]) if part)
        lines.append(f"{name}: {'yes' if condition['status'] else 'NO'}{', ' + why if why else ''}")
    lines.append(f"features: {', '.join(found['features']) or 'none'}")
    for name, features in found["handlers"].items():
        lines.append(f"handler {name or '(default)'}: {', '.join(features) or 'no features'}")
    for name, about in found["info"].items():
        if name == DURATIONS:
            lines.append(_calls(about))
        elif isinstance(about, dict):
            lines += [f"{key}: {_shown(value)}" for key, value in about.items() if value not in ([], {}, "", None)]
    return "\n".join(lines)


def _calls(durations: Any) -> str:
    """How many calls there were, and which failed how often; their times are in the JSON, and metrics."""
    codes = durations["codes"]
    failed = [f"{rpc} {code} {count}" for _, rpc, _, code, count in codes if code != "OK"]
    return f"calls: {sum(row[-1] for row in codes)}, failed: {', '.join(failed) or 'none'}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{key} ({what})" for key, what in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
