"""Whether one ranking is better than another: p-values, power and joins against scipy, loops and simulation."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

import acrn_jax
from acrn_jax.evaluation import comparison
from acrn_jax.evaluation.comparison import Scored

ROOT = pathlib.Path(__file__).parents[2]


def scored(values, person, **more):
    """One metric's values [Q], all of them counted."""
    values = np.asarray(values, float)
    metric = more.pop("metric", "mAP_precision")
    counted = more.pop("counted", np.ones(len(values), bool))
    means = {metric: float(values[counted].mean())}
    return Scored({metric: values}, means, counted, np.asarray(person), **more)


def only(found, name="b"):
    (difference,) = found.others[name]
    return difference


def test_permutation_agrees_with_scipy():
    """Every pattern of eight people, and drawn ones of forty."""
    rng = np.random.default_rng(0)
    for people, tolerance in ((8, 1e-12), (40, 0.02)):
        person = rng.integers(0, people, 3 * people)
        person[:people] = range(people)
        values = rng.normal(0.25, 1, 3 * people)
        sums = [values[person == p].sum() for p in range(people)]
        wanted = stats.permutation_test(
            (sums,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
        ).pvalue
        found = comparison.permutation(values[:, None], person)
        assert 0.01 < wanted < 0.9 and found == pytest.approx([wanted], abs=tolerance)


def test_nothing_drawn_is_as_large_as_a_clear_difference():
    found = comparison.permutation(np.ones((50, 1)), np.arange(50), resamples=999)
    assert found == pytest.approx([1 / 1000])
    assert comparison.permutation(np.zeros((50, 1)), np.arange(50), resamples=99).tolist() == [1]


def test_blocks_of_signs_do_not_change_the_p_value(monkeypatch):
    values = np.random.default_rng(0).normal(0.2, 1, (60, 2))
    whole = comparison.permutation(values, np.arange(60), 500)
    monkeypatch.setattr(comparison, "_CELLS", 300)
    assert np.array_equal(whole, comparison.permutation(values, np.arange(60), 500))


def test_one_run_of_each():
    rng, person = np.random.default_rng(0), np.repeat(np.arange(40), 3)
    a, b = rng.random(120), rng.random(120)
    found = only(comparison.compare({"a": scored(a, person), "b": scored(b, person)}))
    assert (found.first, found.other) == pytest.approx((a.mean(), b.mean()))
    assert found.interval.mean == pytest.approx((a - b).mean())
    assert found.p_value == found.adjusted == comparison.permutation((a - b)[:, None], person)[0]
    # The error of a mean over people of equal weight, by hand.
    of_people = np.array([(a - b)[person == p].mean() for p in range(40)])
    quantiles = stats.t.ppf(0.975, 39) + stats.t.ppf(0.8, 39)
    assert found.detectable == pytest.approx(quantiles * stats.sem(of_people))


def test_the_smallest_difference_is_found_in_four_of_five_cases():
    rng, person, hits = np.random.default_rng(0), np.arange(60), 0
    noise = rng.normal(0, 0.1, (200, 60))
    nothing = np.zeros(60)
    smallest = np.mean(
        [only(comparison.compare({"a": scored(n, person), "b": scored(nothing, person)}, resamples=50)).detectable
         for n in noise[:20]]
    )  # fmt: skip
    for values in noise:
        hits += comparison.permutation((values + smallest)[:, None], person, resamples=200)[0] < 0.05
    assert 0.72 < hits / 200 < 0.88


def test_several_splits_are_a_paired_t_test():
    rng = np.random.default_rng(1)
    runs = {"a": [], "b": []}
    for split, count in enumerate((30, 31, 32, 33)):
        for name, gain in (("a", 0.1 * split), ("b", 0.05)):
            runs[name].append(scored(rng.random(count) + gain, np.arange(count)))
    found = comparison.compare(runs)
    means = {name: [one.metrics["mAP_precision"] for one in of] for name, of in runs.items()}
    wanted = stats.ttest_rel(means["a"], means["b"])
    one = only(found)
    assert one.p_value == pytest.approx(wanted.pvalue)
    assert one.interval[1:] == pytest.approx(wanted.confidence_interval())
    assert "4 splits" in found.over and (found.queries, found.people) == (126, 126)
    # As many splits as a loop finds
    effect, deviation = abs(one.interval.mean), np.std(np.subtract(means["a"], means["b"]), ddof=1)
    number = 2
    while (stats.t.ppf(0.975, number - 1) + stats.t.ppf(0.8, number - 1)) * deviation / math.sqrt(number) > effect:
        number += 1
    assert one.needed == (number, "splits")


def test_several_seeds_of_one_split():
    """Variance of seeds and of people, each with its degrees of freedom."""
    rng, person = np.random.default_rng(2), np.arange(50)
    of_people, of_seeds = rng.normal(size=50), np.array([0.3, -0.2, 0.5, 0.1])
    of_people -= of_people.mean()
    a = [scored(of_people + s, person) for s in of_seeds]
    found = only(comparison.compare({"a": a, "b": [scored(np.zeros(50), person)] * 4}))
    parts = [stats.sem(of_seeds) ** 2, stats.sem(of_people) ** 2]
    degrees = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 49)
    assert found.p_value == pytest.approx(2 * stats.t.sf(of_seeds.mean() / math.sqrt(sum(parts)), degrees))
    assert found.needed is None  # both errors alone are above what 0.175 wants
    zeros = [scored(np.zeros(50), person)] * 4
    steady = [scored(of_people + 0.175 + s, person) for s in (0.01, -0.01, 0.02, -0.02)]
    number, unit = only(comparison.compare({"a": steady, "b": zeros})).needed
    wanted = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * 50 * parts[1] / 0.175**2
    assert unit == "people" and number == pytest.approx(wanted, rel=0.05)
    alike = [scored(0.01 * of_people + s, person) for s in of_seeds]
    assert only(comparison.compare({"a": alike, "b": zeros})).needed[1] == "seeds"


