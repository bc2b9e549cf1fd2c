"""Freed memory stays with the process: measured by the pages that the kernel must map."""

import resource
import subprocess
import sys

# Takes and frees a block of 64 MiB and counts the page faults of the second time.
TWICE = """
import resource, torch
from reprise.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def page_faults(*, keep: bool) -> int:
    said = subprocess.run(
        [sys.executable, "-c", TWICE.format(keep=keep)], capture_output=True, text=True, check=True
    ).stdout
    return int(said)


def test_a_tensor_that_is_made_again_takes_the_memory_of_the_freed_one() -> None:
    pages = 64 * 2**20 // resource.getpagesize()

    assert page_faults(keep=True) < pages / 100


def test_without_it_the_kernel_maps_every_page_anew() -> None:
    assert page_faults(keep=False) > 10 * page_faults(keep=True) + 10
