"""The official description of the CRI, out of the module that Kubernetes publishes, for comparison with ours.

The Go file that protoc made holds the description as one long string literal, whose escapes Python reads as Go does;
so neither protoc nor a build is needed, only the module.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

MODULE = "k8s.io/cri-api@v0.37.2"
_LINE = re.compile(r'\s*(".*")( \+)?$')


def official(source: Path) -> Any:
    """The FileDescriptorProto in the module's sources at `source`."""
    text = (source / "pkg/apis/runtime/v1/api.pb.go").read_text()
    raw = bytearray()
    for line in text[text.index('_proto_rawDesc = ""') :].splitlines()[1:]:
        match = _LINE.match(line)
        assert match, line
        raw += ast.literal_eval("b" + match[1])
        if not match[2]:
            break
    file = descriptor_pb2.FileDescriptorProto()
    file.ParseFromString(bytes(raw))
    return file
