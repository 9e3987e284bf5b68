"""Person re-identification by attribute-complementary information, in JAX (Schumann and Stiefelhagen, 2017)."""

import os

__version__ = "0.2.0.dev0"

# configs/ and data_prep/ lie beside this folder in a checkout and in it in an installed package. They are imported as
# acrn_jax.configs and acrn_jax.data_prep in both.
_above = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CHECKOUT = _above if os.path.isfile(os.path.join(_above, "pyproject.toml")) else None
if CHECKOUT:
    __path__.append(CHECKOUT)
