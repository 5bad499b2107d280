"""The loss of BiAlignNet, after the criterion that the released script selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness_semantic_segmentation.networks.layers import Outputs

IGNORE = 255
AUXILIARY_WEIGHT = 0.3
EDGE_WEIGHT = 25.0


def ohem_cross_entropy(
    logits: Tensor, labels: Tensor, *, keep: int, threshold: float = 0.7, ignore: int = IGNORE
) -> Tensor:
    """Mean cross-entropy over hard pixels: online hard example mining over the whole batch.

    With fewer than `keep` valid pixels, the mean over them. Otherwise over valid pixels whose true class has a
    probability of at most t = max(threshold, the keep-th smallest one); ignored pixels count as probability 1 there.
    Without a valid pixel: a zero that keeps the graph.

    Args:
        logits: B x classes x H x W.
        labels: B x H x W, class numbers or `ignore`.
        keep: K, at least 1; it does not scale with the batch.
        threshold: pixels at most as probable count as hard.
        ignore: label of pixels that count nowhere.

    Returns:
        A scalar.
    """
    if keep < 1:
        raise ValueError(f"keep is at least 1, not {keep}")
    valid = labels != ignore
    count = int(valid.sum())
    if count == 0:
        return logits.sum() * 0
    losses = functional.cross_entropy(logits, labels, ignore_index=ignore, reduction="none")
    if count < keep:
        return losses.sum() / count
    with torch.no_grad():
        probability = torch.softmax(logits, dim=1).gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
        probability = probability.masked_fill(~valid, 1)
        bound = probability.flatten().kthvalue(keep).values.clamp(min=threshold)
        hard = valid & (probability <= bound)
    return losses[hard].mean()


def edge_loss(
    probability: Tensor, target: Tensor, form: Literal["double_sigmoid", "corrected"] = "double_sigmoid"
) -> Tensor:
    """Class-balanced binary cross-entropy over all pixels of the batch, without its weight of 25.

    Positives weigh by the share of negatives and the other way round.

    Args:
        probability: B x 1 x H x W in (0, 1), a sigmoid's output.
        target: B x 1 x H x W, 1 on edges.
        form: the released code takes the probability for a logit, so that a second sigmoid is applied; `corrected`
            takes it for what it is.

    Returns:
        A scalar.
    """
    target = target.to(probability.dtype)
    positive = target.mean()
    weight = torch.where(target > 0, 1 - positive, positive)
    if form == "double_sigmoid":
        return functional.binary_cross_entropy_with_logits(probability, target, weight)
    with torch.autocast(probability.device.type, enabled=False):
        return functional.binary_cross_entropy(
            probability.float() if probability.itemsize < 4 else probability, target, weight
        )


def mined_cross_entropy(
    logits: Tensor, labels: Tensor, edge: Tensor, *, keep: int, floor: float = 0.8, ignore: int = IGNORE
) -> Tensor:
    """Edge-guided hard pixel mining: OHEM where the predicted edge probability exceeds `floor`.

    No gradient reaches the edge head. Shapes as for `ohem_cross_entropy`; edge is B x 1 x H x W.
    """
    return ohem_cross_entropy(logits, labels.masked_fill(edge[:, 0] <= floor, ignore), keep=keep, ignore=ignore)


class Losses(NamedTuple):
    """The parts of the loss, weighted, and their sum."""

    segmentation: Tensor
    aux16: Tensor
    aux8: Tensor
    edge: Tensor
    mined: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.segmentation + self.aux16 + self.aux8 + self.edge + self.mined


@dataclass(frozen=True)
class LossOptions:
    """What of the criterion may be changed; every default is what the released script does.

    Attributes:
        keep: K of OHEM for segmentation and both auxiliary heads, over the whole batch on one device.
        keep_mined: K of OHEM for mining.
        threshold: of OHEM.
        edge_floor: edge probability above which pixels are mined.
        edge_form: see `edge_loss`.
        segmentation_weight: outer weight of the segmentation loss and both auxiliary ones.
        edge_weight: outer weight of the edge loss, beside its constant 25.
        mined_weight: outer weight of mining.
        ignore: label of pixels that count nowhere.
    """

    keep: int = 10_000
    keep_mined: int = 5_000
    threshold: float = 0.7
    edge_floor: float = 0.8
    edge_form: Literal["double_sigmoid", "corrected"] = "double_sigmoid"
    segmentation_weight: float = 1.0
    edge_weight: float = 1.0
    mined_weight: float = 1.0
    ignore: int = IGNORE


class SegmentationLoss(nn.Module):
    """OHEM(seg) + 0.3 OHEM(aux16) + 0.3 OHEM(aux8) + 25 edge + mined.

    Parts whose head the network lacks are zero: an FPN learns by OHEM alone.
    """

    def __init__(self, options: LossOptions | None = None) -> None:
        super().__init__()
        self.options = options or LossOptions()

    def forward(self, outputs: Outputs, labels: Tensor, edges: Tensor | None = None) -> Losses:
        """The parts of the loss.

        Args:
            outputs: of a network in training mode.
            labels: B x H x W, int64.
            edges: B x 1 x H x W, of `edges.edge_target`; needed where the network has an edge head.
        """
        options, zero = self.options, outputs.logits.sum() * 0
        weight = options.segmentation_weight
        edge = mined = zero
        if outputs.edge is not None:
            if edges is None:
                raise ValueError("the network has an edge head: the loss needs edge targets")
            edge = EDGE_WEIGHT * options.edge_weight * edge_loss(outputs.edge, edges, options.edge_form)
            mined = options.mined_weight * mined_cross_entropy(
                outputs.logits,
                labels,
                outputs.edge.detach(),
                keep=options.keep_mined,
                floor=options.edge_floor,
                ignore=options.ignore,
            )
        return Losses(
            segmentation=weight * self._ohem(outputs.logits, labels),
            aux16=zero if outputs.aux16 is None else weight * AUXILIARY_WEIGHT * self._ohem(outputs.aux16, labels),
            aux8=zero if outputs.aux8 is None else weight * AUXILIARY_WEIGHT * self._ohem(outputs.aux8, labels),
            edge=edge,
            mined=mined,
        )

    def _ohem(self, logits: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        return ohem_cross_entropy(logits, labels, keep=options.keep, threshold=options.threshold, ignore=options.ignore)
