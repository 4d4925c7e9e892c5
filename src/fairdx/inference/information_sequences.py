"""Confidence sequences of I(group; decision | label), which hold at all looks at once.

The rates of all groups within all labels are covered together: the likelihood of the decisions so far, mixed
over a distribution of rates that is fixed beforehand, over that at the true rates is a martingale that starts
at 1, so it ever reaches 1 / alpha with probability alpha at most (Ville 1939; Robbins 1970). The logarithm of
that ratio is sum_sy n_sy KL(observed || true rate) less what the mixture costs, so that all rates with

    sum_sy n_sy KL(observed_sy || rate_sy) <= radius

are covered, and with them the least and the largest information that such rates have. In the mixture the
groups' rates within a label lie about one common rate, more or less closely: where they are alike, more
groups cost little.

Groups and labels are taken as they came. The information is that of the mix of groups and labels so far.
"""

import numpy as np
from scipy.special import betaln, expit, logit, logsumexp, rel_entr, xlog1py, xlogy

from fairdx.metrics import counts as tables
from fairdx.metrics.inputs import Floats

_COMMON = expit(np.linspace(-7.0, 7.0, 113))  # common rates that are mixed
_CLOSE = np.array([2.0, 20.0, 200.0, 1000.0])  # how closely rates lie about them, as numbers of images
_MULTIPLIERS = np.geomspace(1e-3, 1e3, 41)  # of the constraint, in units of one image; any of them is valid
_HALVINGS = 18  # steps to the common rate
_ROUGH, _FINE = 12, 40  # steps to each group's rate given that
_FARTHEST = 40.0  # logit of a rate
_STEPS = 45  # halvings of a rate
_GRID = 65  # rates of a group at which its divergence from the common one is looked for


