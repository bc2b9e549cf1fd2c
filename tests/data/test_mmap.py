"""The pages of memory-mapped Arrow files can be dropped and are read again on access."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from reprise.data.mmap import drop_mapped_pages


def mapped_mib() -> float:
    """Return the resident file-backed memory of this process in MiB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:")]
    return int(line.split()[1]) / 2**10


def test_dropped_pages_of_a_mapped_file_can_be_read_again(request: pytest.FixtureRequest) -> None:
    file_path = request.config.cache.mkdir("mmap") / "rows.arrow"  # on a disk, while `tmp_path` may be in memory
    numbers = np.arange(8 * 2**20)  # 64 MiB
    with pa.OSFile(str(file_path), "wb") as file:
        table = pa.table({"number": numbers})
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    before = mapped_mib()
    with pa.memory_map(str(file_path)) as mapped:
        read = pa.ipc.open_stream(mapped).read_all()["number"].to_numpy()
        assert read.sum() == numbers.sum()
        assert mapped_mib() > before + 60
        drop_mapped_pages()
        assert mapped_mib() < before + 4
        assert np.array_equal(read, numbers)
    file_path.unlink()
