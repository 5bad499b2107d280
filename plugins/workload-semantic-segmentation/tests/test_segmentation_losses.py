"""Losses and edge ground truth: golden numbers and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="session", autouse=True)
def imports() -> None:
    """Torch is imported when the first of these tests runs: who collects tests does not wait for it."""
    global LossOptions, Outputs, SegmentationLoss, Tensor, edge_loss, edge_target, mined_cross_entropy
    global ohem_cross_entropy, torch
    import torch
    from harness_semantic_segmentation.data.edges import edge_target
    from harness_semantic_segmentation.networks.layers import Outputs
    from harness_semantic_segmentation.training.losses import (
        LossOptions,
        SegmentationLoss,
        edge_loss,
        mined_cross_entropy,
        ohem_cross_entropy,
    )
    from torch import Tensor


def drawn() -> tuple[Outputs, Tensor, Tensor]:
    state = np.random.RandomState(7)

    def normal(*shape: int) -> Tensor:
        return torch.as_tensor(state.standard_normal(shape).astype(np.float32))

    seg, aux8, aux16 = (3 * normal(2, 19, 64, 96) for _ in range(3))
    edge = torch.sigmoid(2 * normal(2, 1, 64, 96))
    labels = torch.as_tensor(state.randint(0, 19, (2, 64, 96)))
    labels[:, :4] = 255
    target = torch.as_tensor(state.uniform(size=(2, 1, 64, 96)) < 0.1)
    return Outputs(seg, edge, aux8, aux16), labels, target


def test_golden_losses() -> None:
    losses = SegmentationLoss()(*drawn())
    assert [float(part) for part in losses] == pytest.approx(
        [6.233532, 1.871259, 1.862497, 3.415663, 6.140111], abs=2e-6
    )
    assert float(losses.total) == pytest.approx(19.523062, abs=5e-6)


def test_golden_corrected_edge_loss() -> None:
    losses = SegmentationLoss(LossOptions(edge_form="corrected"))(*drawn())
    assert float(losses.edge) == pytest.approx(4.882115, abs=2e-6)


def test_outer_weights() -> None:
    plain = SegmentationLoss()(*drawn())
    weighted = SegmentationLoss(LossOptions(segmentation_weight=2, edge_weight=3, mined_weight=5))(*drawn())
    factors = [2, 2, 2, 3, 5]
    assert [float(part) for part in weighted] == pytest.approx(
        [factor * float(part) for factor, part in zip(factors, plain, strict=True)], rel=1e-6
    )


def test_fpn_learns_by_ohem_alone() -> None:
    outputs, labels, _ = drawn()
    losses = SegmentationLoss()(Outputs(outputs.logits), labels)
    assert float(losses.total) == float(losses.segmentation)


def test_edge_head_needs_a_target() -> None:
    outputs, labels, _ = drawn()
    with pytest.raises(ValueError, match="edge targets"):
        SegmentationLoss()(outputs, labels)


def two_class_logits(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives class 0 the probabilities, 1 x 2 x 1 x n."""
    return torch.stack([probabilities.log(), (1 - probabilities).log()])[None, :, None]


def test_ohem_above_the_threshold() -> None:
    """All pixels are easier than 0.7, so t is the third smallest probability."""
    probability = torch.tensor([0.95, 0.8, 0.9, 0.85, 0.99], dtype=torch.float64)
    labels = torch.zeros(1, 1, 5, dtype=torch.int64)
    found = ohem_cross_entropy(two_class_logits(probability), labels, keep=3)
    assert float(found) == pytest.approx(-float(torch.tensor([0.8, 0.85, 0.9]).log().mean()), rel=1e-6)


def test_ohem_at_the_threshold() -> None:
    probability = torch.tensor([0.1, 0.65, 0.72, 0.9], dtype=torch.float64)
    labels = torch.zeros(1, 1, 4, dtype=torch.int64)
    found = ohem_cross_entropy(two_class_logits(probability), labels, keep=1)
    assert float(found) == pytest.approx(-float(torch.tensor([0.1, 0.65]).log().mean()), rel=1e-6)


def test_ohem_ignored_pixels_never_count() -> None:
    probability = torch.tensor([0.1, 0.8, 0.9, 0.2], dtype=torch.float64)
    labels = torch.tensor([[[255, 0, 0, 255]]])
    found = ohem_cross_entropy(two_class_logits(probability), labels, keep=2)
    assert float(found) == pytest.approx(-float(torch.tensor([0.8, 0.9]).log().mean()), rel=1e-6)


def test_ohem_below_k_is_plain() -> None:
    outputs, labels, _ = drawn()
    found = ohem_cross_entropy(outputs.logits, labels, keep=10**6)
    assert float(found) == pytest.approx(
        float(torch.nn.functional.cross_entropy(outputs.logits, labels, ignore_index=255)), rel=1e-6
    )


