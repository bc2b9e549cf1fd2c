"""A cost model of data-parallel training: seconds per step on many devices.

Pure functions; scaling.py measures their inputs and checks their results against real runs.
"""

from dataclasses import dataclass

FP32 = 4  # bytes per value


@dataclass(frozen=True)
class Device:
    """The compute time of one device: seconds per step = `fixed` + `per_row` × rows.

    `fixed` is the cost of a step that does not depend on the batch: the optimizer and operator overhead.
    """

    fixed: float
    per_row: float

    def seconds(self, rows: int) -> float:
        """Return the seconds of a step of `rows` rows, without communication."""
        return self.fixed + self.per_row * rows


@dataclass(frozen=True)
class Link:
    """The link between two devices: bytes/s in each direction, and latency in seconds."""

    bandwidth: float
    latency: float

    def all_reduce(self, size: float, devices: int) -> float:
        """Return the seconds of a ring all-reduce of `size` bytes over `devices` devices.

        Each device sends 2 (p - 1) sequential messages of size / p bytes: Patarasuk and Yuan 2009, Bandwidth optimal
        all-reduce algorithms for clusters of workstations.
        """
        return volume(size, devices) / self.bandwidth + 2 * (devices - 1) * self.latency


def volume(size: float, devices: int) -> float:
    """Return the bytes that each device sends in an all-reduce: 2 (p - 1) / p × size."""
    return 2 * (devices - 1) / devices * size


def sharded_volume(size: float, devices: int) -> float:
    """Return the bytes sent with sharded weights, all-gathered for forward and backward.

    3 (p - 1) / p × size: Rajbhandari et al. 2020, ZeRO, section 7, for gradients and weights of the same precision.
    """
    return 1.5 * volume(size, devices)


def step_seconds(device: Device, link: Link, *, gradients: float, batch_size: int, devices: int) -> float:
    """Return the seconds of a step, without overlap of computation and communication.

    Args:
        device: the compute time of each device.
        link: the link between devices.
        gradients: bytes that are summed once per step.
        batch_size: rows per step, over all devices.
        devices: number of devices, at most `batch_size`.
    """
    return device.seconds(-(-batch_size // devices)) + link.all_reduce(gradients, devices)


def efficiency(device: Device, link: Link, *, gradients: float, batch_size: int, devices: int) -> float:
    """Return the parallel efficiency: the speed-up over one device, per device."""
    together = step_seconds(device, link, gradients=gradients, batch_size=batch_size, devices=devices)
    return device.seconds(batch_size) / (devices * together)
