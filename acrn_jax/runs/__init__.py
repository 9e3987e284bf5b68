"""Runs: a workdir as a noun (`load`), and what is done with it.

| verb | function |
| --- | --- |
| train | `train` |
| evaluate | `evaluate`; of an attribute net `recognise` |
| reproduce | `reproduce` |
| extract, export | `extraction.extract`, `bundles.export` |
| search, describe | `search.search`, `describing.describe` |
"""

from acrn_jax.runs.chain import begin, check_seeds, reproduce
from acrn_jax.runs.evaluation import evaluate
from acrn_jax.runs.recognition import recognise
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, Run, attribute_net, load, load_acrn, recognition_of
from acrn_jax.runs.training import train
from acrn_jax.runs.workdir import folder_on, read_config, read_results

__all__ = [
    "AcrnRun",
    "AttributeRun",
    "ReidCnnRun",
    "Run",
    "attribute_net",
    "begin",
    "check_seeds",
    "evaluate",
    "folder_on",
    "load",
    "load_acrn",
    "read_config",
    "read_results",
    "recognise",
    "recognition_of",
    "reproduce",
    "train",
]
