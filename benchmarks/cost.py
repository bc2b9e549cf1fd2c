"""What a step of data-parallel training takes on many devices, from figures of one and of the link between them.

Pure functions; scaling.py measures what they need and checks them against real runs.
"""

from dataclasses import dataclass

FP32 = 4  # bytes


@dataclass(frozen=True)
class Device:
    """What one device takes for a step of some rows: seconds = `fixed` + `per_row` × rows.

    `fixed` is what every step costs whatever it holds: the optimizer, and calling the model's operations.
    """

    fixed: float
    per_row: float

    def seconds(self, rows: int) -> float:
        """The seconds of a step of so many rows, without any communication."""
        return self.fixed + self.per_row * rows


@dataclass(frozen=True)
class Link:
    """What lies between two devices: bytes a second in each direction, and the seconds until the first one arrives."""

    bandwidth: float
    latency: float

    def all_reduce(self, size: float, devices: int) -> float:
        """The seconds of summing `size` bytes over devices in a ring, each of which sends `volume` bytes.

        2 (p - 1) messages one after the other, of size / p bytes each: Patarasuk and Yuan 2009, Bandwidth optimal
        all-reduce algorithms for clusters of workstations.
        """
        return volume(size, devices) / self.bandwidth + 2 * (devices - 1) * self.latency


def volume(size: float, devices: int) -> float:
    """The bytes that each device sends, and receives, to sum `size` bytes over all: 2 (p - 1) / p × size."""
    return 2 * (devices - 1) / devices * size


def sharded_volume(size: float, devices: int) -> float:
    """The same where the weights are sharded, too, and gathered for the forward and for the backward pass.

    3 (p - 1) / p × size: Rajbhandari et al. 2020, ZeRO, section 7, for gradients and weights of the same precision.
    """
    return 1.5 * volume(size, devices)


def step_seconds(device: Device, link: Link, *, gradients: float, batch_size: int, devices: int) -> float:
    """The seconds of a step of `batch_size` rows over devices, of which none computes while it communicates.

    Args:
        device: what each takes for its share.
        link: between them.
        gradients: bytes that are summed once a step.
        batch_size: rows of a step, over all devices.
        devices: at most `batch_size`, as there would be nothing for the others to do.
    """
    return device.seconds(-(-batch_size // devices)) + link.all_reduce(gradients, devices)


def efficiency(device: Device, link: Link, *, gradients: float, batch_size: int, devices: int) -> float:
    """The share of their time that p devices would need at the pace of one alone: 1 where they are p times as fast."""
    together = step_seconds(device, link, gradients=gradients, batch_size=batch_size, devices=devices)
    return device.seconds(batch_size) / (devices * together)
