"""The verbs of `pyrun image`: rows of verbs.py."""

from __future__ import annotations

from pyrun.cli.options import (
    A_DIRECTORY,
    A_FILE,
    FOR_TOOLS,
    Argument,
    Verb,
    choice,
    flag,
    text,
)
from pyrun.cli.table import FORMAT

# One store for people and for `pyrun cri`.
STORE = text("root", "DIR", "where images are kept (default: /var/lib/pyrun, as of pyrun cri)", completes=A_DIRECTORY)
CERTS = text(
    "certs-dir", "DIR", "where HOST/hosts.toml are (default: /etc/{pyrun,containerd,docker}/certs.d)", many=True
)
LAYERS = choice("layers", ("dir", "erofs", "auto"), "what its layers become: directories, EROFS images, or what can be")
IMAGE = Argument("image")
IMAGE_PULL = Verb(
    "image pull",
    "bring an image from its registry",
    (IMAGE,),
    (
        STORE,
        CERTS,
        text("user", "NAME", "ask as NAME, with the password on standard input (default: as docker login has it)", "u"),
        flag("quiet", "print only the image's id", "q"),
        LAYERS,
        FOR_TOOLS,
    ),
)
IMAGE_LS = Verb("image ls", "list images", (), (STORE, FORMAT, flag("quiet", "only the ids", "q")))
IMAGE_RM = Verb("image rm", "remove a name, and the image with its last one", (Argument("image", many=True),), (STORE,))
IMAGE_INSPECT = Verb("image inspect", "print all that is known of an image, as JSON", (IMAGE,), (STORE,))
IMAGE_IMPORT = Verb(
    "image import",
    "bring images from an OCI layout or a docker archive",
    (Argument("path", completes=A_FILE),),
    (STORE, text("name", "NAME", "what to call it, if it has no name"), LAYERS, FOR_TOOLS),
)
IMAGE_EXPORT = Verb(
    "image export",
    "write images to an archive, for docker load and others",
    (Argument("image", many=True),),
    (STORE, text("output", "FILE", "the archive (default: standard output)", "o", completes=A_FILE)),
)
IMAGE_PRUNE = Verb(
    "image prune",
    "remove images that no name and no container has",
    (),
    (STORE, flag("all", "also those with a name", "a"), FOR_TOOLS),
)
IMAGE_VERIFY = Verb(
    "image verify",
    "read images again, and say what is no longer what came",
    (Argument("image", many=True),),
    (STORE, FOR_TOOLS),
)
IMAGE_VERBS = (
    IMAGE_VERIFY,
    IMAGE_PULL,
    IMAGE_LS,
    IMAGE_RM,
    IMAGE_INSPECT,
    IMAGE_IMPORT,
    IMAGE_EXPORT,
    IMAGE_PRUNE,
)
