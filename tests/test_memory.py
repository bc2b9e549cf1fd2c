"""Freed memory stays with the process: measured by the pages that the kernel must map."""

import resource
import subprocess
import sys

# Takes and frees a block of 64 MiB forty times and counts the page faults of the last ten. Not of the second: glibc's
# small caches may hold a remainder between a freed block and the next, until they are full (seven times).
AGAIN = """
import resource, torch
from reprise.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(30)
print(faults(10))
"""
PAGES = 10 * 64 * 2**20 // resource.getpagesize()


def page_faults(*, keep: bool) -> int:
    said = subprocess.run(
        [sys.executable, "-c", AGAIN.format(keep=keep)], capture_output=True, text=True, check=True
    ).stdout
    return int(said)


def test_a_tensor_that_is_made_again_takes_the_memory_of_the_freed_one() -> None:
    assert page_faults(keep=True) < PAGES / 100


def test_without_it_the_kernel_maps_every_page_anew() -> None:
    assert page_faults(keep=False) >= PAGES
