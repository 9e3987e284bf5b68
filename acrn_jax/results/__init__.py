"""The files that runs and studies leave behind, as records: the one place that knows their keys.

| file | record | the verb that writes it |
| --- | --- | --- |
| results.json | Results | evaluate, of a re-id run |
| recognition.json | Recognition | evaluate, of an attribute net |
| attribute_query.json | AttributeQueries | evaluate, of an attribute net with --protocol=attribute_query |
| rank_lists.json | RankLists | evaluate |
| look_alikes.json | Confusions | evaluate |
| audit.json | Audit | evaluate --audit |
| per_query.npz | PerQuery | evaluate |
| per_image.npz | PerImage | ablate, of attribute nets |
| ledger.json | Ledger | ledger |
| pairs.json | PairCalibration | calibrate |
| table.json | StudyTable | ablate |
| job.json | Job | ablate, beside each of its runs |

A field of a record is a key of the JSON object. `read` takes files of schema 1, which every version from 0.1.0 on
writes: keys that older versions did not write have defaults, keys that this version does not know are passed over. `of`
takes what was just computed, as keyword arguments or as one mapping, and refuses unknown keys. `to_json` gives what is
written; writing itself is left to those who know which of several processes does it.

Standard library and numpy alone: report reads these records where no net, and no jax, is at hand.
"""

from acrn_jax.results.arrays import PerImage, PerQuery
from acrn_jax.results.audit import Audit, AuditColumn, Cameras, Confusable, HardQuery, Probe, Range, Slice
from acrn_jax.results.pairs import Alarms, Judged, PairCalibration, Pairs, PairThresholds, ReliabilityBin
from acrn_jax.results.record import SCHEMA, Malformed, Record
from acrn_jax.results.run import (
    AttributeQueries,
    AttributeRate,
    AttributesFrom,
    Calibrated,
    Confused,
    Confusion,
    Confusions,
    Ends,
    Estimate,
    QueryRow,
    Ranked,
    RankList,
    RankLists,
    Rates,
    Recognition,
    RecognitionPart,
    Results,
    Scores,
    Shown,
    Source,
    TellingAttribute,
    Unfinished,
    Value,
    Weight,
    source,
)
from acrn_jax.results.study import (
    Gain,
    Job,
    Ledger,
    LedgerAttribute,
    LedgerNet,
    LedgerRun,
    Spearman,
    Spread,
    StudyRow,
    StudyTable,
)

__all__ = [
    "SCHEMA",
    "Alarms",
    "AttributeQueries",
    "AttributeRate",
    "AttributesFrom",
    "Audit",
    "AuditColumn",
    "Calibrated",
    "Cameras",
    "Confusable",
    "Confused",
    "Confusion",
    "Confusions",
    "Ends",
    "Estimate",
    "Gain",
    "HardQuery",
    "Job",
    "Judged",
    "Ledger",
    "LedgerAttribute",
    "LedgerNet",
    "LedgerRun",
    "Malformed",
    "PairCalibration",
    "PairThresholds",
    "Pairs",
    "PerImage",
    "PerQuery",
    "Probe",
    "QueryRow",
    "Range",
    "RankList",
    "RankLists",
    "Ranked",
    "Rates",
    "Recognition",
    "RecognitionPart",
    "Record",
    "ReliabilityBin",
    "Results",
    "Scores",
    "Shown",
    "Slice",
    "Source",
    "Spearman",
    "Spread",
    "StudyRow",
    "StudyTable",
    "TellingAttribute",
    "Unfinished",
    "Value",
    "Weight",
    "source",
]
