"""Release the resident pages of memory-mapped Arrow files."""

import ctypes
from pathlib import Path

MAPS = Path("/proc/self/maps")
MADV_DONTNEED = 4  # sys/mman.h


def drop_mapped_pages() -> None:
    """Drop the resident pages of mapped Arrow files from this process. Changes no value.

    The kernel drops them itself once memory is short. Until then, a file that is read from start to end counts as used
    memory in full, and a scheduler with a memory limit may end the job. Dropped pages are read again from the page
    cache or the disk.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise and MAPS.is_file():
        for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
            addresses, permissions, *_ = line.split()
            if permissions in ("r--p", "r--s") and line.endswith(".arrow"):  # read-only, so no data is lost
                start, end = (int(address, 16) for address in addresses.split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
