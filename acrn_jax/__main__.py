"""`python -m acrn_jax VERB` is `acrn VERB`."""

from acrn_jax.cli import main

main.main()
