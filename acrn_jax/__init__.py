"""Person re-identification by attribute-complementary information, in JAX (Schumann and Stiefelhagen, 2017)."""

__version__ = "0.1.0"
