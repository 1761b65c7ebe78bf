"""How a command's end is told to a client: a metav1.Status as JSON from v4 of the protocol on, a line of text
before."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """code: the command's; None where it was never run, or nobody knows. message: why it failed."""

    code: int | None = 0
    message: str = ""

    @property
    def fine(self) -> bool:
        return self.code == 0

    def text(self) -> str:
        if self.code:
            return f"command terminated with non-zero exit code: {self.message or f'exit status {self.code}'}"
        return self.message

    def json(self) -> bytes:
        status: dict[str, object] = {"metadata": {}, "status": "Success"}
        if self.code:
            causes = [{"reason": "ExitCode", "message": str(self.code)}]
            status |= {
                "status": "Failure",
                "message": self.text(),
                "reason": "NonZeroExitCode",
                "details": {"causes": causes},
            }
        elif self.code is None:
            causes = [{"message": self.message}]
            status |= {
                "status": "Failure",
                "message": f"Internal error occurred: {self.message}",
                "reason": "InternalError",
                "details": {"causes": causes},
                "code": 500,
            }
        return json.dumps(status).encode()
