"""Tables of attribute queries; see evaluation/attribute_query.py."""

from acrn_jax.report import cells
from acrn_jax.report.table import Table
from acrn_jax.results import AttributeQueries, Ends

METRICS = {
    "mAP_precision": "mAP prec.",
    **{f"rank{k}": f"r{k}" for k in (1, 10)},
    **{f"precision{k}": f"p@{k}" for k in (10, 20)},
    "recall_far0.01": "recall at 1 % FA",
    "recall_far0.1": "at 10 % FA",
}
ROWS = {
    "product": "product of probabilities",
    "squares": "squared gaps",
    "log_odds": "sum of log-odds",
    "learned_product": "product, learned weights",
    "learned_log_odds": "log-odds, learned weights",
    "marginal": "frequencies alone",
    "oracle": "true labels",
    "random": "random order",
}
NUMBERS = {"1": "1 attribute", "2": "2", "3": "3", "4": "4", "5": "5"}


def tables(found: AttributeQueries) -> list[Table]:
    """Metrics of all rows, then their mAP by number of attributes and by band."""
    rows = [
        (
            ROWS.get(name, name),
            *(cells.percent(row.metrics[metric]) for metric in METRICS),
            _ends(row.interval),
            _ends(row.change, sign=True),
        )
        for name, row in found.rows.items()
    ]
    half = f", {found.half.replace('_', ' ')} of the people" if found.half else ""
    on = f"{found.dataset}{f', {found.split}' if found.split else ''}{half}"
    caption = f"{len(found.wish_lists)} wish lists on {on}: {found.images:,} images of {found.people:,} people"
    columns = ("ranked by", *METRICS.values(), "95 % of mAP", "mAP against product")
    note = (
        f"Per cent. Intervals: {found.interval}. FA: false alarms, the share of wrong images that may come before. "
        f"Lists: sha256 {found.lists_sha256[:12]}."
    )
    parts = Table(
        "mAP (precision) by number of wished attributes and by the share of right images",
        ("ranked by", *(NUMBERS.get(n, n) for n in found.counts["by_number"]), *found.counts["by_band"]),
        [
            ("lists", *(cells.count(n) for by in ("by_number", "by_band") for n in found.counts[by].values())),
            *(
                (ROWS.get(name, name), *(cells.percent(v) for v in (*row.by_number.values(), *row.by_band.values())))
                for name, row in found.rows.items()
            ),
        ],
        "Right images: rare up to 1 %, seldom to 5 %, common to 20 %, frequent to 50 %.",
    )
    return [Table(caption, columns, rows, note, breaks=(8,)), parts]


def _ends(ends: Ends | None, *, sign: bool = False) -> str:
    if ends is None or ends.low is None or ends.high is None or ends.mean is None:
        return "-"
    plus = "+" if sign else ""
    mean = f"{100 * ends.mean:{plus}.1f}: " if sign else ""
    return f"{mean}{100 * ends.low:{plus}.1f} to {100 * ends.high:{plus}.1f}"
