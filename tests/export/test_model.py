"""The preprocessing inside exported programs."""

import numpy as np
import pytest

from acrn_jax.data import transforms
from acrn_jax.export import model


@pytest.mark.parametrize(("rows", "columns"), [(20, 10), (41, 16), (200, 80), (9, 7)])
def test_resize_is_that_of_training_bit_for_bit(rows, columns):
    images = np.random.default_rng(rows).integers(0, 256, (2, rows, columns, 3), dtype=np.uint8)
    images[1] = 255 * (images[1] > 128)  # the ends of the range, and many ties
    wanted = [transforms.resize(image, 20, 10) for image in images]
    np.testing.assert_array_equal(np.asarray(model.resize(images, 20, 10)), wanted)
