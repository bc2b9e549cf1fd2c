"""How this process treats the memory of freed tensors, and of files that it has mapped."""

import ctypes


def disable_malloc_trim() -> None:
    """Have glibc reuse the memory of freed tensors. Changes the speed alone.

    By default it gives large blocks back to the kernel, which then clears and maps every step's tensors anew: on two
    cores that doubled the time of the optimizer's step for a 22 M parameter model (80 ms against 40), and added 6 % to
    predicting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
