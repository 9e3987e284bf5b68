"""`acrn_jax.load`: a trained run, or a bundle, asked about pictures.

net = acrn_jax.load("runs/market")                 # a workdir, the folder of a bundle, or the name of a net that ships
net.embed(["a.jpg", "b.jpg"])                      # features, float32 [2, D]
net.attributes("a.jpg")                            # probabilities, with their names
net.distances(["a.jpg"], gallery)                  # as the run ranks, [1, G]
net.explain("a.jpg", "b.jpg")                      # shares of the feature and of each attribute
net.same_person(net.distances("a.jpg", gallery))   # calibrated probabilities, where there is a calibration
"""

import dataclasses
import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from acrn_jax import schema
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import explain, fusion
from acrn_jax.export import bundle, model
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs import nets, pair_calibration
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, attribute_net
from acrn_jax.runs.run import load as load_run

Images = Any  # path, folder, PIL image, uint8 array [H, W, 3] or [N, H, W, 3], or a sequence of such
Parts = tuple[np.ndarray | None, np.ndarray | None]  # features [N, D] and attributes [N, A]


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What an attribute net says about N images."""

    names: tuple[str, ...]  # [A]
    probabilities: np.ndarray  # [N, A] float32, as the net says them, not calibrated

    def __getitem__(self, name: str) -> np.ndarray:
        """[N] of one attribute."""
        if name not in self.names:
            raise KeyError(f"There is no attribute {name!r}; the net knows {', '.join(self.names)}.")
        return self.probabilities[:, self.names.index(name)]

    def __str__(self) -> str:
        width = max(map(len, self.names))
        return "\n".join(f"{name:{width}}  {'  '.join(f'{100 * p:3.0f} %' for p in self[name])}" for name in self.names)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What one distance adds up to."""

    distance: float
    feature: float  # d_f / s_f
    attributes: Mapping[str, float]  # gamma w^2 (difference)^2 / s_a of each, the largest first

    def __str__(self) -> str:
        whole = self.distance or 1.0
        shown = {"feature": self.feature} | dict(list(self.attributes.items())[:5])
        parts = [f"{name} {100 * value / whole:.0f} %" for name, value in shown.items()]
        return f"{self.distance:.4g}: {', '.join(parts)}{' ...' * (len(self.attributes) > 5)}"


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained run, or a bundle.

    `embed` wants a re-id net, `attributes` an attribute net; an ACRN has both. All take one image or several: a path
    (of an image or a folder of images), a PIL image, an array uint8 [H, W, 3], or a sequence or array of these.
    """

    place: Path
    attribute_names: tuple[str, ...]  # [A], empty without an attribute net
    distance: str  # key of fusion.DISTANCES
    representation: str  # of attributes, in distances
    formula: explain.Formula
    _feature: Callable[[source.Split], np.ndarray] | None
    _logits: Callable[[source.Split], np.ndarray] | None
    pairs: pair_calibration.PairCurve | str = "nothing was calibrated"  # else why there is no calibration of pairs

    def embed(self, images: Images) -> np.ndarray:
        """Features, float32 [N, D].

        Raises:
          ValueError: there is no re-id net, or no image that can be read.
          TypeError: what is no image.
        """
        if self._feature is None:
            raise ValueError(f"{self.place} has no re-id net, so it gives no feature; ask it for attributes.")
        return self._feature(pictures(images))

    def attributes(self, images: Images) -> Attributes:
        """Probabilities of the attributes; errors as of `embed`."""
        if self._logits is None:
            raise ValueError(f"{self.place} has no attribute net; an ACRN and an attribute run have one.")
        logits = self._logits(pictures(images))
        return Attributes(self.attribute_names, REPRESENTATIONS["probabilities"](logits))

    def distances(self, a: Images, b: Images) -> np.ndarray:
        """Distances of each image of a to each of b, float32 [N, M], as the run ranks by them.

        d_f / s_f + gamma d_w / s_a of an ACRN; d_f / s_f of a ReIdCNN; the unweighted d_a of an attribute net.
        """
        return self.between(*(self.parts(pictures(images)) for images in (a, b)))

    def same_person(self, distances: np.ndarray, *, prior: float = 0.5) -> np.ndarray:
        """Probabilities that pairs show one person, by `distances` (docs/verdict.md).

        Args:
          distances: as `distances` gives them, of any shape.
          prior: share of the pairs that show one person, before anything is looked at.

        Raises:
          ValueError: there is no calibration of this distance; the prior is not between 0 and 1.
        """
        return self._calibrated().curve.probabilities(distances, prior)

    def passing(self, distances: np.ndarray, max_false_alarms: float) -> np.ndarray:
        """Which pictures of a gallery count as the query's person, bool [N, M]; a row without any: "none of these".

        Args:
          distances: [N, M] of queries to all of the gallery.
          max_false_alarms: share of searches, for people who are not there, in which anything may pass.

        Raises:
          ValueError: there is no calibration of this distance, or the share was not measured; the distances are no
            matrix.
        """
        distances = np.asarray(distances)
        if distances.ndim != 2:
            raise ValueError(f"Distances are {list(distances.shape)}; give those of N queries to the gallery, [N, M].")
        return distances < self._calibrated().threshold(max_false_alarms, distances.shape[1]).value

    def _calibrated(self) -> pair_calibration.PairCurve:
        if isinstance(self.pairs, str):
            raise ValueError(f"There is no probability of one person: {self.pairs}.")
        return self.pairs

    def between(self, a: Parts, b: Parts) -> np.ndarray:
        """As `distances`, of what `parts` gave."""
        (f, x), (g, y), terms = a, b, []
        if f is not None and g is not None:
            terms.append((1 / self.formula.feature_scale, fusion.distance_rows(self.distance, f, g)))
        if x is not None and y is not None:
            rows = fusion.distance_rows(self.distance, self.formula.weights * x, self.formula.weights * y)
            terms.append((self.formula.gamma / self.formula.attribute_scale, rows))
        return np.asarray(fusion.weighted_sum(*terms)(slice(0, len(x if f is None else f))), np.float32)

    def explain(self, a: Images, b: Images) -> list[Explanation]:
        """What the distance of each image of a to the one of b in the same place adds up to.

        Raises:
          ValueError: as of `embed`; not as many images in both; a distance that is no sum over attributes.
        """
        explain.check_additive(self.distance)
        first, second = pictures(a), pictures(b)
        if len(first) != len(second):
            raise ValueError(f"explain takes pairs; got {len(first)} images and {len(second)}. Give as many of both.")
        (f, x), (g, y) = self.parts(first), self.parts(second)
        nothing = np.zeros((len(first), 0), np.float32)
        f, g, x, y = (nothing if values is None else values for values in (f, g, x, y))
        parts = explain.shares(f, g, x, y, self.formula)
        found = []
        for own, of_attributes in zip(parts.feature, parts.attributes, strict=True):
            order = np.argsort(-of_attributes, kind="stable")
            shares = {self.attribute_names[i]: float(of_attributes[i]) for i in order if self.formula.weights[i]}
            found.append(Explanation(float(own + of_attributes.sum()), float(own), shares))
        return found

    def parts(self, split: source.Split) -> Parts:
        """(features, attributes in their representation) that distances compare, None for what they do not."""
        feature = None if self._feature is None else self._feature(split)
        if self._logits is None or (self._feature is not None and not self.formula.gamma):
            return feature, None
        return feature, REPRESENTATIONS[self.representation](self._logits(split))


def load(place: str | Path) -> Model:
    """A trained run's workdir, a net that ships or its name, or a bundle, ready to be asked about images.

    Raises:
      FileNotFoundError: `place` is none of these.
      ValueError: training has not come to its end, or something there is damaged.
    """
    place = nets.place(Path(place).expanduser())
    if (place / "config.json").is_file() or nets.is_net(place):
        return _of_run(place)
    if (place / "manifest.json").is_file():
        return _of_bundle(place)
    raise FileNotFoundError(
        f"{place} holds neither a trained run (config.json) nor a bundle (manifest.json); name the --workdir of a "
        f"training, the --out of an export, or a net that ships.{nets.hint(place)}"
    )


def _of_run(place: Path) -> Model:
    run = load_run(place)
    run.check_attributes()
    loss, net, feature, weights, scales = run.config.loss, None, None, np.zeros(0, np.float32), {}
    gamma = loss.gamma
    if isinstance(run, AttributeRun):
        net, gamma = run, 1.0
        weights = np.ones(len(run.names), np.float32)
    elif isinstance(run, ReidCnnRun):
        feature, scales = lambda split: run.outputs(split, quiet=True)["feature"], run.scales
        if isinstance(run, AcrnRun):
            net, weights = run.attribute_net, run.weights(run.training_attributes())
        elif run.ships and run.config.attributes.from_:  # to describe; its distance knows no attributes
            net, gamma = attribute_net(run.config.attributes.from_), 0.0
    formula = explain.Formula(weights, gamma, scales.get("feature", 1.0), scales.get("attribute", 1.0))
    return Model(
        place,
        net.names if net else (),
        loss.distance,
        run.config.attributes.representation,
        formula,
        feature,
        (lambda split: net.outputs(split, quiet=True)["attribute_logits"]) if net else None,
        pair_calibration.held(run, formula),
    )


def _of_bundle(place: Path) -> Model:
    manifest = bundle.read(place)
    file = bundle.FILES["stablehlo"]
    if file not in manifest["files"]:
        raise ValueError(f"{place} holds no {file}, which loading runs; export the run again with --format=stablehlo.")
    program, parity = bundle.program("stablehlo").load(place / file), manifest["parity"]["stablehlo"]
    names, scales = tuple(manifest.get("attribute_names", ())), manifest.get("scales", {})
    weights = np.array([manifest["weights"][name] for name in names] if "weights" in manifest else [1.0] * len(names))

    def run(split, name):
        images = [transforms.decode(split.image_bytes(i), key=split.key[i]) for i in range(len(split))]
        fed = [model.fed(manifest["input"], image[None], transforms.resize) for image in images]
        return np.concatenate([program(image)[name] for image in fed])

    def logits(split):
        p = np.clip(run(split, "attributes").astype(np.float64), 1e-7, 1 - 1e-7)
        return np.log(p / (1 - p)).astype(np.float32)

    return Model(
        place,
        names,
        manifest.get("distance", manifest["config"]["loss"]["distance"]),
        manifest.get("representation", "probabilities"),
        explain.Formula(
            weights.astype(np.float32),
            manifest.get("gamma", 0.0 if "feature" in parity else 1.0),
            scales.get("feature", 1.0),
            scales.get("attribute", 1.0),
        ),
        (lambda split: run(split, "feature")) if "feature" in parity else None,
        logits if "attributes" in parity else None,
        pair_calibration.of_manifest(manifest, place),
    )


def pictures(images: Images) -> source.Split:
    """Images as a split on which nobody is known.

    Raises:
      FileNotFoundError: a path that is not there.
      ValueError: no image, or one that cannot be read.
      TypeError: what is none of the kinds that `Model` takes.
    """
    if isinstance(images, str | Path) and Path(images).expanduser().is_dir():
        return source.open_folder(Path(images).expanduser())
    if isinstance(images, str | Path | Image.Image) or (hasattr(images, "__array__") and np.ndim(images) != 4):
        images = [images]
    if not isinstance(images, Sequence) and not hasattr(images, "__array__"):
        raise TypeError(f"Images are {type(images).__name__}; give paths, PIL images or arrays uint8 [H, W, 3].")
    encoded = [_encoded(image, place) for place, image in enumerate(images)]
    if not encoded:
        raise ValueError("There is no image; give at least one.")
    names = np.array([name for name, _ in encoded])
    content = [data for _, data in encoded]
    for name, data in encoded:
        transforms.decode(data, key=name)  # refuses what is no picture before a net runs
    return source.Split(
        name="images",
        key=names,
        file_name=names,
        person_id=np.zeros(len(names), np.int32),
        camera_id=np.full(len(names), schema.UNKNOWN, np.int32),
        attributes=np.zeros((len(names), 0), np.int8),
        attribute_names=(),
        metadata={"protocol": "none"},
        fingerprint=hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in content)).hexdigest(),
        rows=np.arange(len(names), dtype=np.int64),
        read=content.__getitem__,
    )


def _encoded(image: Any, place: int) -> tuple[str, bytes]:
    """(name for messages, file content without loss) of one image."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no image {path}.")
        return str(path), path.read_bytes()
    if not isinstance(image, Image.Image):
        if not hasattr(image, "__array__"):
            raise TypeError(
                f"Image {place} is {type(image).__name__}; give a path, a PIL image or an array uint8 [H, W, 3]."
            )
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not math.prod(array.shape):
            raise TypeError(
                f"Image {place} is an array {array.dtype} {list(array.shape)}; uint8 [height, width, 3] is wanted, "
                "pixels 0 to 255, red first."
            )
        image = Image.fromarray(array)
    image = ImageOps.exif_transpose(image)
    if image.mode == "CMYK":  # of which PNG knows nothing
        image = image.convert("RGB")
    data = io.BytesIO()
    image.save(data, "png")
    return f"image {place}", data.getvalue()
