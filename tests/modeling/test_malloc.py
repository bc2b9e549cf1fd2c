"""glibc reuses freed memory instead of returning it to the kernel, measured in page faults."""

import resource
import subprocess
import sys

# Allocates and frees a block of 64 MiB forty times and counts the page faults of the last ten. Not from the second on:
# glibc's small caches may keep a remainder between a freed block and the next until they are full (seven times).
PROGRAM = """
import resource, torch
from reprise.modeling.malloc import disable_malloc_trim
if {disable}:
    disable_malloc_trim()
def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(30)
print(faults(10))
"""
PAGES = 10 * 64 * 2**20 // resource.getpagesize()


def page_faults(*, disable: bool) -> int:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(disable=disable)], capture_output=True, text=True, check=True
    ).stdout
    return int(printed)


def test_a_new_tensor_reuses_the_memory_of_a_freed_one() -> None:
    assert page_faults(disable=True) < PAGES / 100


def test_by_default_the_kernel_maps_every_page_again() -> None:
    assert page_faults(disable=False) >= PAGES
