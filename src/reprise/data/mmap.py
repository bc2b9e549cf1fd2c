"""Memory-mapped Arrow files: what was read of them need not stay in this process's memory."""

import ctypes
from pathlib import Path

MAPS = Path("/proc/self/maps")


def drop_mapped_pages() -> None:
    """Take what was read of mapped Arrow files out of this process's memory. Changes no value.

    The kernel does it by itself once memory is short. But until then a file that is read from end to end counts whole,
    and a scheduler that counts so ends the job. What is asked for again comes from the kernel's cache or the disk.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise and MAPS.is_file():
        dont_need = 4  # sys/mman.h
        for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
            place, rights, *_ = line.split()
            if rights in ("r--p", "r--s") and line.endswith(".arrow"):  # nobody has written there: nothing is lost
                start, end = (int(number, 16) for number in place.split("-"))
                madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), dont_need)
