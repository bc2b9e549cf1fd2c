"""XLA may compile programs only for new batch shapes; on other devices nothing is counted.

Here the number of programs is set by hand; the tests with the marker xla count real compilations.
"""

import pytest
import torch

from reprise.core.errors import UserError
from reprise.modeling.bucketing import Shapes
from reprise.modeling.xla import CompilationMonitor

XLA = torch.device("xla")


def train_shapes(*sizes: tuple[int, int]) -> Shapes:
    """Return training shapes, each given as rows and tokens."""
    return {("train", rows, length) for rows, length in sizes}


class FakeMonitor(CompilationMonitor):
    """A monitor with a settable number of programs."""

    programs = 0


def test_one_program_per_new_shape_is_accepted() -> None:
    shapes: Shapes = train_shapes((32, 16))
    monitor = FakeMonitor(XLA, shapes)
    for programs, new_shapes in (
        (7, train_shapes((32, 16), (32, 64))),
        (7, set()),
        (8, train_shapes((32, 128))),
        (9, train_shapes((8, 16), (8, 64))),
    ):
        monitor.programs = programs
        shapes |= new_shapes
        monitor.after_epoch()


def test_training_and_prediction_batches_of_one_size_are_two_shapes() -> None:
    shapes: Shapes = {("predict", 32, 16)}
    monitor = FakeMonitor(XLA, shapes)
    monitor.after_epoch()
    monitor.programs += 1
    shapes |= train_shapes((32, 16))
    monitor.after_epoch()


def test_the_first_epoch_may_compile_any_number_of_programs() -> None:
    monitor = FakeMonitor(XLA, train_shapes((32, 16)))
    monitor.programs = 40
    monitor.after_epoch()
    monitor.after_epoch()


@pytest.mark.parametrize(
    ("programs", "new_shapes", "message"),
    [
        (
            1,
            set(),
            "compiled 1 programs in this epoch for 0 new batch shapes (all shapes: train 8 × 64, train 32 × 16)",
        ),
        (
            3,
            train_shapes((32, 128)),
            "compiled 3 programs in this epoch for 1 new batch shapes "
            "(all shapes: train 8 × 64, train 32 × 16, train 32 × 128)",
        ),
    ],
)
def test_programs_without_a_new_shape_are_reported_with_all_shapes(
    programs: int, new_shapes: Shapes, message: str
) -> None:
    shapes: Shapes = train_shapes((32, 16), (8, 64))
    monitor = FakeMonitor(XLA, shapes)
    monitor.programs = 5
    monitor.after_epoch()
    monitor.programs += programs
    shapes |= new_shapes
    with pytest.raises(UserError) as error:
        monitor.after_epoch()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_each_epoch_is_compared_with_the_previous_one() -> None:
    shapes: Shapes = train_shapes((32, 16))
    monitor = FakeMonitor(XLA, shapes)
    monitor.programs = 5
    monitor.after_epoch()
    shapes |= train_shapes((32, 64), (32, 128))  # two shapes but one program: the difference does not carry over
    monitor.programs = 6
    monitor.after_epoch()
    monitor.programs = 7
    with pytest.raises(UserError, match=r"compiled 1 programs in this epoch for 0 new batch shapes"):
        monitor.after_epoch()


def test_the_metrics_are_the_numbers_of_lengths_and_programs() -> None:
    monitor = FakeMonitor(XLA, train_shapes((32, 16), (32, 64), (8, 16)))
    monitor.programs = 6
    assert monitor.metrics() == {"num_bucket_lengths": 2, "compilations": 6}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_other_devices_are_not_monitored(device: str) -> None:
    shapes: Shapes = set()
    monitor = FakeMonitor(torch.device(device), shapes)
    for programs in (5, 50, 500):
        monitor.programs = programs
        monitor.after_epoch()
    assert monitor.metrics() == {}
    assert CompilationMonitor(torch.device(device), shapes).metrics() == {}  # does not import torch_xla
