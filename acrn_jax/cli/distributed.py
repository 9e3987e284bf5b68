"""Verbs that may run as several processes: the flags, and how they begin and end together. docs/clusters.md."""

import logging
import os
import sys
import traceback
from collections.abc import Callable

import jax
from absl import flags

from acrn_jax.cli import shell
from acrn_jax.train import parallel

_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT of process 0 where several processes work as one; on SLURM, Open MPI, GKE and Cloud TPU it is found.",
)
_COUNT = flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.", lower_bound=0)


def run(main: Callable[[list[str]], int | None]) -> None:
    """`shell.run`, after the processes have met; only process 0 then speaks on stdout."""

    def together(argv: list[str]) -> int | None:
        parallel.start(_ADDRESS.value, num_processes=_COUNT.value, process_id=_ID.value)
        if not parallel.leads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            logging.disable(logging.WARNING)
        if jax.process_count() == 1:
            return main(argv)
        try:
            return main(argv)
        except Exception as error:
            # The others wait for this process in a collective operation, and leaving in good order waits for them.
            who = f"process {jax.process_index()} of {jax.process_count()}"
            if isinstance(error, ValueError | OSError) and not shell.debugging():
                shell.complain(f"{who}: {shell.sentence(error)}")
            else:
                print(f"acrn_jax: {who}:\n{traceback.format_exc()}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(shell.WRONG_INPUT if isinstance(error, ValueError | OSError) else 1)

    shell.run(together)
