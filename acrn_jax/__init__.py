"""Person re-identification by attribute-complementary information, in JAX (Schumann and Stiefelhagen, 2017)."""

import os

__version__ = "0.2.0.dev0"

# configs/ and data_prep/ lie beside this folder in a checkout, and in it where the package is installed. They are
# imported as acrn_jax.configs and acrn_jax.data_prep in both.
_here = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = None if os.path.isdir(os.path.join(_here, "configs")) else os.path.dirname(_here)
if CHECKOUT:
    __path__.append(CHECKOUT)
COMMAND = "./launch.sh" if CHECKOUT else "acrn"  # what users type before a verb
