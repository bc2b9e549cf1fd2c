"""Freed memory stays with the process, that of mapped files does not: measured by the pages that the kernel maps."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from reprise.data.mmap import drop_mapped_pages

# Takes and frees a block of 64 MiB forty times and counts the page faults of the last ten. Not of the second: glibc's
# small caches may hold a remainder between a freed block and the next, until they are full (seven times).
AGAIN = """
import resource, torch
from reprise.modeling.malloc import disable_malloc_trim
if {keep}:
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


def page_faults(*, keep: bool) -> int:
    said = subprocess.run(
        [sys.executable, "-c", AGAIN.format(keep=keep)], capture_output=True, text=True, check=True
    ).stdout
    return int(said)


def test_a_tensor_that_is_made_again_takes_the_memory_of_the_freed_one() -> None:
    assert page_faults(keep=True) < PAGES / 100


def test_without_it_the_kernel_maps_every_page_anew() -> None:
    assert page_faults(keep=False) >= PAGES


def mapped_mib() -> float:
    """Pages of files in this process's memory."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:")]
    return int(line.split()[1]) / 2**10


def test_what_was_read_of_a_mapped_file_is_let_go_and_can_be_read_again(tmp_path: Path) -> None:
    numbers = np.arange(8 * 2**20)  # 64 MiB
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file:
        table = pa.table({"number": numbers})
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    before = mapped_mib()
    with pa.memory_map(str(tmp_path / "rows.arrow")) as mapped:
        read = pa.ipc.open_stream(mapped).read_all()["number"].to_numpy()
        assert read.sum() == numbers.sum()
        assert mapped_mib() > before + 60
        drop_mapped_pages()
        assert mapped_mib() < before + 4
        assert np.array_equal(read, numbers)
