"""One feature file, scored by the rules of different evaluators: ./launch.sh bench comparability [--out=FOLDER].

Draws two files of features, one of Market-1501's make-up and one of CUHK03's test people (seed 0), and prints what each
rule makes of them. With --out the files stay, for ./launch.sh evaluate --features=FOLDER/market.npz. The features are
those of no net: what a rule changes depends on the features, its direction hardly does. docs/comparability.md holds the
numbers.
"""

import argparse
import pathlib
import tempfile

import numpy as np

from acrn_jax.evaluation import protocols, score
from acrn_jax.schema import JUNK

MARKET = protocols.MARKET1501
OWN_CAMERA = MARKET._replace(name="market1501, own camera kept", excluded=protocols.SINGLE_SHOT.excluded)
DRAWN = {
    name: protocols.named(name)._replace(check=MARKET.check) for name in ("cuhk03_torchreid", "cuhk03_open_reid")
}  # not of two views here
DIMENSION = 48
RERANKING = {"k1": 20, "k2": 6, "weight": 0.3}


def features(rng, person, camera, centres, *, noise):
    """A centre for each person, moved by the camera and by how it sees the person, noise, and a length of its own."""
    cameras = 0.35 * np.random.default_rng(1).normal(size=(7, DIMENSION))
    seen = 0.55 * np.random.default_rng(2).normal(size=(len(centres), 7, DIMENSION))
    values = centres[person] + cameras[camera] + seen[person, camera]
    values += np.reshape(noise, (-1, 1)) * rng.normal(size=(len(person), DIMENSION))
    return (values * rng.lognormal(0, 0.02, (len(person), 1))).astype(np.float32)


def market(rng):
    """Arrays of a market1501 file: 750 people, 2,798 distractors, 3,819 junk images that show parts of the people."""
    seen = np.array([(p, c) for p in range(1, 751) for c in rng.choice(6, rng.integers(3, 7), replace=False) + 1])
    gallery = np.repeat(seen, 1 + rng.poisson(2.9, len(seen)), axis=0)
    junk = gallery[rng.integers(len(gallery), size=3819)]
    strangers = np.stack([np.arange(751, 751 + 2798), rng.integers(1, 7, 2798)], axis=1)
    shown = np.concatenate([gallery, junk, strangers])
    noise = np.repeat([0.75, 1.0, 0.75], [len(gallery), len(junk), len(strangers)])
    centres = rng.normal(size=(751 + 2798, DIMENSION))
    person = np.concatenate([gallery[:, 0], np.full(len(junk), JUNK), np.zeros(len(strangers), int)])
    order = rng.permutation(len(shown))
    return {
        "query_features": features(rng, *seen.T, centres, noise=0.75),
        "query_person_id": seen[:, 0],
        "query_camera_id": seen[:, 1],
        "gallery_features": features(rng, *shown.T, centres, noise=noise)[order],
        "gallery_person_id": person[order],
        "gallery_camera_id": shown[order, 1],
    }


def cuhk03(rng):
    """Arrays of a file of 100 people, five images in each of two views, all of them query and gallery."""
    person, camera = np.repeat(np.arange(1, 101), 10), np.tile(np.repeat([1, 2], 5), 100)
    values = features(rng, person, camera, rng.normal(size=(101, DIMENSION)), noise=0.9)
    arrays = {"features": values, "person_id": person, "camera_id": camera}
    return {f"{who}_{name}": value for who in ("query", "gallery") for name, value in arrays.items()}


def without(arrays, kept):
    """The arrays with only some gallery images [G] bool."""
    return {name: value[kept] if name.startswith("gallery") else value for name, value in arrays.items()}


def rows(name, arrays):
    """Yields title, arrays, arguments of `score.score_files`."""
    yield "the protocol itself", arrays, {"protocol": MARKET}
    yield "cosine instead of squared Euclidean", arrays, {"protocol": MARKET, "distance": "cosine"}
    if name == "cuhk03":
        for protocol in ("cuhk03_single_shot", *DRAWN):
            yield protocol, arrays, {"protocol": protocols.named(protocol)}
        yield "own camera's right images kept", arrays, {"protocol": OWN_CAMERA}
        return
    person = arrays["gallery_person_id"]
    yield "junk kept, as wrong images", arrays | {"gallery_person_id": np.maximum(person, 0)}, {"protocol": MARKET}
    yield "distractors left out of the file", without(arrays, person != 0), {"protocol": MARKET}
    yield "own camera's right images kept", arrays, {"protocol": OWN_CAMERA}
    yield "one gallery image a person, torchreid's rule", arrays, {"protocol": DRAWN["cuhk03_torchreid"]}
    yield "one gallery image a person, open-reid's rule", arrays, {"protocol": DRAWN["cuhk03_open_reid"]}
    yield "query expansion, mean of 5", arrays, {"protocol": MARKET, "expand": (5, None)}
    yield "re-ranking", arrays, {"protocol": MARKET, "reranking": RERANKING}
    yield (
        "re-ranking, junk not in the file",
        without(arrays, person != JUNK),
        {"protocol": MARKET, "reranking": RERANKING},
    )
    few = without(arrays, ~np.isin(person, np.arange(1, 76)))
    for policy in ("skip", "count_as_miss"):
        yield f"75 people not in the gallery, {policy}", few, {"protocol": MARKET, "no_match": policy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="folder for the two files")
    parser.add_argument("--only", choices=("market", "cuhk03"))
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = flags.out or pathlib.Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in (("market", market), ("cuhk03", cuhk03)):
            if flags.only not in (None, name):
                continue
            arrays = make(np.random.default_rng(0))
            np.savez(folder / f"{name}.npz", **arrays)
            sizes = [f"{len(arrays[f'{who}_person_id']):,}" for who in ("query", "gallery")]
            print(f"\n{name}.npz: {sizes[0]} queries, {sizes[1]} gallery images")
            print("\n| rule | mAP (trapezoid) | mAP (precision) | r1 | mINP |\n| --- | ---: | ---: | ---: | ---: |")
            for title, changed, options in rows(name, arrays):
                np.savez(pathlib.Path(scratch) / "row.npz", **changed)
                found = score.score_files([pathlib.Path(scratch) / "row.npz"], **options)["methods"]["features"]
                values = (found[metric] for metric in ("mAP_trapezoid", "mAP_precision", "rank1", "mINP"))
                print(f"| {title} | {' | '.join(f'{100 * value:.1f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
