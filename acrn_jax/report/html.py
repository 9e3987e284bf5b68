"""One self-contained HTML file about one or several runs: no network, no JavaScript."""

import base64
import datetime
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from acrn_jax import files
from acrn_jax.report import figures, tables

SHOWN = 14  # gallery pictures a query, as in the paper's figure 3
THUMBNAIL = (96, 192)  # largest width and height of an embedded picture, pixels
PAIR = ("query", "wrong", "right")
PHASES = ("mva", "identity", "reid")


class Run(NamedTuple):
    """What a workdir holds, read and checked."""

    folder: pathlib.Path  # as given
    results: dict[str, Any]  # of the run, or over its seeds; of an attribute net recognition.json, with no "methods"
    seeds: dict[str, dict[str, Any]]  # {seed folder: results}; empty unless the workdir is one of `reproduce`
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

    Of an attribute net these are the contents of recognition.json.

    Raises:
      FileNotFoundError, ValueError: as `write`.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; --workdir takes the folder of an evaluated run.")
    if (folder / "results.json").is_file():
        return Run(folder, read_results(folder / "results.json"), {}, folder)
    if (folder / "recognition.json").is_file():
        return Run(folder, _recognition(folder / "recognition.json") | {"methods": {}}, {}, folder)
    paths = sorted(folder.glob("seed_*/results.json"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not paths:
        raise FileNotFoundError(
            f"{folder} has neither results.json nor recognition.json nor seed_*/results.json; "
            f"run ./launch.sh evaluate --workdir={folder} (or ./launch.sh reproduce) first."
        )
    seeds = {path.parent.name: read_results(path) for path in paths}
    tables.check_same(list(seeds.values()), [str(path) for path in paths])
    tables.check_made_of(list(seeds.values()), [str(path) for path in paths])
    return Run(folder, tables.aggregate(list(seeds.values())), seeds, paths[0].parent)


def read_results(path: pathlib.Path) -> dict[str, Any]:
    """Reads and checks a results.json.

    Raises:
      ValueError: broken JSON, another schema, or entries missing or of another kind; names the file.
    """
    results = files.read_json(path)
    if results.get("schema") != 1:
        raise ValueError(f"{path} has schema {results.get('schema')!r}, this version reads 1; run evaluate again.")
    if missing := [key for key in ("dataset", "protocol", "methods") if key not in results]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; run evaluate again.")
    methods = results["methods"]
    if not isinstance(methods, dict) or not methods or not all(_are_numbers(row) for row in methods.values()):
        raise ValueError(
            f'{path}: "methods" is to be {{method: {{metric: number}}}}, at least one; run evaluate again.'
        )
    weights = results.get("weights") or []
    if not all(
        isinstance(w, dict)
        and "weight" in w
        and isinstance(w.get("name"), str)
        and _are_numbers({k: v for k, v in w.items() if k != "name"})
        for w in weights
    ):
        raise ValueError(f'{path}: "weights" is to be a list of {{"name": text, others: number}}; run evaluate again.')
    return results


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
        ranked = [run for run in runs if run.results["methods"]]
        comparison, refusal = (_comparison(ranked), "") if len(ranked) > 1 else (None, "")
    except ValueError as error:
        comparison, refusal = None, str(error)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        title="Report: " + ", ".join(dict.fromkeys(str(run.results["dataset"]) for run in runs)),
        sections=sections,
        comparison=comparison,
        refusal=refusal,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def picture(folder: pathlib.Path, name: Any) -> str | None:
    """A workdir's picture as data URI, made small; None where it is missing, no picture, or outside the workdir."""
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        return None
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail(THUMBNAIL)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _comparison(runs: Sequence[Run]) -> tables.Table:
    return tables.comparison({str(run.folder): run.results for run in runs})


def _section(run: Run) -> dict[str, Any]:
    """Everything that the template shows of one run."""
    results = run.results
    related, missing = {"": run.first}, []
    for name, path in (results.get("runs") or {}).items():
        folder = run.first / str(path)
        if folder.is_dir():
            related[name] = folder
        else:
            missing.append(f"The {name} run is not at {os.path.normpath(folder)}; its curves are not shown.")
    methods = tables.methods(results) if results["methods"] else None
    weights = tables.weights(results) if results.get("weights") else None
    ledger, studies = _ledger(run.folder), _studies(run)
    charts = [figures.weight_scatter(results, against=key) for key in ("reliability", "accuracy", "between_within")]
    recognition = [
        (name, tables.recognition_summary(content), tables.recognition_attributes(content))
        for name, folder in related.items()
        if (folder / "recognition.json").is_file()
        for content in [_recognition(folder / "recognition.json")]
    ]
    shown = (methods, weights, *ledger, *studies, *(() if methods else recognition[0][1:]))
    return {
        "name": str(run.folder),
        "results": results,
        "methods": methods,
        "others": tables.others(results) if methods else None,
        "seeds": [
            tables.methods(one)._replace(caption=f"{name}: seeds {_flat_text(one.get('seeds'))}")
            for name, one in run.seeds.items()
        ],
        "first": str(run.first.relative_to(run.folder)) if run.seeds else "",
        "weights": weights,
        "weight_charts": [chart for chart in charts if chart],
        "weight_bars": figures.weight_bars(results),
        "cmc": figures.cmc(results) if methods else None,
        "ledger": ledger,
        "studies": studies,
        "look_alikes": _look_alikes(run.first),
        "rank_lists": _rank_lists(run.first),
        "distance": tables.distance(results),
        "training": [entry for name, folder in related.items() for entry in _training(name, folder)],
        "recognition": recognition,
        "missing": missing,
        "facts": _facts(run),
        "config": json.dumps(results.get("config") or {}, indent=2, sort_keys=True, default=str),
        "copies": [
            (kind, "\n".join(tables.render(table, kind) for table in shown if table)) for kind in ("markdown", "latex")
        ],
    }


def _training(name: str, folder: pathlib.Path) -> list[tuple[str, list[figures.Chart]]]:
    """(title, charts) of each phase of a run whose scalars are there."""
    paths = {phase: folder / phase / "scalars.jsonl" for phase in PHASES}
    return [
        (f"Phase {phase}" + (f" of the {name} run" if name else ""), figures.training(read_scalars(path)))
        for phase, path in paths.items()
        if path.is_file()
    ]


def _recognition(path: pathlib.Path) -> dict[str, Any]:
    content = files.read_json(path)
    if "dataset" not in content or not isinstance(content.get("attributes"), list):
        raise ValueError(f'{path} lacks "dataset" or "attributes"; run evaluate on the attribute run again.')
    return content


def _rank_lists(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The choices of rank_lists.json, the hardest first, with their pictures."""
    path = folder / "rank_lists.json"
    if not path.is_file():
        return []
    choices = [(split, choice, lists) for split, by in files.read_json(path).items() for choice, lists in by.items()]
    try:
        return [
            {
                "title": {"hardest": "Hardest queries", "random": "Random queries"}.get(choice, choice),
                "split": split,
                "lists": [
                    {
                        **query,
                        "uri": picture(folder, query["image"]),
                        "average_precision": f"{100 * query['average_precision']:.1f} %",
                        "gallery": [
                            {
                                **shown,
                                "rank": shown.get("rank", place),  # files from before ranks were kept have the first
                                "uri": picture(folder, shown["image"]),
                                "distance": f"{shown['distance']:.3g}",
                                "shares": _shares(shown),
                            }
                            for place, shown in enumerate(query["gallery"][:SHOWN], start=1)
                        ],
                    }
                    for query in lists
                ],
            }
            for split, choice, lists in sorted(choices, key=lambda item: item[1] != "hardest")
            if lists
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what evaluate writes ({error!r}); run evaluate again.") from error


def _shares(shown: Mapping[str, Any]) -> list[str]:
    """What makes up a distance, in per cent; files from before there were shares have none."""
    return [
        f"{tables.display(name)} {100 * share / max(shown['distance'], 1e-12):.0f}\N{NO-BREAK SPACE}%"
        for name, share in shown.get("shares", {}).items()
    ]


def _look_alikes(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The pairs of look_alikes.json, with their pictures."""
    path = folder / "look_alikes.json"
    if not path.is_file():
        return []
    content = files.read_json(path)
    factor, unit = (100, " %") if content.get("representation") == "probabilities" else (1, "")
    recognition = content.get("recognition") or {"on": "", "mA": {}}  # files from before it was there have none

    def named(attribute: str) -> str:
        rate = recognition["mA"].get(attribute)
        return tables.display(attribute) + ("" if rate is None else f" ({100 * rate:.0f} %)")

    def shown(item: Mapping[str, Any]) -> dict[str, Any]:
        distances = {key: f"{item[key]:.3g}" for key in ("feature_distance", "distance") if key in item}
        return {**item, "uri": picture(folder, item["image"]), **distances}

    try:
        return [
            {
                **{who: shown(pair[who]) for who in PAIR},
                "recognised_on": recognition["on"],
                "attributes": [
                    (named(entry["name"]), *(f"{factor * entry[who]:.0f}{unit}" for who in PAIR))
                    for entry in pair["attributes"]
                ],
            }
            for pair in content["pairs"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not what evaluate writes ({error!r}); run evaluate again.") from error


def _ledger(folder: pathlib.Path) -> list[tables.Table]:
    """The tables of ledger.json, if it is there."""
    path = folder / "ledger.json"
    if not path.is_file():
        return []
    content = files.read_json(path)
    try:
        return [tables.ledger(content), tables.ledger_spearman(content)]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not what ledger writes ({error!r}); run ledger again.") from error


def _studies(run: Run) -> list[tables.Table]:
    """The tables of studies in the workdir (STUDY/table.json), and of that which the run is an arm of."""
    is_arm = (run.first / "job.json").is_file()  # STUDY/ARM/[SPLIT/]seed_N
    above = run.first.absolute().parents[:3] if is_arm else ()
    paths = [*sorted(run.folder.glob("*/table.json")), *(parent / "table.json" for parent in above)]
    found = []
    for path in filter(pathlib.Path.is_file, paths):
        content = files.read_json(path)
        try:
            found.append(tables.study(content))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not what ablate writes ({error!r}); run ablate again.") from error
    return found


def _facts(run: Run) -> list[tuple[str, str]]:
    """Name and text of what one needs to repeat the run."""
    results = run.results
    facts = {
        "data set": results["dataset"],
        "split": results.get("split"),
        "protocol": results.get("protocol"),
        "queries without a match": f"{results.get('queries_without_match', 0)} (policy {results.get('no_match', '-')})"
        if results["methods"]
        else None,
        "mA": results.get("mA"),
        "part of the data set only": "yes" if results.get("partial") else "no",
        "gamma": results.get("gamma"),
        "scales": results.get("scales"),
        "tuned factor": results.get("tuned_factor"),
        "attributes from": results.get("attributes_from"),
        "seeds": "; ".join(f"{name}: {_flat_text(one.get('seeds'))}" for name, one in run.seeds.items())
        or results.get("seeds"),
        "commit": results.get("commit"),
        "versions": results.get("versions"),
        "fingerprint of the data": results.get("fingerprint"),
    }
    return [(name, _flat_text(value)) for name, value in facts.items() if value not in (None, "", {})]


def _flat_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat_text(entry)}" for key, entry in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _are_numbers(row: Any) -> bool:
    return isinstance(row, dict) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in row.values()
    )