def test_several_rankings_are_corrected_by_holm():
    rng, person = np.random.default_rng(3), np.arange(60)
    runs = {"a": scored(rng.normal(0, 1, 60), person)}
    runs |= {name: scored(rng.normal(-gain, 1, 60), person) for name, gain in (("x", 0.2), ("y", 0.5), ("z", 0.4))}
    found = comparison.compare(runs)
    p = sorted((only(found, name).p_value, name) for name in "xyz")
    largest = 0.0
    for place, (value, name) in enumerate(p):
        largest = max(largest, min(1.0, (3 - place) * value))
        assert only(found, name).adjusted == pytest.approx(largest)
    assert p[0][0] < p[2][0]


def test_queries_are_joined_by_their_names():
    rng, order = np.random.default_rng(0), np.random.default_rng(1).permutation(30)
    person, names = rng.integers(1, 9, 30), np.array([f"{i}.jpg" for i in range(30)])
    a, b = rng.random(30), rng.random(30)
    first, second = scored(a, person, key=names), scored(b[order], person[order], key=names[order])
    assert comparison.paired(first, second, ["mAP_precision"])[:, 0] == pytest.approx(a - b)
    with pytest.raises(ValueError, match=r"7\.jpg is in first alone"):
        comparison.paired(
            first, scored(b[names != "7.jpg"], person[names != "7.jpg"], key=names[names != "7.jpg"]), ["r"]
        )
    with pytest.raises(ValueError, match=r"query \d+ is of person \d in first and \d in second"):
        comparison.paired(first._replace(key=None), second._replace(key=None), ["mAP_precision"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"counted": np.arange(6) > 0}, "count other queries, the first is query 0"),
        ({"gallery": 9}, "against 8 gallery images and b against 9"),
        ({"camera_id": np.array([1, 1, 1, 2, 1, 1])}, "query 3 is of camera 1 in a and 2 in b"),
        ({"metric": "rank1"}, "no metric in common"),
    ],
)
def test_other_queries_are_refused(change, told):
    person, cameras = np.arange(6), np.ones(6, int)
    given = {"camera_id": cameras, "gallery": 8}
    a, b = scored(np.ones(6), person, **given), scored(np.ones(6), person, **given | change)
    with pytest.raises(ValueError, match=told):
        comparison.compare({"a": a, "b": b})


