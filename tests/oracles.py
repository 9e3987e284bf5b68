"""Plain loops that say what the evaluation room must compute: slow, literal, and written apart from it."""

import itertools

import numpy as np


def ranking(distances, query, gallery, protocol, no_match):
    """Metrics, image by image; None where every query is skipped, or an error is due."""
    average, trapezoid, penalty, first = [], [], [], []
    for i, (person, camera) in enumerate(zip(*query, strict=True)):
        listed = []
        for j, (other, other_camera) in enumerate(zip(*gallery, strict=True)):
            if other == -1:
                continue
            if protocol.startswith(("market1501", "cuhk03")) and other == person and other_camera == camera:
                continue
            if protocol == "all_vs_all" and i == j:
                continue
            listed.append((distances[i][j], j, other == person))
        hits = [place for place, (_, _, right) in enumerate(sorted(listed), start=1) if right]
        if not hits:
            if no_match == "error":
                return None
            if no_match == "count_as_miss":
                average.append(0.0), trapezoid.append(0.0), penalty.append(0.0), first.append(float("inf"))
            continue
        average.append(np.mean([n / hit for n, hit in enumerate(hits, start=1)]))
        old = [1.0 if hit == 1 else (n - 1) / (hit - 1) for n, hit in enumerate(hits, start=1)]
        new = [n / hit for n, hit in enumerate(hits, start=1)]
        trapezoid.append(np.mean([(a + b) / 2 for a, b in zip(old, new, strict=True)]))
        penalty.append(len(hits) / hits[-1])
        first.append(hits[0])
    if not average or min(first) == float("inf"):  # misses alone are no score
        return None
    means = {"mAP_precision": np.mean(average), "mAP_trapezoid": np.mean(trapezoid), "mINP": np.mean(penalty)}
    return means | {f"rank{k}": np.mean([hit <= k for hit in first]) for k in (1, 5, 10, 20)}


def drawn(distances, query, gallery, protocol, no_match, draws):
    """Means and deviations over repeats, draw by draw: [(number of the repeat, of the round, query, images)]."""
    rounds = {}
    for repeat, number, i, images in draws:
        listed = sorted((distances[i][j], j) for j in images)
        hits = [place for place, (_, j) in enumerate(listed, start=1) if gallery.person_id[j] == query.person_id[i]]
        if not hits and no_match == "error":
            return None
        if hits or no_match == "count_as_miss":
            hit = hits[0] if hits else float("inf")
            scores = {f"rank{k}": float(hit <= k) for k in (1, 5, 10, 20)}
            if protocol == "cuhk03_single_shot":
                scores |= {"mAP_precision": 1 / hit, "mAP_trapezoid": 1.0 if hit == 1 else 0.5 / hit, "mINP": 1 / hit}
            rounds.setdefault(repeat, {}).setdefault(number, []).append(scores)
    if {(repeat, number) for repeat, number, _, _ in draws} != {(r, n) for r, ns in rounds.items() for n in ns}:
        return None
    names = next(iter(next(iter(rounds.values())).values()))[0]
    repeats = {
        name: [np.mean([np.mean([s[name] for s in scores]) for scores in ns.values()]) for ns in rounds.values()]
        for name in names
    }
    means = {name: np.mean(values) for name, values in repeats.items()}
    return means, {name: np.std(values, ddof=1) for name, values in repeats.items()}


def kissme_covariances(x, person_id, camera_id):
    """Mean outer products of differences over similar and dissimilar pairs, and the numbers of pairs."""
    shown = [i for i in range(len(x)) if person_id[i] > 0]
    known = camera_id is not None and all(camera_id[i] != -1 for i in shown)
    sums, counts = [np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1],) * 2)], [0, 0]
    for a, b in itertools.combinations(shown, 2):
        if known and camera_id[a] == camera_id[b]:
            continue
        kind = int(person_id[a] != person_id[b])
        sums[kind] += np.outer(x[a] - x[b], x[a] - x[b])
        counts[kind] += 1
    return sums[0] / counts[0], sums[1] / counts[1], counts


def attributes(probabilities, labels, thresholds):
    """The mA per attribute and the four instance-based scores, cell by cell."""
    each = []
    for a in range(labels.shape[1]):
        hits, counts = {0: 0, 1: 0}, {0: 0, 1: 0}
        for p, label in zip(probabilities[:, a], labels[:, a], strict=True):
            if label != -1:
                counts[label] += 1
                hits[label] += int((p > thresholds[a]) == bool(label))
        each.append((hits[0] / counts[0] + hits[1] / counts[1]) / 2 if counts[0] and counts[1] else float("nan"))
    accuracy, precision, recall = [], [], []
    for row, known in zip(probabilities, labels, strict=True):
        truth = {a for a, label in enumerate(known) if label == 1}
        said = {a for a, p in enumerate(row) if p > thresholds[a] and known[a] != -1}
        if truth:
            accuracy.append(len(truth & said) / len(truth | said))
            precision.append(len(truth & said) / len(said) if said else 0.0)
            recall.append(len(truth & said) / len(truth))
    means = [np.mean(values) for values in (accuracy, precision, recall)]
    f1 = 2 * means[1] * means[2] / (means[1] + means[2]) if means[1] + means[2] else 0.0
    return each, [*means, f1]


def thresholds(probabilities, labels, target):
    """For each attribute the best score that any threshold reaches, and the thresholds that reach it."""
    found = []
    for a in range(labels.shape[1]):
        pairs = [(float(p), y) for p, y in zip(probabilities[:, a], labels[:, a], strict=True) if y != -1]
        scores = {}
        for cut in sorted({-1.0, *(p for p, _ in pairs)}):
            true, false = sum(y for p, y in pairs if p > cut), sum(1 - y for p, y in pairs if p > cut)
            positives, negatives = sum(y for _, y in pairs), sum(1 - y for _, y in pairs)
            if target == "mA" and positives and negatives:
                scores[cut] = true / positives + (negatives - false) / negatives
            elif target == "f1" and positives:
                scores[cut] = 2 * true / (true + false + positives)
        best = max(scores.values(), default=None)
        found.append((best, [cut for cut, score in scores.items() if abs(score - best) < 1e-12]))
    return found
