"""Verbs that may run as several processes: the flags, and how they begin and end together. docs/clusters.md."""

import logging
import os
import sys
import traceback
from collections.abc import Callable

from absl import flags

from acrn_jax.cli import cards, shell

_ADDRESS = flags.DEFINE_string(
    "coordinator_address",
    None,
    "HOST:PORT of process 0 where several processes work as one; on SLURM, Open MPI, GKE and Cloud TPU it is found.",
)
_COUNT = flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.", lower_bound=0)


def run(main: Callable[[list[str]], int | None]) -> None:
    """`shell.run` of what the processes do together."""
    shell.run(lambda argv: together(lambda: main(argv)))


def together(work: Callable[[], int | None]) -> int | None:
    """Does the work once all processes have met; only process 0 then speaks on stdout."""
    import jax  # here, as it takes seconds that not all verbs need

    from acrn_jax.train import parallel

    parallel.start(_ADDRESS.value, num_processes=_COUNT.value, process_id=_ID.value)
    cards.warn_of_idle_card()
    if jax.process_count() == 1:
        return work()
    if not parallel.is_primary():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        logging.disable(logging.WARNING)
    try:
        return work()
    except Exception as error:
        # The others wait for this process in a collective operation, and leaving in good order waits for them.
        wrong = isinstance(error, ValueError | OSError)
        who = f"process {jax.process_index()} of {jax.process_count()}"
        if wrong and not shell.debugging():
            shell.complain(f"{who}: {shell.sentence(error)}")
        else:
            print(f"acrn_jax: {who}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        os._exit(shell.WRONG_INPUT if wrong else 1)
