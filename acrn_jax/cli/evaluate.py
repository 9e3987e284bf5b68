"""Scores a trained run: ./launch.sh evaluate --workdir=R [--baseline=C]; writes R/results.json and prints the table.

With --dataset=NAME/CONFIG the run is scored on another prepared data set, and everything goes to R/on_NAME_CONFIG;
with --out=FOLDER it goes there, and nothing is written into R, which may be others' and read-only.

Or scores anyone's feature files, without a run: ./launch.sh evaluate --features=FILE --protocol=NAME [--json=OUT];
acrn_jax/evaluation/feature_files.py lists the files that it reads.

With --audit, audit.json, audit.md and audit.html say where the ranking is good and where it is bad: by camera, picture,
attribute and any column of a CSV file (--columns=FILE); of features they go to --out=FOLDER. docs/audit.md.

Or tells whether one ranking is better than others: ./launch.sh evaluate --features=A --protocol=NAME --against=B,C, or
--workdir=R --against=S; replicates are --against=A=R0,R1 --against=B=S0,S1. docs/compare.md.

Or tells how well attribute scores rank pictures for wish lists instead of a query: --protocol=attribute_query with
--workdir=M, an attribute net, or with --probabilities=FILE --labels=FILE, anyone's. docs/attribute_query.md.
"""

from pathlib import Path
from typing import Any

from absl import flags

from acrn_jax import files
from acrn_jax.cli import against, distributed, shared_flags, shell
from acrn_jax.data_prep import paths
from acrn_jax.evaluation import attribute_files, feature_files, fusion, protocols, score
from acrn_jax.report import audit, scores, tables, wish_lists
from acrn_jax.report.table import render
from acrn_jax.results import AttributeQueries, Audit, Results

QUERIES = "attribute_query"  # no protocol of people: what is right is read from attributes

_WORKDIR = paths.define_folder("workdir", None, "A trained run: ACRN, ReIdCNN or an attribute net.")
_BASELINE = paths.define_folder("baseline", None, "The ReIdCNN run beside an ACRN run, for the rows that need it.")
_TUNE = paths.define_folder("tune", None, "A ReIdCNN run that held people out, for ReIdCNN+Attributes-tuned.")
_DATA_DIR = paths.define_folder("data_dir", None, "Where the prepared data is, if not where the run found it.")
_ATTRIBUTES = paths.define_folder("attributes", None, "Where the attribute net is, if not where the run finds it.")
_UNFINISHED = flags.DEFINE_bool("unfinished", False, "Score a run whose training has not come to its end.")
_OVERLAP = flags.DEFINE_bool("allow_overlap", False, "Score nets on images that they were trained on, too.")
_DATASET = flags.DEFINE_string("dataset", None, "Another prepared data set to score on, NAME/CONFIG.")
_SPLIT = flags.DEFINE_string("split", None, "Of an attribute net: another split to score, e.g. train; wants --out.")
_OUT = paths.define_folder("out", None, "The folder to write to; default: WORKDIR, or WORKDIR/on_NAME_CONFIG.")
_FEATURES = paths.define_files("features", None, "Files of features or distances: one, or query,gallery. No --workdir.")
_AGAINST = flags.DEFINE_multi_string(
    "against", [], "Compare with these rankings: PLACE,PLACE, or NAME=PLACE,PLACE for seeds or splits of one."
)
_PROBABILITIES = paths.define_file("probabilities", None, "Attribute scores, .csv or .npz, instead of a --workdir.")
_OF_WISH_LISTS = {
    "wish_lists": paths.define_file("wish_lists", None, "An attribute_query.json whose lists are taken."),
    "subsets": flags.DEFINE_list("subsets", [], "Only images in these folders of the data set, e.g. VIPeR,PRID."),
    "half": flags.DEFINE_enum("half", None, ("first_half", "second_half"), "People to score; the others fit curves."),
}
_AUDIT = flags.DEFINE_bool("audit", False, "Scores of slices of the queries, and what cameras have to do with them.")
_COLUMNS = paths.define_file("columns", None, "Of an audit: a CSV file with a row for each query, key or person_id.")
_PICTURES = paths.define_folder("pictures", None, "Of an audit of features: the folder of the queries' pictures.")
_OF_FEATURES = {
    "labels": paths.define_files("labels", [], "CSV files person_id,camera_id, for .h5 and .npy: query,gallery."),
    "json": paths.define_file("json", None, "File for everything that is printed, and more."),
    "distance": flags.DEFINE_enum("distance", "squared_euclidean", list(fusion.DISTANCES), "Distance of features."),
    "expand": flags.DEFINE_list("expand", None, "Query expansion, K or K,ALPHA: by the K nearest gallery images."),
    "rerank": flags.DEFINE_bool("rerank", False, "k-reciprocal re-ranking."),
    "k1": flags.DEFINE_integer("k1", 20, "Its neighbours."),
    "k2": flags.DEFINE_integer("k2", 6, "Its images of local query expansion."),
    "lambda_value": flags.DEFINE_float("lambda_value", 0.3, "Its share of the original distance."),
    "multi_query": flags.DEFINE_bool("multi_query", False, "Average the file's mquery_* by person and camera."),
    "kissme_train": paths.define_file(
        "kissme_train", None, "An .npz (features, person_id, camera_id) to fit KISSME on."
    ),
    "operating_points": flags.DEFINE_bool(
        "operating_points", False, "TPR at FPR, and a watch list for open galleries."
    ),
}


