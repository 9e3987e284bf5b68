"""What the verb calibrate does: fits the probability of one person on half of the people, and judges it on the others.

People and cameras of several data sets are never compared with each other, as pictures of two data sets are told apart
by anything.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acrn_jax import build, files
from acrn_jax.evaluation import held_out, strangers, verdict
from acrn_jax.results import PairCalibration, Pairs
from acrn_jax.runs import evaluation, face, nets, overlap, pair_calibration
from acrn_jax.runs.run import ReidCnnRun, load
from acrn_jax.schema import Labels

MOST = 1_000_000  # pairs of two people that a curve is fitted and judged on
ASKED = (0.01, 0.05, 0.1)  # rates that are judged


class Known(NamedTuple):
    """Distances of images of known people, and of strangers, to each other, of one data set."""

    on: str
    distance: np.ndarray  # [N, N]
    labels: Labels  # [N]; persons 0 are strangers, who are only searched in

    def part(self, seed: int, half: int) -> "Known":
        """One half, 0 or 1, of the people, and of the strangers' images."""
        generator = np.random.default_rng(seed)
        people = generator.permutation(np.unique(self.labels.person_id[self.labels.person_id > 0]))
        mine = np.isin(self.labels.person_id, people[half::2])
        mine |= (self.labels.person_id == 0) & (generator.permutation(len(mine)) % 2 == half)
        rows = np.flatnonzero(mine)
        return Known(self.on, self.distance[np.ix_(rows, rows)], held_out.taken(self.labels, rows))

    @property
    def people(self) -> int:
        return len(np.unique(self.labels.person_id[self.labels.person_id > 0]))

    def pairs(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Distances of pairs of one person (by other cameras, where these are known) and of two; each pair once."""
        known = self.labels.person_id > 0
        once = np.triu(known[:, None] | known, 1)  # but of two strangers, who may be one person
        same, different = (self.distance[kind & once] for kind in held_out.pairs(self.labels))
        if len(different) > MOST:
            different = np.random.default_rng(seed).choice(different, MOST, replace=False)
        return same, different

    def searches(self) -> strangers.Searches:
        """For each known person's image, in all images."""
        known = self.labels.person_id > 0
        person = self.labels.person_id
        return strangers.Searches(self.distance[known], (person[:, None] == person)[known], person[known])


def calibrate(
    workdir: Path,
    datasets: Sequence[str],
    *,
    judge: Sequence[str] = (),
    out: Path | None = None,
    data_dir: str | None = None,
    seed: int = 0,
) -> PairCalibration:
    """Fits the calibration of a re-id run's distance and writes it.

    Args:
      workdir: an ACRN or ReIdCNN run, or a net that ships.
      datasets: prepared sets NAME/CONFIG, of whose query and gallery half of the people, drawn, are fitted on.
      judge: sets that it is judged on alone, with all their people.
      out: the file to write; default: pairs.json of the workdir.
      data_dir: where prepared data is; default: where the run was trained.
      seed: of the draws.

    Raises:
      ValueError: no re-id run, a set that it was trained on, or one with too few people or pairs.
      FileNotFoundError: no run, or no such data.
    """
    run = load(workdir, data_dir=data_dir)
    if not isinstance(run, ReidCnnRun):
        raise ValueError(
            f"{run.workdir} is an attribute net; calibrate takes a re-id run, whose distance tells people."
        )
    if out is None and run.ships:
        raise ValueError(f"{run.workdir} is a net that ships, into which nothing is written; name a file with --out.")
    if not datasets:
        raise ValueError(
            "There are no people to fit on; name a prepared set that was not trained on: --dataset=NAME/CONFIG."
        )
    out = out or run.workdir / pair_calibration.FILE
    nets.refuse_to_write(out)
    files.check(out)
    model = face.load(run.workdir)
    held = [_known(run, model, name) for name in datasets]
    alone = [_known(run, model, name) for name in judge]
    fitted, rest = ([one.part(seed, half) for one in held] for half in (0, 1))
    same, different = _pairs(fitted, seed)
    curve = verdict.fit(same, different)
    table = strangers.thresholds([one.searches() for one in fitted], seed=seed)
    record = Pairs.of(
        metric=pair_calibration.described(run, model.formula),
        fitted_on=", ".join(datasets),
        people=sum(one.people for one in fitted),
        images=sum(len(one.distance) for one in fitted),
        same=len(same),
        different=len(different),
        seed=seed,
        distance=curve.distance.tolist(),
        probability=curve.probability.tolist(),
        thresholds={name: values.tolist() for name, values in table._asdict().items()},
        judged=[_judged(one, curve, table, seed) for one in (*rest, *alone)],
    )
    found = PairCalibration.of(calibration={"pairs": record})
    files.write_json(out, found.to_json())
    return found


def _known(run: ReidCnnRun, model: face.Model, name: str) -> Known:
    """Distances of the query and gallery images of a data set."""
    target = evaluation.target_of(run.config, name)
    splits = [build.open_split(target, part) for part in ("query", "gallery")]
    overlap.check_scored_on(run, target, splits)
    splits = [split.take(np.flatnonzero(split.person_id >= 0)) for split in splits]
    _, first = np.unique(np.concatenate([split.file_name for split in splits]), return_index=True)
    first = np.sort(first)
    parts = [None if of[0] is None else np.concatenate(of)[first] for of in zip(*map(model.parts, splits), strict=True)]
    labels = Labels(*(np.concatenate(of)[first] for of in zip(*(split.labels for split in splits), strict=True)))
    known = Known(name, model.between(parts, parts), labels)
    right, _ = held_out.pairs(labels)
    if known.people < 4 or not right[labels.person_id > 0].any():
        raise ValueError(
            f"{name} shows {known.people} people, or nobody twice; a calibration wants four people or more, and "
            "pictures of one person by two cameras."
        )
    return known


def _pairs(parts: Sequence[Known], seed: int) -> tuple[np.ndarray, np.ndarray]:
    same, different = zip(*(part.pairs(seed) for part in parts), strict=True)
    return np.concatenate(same), np.concatenate(different)


def _judged(part: Known, curve: verdict.Curve, table: strangers.Thresholds, seed: int) -> dict[str, object]:
    """As results.Judged."""
    same, different = part.pairs(seed)
    found = verdict.reliability(curve.probabilities(same), curve.probabilities(different))
    searches = part.searches()
    right, _ = held_out.pairs(part.labels)
    own = np.where(right, part.distance, np.inf)[part.labels.person_id > 0].min(axis=1)
    size = min(int((~searches.own).sum(axis=1).min()), int(table.size[-1]))
    alarms = []
    for rate in ASKED:
        if rate >= table.rate[0]:
            threshold, *_ = table.of(rate, size)
            alarms.append({
                "rate": rate, "size": size, "threshold": threshold,
                "measured": strangers.alarm_rate(searches, threshold, size),
                "found": float(np.mean(own[np.isfinite(own)] < threshold)),
            })  # fmt: skip
    rows = zip(*([None if np.isnan(v) else float(v) for v in values] for values in found), strict=True)
    return {
        "on": part.on,
        "people": part.people,
        "images": len(part.distance),
        "same": len(same),
        "different": len(different),
        "error": found.error,
        "table": [{"weight": w, "probability": p, "same": s} for w, p, s in rows],
        "alarms": alarms,
    }
