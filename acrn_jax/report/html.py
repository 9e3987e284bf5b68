"""One self-contained HTML file about one or several runs: no network, no JavaScript."""

import datetime
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from acrn_jax import COMMAND, files
from acrn_jax.report import audit, cells, figures, page, seeds, tables, verdict
from acrn_jax.report.table import Table
from acrn_jax.report.table import render as render_table
from acrn_jax.results import Audit, Confusions, Ledger, Ranked, RankLists, Recognition, Results, Shown, StudyTable

RANK_LIST_LENGTH = 14  # gallery pictures a query, as in the paper's figure 3
THUMBNAIL = (96, 192)  # largest width and height of an embedded picture, pixels
PAIR = ("query", "wrong", "right")
PHASES = ("mva", "identity", "reid")


class Run(NamedTuple):
    """What a workdir holds, read and checked."""

    folder: pathlib.Path  # as given
    results: Results | Recognition  # of the run, or over its seeds; of an attribute net its recognition
    seeds: dict[str, Results]  # {seed folder: results}; empty unless the workdir is one of `reproduce`
    first: pathlib.Path  # the folder whose rank lists and curves are shown: the workdir itself or its first seed


def write(workdirs: Sequence[str | os.PathLike], out: str | os.PathLike) -> pathlib.Path:
    """Writes the report of the runs in `workdirs` to `out`, complete or not at all.

    Args:
      workdirs: folders with results.json, or with seed_*/results.json, which are then shown as mean and interval; or
        of attribute nets, with recognition.json.
      out: the HTML file to make; folders above it are made too.

    Returns:
      the path of the file.

    Raises:
      FileNotFoundError: a workdir, or its results.json, is missing.
      ValueError: a file is not what it should be, a workdir is given twice, `out` is a folder.
    """
    folders = [pathlib.Path(folder) for folder in workdirs]
    out = pathlib.Path(out)
    if not folders:
        raise ValueError("There is no run to report on; give --workdir=A or --workdir=A,B.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"A workdir is given twice in {', '.join(map(str, folders))}; give each once.")
    if out.is_dir():
        raise ValueError(f"--out={out} is a folder; give the name of the file to write, such as {out / 'report.html'}.")
    files.write_text(out, render([read(folder) for folder in folders]))
    return out


def read(folder: str | os.PathLike) -> Run:
    """Reads a workdir's results, over seeds where it holds seed_*/results.json instead of its own.

    Of an attribute net these are its recognition.

    Raises:
      FileNotFoundError, ValueError: as `write`.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; --workdir takes the folder of an evaluated run.")
    if (folder / "results.json").is_file():
        return Run(folder, Results.read(folder / "results.json"), {}, folder)
    if (folder / "recognition.json").is_file():
        return Run(folder, Recognition.read(folder / "recognition.json"), {}, folder)
    paths = sorted(folder.glob("seed_*/results.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not paths:
        raise FileNotFoundError(
            f"{folder} has neither results.json nor recognition.json nor seed_*/results.json; "
            f"run ./launch.sh evaluate --workdir={folder} (or {COMMAND} reproduce) first."
        )
    every, names = [Results.read(path) for path in paths], [str(path) for path in paths]
    seeds.check_same(every, names)
    seeds.check_inputs(every, names)
    by_seed = dict(zip((path.parent.name for path in paths), every, strict=True))
    return Run(folder, seeds.aggregate(every), by_seed, paths[0].parent)


def read_scalars(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads a scalars.jsonl; an unfinished last line, as a running or stopped training leaves it, is left out.

    Raises:
      ValueError: another line is no JSON object with a "step"; names file and line.
    """
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row["step"], int | float):
                raise TypeError
            rows.append(row)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            if number < len(lines):
                raise ValueError(f'{path}, line {number} is no JSON object with "step"; remove the line.') from error
    return rows