def main(argv):
    del argv
    if not _AUDIT.value and (stray := [f"--{f.name}" for f in (_COLUMNS, _PICTURES) if f.value]):
        raise ValueError(f"{', '.join(stray)} is for an audit; give --audit too.")
    if _AGAINST.value:
        return compare()
    if shared_flags.EVALUATION["protocol"].value == QUERIES:
        return score_wish_lists()
    if given := [f"--{name}" for name in ("probabilities", *_OF_WISH_LISTS) if flags.FLAGS[name].present]:
        raise ValueError(f"{', '.join(given)} goes with --protocol={QUERIES}.")
    of_runs = ("workdir", "baseline", "tune", "data_dir", "dataset", "split", "attributes", "unfinished")
    of_runs += ("allow_overlap", "out")
    if _AUDIT.value and _FEATURES.value:
        return audit_files([name for name in of_runs if name not in ("out", "dataset", "data_dir")])
    strays = of_runs if _FEATURES.value else (*_OF_FEATURES, "pictures")
    given = [f"--{name}" for name in strays if flags.FLAGS[name].present]
    if given:
        raise ValueError(f"{', '.join(given)} does not go {'with' if _FEATURES.value else 'without'} --features.")
    score_files() if _FEATURES.value else distributed.together(score_run)


def compare():
    """The ranking of --features or --workdir, else the first of --against, beside the others."""
    taken = ("features", "labels", "json", "distance", "workdir", "against", "protocol", "no_match")
    taken += ("draws", "draw_seed", "probe_view")
    mine = {**_OF_FEATURES, **shared_flags.EVALUATION}
    mine |= dict.fromkeys(("baseline", "tune", "data_dir", "dataset", "split", "attributes", "unfinished", "out"))
    if given := [
        f"--{name}" for name in (*mine, "allow_overlap", "audit") if name not in taken and flags.FLAGS[name].present
    ]:
        raise ValueError(f"{', '.join(given)} does not go with --against, which compares what is evaluated.")
    if _FEATURES.value and _WORKDIR.value:
        raise ValueError("--features and --workdir are two rankings; give one of them, and the other to --against.")
    rankings = against.parse(_AGAINST.value)
    own = "+".join(_FEATURES.value) if _FEATURES.value else _WORKDIR.value
    if own:
        rankings = {own: [own], **rankings}
    rule = _protocol() if shared_flags.EVALUATION["protocol"].value else None
    options = {
        "no_match": shared_flags.EVALUATION["no_match"].value or "error",
        "distance": _OF_FEATURES["distance"].value,
    }
    if out := _OF_FEATURES["json"].value:
        files.check(out)
    labels = [Path(file) for file in _OF_FEATURES["labels"].value]
    found = against.compare(rankings, against.Files(rule, labels, options))
    print(found)
    if out:
        files.write_json(out, found.to_json())
        print(f"written: {out}")