def test_replicates_must_match():
    a = scored(np.ones(6), np.arange(6))
    with pytest.raises(ValueError, match="a has 2 replicates and b 1"):
        comparison.compare({"a": [a, a], "b": a})
    with pytest.raises(ValueError, match="wants two rankings or more, got a"):
        comparison.compare({"a": a})
    other = scored(np.ones(5), np.arange(5))
    with pytest.raises(ValueError, match="splits have 2, 1 seeds"):
        comparison.compare({"a": [a, a, other], "b": [a, a, other]})


def test_one_person_says_nothing():
    rng, person = np.random.default_rng(0), np.ones(6, int)
    found = comparison.compare({"a": scored(rng.random(6), person), "b": scored(rng.random(6), person)})
    assert "one person" in str(found) and math.isnan(only(found).p_value)
    json.dumps(found.to_json(), allow_nan=False)


def test_verdicts():
    person = np.arange(50)
    noise = np.random.default_rng(0).normal(0, 0.1, 50)
    told = {
        gain: str(comparison.compare({"ours": scored(noise + gain, person), "theirs": scored(0 * noise, person)}))
        for gain in (0.2, -0.2, 0.0)
    }
    assert "ours is better than theirs" in told[0.2] and "theirs is better than ours" in told[-0.2]
    assert "cannot be told apart" in told[0.0] and "people would show" in told[0.0]


def test_drawn_galleries_keep_their_means():
    """A metric over drawn galleries is no mean over queries; the difference is the metrics'."""
    rng, person = np.random.default_rng(0), np.arange(20)
    a, b = (scored(rng.random(20), person) for _ in "ab")
    a = a._replace(metrics={"mAP_precision": 0.9})
    found = only(comparison.compare({"a": a, "b": b}))
    assert found.interval.mean == pytest.approx(0.9 - b.metrics["mAP_precision"])
    assert found.interval.low < found.interval.mean < found.interval.high


def test_the_python_face():
    rng, labels = (
        np.random.default_rng(0),
        (np.arange(1, 31), np.repeat(np.arange(1, 31), 2), np.ones(30), np.full(60, 2)),
    )
    same = labels[0][:, None] == labels[1]
    good, bad = (acrn_jax.evaluate(rng.normal(0, noise, same.shape) - same, *labels) for noise in (0.3, 1))
    found = acrn_jax.compare({"good": good, "bad": bad})
    assert "good is better than bad" in str(found)
    seeds = acrn_jax.compare({"good": [good, good], "bad": [bad, good]})
    assert "2 seeds and people" in seeds.over
    with pytest.raises(TypeError, match="bad holds a float"):
        acrn_jax.compare({"good": good, "bad": [0.5]})


def evaluate(folder, *flags):
    command = [sys.executable, "-P", "-m", "acrn_jax", "evaluate", *flags]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankings")
    rng, person = np.random.default_rng(0), np.repeat(np.arange(1, 41), 2)
    centre = rng.normal(size=(41, 8))
    for name, noise in (("a", 0.5), ("b", 1.5), ("a1", 0.5), ("b1", 1.5)):
        sets = {
            f"{who}_{key}": value
            for who, camera in (("query", 1), ("gallery", 2))
            for key, value in (
                ("features", centre[person] + noise * rng.normal(size=(80, 8))),
                ("person_id", person),
                ("camera_id", np.full(80, camera)),
                ("file_name", np.array([f"{camera}/{i}.jpg" for i in range(80)])),
            )
        }
        if name.startswith("b"):  # another order
            order = rng.permutation(80)
            sets = {key: value[order] if key.startswith("query") else value for key, value in sets.items()}
        np.savez(folder / f"{name}.npz", **sets)
    np.savez(folder / "fewer.npz", **{k: v[:70] if k.startswith("query") else v for k, v in sets.items()})
    return folder