def render(runs: Iterable[Run]) -> str:
    """The page as text."""
    runs = list(runs)
    sections = [_section(run) for run in runs]
    try:
        ranked = {str(run.folder): run.results for run in runs if isinstance(run.results, Results)}
        comparison, refusal = (tables.comparison(ranked), "") if len(ranked) > 1 else (None, "")
    except ValueError as error:
        comparison, refusal = None, str(error)
    return page.template("template.html").render(
        title="Report: " + ", ".join(dict.fromkeys(run.results.dataset for run in runs)),
        sections=sections,
        comparison=comparison,
        refusal=refusal,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def picture(folder: pathlib.Path, name: str) -> str | None:
    """A workdir's picture as data URI, made small; None where it is missing, no picture, or outside the workdir."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        return None
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return page.thumbnail(image, THUMBNAIL)


def _section(run: Run) -> dict[str, Any]:
    """Everything that the template shows of one run."""
    related, missing = _related(run)
    recognition = [
        (name, tables.recognition_summary(content), tables.recognition_attributes(content))
        for name, folder in related.items()
        if (folder / "recognition.json").is_file()
        for content in [Recognition.read(folder / "recognition.json")]
    ]
    ledger, studies = _ledger(run.folder), _studies(run)
    scores = _scores(run)
    of_net = () if scores["methods"] else recognition[0][1:]
    shown = [t for t in (scores["methods"], scores["weights"], *ledger, *studies, *of_net) if t]
    return {
        **scores,
        "name": str(run.folder),
        "first": str(run.first.relative_to(run.folder)) if run.seeds else "",
        "ledger": ledger,
        "same_person": verdict.read(run.folder),
        "studies": studies,
        "audit": audit.section(Audit.read(run.first / "audit.json")) if (run.first / "audit.json").is_file() else None,
        "look_alikes": _confusions(run.first),
        "rank_lists": _rank_lists(run.first),
        "training": [entry for name, folder in related.items() for entry in _training(name, folder)],
        "recognition": recognition,
        "missing": missing,
        "facts": _facts(run),
        "config": json.dumps(run.results.config, indent=2, sort_keys=True, default=str),
        "copies": [(kind, "\n".join(render_table(table, kind) for table in shown)) for kind in ("markdown", "latex")],
    }


def _related(run: Run) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Folders of the run ("") and of the runs that it was made with, and a sentence for each that is not there."""
    related, missing = {"": run.first}, []
    for name, path in run.results.runs.items() if isinstance(run.results, Results) else ():
        folder = run.first / path
        if folder.is_dir():
            related[name] = folder
        else:
            missing.append(f"The {name} run is not at {os.path.normpath(folder)}; its curves are not shown.")
    return related, missing


def _scores(run: Run) -> dict[str, Any]:
    """Tables and charts of a re-id run's scores; of an attribute net there are none."""
    results = run.results
    if not isinstance(results, Results):
        return dict.fromkeys(("methods", "others", "weights", "weight_bars", "cmc", "distance")) | {
            "seeds": [],
            "weight_charts": [],
        }
    charts = [figures.weight_scatter(results, against=key) for key in ("reliability", "accuracy", "between_within")]
    return {
        "methods": tables.methods(results),
        "others": tables.others(results),
        "seeds": [
            tables.methods(one)._replace(caption=f"{name}: seeds {_flat_text(one.seeds)}")
            for name, one in run.seeds.items()
        ],
        "weights": tables.weights(results) if results.weights else None,
        "weight_charts": [chart for chart in charts if chart],
        "weight_bars": figures.weight_bars(results),
        "cmc": figures.cmc(results),
        "distance": tables.distance(results),
    }


def _training(name: str, folder: pathlib.Path) -> list[tuple[str, list[figures.Chart]]]:
    """(title, charts) of each phase of a run whose scalars are there."""
    paths = {phase: folder / phase / "scalars.jsonl" for phase in PHASES}
    return [
        (f"Phase {phase}" + (f" of the {name} run" if name else ""), figures.training(read_scalars(path)))
        for phase, path in paths.items()
        if path.is_file()
    ]


def _rank_lists(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The choices of rank_lists.json, the hardest first, with their pictures."""
    path = folder / "rank_lists.json"
    if not path.is_file():
        return []
    splits = RankLists.read(path).splits
    choices = [(split, choice, lists) for split, by in splits.items() for choice, lists in by.items()]

    def ranked(place: int, item: Ranked) -> dict[str, Any]:
        rank = place if item.rank is None else item.rank  # files from before ranks were kept have the first ones
        return {**_picture(folder, item), "rank": rank, "right": item.right, "shares": _shares(item)}

    return [
        {
            "title": {"hardest": "Hardest queries", "random": "Random queries"}.get(choice, choice),
            "split": split,
            "lists": [
                {
                    **_picture(folder, query),
                    "average_precision": f"{100 * query.average_precision:.1f} %",
                    "gallery": [
                        ranked(place, item) for place, item in enumerate(query.gallery[:RANK_LIST_LENGTH], start=1)
                    ],
                }
                for query in lists
            ],
        }
        for split, choice, lists in sorted(choices, key=lambda item: item[1] != "hardest")
        if lists
    ]


def _picture(folder: pathlib.Path, item: Shown) -> dict[str, Any]:
    """A picture with who it shows, and its distances as text."""
    distances = {key: value for key, value in vars(item).items() if key in ("distance", "feature_distance")}
    return {
        "uri": picture(folder, item.image),
        "person_id": item.person_id,
        "camera_id": item.camera_id,
        "file_name": item.file_name,
        **{key: f"{value:.3g}" for key, value in distances.items()},
    }


def _shares(item: Ranked) -> list[str]:
    """What makes up a distance, in per cent; files from before there were shares have none."""
    return [
        f"{cells.attribute(name)} {100 * share / max(item.distance, 1e-12):.0f}\N{NO-BREAK SPACE}%"
        for name, share in (item.shares or {}).items()
    ]


def _confusions(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The pairs of look_alikes.json, with their pictures."""
    path = folder / "look_alikes.json"
    if not path.is_file():
        return []
    content = Confusions.read(path)
    factor, unit = (100, " %") if content.representation == "probabilities" else (1, "")
    recognition = content.recognition  # files from before it was there have none

    def named(attribute: str) -> str:
        rate = recognition.mA.get(attribute) if recognition else None
        return cells.attribute(attribute) + ("" if rate is None else f" ({100 * rate:.0f} %)")

    return [
        {
            **{who: _picture(folder, getattr(pair, who)) for who in PAIR},
            "recognised_on": recognition.on if recognition else "",
            "attributes": [
                (named(entry.name), *(f"{factor * getattr(entry, who):.0f}{unit}" for who in PAIR))
                for entry in pair.attributes
            ],
        }
        for pair in content.pairs
    ]


def _ledger(folder: pathlib.Path) -> list[Table]:
    """The tables of ledger.json, if it is there."""
    path = folder / "ledger.json"
    if not path.is_file():
        return []
    content = Ledger.read(path)
    found = (tables.ledger(content), tables.ledger_spearman(content), tables.ledger_gain(content))
    return [table for table in found if table]


def _studies(run: Run) -> list[Table]:
    """The tables of studies in the workdir (STUDY/table.json), and of that which the run is an arm of."""
    is_arm = (run.first / "job.json").is_file()  # STUDY/ARM/[SPLIT/]seed_N
    above = run.first.absolute().parents[:3] if is_arm else ()
    paths = [*sorted(run.folder.glob("*/table.json")), *(parent / "table.json" for parent in above)]
    return [tables.study(StudyTable.read(path)) for path in paths if path.is_file()]


def _facts(run: Run) -> list[tuple[str, str]]:
    """Name and text of what one needs to repeat the run."""
    results = run.results
    facts: dict[str, Any] = {"data set": results.dataset, "split": results.split}
    facts["official split"] = "no, a dev split" if results.dev else ""
    if isinstance(results, Results):
        facts |= {
            "protocol": results.protocol,
            "queries without a match": f"{results.queries_without_match} (policy {results.no_match or '-'})",
            "part of the data set only": "yes" if results.partial else "no",
            "gamma": results.gamma,
            "scales": results.scales,
            "tuned factor": results.tuned_factor,
            "attributes from": results.attributes_from.to_json() if results.attributes_from else None,
        }
    else:
        facts |= {"mA": results.mA, "part of the data set only": "no"}
    facts |= {
        "seeds": "; ".join(f"{name}: {_flat_text(one.seeds)}" for name, one in run.seeds.items()) or results.seeds,
        "commit": results.commit,
        "versions": results.versions,
        "fingerprint of the data": results.fingerprint,
    }
    return [(name, _flat_text(value)) for name, value in facts.items() if value not in (None, "", {})]


def _flat_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat_text(entry)}" for key, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
