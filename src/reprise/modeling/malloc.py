"""Tune the memory allocator of the C library."""

import ctypes


def disable_malloc_trim() -> None:
    """Make glibc reuse the memory of freed tensors. Changes only the speed.

    By default glibc returns large blocks to the kernel, which then clears and maps memory for every step's tensors
    again. That doubles the time of an optimizer step of a small model on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
