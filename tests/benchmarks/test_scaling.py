"""Tests of the scaling benchmark: the cost model against values worked by hand, the measurements on real processes."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import scaling
from comm_model import Device, Link, efficiency, sharded_volume, step_seconds, volume

DEVICE = Device(fixed=0.02, per_row=0.01)
LINK = Link(bandwidth=1e9, latency=1e-4)


def test_an_all_reduce_sends_nearly_twice_its_bytes_per_device_and_sharded_weights_half_as_much_again() -> None:
    assert [volume(100e6, devices) for devices in (1, 2, 4, 100)] == pytest.approx([0, 100e6, 150e6, 198e6])
    assert sharded_volume(100e6, 4) == pytest.approx(225e6)


def test_a_step_takes_the_time_of_the_device_with_most_rows_and_then_of_the_all_reduce() -> None:
    alone = step_seconds(DEVICE, LINK, gradients=80e6, batch_size=32, devices=1)
    assert alone == pytest.approx(0.02 + 0.32)
    # 33 rows over 4 devices: one has 9. 1.5 × 80 MB at 1 GB/s, and 6 messages.
    four = step_seconds(DEVICE, LINK, gradients=80e6, batch_size=33, devices=4)
    assert four == pytest.approx(0.02 + 0.09 + 0.12 + 6e-4)


def test_efficiency_is_one_without_overhead_and_communication() -> None:
    free = Link(bandwidth=float("inf"), latency=0)
    no_overhead = Device(fixed=0, per_row=0.01)
    assert efficiency(no_overhead, free, gradients=80e6, batch_size=32, devices=8) == pytest.approx(1)
    assert efficiency(DEVICE, free, gradients=80e6, batch_size=32, devices=8) == pytest.approx(0.34 / (8 * 0.06))


def test_the_fit_recovers_the_device_and_the_link_from_their_times() -> None:
    loads = {rows: DEVICE.seconds(rows) for rows in scaling.LOADS}
    assert vars(scaling.fit_device(loads)) == pytest.approx(vars(DEVICE))
    sums = {devices: {size: LINK.all_reduce(size, devices) for size in scaling.SIZES} for devices in (2, 4)}
    assert vars(scaling.fit_link(sums)) == pytest.approx(vars(LINK))


def test_the_model_accounts_for_contention_and_for_more_processes_than_cores() -> None:
    content = {
        "device": vars(DEVICE),
        "link": vars(LINK),
        "gradient_bytes": 80e6,
        "contention": 1.5,
        "measured_seconds": {1: 0.34, 2: 0.4, 4: 0.5},
    }
    one, two, four = scaling.check(content, cores=2)
    assert one == {
        "processes": 1, "expected_seconds": 0.34, "measured_seconds": 0.34, "error": 0.0, "efficiency": 1.0
    }  # fmt: skip
    assert two["expected_seconds"] == pytest.approx(1.5 * 0.18 + 0.08 + 2e-4, abs=1e-4)
    assert two["efficiency"] == pytest.approx(0.34 / 0.8)
    assert four["expected_seconds"] == pytest.approx(2 * 1.5 * 0.1 + 0.12 + 6e-4, abs=1e-4)
    assert four["efficiency"] == pytest.approx(0.34 / 1.0)
    assert four["error"] == pytest.approx(0.4206 / 0.5 - 1, abs=1e-3)


def test_gradients_have_four_bytes_per_weight_for_any_dtype_of_the_file(tmp_path: Path) -> None:
    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    assert scaling.gradient_bytes(tmp_path) == 4 * 17


@pytest.mark.full
def test_the_link_between_two_processes_is_measured_with_an_all_reduce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SIZES", (4096, 65536))
    seconds = scaling.time_all_reduce(2)
    assert list(seconds) == [4096, 65536]
    assert min(seconds.values()) > 0
