"""Files that kernels read as memory, by address.

The system reads a page when it is looked at, and drops it again when memory is short: what lies in a mapped file is
not this process's memory, although tools count the pages that it has looked at as resident. Python's own `mmap` keeps
a file descriptor for each, of which there may be thousands.
"""

import ctypes
import mmap
import os
from pathlib import Path
from weakref import finalize

from .files import explain

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


class MappedFile:
    """A file at `address`, to be read only, here and there, until nobody holds this any more. Raises StateError."""

    def __init__(self, path: Path, length: int) -> None:
        try:
            with path.open("rb") as file:
                address = _LIBC.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
                if address == _FAILED:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
        except OSError as error:
            raise explain(error, path, "map") from error
        self.address = int(address)
        self._length = length
        finalize(self, _LIBC.munmap, address, length)
        _LIBC.madvise(address, length, mmap.MADV_RANDOM)  # nothing is read ahead

    def let_go_of_pages(self) -> None:
        """What was looked at is resident in this process no more; the system may have it still."""
        _LIBC.madvise(self.address, self._length, mmap.MADV_DONTNEED)
