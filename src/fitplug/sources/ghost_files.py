"""Ghost files on the disk: sparse, so that hundreds of gigabytes take a few megabytes."""

import os
from collections.abc import Sequence
from pathlib import Path

from fitplug.errors import RefusedError
from fitplug.ghost import Ghost


def write_ghosts(ghosts: Sequence[Ghost], folder: str) -> str:
    """Write them and return the first one's path, which is what llama.cpp is given.

    Raises:
        RefusedError: this system fills holes with zeros on the disk (Windows, unless told file by file).
    """
    if os.name == "nt":
        raise RefusedError("a model that is not here can only be verified where files may have holes: download it first")
    paths = []
    for ghost in ghosts:
        path = Path(folder) / ghost.name
        with path.open("xb") as file:
            file.write(ghost.head)
            file.truncate(ghost.n_bytes)
        paths.append(str(path))
    return paths[0]
