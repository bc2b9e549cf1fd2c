"""The loss with a teacher, in numbers worked by hand, for each kind of task."""

import math

import pytest
import torch

from reprise.core.config import Distill
from reprise.tasks.classification import Classification
from reprise.tasks.kind import TaskKind
from reprise.tasks.multi_label import MultiLabel
from reprise.tasks.regression import Regression
from reprise.train.loss import summed_loss

TWO = Classification(("no", "yes"))
SEVERAL = MultiLabel(("red", "green"))
NUMBER = Regression(label_scale=(10.0, 2.0))


def distill(temperature: float | None = 2.0, alpha: float = 1.0) -> Distill:
    return Distill(teacher="data/own/teacher", temperature=temperature, alpha=alpha)  # type: ignore[call-arg]


def loss(kind: TaskKind, section: Distill | None, logits: list[list[float]], labels: list, teacher: list) -> float:  # type: ignore[type-arg]
    return summed_loss(kind, section, torch.tensor(logits), torch.tensor(labels), teacher=torch.tensor(teacher)).item()


def test_the_loss_of_labels_is_the_divergence_of_tempered_probabilities() -> None:
    # At temperature 2, the teacher's probabilities are 1/4 and 3/4, the student's 1/2 each.
    teacher = [[0.0, 2 * math.log(3)]]
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert loss(TWO, distill(), [[1.0, 1.0]], [0], teacher) == pytest.approx(expected, rel=1e-6)
    mixed = 0.7 * math.log(2) + 0.3 * expected
    assert loss(TWO, distill(alpha=0.3), [[1.0, 1.0]], [0], teacher) == pytest.approx(mixed, rel=1e-6)


def test_a_student_that_equals_its_teacher_has_no_loss_of_it() -> None:
    assert loss(TWO, distill(), [[0.3, -2.0]], [0], [[1.3, -1.0]]) == pytest.approx(0, abs=1e-6)


def test_with_alpha_0_or_without_a_teacher_the_loss_is_that_of_the_labels_bit_for_bit() -> None:
    cases: list[tuple[TaskKind, torch.Tensor, float | None]] = [
        (TWO, torch.tensor([0, 1, 1]), 2.0),
        (SEVERAL, torch.tensor([[0, 1], [1, 1], [0, 0]]), 2.0),
        (NUMBER, torch.tensor([9.0, 11.5, 14.0]), None),
    ]
    torch.manual_seed(0)
    for kind, labels, temperature in cases:
        logits, teacher = torch.randn(2, 3, 1 if kind is NUMBER else 2)
        expected = kind.summed_loss(logits, labels)
        assert torch.equal(summed_loss(kind, distill(temperature, 0.0), logits, labels, teacher=teacher), expected)
        assert torch.equal(summed_loss(kind, distill(temperature, 0.5), logits, labels), expected)
        assert torch.equal(summed_loss(kind, None, logits, labels, teacher=teacher), expected)


def test_the_gradients_of_high_temperatures_are_as_large() -> None:
    # For small logits the gradient is (student - teacher) / outputs at any high temperature (Hinton et al. 2015).
    found = []
    for temperature in (50.0, 100.0):
        logits = torch.tensor([[0.2, -0.2]], requires_grad=True)
        summed_loss(
            TWO, distill(temperature), logits, torch.tensor([0]), teacher=torch.tensor([[-0.2, 0.2]])
        ).backward()
        assert logits.grad is not None
        found.append(logits.grad[0, 0].item())
    assert found == pytest.approx([0.2, 0.2], rel=1e-3)


def test_the_loss_of_any_number_of_labels_is_the_mean_of_their_cross_entropies() -> None:
    # At temperature 2, the teacher's probabilities are 3/4 and 1/2, the student's 1/2 each.
    teacher = [[2 * math.log(3), 0.0]]
    assert loss(SEVERAL, distill(), [[0.0, 0.0]], [[1, 0]], teacher) == pytest.approx(4 * math.log(2), rel=1e-6)
    student = [[2 * math.log(3), 0.0]]
    own = (-0.75 * math.log(0.75) - 0.25 * math.log(0.25) + math.log(2)) / 2
    assert loss(SEVERAL, distill(), student, [[1, 0]], teacher) == pytest.approx(4 * own, rel=1e-6)


def test_the_loss_of_numbers_is_the_squared_difference_in_the_unit_of_training() -> None:
    assert loss(NUMBER, distill(None), [[13.0], [8.0]], [0.0, 0.0], [[11.0], [8.0]]) == 1.0  # (2 / 2)²


@pytest.mark.parametrize(
    ("kind", "labels", "temperature"),
    [(TWO, [0, -100], 2.0), (SEVERAL, [[0, 1], [-100, -100]], 2.0), (NUMBER, [9.0, math.nan], None)],
)
def test_padding_rows_have_no_loss_and_no_gradient(kind: TaskKind, labels: list, temperature: float | None) -> None:  # type: ignore[type-arg]
    logits = torch.randn(2, 1 if kind is NUMBER else 2, requires_grad=True)
    teacher = torch.randn(2, logits.shape[1])
    targets = torch.tensor(labels)
    found = summed_loss(kind, distill(temperature), logits, targets, teacher=teacher)
    found.backward()
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0.0] * logits.shape[1]
    expected = summed_loss(kind, distill(temperature), logits[:1], targets[:1], teacher=teacher[:1])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_label_that_the_teacher_excludes_is_no_number_that_is_not_finite() -> None:
    certain = [[-math.inf, 0.0]]  # of an ensemble whose members all gave probability 0
    assert loss(TWO, distill(), [[0.0, 0.0]], [1], certain) == pytest.approx(4 * math.log(2), rel=1e-6)
    assert math.isfinite(loss(SEVERAL, distill(), [[0.0, 0.0]], [[1, 0]], [[-math.inf, math.inf]]))


def test_class_weights_weigh_the_part_of_the_teacher_too() -> None:
    weighted = Classification(("no", "yes"), class_weights=(3.0, 0.5))
    teacher = [[0.0, 2 * math.log(3)]]
    plain = [loss(TWO, distill(), [[1.0, 0.0]], [label], teacher) for label in (0, 1)]
    found = [loss(weighted, distill(), [[1.0, 0.0]], [label], teacher) for label in (0, 1)]
    assert found == pytest.approx([3 * plain[0], plain[1] / 2], rel=1e-6)
