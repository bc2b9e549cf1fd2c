"""The watch over XLA's compilations: a program for a new shape and for nothing else; nothing elsewhere.

What XLA really compiles is counted in its own environment; here the count is made up.
"""

import pytest
import torch

from reprise.core.errors import UserError
from reprise.modeling.bucketing import Shapes
from reprise.modeling.xla import CompilationMonitor

XLA = torch.device("xla")


def trained(*sizes: tuple[int, int]) -> Shapes:
    """Shapes of batches to train with: their rows and tokens."""
    return {("train", rows, length) for rows, length in sizes}


class Counted(CompilationMonitor):
    """A watch whose count of programs is set by hand."""

    programs = 0


def test_a_program_for_each_new_shape_is_what_is_expected() -> None:
    shapes: Shapes = trained((32, 16))
    watch = Counted(XLA, shapes)
    for programs, met in (
        (7, trained((32, 16), (32, 64))),
        (7, set()),
        (8, trained((32, 128))),
        (9, trained((8, 16), (8, 64))),
    ):
        watch.programs = programs
        shapes |= met
        watch.after_epoch()


def test_batches_of_one_size_to_train_and_to_predict_are_two_shapes() -> None:
    shapes: Shapes = {("predict", 32, 16)}
    watch = Counted(XLA, shapes)
    watch.after_epoch()
    watch.programs += 1
    shapes |= trained((32, 16))
    watch.after_epoch()


def test_the_first_epoch_may_compile_what_it_needs() -> None:
    watch = Counted(XLA, trained((32, 16)))
    watch.programs = 40
    watch.after_epoch()
    watch.after_epoch()


@pytest.mark.parametrize(
    ("programs", "met", "said"),
    [
        (
            1,
            set(),
            "compiled 1 programs in this epoch for 0 new batch shapes (all shapes: train 8 × 64, train 32 × 16)",
        ),
        (
            3,
            trained((32, 128)),
            "compiled 3 programs in this epoch for 1 new batch shapes "
            "(all shapes: train 8 × 64, train 32 × 16, train 32 × 128)",
        ),
    ],
)
def test_programs_that_no_new_shape_asks_for_are_told_with_the_shapes(programs: int, met: Shapes, said: str) -> None:
    shapes: Shapes = trained((32, 16), (8, 64))
    watch = Counted(XLA, shapes)
    watch.programs = 5
    watch.after_epoch()
    watch.programs += programs
    shapes |= met
    with pytest.raises(UserError) as refused:
        watch.after_epoch()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_each_epoch_is_compared_with_the_one_before() -> None:
    shapes: Shapes = trained((32, 16))
    watch = Counted(XLA, shapes)
    watch.programs = 5
    watch.after_epoch()
    shapes |= trained((32, 64), (32, 128))  # two shapes, and one program: what is left over is not saved for later
    watch.programs = 6
    watch.after_epoch()
    watch.programs = 7
    with pytest.raises(UserError, match=r"compiled 1 programs in this epoch for 0 new batch shapes"):
        watch.after_epoch()


def test_the_figures_are_the_lengths_of_batches_and_the_programs() -> None:
    watch = Counted(XLA, trained((32, 16), (32, 64), (8, 16)))
    watch.programs = 6
    assert watch.metrics() == {"num_bucket_lengths": 2, "compilations": 6}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_elsewhere_nothing_is_counted_or_told(device: str) -> None:
    shapes: Shapes = set()
    watch = Counted(torch.device(device), shapes)
    for programs in (5, 50, 500):
        watch.programs = programs
        watch.after_epoch()
    assert watch.metrics() == {}
    assert CompilationMonitor(torch.device(device), shapes).metrics() == {}  # nor is XLA's own count asked for
