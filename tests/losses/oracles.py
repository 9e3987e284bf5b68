"""Distances, miners and triplet losses once more: loops over numbers in float64, and derivatives by differences."""

import math

import numpy as np


def distance(x, y, kind):
    """One distance of two vectors."""
    x, y = np.asarray(x, np.float64).tolist(), np.asarray(y, np.float64).tolist()
    if kind == "cosine":
        dot = sum(a * b for a, b in zip(x, y, strict=True))
        norms = math.hypot(*x), math.hypot(*y)
        return 1.0 if 0 in norms else max(0.0, 1 - dot / norms[0] / norms[1])
    return math.dist(x, y) ** (2 if kind == "squared_euclidean" else 1)


def distances(x, y, kind):
    """All of them, [N, M]."""
    return np.array([[distance(a, b, kind) for b in y] for a in x])


def pair_mean(x, kind):
    """Mean over ordered pairs of different rows."""
    values = [distance(a, b, kind) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    return sum(values) / len(values)


def mine(name, table, person):
    """Triplets (anchor, positive, negative) by their definitions; the first of equally far ones."""
    rows = range(len(person))
    found = []
    if name == "offline":
        third = len(person) // 3
        return [(i, third + i, 2 * third + i) for i in range(third)]
    for a in rows:
        positives = [i for i in rows if person[i] == person[a] and i != a]
        negatives = [i for i in rows if person[i] != person[a]]
        if not positives or not negatives:
            continue
        if name == "batch_hard":
            farthest, nearest = positives[0], negatives[0]
            for p in positives:
                if table[a][p] > table[a][farthest]:
                    farthest = p
            for n in negatives:
                if table[a][n] < table[a][nearest]:
                    nearest = n
            found.append((a, farthest, nearest))
        elif name == "batch_all":
            found += [(a, p, n) for p in positives for n in negatives]
        elif name == "semi_hard":
            for p in positives:
                chosen = None
                for n in negatives:
                    if table[a][n] > table[a][p] and (chosen is None or table[a][n] < table[a][chosen]):
                        chosen = n
                if chosen is None:
                    chosen = max(negatives, key=lambda n: table[a][n])
                found.append((a, p, chosen))
    return found


def loss_of_gap(gap, margin, temperature=1.0):
    """Loss of one triplet."""
    if margin == "soft":
        return temperature * math.log(1 + math.exp(gap / temperature))
    return max(0.0, gap + margin)


def triplet_loss(triplets, terms, *, margin, temperature=1.0, reduction="mean"):
    """Mean loss, for terms (factor, table of distances) that add up to the gap."""
    losses = []
    for a, p, n in triplets:
        gap = sum(factor * (table[a][p] - table[a][n]) for factor, table in terms)
        losses.append(loss_of_gap(gap, margin, temperature))
    if reduction == "active_only":
        losses = [loss for loss in losses if loss > 0]
    return sum(losses) / len(losses) if losses else 0.0


def gradient(function, x, step=1e-6):
    """Central differences of a scalar function at x, in float64."""
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[place] += step
        behind[place] -= step
        result[place] = (function(ahead) - function(behind)) / (2 * step)
    return result