def score_wish_lists():
    """The probabilities of --workdir or --probabilities, ranked for wish lists."""
    of_files, value = ("probabilities", "labels", "json"), lambda name: flags.FLAGS[name].value
    of_runs = ("workdir", "data_dir", "dataset", "split", "subsets", "half", "unfinished", "allow_overlap", "out")
    taken = (*(of_files if value("probabilities") else of_runs), "wish_lists", "protocol", "draws", "draw_seed")
    known = (
        "features",
        "audit",
        "baseline",
        "tune",
        "attributes",
        *of_files,
        *of_runs,
        *_OF_FEATURES,
        *shared_flags.EVALUATION,
    )
    if given := [f"--{name}" for name in dict.fromkeys(known) if name not in taken and flags.FLAGS[name].present]:
        whose = "anyone's probabilities" if value("probabilities") else "an attribute net"
        raise ValueError(f"{', '.join(given)} does not go with --protocol={QUERIES} of {whose}.")
    stored = Path(value("wish_lists")) if value("wish_lists") else None
    options = {"each": value("draws") or 20, "seed": value("draw_seed") or 0, "stored": stored}
    if stored and (flags.FLAGS["draws"].present or flags.FLAGS["draw_seed"].present):
        raise ValueError("--wish_lists has lists already; leave out --draws and --draw_seed.")
    if value("probabilities"):
        if len(value("labels")) != 1:
            raise ValueError("--probabilities wants --labels, one .csv or .npz with the true answers.")
        if out := value("json"):
            files.check(out)
        found = attribute_files.score(Path(value("probabilities")), Path(value("labels")[0]), **options)
        found = AttributeQueries.of(found)
        if out:
            files.write_json(out, found.to_json())
    else:
        from acrn_jax.runs import attribute_queries, workdir  # here, as it takes seconds that files need not wait for

        shell.require(workdir=value("workdir"))
        given = {name: value(name) for name in of_runs[1:-1]}
        folder = Path(value("out")) if value("out") else None
        found = attribute_queries.score(Path(value("workdir")), **given, **options, out=folder)
        out = (folder or workdir.folder_on(Path(value("workdir")), value("dataset"))) / "attribute_query.json"
    print("\n".join(map(render, wish_lists.tables(found))), end="")
    if out:
        print(f"written: {out}")


def audit_files(strays):
    """Slices of the queries of --features."""
    taken = ("labels", "distance")
    strays = [*strays, *(name for name in _OF_FEATURES if name not in taken)]
    if given := [f"--{name}" for name in strays if flags.FLAGS[name].present]:
        raise ValueError(f"{', '.join(given)} does not go with --audit of --features.")
    if not _OUT.value:
        raise ValueError("--audit of --features wants --out=FOLDER for audit.json, audit.md and audit.html.")
    if _PICTURES.value and _DATASET.value:
        raise ValueError("--pictures and --dataset both tell of the queries' pictures; give one of them.")
    out, places = Path(_OUT.value), [Path(file) for file in _FEATURES.value]
    files.check(out)
    columns = {}
    if _PICTURES.value or _DATASET.value:
        from acrn_jax.runs import slices  # here, as it takes seconds

        names = feature_files.names_of_queries(places)
        if _PICTURES.value:
            columns = slices.of_folder(Path(_PICTURES.value), names)
        else:
            shell.require(data_dir=_DATA_DIR.value)
            columns = slices.of_prepared(_DATASET.value, _DATA_DIR.value, names)
    found = score.audited(
        places,
        [Path(file) for file in _OF_FEATURES["labels"].value],
        protocol=_protocol(),
        no_match=shared_flags.EVALUATION["no_match"].value or "error",
        distance=_OF_FEATURES["distance"].value,
        csv=Path(_COLUMNS.value) if _COLUMNS.value else None,
        columns=columns,
    )
    told = Audit.of(found)
    audit.write(out, told)
    print(audit.text(told), end="")
    print(f"written: {out}/audit.json, audit.md, audit.html")