def test_the_verb(files):
    code, out, err = evaluate(files, "--features=a.npz", "--against=b.npz", "--protocol=market1501", "--json=o.json")
    assert (code, err) == (0, ""), err
    assert "a.npz is better than b.npz" in out
    kept = json.loads((files / "o.json").read_text())["others"]["b.npz"]
    first = next(d for d in kept["differences"] if d["metric"] == "rank1")
    assert first["interval"]["mean"] == pytest.approx(first["first"] - first["other"]) and first["p_value"] < 0.01
    code, out, err = evaluate(files, "--against=A=a.npz,a1.npz", "--against=B=b.npz,b1.npz", "--protocol=market1501")
    assert (code, err) == (0, "") and "2 seeds and people" in out and "A is better than B" in out, err


REFUSED = {
    "a.npz has 80 queries and fewer.npz 70": ["--against=fewer.npz"],
    "no file none.npz": ["--against=none.npz"],
    "There is no none; wanted is an evaluated workdir or a file of features": ["--against=none"],
    "--rerank does not go with --against": ["--against=b.npz", "--rerank"],
    "names b.npz twice": ["--against=b.npz", "--against=b.npz"],
    "names no ranking": ["--against=B="],
    "a.npz has 1 replicates and B 2": ["--against=B=b.npz,b1.npz"],
}
CALLS = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from acrn_jax.cli import evaluate
for case in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS(["evaluate", "--features=a.npz", "--protocol=market1501", *case])
        try:
            evaluate.main([])
        except (ValueError, OSError) as error:
            print(error)
"""


def test_the_verb_refuses_in_one_sentence(files):
    command = [sys.executable, "-P", "-c", CALLS, json.dumps(list(REFUSED.values()))]
    done = subprocess.run(
        command, cwd=files, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    for told, line in zip(REFUSED, done.stdout.splitlines(), strict=True):
        assert told in line


def errors(splits, seeds, repeats, deviation, crowd=40):
    """(share of intervals that hold the true difference 0, share of p-values below 0.05) of simulated replicates."""
    rng, person, held, wrong = np.random.default_rng((splits, seeds)), np.repeat(np.arange(crowd), 2), 0, 0
    of_split, of_seed, of_person, of_both = deviation
    nothing = scored(np.zeros(2 * crowd), person)
    for _ in range(repeats):
        runs = []
        for split in range(splits):
            shift, people = of_split * rng.normal(), of_person * rng.normal(size=crowd)
            for _ in range(seeds):
                values = shift + of_seed * rng.normal() + (people + of_both * rng.normal(size=crowd))[person]
                runs.append(scored(values, person + split))  # other people: another split
        zeros = [nothing._replace(person_id=one.person_id) for one in runs]
        found = only(comparison.compare({"a": runs, "b": zeros}, resamples=500))
        held += found.interval.low <= 0 <= found.interval.high
        wrong += found.p_value < 0.05
    return held / repeats, wrong / repeats


WORLDS = [  # splits, seeds, deviations of: splits, seeds, people, a person with a seed
    (5, 1, (1, 0.3, 1, 1)),
    (10, 1, (1, 0.3, 1, 1)),
    (5, 2, (0.5, 0.3, 1, 1)),
    (1, 5, (0, 1, 1, 1)),
    (1, 5, (0, 0.5, 4, 1)),
    (1, 10, (0, 0.5, 4, 1)),
    (1, 1, (0, 0, 1, 0)),
]


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_coverage_and_type_one_error(world):
    """2,000 simulations: their own deviation is 0.5 points."""
    splits, seeds, deviation = world
    held, wrong = errors(splits, seeds, 2000, deviation)
    print(f"{splits} splits, {seeds} seeds, {deviation}: coverage {held:.3f}, type I {wrong:.3f}")
    assert 0.93 <= held <= 0.97 and 0.04 <= wrong <= 0.06