def test_ohem_exactly_k_valid_pixels() -> None:
    probability = torch.tensor([0.8, 0.9, 0.95], dtype=torch.float64)
    labels = torch.zeros(1, 1, 3, dtype=torch.int64)
    found = ohem_cross_entropy(two_class_logits(probability), labels, keep=3)
    assert float(found) == pytest.approx(-float(probability.log().mean()), rel=1e-6)


def test_ohem_refuses_no_pixel() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ohem_cross_entropy(torch.randn(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64), keep=0)


def test_all_ignored_is_a_zero_with_a_graph() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    loss = ohem_cross_entropy(logits, labels, keep=3)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_nothing_above_the_floor_is_a_zero() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    loss = mined_cross_entropy(logits, labels, torch.full((1, 1, 4, 4), 0.8), keep=3)
    assert float(loss.detach()) == 0
    assert loss.requires_grad


def test_another_ignore_label() -> None:
    logits, labels = torch.randn(1, 12, 8, 8), torch.randint(0, 12, (1, 8, 8))
    moved = labels.masked_fill(labels == 11, 255)
    assert torch.equal(ohem_cross_entropy(logits, labels, keep=4, ignore=11), ohem_cross_entropy(logits, moved, keep=4))


def test_mining_sends_no_gradient_to_the_edge_head() -> None:
    (logits, edge, _, _), labels, target = drawn()
    assert edge is not None
    edge.requires_grad_()
    logits.requires_grad_()
    SegmentationLoss()(Outputs(logits, edge), labels, target).mined.backward()
    assert edge.grad is None
    assert logits.grad is not None


def test_edge_loss_weighs_classes_equally() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 0, :] = 1
    half = torch.full((1, 1, 4, 4), 0.5)
    expected = 2 * 0.25 * 0.75 * np.log(2)
    assert float(edge_loss(half, target, "corrected")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["double_sigmoid", "corrected"])
def test_edge_loss_without_edges_is_finite(form: str) -> None:
    loss = edge_loss(torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4), form)  # type: ignore[arg-type]
    assert float(loss) == 0


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_saturated_edges_stay_finite(probability: float) -> None:
    loss = edge_loss(torch.full((1, 1, 4, 4), probability), (torch.rand(1, 1, 4, 4) < 0.5), "corrected")
    assert bool(loss.isfinite())


def scene() -> Tensor:
    labels = torch.zeros(48, 64, dtype=torch.uint8)
    labels[12:36, 20:44] = 1
    labels[20:28, 28:36] = 255
    return labels


def test_golden_edges() -> None:
    edges = edge_target(scene())
    assert edges.dtype == torch.bool
    assert int(edges.sum()) == 484
    assert edges[24].nonzero().flatten().tolist() == [18, 19, 20, 21, 26, 27, 28, 35, 36, 37, 42, 43, 44, 45]


def test_edges_take_batches() -> None:
    both = torch.stack([scene(), scene().flip(0)])
    assert torch.equal(edge_target(both), torch.stack([edge_target(part) for part in both]))
    assert torch.equal(edge_target(both.long()), edge_target(both))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_edges_turn_with_the_image(seed: int, height: int, width: int, cell: int) -> None:
    """A contour does not depend on where it is followed from."""
    state = np.random.RandomState(seed)
    coarse = torch.as_tensor(state.choice([0, 1, 2, 255], (-(-height // cell), -(-width // cell))))
    labels = coarse.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    edges = edge_target(labels)
    assert torch.equal(edge_target(labels.flip(0)), edges.flip(0))
    assert torch.equal(edge_target(labels.flip(1)), edges.flip(1))
    assert torch.equal(edge_target(labels.T), edges.T)
    assert not edges[:3].any()
    assert not edges[:, -3:].any()


def test_ignored_image_has_no_edges() -> None:
    assert not edge_target(torch.full((30, 30), 255)).any()
    assert not edge_target(torch.zeros(30, 30, dtype=torch.int64)).any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_edges_equal_opencv(seed: int, cell: int) -> None:
    """The definition, run: only where OpenCV is installed."""
    cv2 = pytest.importorskip("cv2")
    coarse = np.random.RandomState(seed).choice([0, 1, 2, 255], (12, 16))
    labels = coarse.repeat(cell, 0).repeat(cell, 1)
    expected = np.zeros(labels.shape, np.uint8)
    for label in range(3):
        contours, _ = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(expected, contours, -1, 1, 2)
    expected[:3] = expected[-3:] = 0
    expected[:, :3] = expected[:, -3:] = 0
    assert np.array_equal(edge_target(torch.as_tensor(labels)).numpy(), expected.astype(bool))