def information_sequence(success: Floats, size: Floats, share: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Ends of a confidence sequence of I(S; D | Y) at one or several looks.

    Args:
        success: Positive decisions so far by group and label, shape (..., S, Y).
        size: Images so far, shape (..., S, Y); 0 for groups that are not compared yet. Both may be effective
            numbers of images.
        share: Of groups and labels among the images that are compared, shape (..., S, Y).
        alpha: Probability that an interval ever misses.

    Returns:
        Lower and upper ends in nats, each of shape (...).

    Example:
        >>> size = np.full((2, 2), 500.0)
        >>> success = np.array([[50.0, 400.0], [50.0, 300.0]])
        >>> low, high = information_sequence(success, size, size / size.sum(), 0.05)
        >>> round(float(low), 4), round(float(high), 4)
        (0.0006, 0.0374)
    """
    shape = success.shape[:-2]
    cells = [np.moveaxis(x.reshape(-1, *x.shape[-2:]), 1, 2) for x in (success, size, share)]  # (N, Y, S)
    hits, images, weight = (np.asarray(x, dtype=float) for x in cells)
    rate = tables.ratio(hits, images)
    reach = radius(hits, images, alpha)
    known = np.nan_to_num(rate, nan=0.5)
    low = _least(known, images, weight, reach)
    high = _most(known, images, weight, reach)
    return low.reshape(shape), high.reshape(shape)


def radius(hits: Floats, images: Floats, alpha: float) -> Floats:
    """How far rates may be from those observed, shape (N,); of hits and images (N, Y, S)."""
    rate = np.nan_to_num(tables.ratio(hits, images))
    best = (xlogy(hits, rate) + xlog1py(images - hits, -rate)).sum(axis=(-1, -2))
    prior = np.log(_COMMON * (1 - _COMMON)) / 2  # Beta(1/2, 1/2) on the scale of the logit
    prior = (prior - logsumexp(prior))[:, None] - np.log(len(_CLOSE))
    one, other = _COMMON[:, None] * _CLOSE, (1 - _COMMON)[:, None] * _CLOSE
    mixed = np.zeros((*hits.shape[:-1], *one.shape))
    for s in range(hits.shape[-1]):
        x, m = (v[..., s, None, None] for v in (hits, images))
        mixed += betaln(one + x, other + m - x) - betaln(one, other)
    mixture = logsumexp(mixed + prior, axis=(-1, -2)).sum(-1)
    return np.asarray(best - mixture - np.log(alpha))


def _divergence(first: Floats, second: Floats) -> Floats:
    """KL(first || second) of two rates."""
    return np.asarray(rel_entr(first, second) + rel_entr(1 - first, 1 - second))


def _weighted(weight: Floats, divergence: Floats) -> Floats:
    """Their product; 0 where there is no weight, though the divergence of an absent rate may be infinite."""
    return np.asarray(weight * np.where(weight > 0, divergence, 0.0))


def _distance(images: Floats, observed: Floats, rate: Floats) -> Floats:
    """Of a rate from the one observed in some images; 0 if there are none."""
    found = _divergence(observed, rate)
    return np.asarray(images * np.where(images > 0, found, 0.0))


def _least(rate: Floats, images: Floats, weight: Floats, reach: Floats) -> Floats:
    """The least information, from below: the dual of a convex problem, at several multipliers.

    The information of rates r is the minimum over common rates q of sum weight KL(r || q). With a multiplier
    for the constraint it is minimised over r given q, and over q by halving: what is left is convex in q.
    """
    multiplier = _multipliers(images)[..., None, None]
    pull = tables.ratio(multiplier * images, weight)
    pull, present = np.nan_to_num(pull), weight > 0
    start = np.zeros((*pull.shape[:-1], 1))
    low = np.where(present, rate, 1.0).min(-1, keepdims=True) + start
    high = np.where(present, rate, 0.0).max(-1, keepdims=True) + start
    for _ in range(_HALVINGS):
        common = (low + high) / 2
        above = (weight * (_between(rate, common, pull, _ROUGH) - common)).sum(-1, keepdims=True) > 0
        low, high = np.where(above, common, low), np.where(above, high, common)
    # As `_between` has it: against a common rate of exactly 0, its own of nearly 0 would be infinitely far.
    common = np.maximum((low + high) / 2, expit(-_FARTHEST))
    own = _between(rate, common, pull, _FINE)
    value = _weighted(weight, _divergence(own, common)).sum((-1, -2))
    away = _distance(images, rate, own).sum((-1, -2))
    return np.asarray(np.maximum((value + multiplier[..., 0, 0] * (away - reach)).max(0), 0.0))


def _multipliers(images: Floats) -> Floats:
    """Shape (M, N)."""
    return np.asarray(_MULTIPLIERS[:, None] / np.maximum(images.sum((-1, -2)), 1.0))


def _between(rate: Floats, common: Floats, pull: Floats, steps: int) -> Floats:
    """The rate r that minimises KL(r || common) + pull KL(rate || r), by Newton's method on the logit."""
    ends = np.clip(logit(rate), -_FARTHEST, _FARTHEST), np.clip(logit(common), -_FARTHEST, _FARTHEST)
    low, high = np.minimum(*ends), np.maximum(*ends)
    x = (ends[0] * pull + ends[1]) / (1 + pull)
    for _ in range(steps):
        up, down = pull * (1 - rate) * np.exp(x), pull * rate * np.exp(-x)
        slope = x - ends[1] + up - down + pull * (1 - 2 * rate)
        low, high = np.where(slope < 0, x, low), np.where(slope < 0, high, x)
        step = x - slope / (1 + up + down)
        x = np.where((step > low) & (step < high), step, (low + high) / 2)
    return np.asarray(expit(x))


def _most(rate: Floats, images: Floats, weight: Floats, reach: Floats) -> Floats:
    """The largest information, from above: any common rate and any multiplier give a bound.

    Taken against one common rate, each group's part can be maximised alone, over the rates that the
    constraint would leave it if all other groups stayed where they are.
    """
    total = (rate * images).sum(-1, keepdims=True)
    common = ((total + 0.5) / (images.sum(-1, keepdims=True) + 1))[..., None]
    ends = _farthest(rate, images, reach[:, None, None])
    low, high = (np.arcsin(np.sqrt(end))[..., None] for end in ends)
    own = np.sin(low + (high - low) * np.linspace(0, 1, _GRID)) ** 2
    gain = _weighted(weight[..., None], _divergence(own, common))
    cost = _distance(images[..., None], rate[..., None], own)
    found = np.full(len(rate), np.inf)
    for multiplier in _multipliers(images):
        best = (gain - multiplier[:, None, None, None] * cost).max(-1).sum((-1, -2))
        found = np.minimum(found, best + multiplier * reach)
    return found


def _farthest(rate: Floats, images: Floats, reach: Floats) -> tuple[Floats, Floats]:
    """The rates to either side of one at which its part of the constraint alone reaches the limit."""
    ends = []
    for edge in (0.0, 1.0):
        inside, outside = rate, np.full_like(rate, edge)
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            held = _distance(images, rate, middle) <= reach
            inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
        ends.append(outside)
    return ends[0], ends[1]
