"""Losses: the loss of ``train.py``, and the two published ones for comparison.

Source of the published losses: Li et al., arXiv 2310.07511, and the behaviour of the published code
(commit 0ca8a7c), pinned by golden values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BACKGROUND, ANOMALY, IGNORED, LARGE, REAL = 0, 1, 2, 3, 4
THRESHOLDS = (0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
SPACING = 0.05
"""Step between the published code's six false alarm rates, 0.05 to 0.3."""
ANCHORS = 0.175
"""Mean of these rates."""


class _Multiplier(torch.autograd.Function):
    """A Lagrange multiplier: not negative, with a reversed gradient."""

    @staticmethod
    def forward(_ctx: Any, multiplier: Tensor) -> Tensor:
        return multiplier.clamp(min=0)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0]


def published_pixel_loss(scores: Tensor, labels: Tensor, multipliers: Tensor) -> Tensor:
    """Compute the published pixel-level ranking loss as the published code does.

    For each of six thresholds t the cross entropy of every pixel is weighted: anomalies at or below
    t and background at or above t by -log t, anomalies above t by 1, background below t by 1/2;
    background is also weighted by 0.2 times its multiplier. A running (a + b) / 2 joins the
    thresholds, so the last one counts half and the first 1/64. The prior of anomalies is subtracted
    and the result clamped at 0.

    Args:
        scores: (n,) in 0..1.
        labels: (n,) 1 anomaly; anything else is background.
        multipliers: (6,), reversed gradient.

    Returns:
        () the loss, with the published factor of 5.
    """
    anomaly = labels == ANOMALY
    entropy = F.binary_cross_entropy(scores, anomaly.to(scores.dtype), reduction="none")
    lambdas = _Multiplier.apply(multipliers.reshape(-1))
    total = scores.new_zeros(())
    for threshold, multiplier in zip(THRESHOLDS, lambdas, strict=True):
        wrong = torch.where(anomaly, scores <= threshold, scores >= threshold)
        usual = torch.where(anomaly, 1.0, 0.5)
        weight = torch.where(wrong, -torch.log(scores.new_tensor(threshold) + 1e-8), usual)
        weight = torch.where(anomaly, weight, weight * multiplier * 0.2)
        total = (total + (entropy * weight).mean()) / 2
    prior = (anomaly.sum() + 1) / (len(labels) + 2)
    return (total - prior * ANCHORS).clamp(min=0) * 100 * SPACING


def _spread(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the compactness of features (n, c) around their centre, and the centre (c,)."""
    centre = features.mean(0)
    squared = (features - centre).square().sum(1)
    radius = torch.sqrt(squared + 1e-8).mean()
    outside = F.relu(squared - radius**2).mean()
    return radius**2 + 10 * outside, centre


def _normal(labels: Tensor) -> Tensor:
    """Return where labels are background of any kind, or large normal objects."""
    return (labels != ANOMALY) & (labels != IGNORED)


def published_feature_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Compute the published feature-level loss, before its factor of 0.1.

    It is low if normal pixels (background and large objects) and anomalies are each compact, and
    their centres far apart.

    Args:
        features: (c, h, w) in 0..1.
        labels: (h, w), 0 to 4.

    Returns:
        () the loss; 0 without anomalies, as published.
    """
    anomalies = features[:, labels == ANOMALY].T
    if len(anomalies) == 0:
        return features.new_zeros(())
    normal, centre = _spread(features[:, _normal(labels)].T)
    strange, other = _spread(anomalies)
    return normal + strange - F.pairwise_distance(centre, other)


def published_loss(scores: Tensor, features: Tensor, labels: Tensor, multipliers: Tensor) -> Tensor:
    """Compute both published losses of a batch, with the published factors.

    Args:
        scores: (b, h, w) in 0..1.
        features: (b, c, h, w) in 0..1.
        labels: uint8 (b, h, w), 0 to 4.
        multipliers: (6,), for :func:`published_pixel_loss`.

    Returns:
        () the loss.
    """
    # Large normal objects count as background in both losses.
    counted = labels != IGNORED
    pixel = published_pixel_loss(scores[counted], labels[counted], multipliers)
    parts = [published_feature_loss(f, m) for f, m in zip(features, labels, strict=True)]
    return pixel + 0.1 * torch.stack(parts).mean()


SATURATED = 5.0
"""Logit beyond which two views may differ: both then say the same."""


def consistency_loss(logits: Tensor, other: Tensor) -> Tensor:
    """Compute how differently two views of the same pixels are scored.

    A score should depend on the ground, not on how the scene was cut or turned.

    Args:
        logits: (b, h, w), scores of one view before the sigmoid.
        other: (b, h, w), those of the other view at the same pixels.

    Returns:
        () the mean squared difference of the logits, clipped to +-:data:`SATURATED`.
    """
    ours, theirs = (z.clamp(-SATURATED, SATURATED) for z in (logits, other))
    return (ours - theirs).square().mean()


RANKING = 1.25
"""Weight of the ranking part: 0.5 gave .962 mean AUC on hyperspectral scenes, this .966."""


def detection_loss(
    logits: Tensor, labels: Tensor, share: float = 0.1, across: float = 0.0
) -> Tensor:
    """Compute the loss of ``train.py``: a calibrated part, and a ranking part per window.

    The cross entropy keeps empty windows dark. AUC measures the ranking: an anomaly should score
    above the background of its own window, above all above its highest scores. Unlike the
    published loss it raises the weight of the hardest pixels.

    Args:
        logits: (b, h, w), scores before the sigmoid.
        labels: uint8 (b, h, w), 0 to 4; 2 is ignored.
        share: Weight of the anomalies' mean cross entropy relative to the background's.
        across: Weight of a ranking of the anomalies of all windows against the highest simulated
            background of all windows, 0 or more. A level is one threshold for all scenes.

    Returns:
        () the loss.
    """
    anomaly, normal = labels == ANOMALY, _normal(labels)
    loss = F.softplus(logits[normal]).mean()
    if not anomaly.any():
        return loss
    if across:
        loss = loss + across * _across(logits[anomaly], logits[normal & (labels != REAL)])
    loss = loss + share * F.softplus(-logits[anomaly]).mean()
    ranks = [
        _ranking(z[a], z[n]) for z, a, n in zip(logits, anomaly, normal, strict=True) if a.any()
    ]
    return loss + RANKING * torch.stack(ranks).mean()


def _across(anomalies: Tensor, normal: Tensor) -> Tensor:
    """Return the mean of softplus(normal - anomaly) over pairs with the highest .05 % of normals.

    Real background may hold anomalies without a label, so it takes no part.
    """
    if not len(normal):
        return anomalies.new_zeros(())
    highest = normal.topk(1 + len(normal) // 2000).values
    anomalies = anomalies[:: max(1, len(anomalies) // 512)]
    return F.softplus(highest[:, None] - anomalies).mean()


def _ranking(anomalies: Tensor, normal: Tensor) -> Tensor:
    """Return the mean of softplus(normal - anomaly) over pairs, of all normals and the hardest."""
    hardest = normal.topk(min(len(normal), 1 + len(normal) // 50)).values
    evenly = normal[:: max(1, len(normal) // 256)]
    anomalies = anomalies[:: max(1, len(anomalies) // 128)]
    easy = F.softplus(evenly[:, None] - anomalies).mean()
    return easy + 0.5 * F.softplus(hardest[:, None] - anomalies).mean()