def score_files():
    wanted: dict[str, Any] = {name: flag.value for name, flag in _OF_FEATURES.items()}
    protocol = _protocol()
    if not wanted["rerank"] and any(flags.FLAGS[name].present for name in ("k1", "k2", "lambda_value")):
        raise ValueError("--k1, --k2 and --lambda_value are of re-ranking; give --rerank too.")
    if wanted["json"]:
        files.check(wanted["json"])
    results = score.score_files(
        [Path(file) for file in _FEATURES.value],
        [Path(file) for file in wanted["labels"]],
        protocol=protocol,
        no_match=shared_flags.EVALUATION["no_match"].value or "error",
        distance=wanted["distance"],
        multi_query=wanted["multi_query"],
        kissme_train=Path(wanted["kissme_train"]) if wanted["kissme_train"] else None,
        expand=score.parse_expand(wanted["expand"]) if wanted["expand"] else None,
        reranking={"k1": wanted["k1"], "k2": wanted["k2"], "weight": wanted["lambda_value"]}
        if wanted["rerank"]
        else None,
        operating_points=wanted["operating_points"],
    )
    print(scores.table(results), end="")
    if wanted["json"]:
        files.write_json(wanted["json"], results)
        print(f"written: {wanted['json']}")


def _protocol() -> protocols.Protocol:
    """The one that the flags name, with its options."""
    given = {name: flag.value for name, flag in shared_flags.EVALUATION.items() if flag.value is not None}
    if "protocol" not in given:
        raise ValueError(f"--features wants --protocol; choose one of {', '.join(protocols.PROTOCOLS)}.")
    named = {"draws": "repeats", "draw_seed": "seed", "probe_view": "probe_view"}
    return protocols.named(given["protocol"], **{new: given[old] for old, new in named.items() if old in given})


def score_run():
    from acrn_jax import runs  # here, as it takes seconds that features need not wait for

    shell.require(workdir=_WORKDIR.value)
    baseline, tune, out = (Path(f) if f else None for f in (_BASELINE.value, _TUNE.value, _OUT.value))
    found = runs.evaluate(
        Path(_WORKDIR.value),
        baseline=baseline,
        tune=tune,
        data_dir=_DATA_DIR.value,
        dataset=_DATASET.value,
        attributes=Path(_ATTRIBUTES.value) if _ATTRIBUTES.value else None,
        unfinished=_UNFINISHED.value,
        allow_overlap=_OVERLAP.value,
        settings=shared_flags.of_evaluation(),
        out=out,
        split=_SPLIT.value,
        audited=_AUDIT.value,
        columns=Path(_COLUMNS.value) if _COLUMNS.value else None,
    )
    if isinstance(found, Results):
        print(tables.methods_table(found))
        if found.weights:
            print(tables.weights_table(found))
        for method, reason in (found.missing or {}).items():
            print(f"no row {method}: {reason}")
    folder = out or runs.folder_on(Path(_WORKDIR.value), _DATASET.value)
    if _AUDIT.value:
        print(audit.text(Audit.read(Path(folder) / "audit.json")), end="")
        print(f"written: {folder}/audit.json, audit.md, audit.html")
    print(f"written: {folder}/{'results' if isinstance(found, Results) else 'recognition'}.json")


if __name__ == "__main__":
    shell.run(main)
