"""Files that kernels read here and there, by their descriptors."""

import os
from pathlib import Path
from weakref import finalize

from .files import explain


class OpenedFile:
    """A file that stays open for reading until nobody holds this any more. Raises StateError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            finalize(self, os.close, self.descriptor)
            if hasattr(os, "posix_fadvise"):  # not on every system
                os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        except OSError as error:
            raise explain(error, path, "open") from error
