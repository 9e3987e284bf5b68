"""Nets are not used on images that they were trained on, nor on a data set that is declared to show the same people."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest

from acrn_jax.data import source
from acrn_jax.data_prep.peta import peta_dataset_builder as peta
from acrn_jax.data_prep.peta import release
from acrn_jax.runs import overlap


class Images:
    """A split, of which names and bytes matter alone."""

    def __init__(self, *names):
        self.name, self.file_name = "a split", np.array(names)

    def __len__(self):
        return len(self.file_name)

    def image_bytes(self, i):
        return str(self.file_name[i]).encode()


def mixture(*keys):
    """A split of a mixture with a record for each key, such as "peta/random_0/MIT/1.jpg", whose bytes are its name."""
    parts = sorted({tuple(key.split("/")[:2]) for key in keys})
    keys = sorted(keys)
    person = [1 + parts.index(tuple(key.split("/")[:2])) for key in keys]
    names = [key.split("/", 2)[2] for key in keys]
    return source.Split(
        name="mixture/m/train",
        key=np.array([f"mixture/m/{key}" for key in keys]),
        file_name=np.array(keys),
        person_id=np.array(person),
        camera_id=np.array(person),
        attributes=np.zeros((len(keys), 0), np.int8),
        attribute_names=(),
        metadata={"parts": [{"dataset": d, "config": c, "people": [i, i]} for i, (d, c) in enumerate(parts, start=1)]},
        fingerprint="f",
        rows=np.arange(len(keys)),
        read=lambda i: names[i].encode(),
    )


def data(name, excluded=()):
    return types.SimpleNamespace(name=name, config="c", dir="D", exclude_subsets=tuple(excluded))


def run(trained, name, excluded=(), **attributes):
    """A run in the workdir "M": `trained` are its images, or the error that looking for them gives."""
    config = types.SimpleNamespace(data=data(name, excluded), of_acrn="from_" in attributes)
    config.attributes = types.SimpleNamespace(**{"allow_overlap": False} | attributes)

    def training_images(data_dir):
        if isinstance(trained, Exception):
            raise trained
        return trained

    return types.SimpleNamespace(workdir=Path("M"), config=config, training_images=training_images, ships=False)


@pytest.fixture
def begin(monkeypatch):
    """Checks what training begins with: `net` on a target."""

    def check(net, target, *splits, allow=False):
        monkeypatch.setattr(overlap, "attribute_net", lambda folder: net)
        monkeypatch.setattr(overlap, "load", lambda folder: net)
        settings = types.SimpleNamespace(from_="M", allow_overlap=allow)
        overlap.check_attribute_net(types.SimpleNamespace(data=data(target), attributes=settings), splits)

    return check


@pytest.fixture
def score(monkeypatch):
    """Checks what scoring begins with: a run, and an attribute net in "A" where it has one, on a target."""

    def check(run, net, target, *splits):
        monkeypatch.setattr(overlap, "load", lambda folder: net if folder == Path("A") else run)
        overlap.check_scored_on(run, types.SimpleNamespace(data=data(target)), splits)

    return check


PETA = Images("CUHK/0001.png", "GRID/0001_1.jpeg", "MIT/1.jpg")
TARGETS = {
    "cuhk01": Images("campus/0001001.png"),
    "cuhk03": Images("detected/1_001_1_01.png"),
    "cuhk03_np": Images("labeled/1_001_1_01.png"),
}


@pytest.mark.parametrize("target", TARGETS)
def test_petas_cuhk_is_not_used_on_cuhk(begin, target):
    told = (
        rf"The attribute net M was trained on images of peta/CUHK, which may show people of {target}; train one with "
    )
    with pytest.raises(ValueError, match=told + r"""--config\.data\.exclude_subsets="\('CUHK',\)", or pass"""):
        begin(run(PETA, "peta"), target, TARGETS[target])
    with pytest.raises(ValueError, match=r"""="\('GRID', 'CUHK'\)", or pass --config.attributes.allow_overlap=True"""):
        begin(run(PETA, "peta", ["GRID"]), target, TARGETS[target])
    begin(run(PETA, "peta"), target, TARGETS[target], allow=True)
    begin(run(Images("GRID/0001_1.jpeg"), "peta", ["CUHK"]), target, TARGETS[target])
    begin(run(Images("GRID/0001_1.jpeg"), "peta"), target, TARGETS[target])  # a part of PETA


@pytest.mark.parametrize("error", [FileNotFoundError("no such folder"), ValueError("other images by now")])
def test_settings_tell_where_images_do_not(begin, error):
    with pytest.raises(ValueError, match="was trained on images of peta/CUHK"):
        begin(run(error, "peta"), "cuhk01", TARGETS["cuhk01"])
    begin(run(error, "peta", ["CUHK"]), "cuhk01", TARGETS["cuhk01"])
    begin(run(error, "peta"), "market1501", Images("query/0001_c1s1_000001_00.jpg"))


@pytest.mark.parametrize("subset", sorted({subset for subset, _ in peta.REID_SUBSETS.values()}))
def test_a_subset_is_not_learnt_from_in_other_images(begin, score, subset):
    """That the images differ does not help: they show the same people."""
    seen, asked = Images("MIT/1.jpg", f"{subset}/1.jpg"), Images(f"{subset}/2.jpg")
    told = rf"The attribute net M was trained on images of peta/{subset}, whose people peta/c shows; train one with "
    with pytest.raises(ValueError, match=told + rf"""--config\.data\.exclude_subsets="\('{subset}',\)", or"""):
        begin(run(seen, "peta"), "peta", asked)
    with pytest.raises(ValueError, match=r"M was trained on 1 images of a split, e.g. .*; train one .*exclude_subsets"):
        begin(run(seen, "peta"), "peta", Images(f"{subset}/1.jpg"))
    begin(run(Images("MIT/1.jpg"), "peta", [subset]), "peta", asked)
    # The run itself trains on people of the sub-set, and is scored on others.
    acrn = {"from_": "A", "allow_overlap": False}
    score(run(seen, "peta", **acrn), run(Images("MIT/1.jpg"), "peta", [subset]), "peta", asked)
    told = (
        r"""M was trained .*; score it on other images, train it anew with an attribute net trained with --config\."""
    )
    with pytest.raises(
        ValueError, match=told + rf"""data\.exclude_subsets="\('{subset}',\)", or pass --allow_overlap"""
    ):
        score(run(seen, "peta", **acrn), run(seen, "peta"), "peta", asked)


def test_every_declared_part_is_one():
    """Spelt as the data sets are, or nothing would be found."""
    for part in {part for pair in overlap.SAME_PEOPLE for part in pair}:
        name, _, subset = part.partition("/")
        assert (subset in release.SUBSETS) if name == "peta" else (part in TARGETS)


def test_scoring_on_another_split_of_the_same_release(score):
    """A re-id net of CUHK03 has seen whom the new protocol tests."""
    trained = Images("labeled/1_001_1_01.png")
    with pytest.raises(
        ValueError, match="The run M was trained on images of cuhk03, which may show people of cuhk03_np"
    ):
        score(run(trained, "cuhk03"), None, "cuhk03_np", Images("labeled/1_002_1_01.png"))
    score(run(trained, "cuhk03", allow_overlap=True), None, "cuhk03_np", Images("labeled/1_002_1_01.png"))
    score(run(trained, "cuhk03"), None, "cuhk03", Images("labeled/1_002_1_01.png"))
    score(run(trained, "cuhk03"), None, "cuhk01", Images("campus/0001001.png"))
    score(run(PETA, "peta"), None, "peta", Images("CUHK/0002.png"))  # an attribute net, on its own test split


def test_a_mixture_is_known_by_its_parts_and_its_images(begin, score):
    mixed = mixture("cuhk01/split_0/campus/1.png", "peta/c/CUHK/0001.png", "peta/c/VIPeR/1.png")
    with pytest.raises(ValueError, match=r"trained on 1 images of a split, e\.g\. campus/1\.png; train one on other"):
        begin(run(mixed, "mixture"), "cuhk01", Images("campus/2.png", "campus/1.png"))
    with pytest.raises(ValueError, match="trained on images of peta/CUHK, which may show people of cuhk03"):
        begin(run(mixed, "mixture"), "cuhk03", TARGETS["cuhk03"])
    begin(run(mixed, "mixture"), "market1501", Images("bounding_box_train/1.jpg"))
    begin(run(mixture("cuhk01/split_0/campus/1.png"), "mixture"), "cuhk01", Images("campus/2.png"))  # other people
    viper = mixture("peta/c/VIPeR/1.png")
    with pytest.raises(ValueError, match="trained on images of peta/VIPeR, whose people peta/c shows"):
        begin(run(viper, "mixture"), "peta", Images("VIPeR/2.png"))
    score(run(viper, "mixture"), None, "peta", Images("VIPeR/2.png"))  # a re-id run knows some, and is scored on others


CAMPUS = "campus/0001001.png"


def test_a_net_has_seen_each_part_of_its_mixture(score):
    """Refused on images and declared people of any part, and on nobody else."""
    trained = mixture("market1501/dev_0/train/1.jpg", "market1501/dev_0/train/2.jpg", f"cuhk01/871_multi_0/{CAMPUS}")
    net = run(trained, "mixture")
    told = (
        r"The run M was trained on 1 images of a split, e.g. train/2.jpg; score it on other images, or pass --allow_ov"
    )
    with pytest.raises(ValueError, match=told):
        score(net, None, "market1501", Images("train/3.jpg"), Images("train/2.jpg"))
    with pytest.raises(ValueError, match=r"was trained on 1 images of a split, e\.g\. campus/0001001"):
        score(net, None, "cuhk01", Images(CAMPUS))
    score(net, None, "market1501", Images("train/3.jpg"))  # of its test people
    score(net, None, "cuhk01", Images("campus/0002001.png"))
    score(net, None, "dukemtmc_reid", Images("train/3.jpg"))
    score(run(trained, "mixture", allow_overlap=True), None, "market1501", Images("train/2.jpg"))


def test_people_of_a_mixtures_parts_are_known(score, begin):
    cuhk, subset = mixture("cuhk03/detected_dev_0/detected/1_001_1_01.png"), mixture("peta/random_0/3DPeS/1.bmp")
    with pytest.raises(
        ValueError, match="trained on images of cuhk03, which may show people of cuhk03_np; score it on"
    ):
        score(run(cuhk, "mixture"), None, "cuhk03_np", Images("labeled/1_002_1_01.png"))
    score(run(subset, "mixture"), None, "peta", Images("3DPeS/2.bmp"))  # trained on some people, scored on others
    told = (
        r"M was trained on images of peta/3DPeS, whose people peta/c shows; train one with .*exclude_subsets=..'3DPeS',"
    )
    with pytest.raises(ValueError, match=told):
        begin(run(subset, "mixture"), "peta", Images("3DPeS/2.bmp"))
    begin(run(subset, "mixture"), "peta", Images("GRID/1.jpeg"))


def test_a_mixture_is_looked_through_as_target(begin):
    """An attribute net of PETA on a mixture with one of its sub-sets, and with CUHK01."""
    asked = mixture("market1501/dev_0/train/1.jpg", f"cuhk01/871_multi_0/{CAMPUS}", "peta/reid_3dpes/3DPeS/1.bmp")
    with pytest.raises(
        ValueError, match="trained on images of peta/CUHK, which may show people of cuhk01; train one with"
    ):
        begin(run(PETA, "peta"), "mixture", asked)
    seen = Images("MIT/1.jpg", "3DPeS/2.bmp")
    with pytest.raises(ValueError, match=r"of peta/3DPeS, whose people mixture/c shows; .*exclude_subsets=..'3DPeS',"):
        begin(run(seen, "peta"), "mixture", asked)
    with pytest.raises(ValueError, match=r"on 1 images of mixture/m/train \(peta/reid_3dpes\), e.g. 3DPeS/1.bmp"):
        begin(run(Images("3DPeS/1.bmp"), "peta"), "mixture", asked)
    begin(run(Images("MIT/1.jpg", "GRID/1.jpeg"), "peta"), "mixture", asked)
    with pytest.raises(
        ValueError, match=r"on 1 images of mixture/m/train, e.g. market1501/dev_0/train/1.jpg; train one on other"
    ):
        begin(run(mixture("market1501/dev_1/train/1.jpg"), "mixture"), "mixture", asked)


@pytest.mark.parametrize("which", [0, 1])
def test_parts_whose_files_have_the_same_names(score, which):
    """Two folders hold 1.jpg, and one of these is the picture."""
    other = mixture("image_folder/a/1.jpg", "image_folder/b/1.jpg")
    trained = dataclasses.replace(other, read=lambda i: b"1.jpg" if i == which else b"another")
    with pytest.raises(ValueError, match="was trained on 1 images"):
        score(run(trained, "mixture"), None, "image_folder", Images("1.jpg"))
    score(run(dataclasses.replace(other, read=lambda i: b"another"), "mixture"), None, "image_folder", Images("1.jpg"))


def test_where_a_mixture_is_not_at_hand(score, begin, capsys):
    gone = run(FileNotFoundError("no such folder"), "mixture")
    score(gone, None, "market1501", Images("train/1.jpg"))
    assert (
        "Whether the run M was trained on images that it is scored on is not known: no such" in capsys.readouterr().out
    )
    with pytest.raises(FileNotFoundError, match="no such folder"):
        begin(gone, "market1501", Images("train/1.jpg"))
