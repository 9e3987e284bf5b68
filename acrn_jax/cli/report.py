"""Writes one self-contained HTML file about evaluated runs: ./launch.sh report --workdir=A[,B...] --out=report.html."""

from acrn_jax.cli import shell
from acrn_jax.data_prep import paths
from acrn_jax.report import html, tables
from acrn_jax.results import Results
from acrn_jax.studies import evidence

_WORKDIR = paths.define_folders("workdir", None, "Folders of evaluated runs, attribute nets too, by commas.")
_EVIDENCE = paths.define_file("evidence", None, "Also write each query's scores to this .npz, for others to recompute.")
_OUT = paths.define_file("out", "report.html", "The file to write.")


def main(argv: list[str]) -> None:
    del argv  # flags say it all
    if not _WORKDIR.value:
        raise ValueError("--workdir is not set; give the folder of an evaluated run, or several separated by commas.")
    for folder in _WORKDIR.value:
        results = html.read(folder).results
        print(tables.methods_table(results) if isinstance(results, Results) else tables.recognition_table(results))
    if _EVIDENCE.value:
        print(f"{_EVIDENCE.value}: {', '.join(evidence.write(_WORKDIR.value, _EVIDENCE.value))}")
    print(html.write(_WORKDIR.value, _OUT.value))


if __name__ == "__main__":
    shell.run(main)
