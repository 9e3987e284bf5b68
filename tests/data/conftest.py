import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from acrn_jax.data import source
from acrn_jax.data_prep import prepared, reid

PEOPLE, IMAGES = 5, 4  # of split train; the last image of the first person is a PNG, all others are JPEG


def encode(pixels, form="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def picture(seed, height=24, width=12):
    """Smooth random colours, uint8 [height, width, 3]: JPEG keeps them, and each image is another."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="plain")]  # noqa: RUF012

    def _info(self):
        metadata = reid.metadata(attribute_names=["hat", "bag", "skirt"], protocol="market1501")
        return tfds.core.DatasetInfo(builder=self, features=reid.features(3), metadata=metadata)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "broken": [self._record("bad.jpg", 1, 1, encode(picture(0))[:200])]}

    def _generate_examples(self):
        for person in range(1, PEOPLE + 1):
            for image in range(IMAGES):
                form = "PNG" if (person, image) == (1, IMAGES - 1) else "JPEG"
                pixels = picture(10 * person + image)
                name = f"{person:04}_c{image % 2 + 1}_{image}.{form.lower()}"
                yield self._record(name, person, image % 2 + 1, encode(pixels, form))

    def _record(self, name, person, camera, image):
        example = reid.Example(image, name, person, camera, [person % 2, camera - 1, -1])
        return reid.record(example, builder="tiny", config="plain")


@pytest.fixture(scope="session")
def builder(tmp_path_factory):
    made = Tiny(data_dir=tmp_path_factory.mktemp("data"), config="plain", file_format="array_record")
    made.download_and_prepare()
    return made


@pytest.fixture(scope="session")
def data_dir(builder):
    return builder.data_path.parents[2]


@pytest.fixture(scope="session")
def train(data_dir):
    return source.open_split(data_dir, "tiny", "plain", "train")


@pytest.fixture(scope="session")
def marks(builder):
    """What prepare writes as fingerprint.json."""
    return prepared.fingerprint(builder)
