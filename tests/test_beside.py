"""What may stand in one table, and what is refused before anything is trained. Runs here are files, not nets."""

import json

import pytest

from acrn_jax import runs, settings
from acrn_jax.configs import common
from acrn_jax.data_prep import prepare
from acrn_jax.runs import phases, training
from tests.fixtures import small_net

# By hand: what the ReIdCNN beside an ACRN need not share with it.
FREE = """
    attributes.allow_overlap attributes.from attributes.representation data.cache_mib data.dir
    data.exclude_attributes data.exclude_subsets data.threads devices log_every
    loss.attribute_gradient loss.attribute_margin
    loss.attribute_miner loss.attribute_weights loss.attribute_weights_file loss.gamma loss.mine_on loss.weight_form
    model.branch_kernel model.dropout model.layout model.remat model.views parallel profile_steps save_every
""".split()
SECTIONS = ("evaluate.", "mva.", "reid.attribute_weights.")
NEW = ("accumulate", "ema", "profile_steps", "model.remat")  # keys that runs of the first versions do not have


def flat(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


CONFIG = flat(common.get_config().to_dict()) | {"data.name": "nowhere", "data.dir": "data", "attributes.from": "M"}
KEYS = [key for key in CONFIG if key not in ("phases", "init_from", "loss.kind")]  # these have tests of their own


def write(folder, changes=(), inputs=None, without=()):
    """A run of CONFIG with some keys changed, and with inputs.json where it tells what it was made of."""
    tree = {}
    for key, value in (CONFIG | dict(changes)).items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        if key not in without:
            place[last] = value
    (folder / "reid").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tree))
    if inputs:
        (folder / "reid" / "inputs.json").write_text(json.dumps({"steps": 1} | inputs))
    return folder


def another(key, value):
    """Another value that the key may hold."""
    if isinstance(value, bool):
        found = [not value]
    elif isinstance(value, int | float):
        found = [value + 1, value - 1, value / 2, value + 0.5]
    else:
        found = [[], [0.25] * 3] if isinstance(value, list | tuple) else ["other"]
    rule = settings.all_rules().get(key)
    names = [*found, *rule.wanted.removeprefix("known: ").split(", ")] if rule else found
    return next(name for name in names if name != value and (rule is None or rule.fits(name)))


def refused(run, **beside):
    """The sentence with which a run beside it is refused, or nothing: then evaluation goes on, and finds no data."""
    try:
        runs.evaluate(run, **beside)
    except FileNotFoundError:
        return ""
    except ValueError as error:
        return str(error)
    raise AssertionError("there is nothing to evaluate")


BASE = {"loss.kind": "classic", "phases": ["reid"], "init_from": "R/identity"}
HELD = {"loss.kind": "classic", "data.validation_identities": 100}


@pytest.fixture
def run(tmp_path):
    return write(tmp_path / "R")


def test_every_key_that_is_not_of_attributes_must_agree(run):
    for key in KEYS:
        value = another(key, CONFIG[key])
        free = key in FREE or key.startswith(SECTIONS)
        for name, changes, flag in (("C", BASE, {}), ("T", HELD, {"tune": run.parent / "T"})):
            base = write(run.parent / "C", BASE)
            write(run.parent / name, changes | {key: value})
            told = refused(run, baseline=base, **flag)
            if free or (name == "T" and key == "data.validation_identities"):
                assert told == "", key
            else:
                assert f"{name} does not belong in one table with {run}: {key} is {value!r} there, " in told, key
                assert "./launch.sh reproduce" in told and "./launch.sh report" in told


def test_what_is_no_reidcnn_is_refused(run, tmp_path):
    write(tmp_path / "C", BASE | {"loss.kind": "acrn"})
    assert "C is of loss.kind='acrn'; a ReIdCNN, with loss.kind='classic', is wanted" in refused(
        run, baseline=tmp_path / "C"
    )
    write(tmp_path / "C", BASE | {"phases": ["mva"]})
    assert "C is an attribute net" in refused(run, baseline=tmp_path / "C")
    write(tmp_path / "C", BASE)
    assert "T holds nobody out" in refused(run, baseline=tmp_path / "C", tune=write(tmp_path / "T", BASE))
    assert "--tune goes with --baseline" in refused(run, tune=tmp_path / "T")
    assert "C is no ACRN run, and only such a run takes --baseline" in refused(tmp_path / "C", baseline=tmp_path / "T")


def test_the_identity_phase_is_the_same(run, tmp_path):
    scratch = write(tmp_path / "scratch", BASE | {"init_from": None})
    assert "it was trained without an identity phase, this run not so" in refused(run, baseline=scratch)
    own = write(tmp_path / "own", {"loss.kind": "classic"}, {"start": phases.entry("own/identity", "2" * 64)})
    write(tmp_path / "R", (), {"start": phases.entry("R/identity", "1" * 64)})
    assert refused(run, baseline=own) == ""  # another of the same settings
    other = write(tmp_path / "other", BASE, {"start": phases.entry("other/identity", "3" * 64)})
    told = refused(run, baseline=other)
    assert "it was started from other/identity (fingerprint 333333333333), this run R/identity (fingerprint 1" in told
    write(tmp_path / "other", BASE, {"start": phases.entry("elsewhere", "1" * 64)})
    assert refused(run, baseline=other) == ""


def test_the_images_are_the_same(run, tmp_path):
    made = {kind: phases.entry("d/c/train", str(i) * 64) for i, kind in enumerate(("data", "records"))}
    write(tmp_path / "R", (), made)
    base = write(tmp_path / "C", BASE, made)
    held = write(tmp_path / "T", HELD, made | {"records": phases.entry("d/c/train", "9" * 64)})  # fewer people
    assert refused(run, baseline=base) == refused(run, baseline=base, tune=held) == ""
    for kind in made:
        write(tmp_path / "C", BASE, made | {kind: phases.entry("d/c/train", "a" * 64)})
        assert f"it {phases.KINDS[kind][0]} d/c/train (fingerprint aaaaaaaaaaaa)" in refused(run, baseline=base)


def test_runs_of_older_versions_are_compared_by_what_they_did(run, tmp_path):
    old = write(tmp_path / "old", BASE, without=NEW)
    assert refused(run, baseline=old) == ""
    assert refused(write(tmp_path / "R", (), without=NEW), baseline=old) == ""
    write(tmp_path / "R", {"ema": 0.999})
    assert "ema is 0.0 there, 0.999 here" in refused(run, baseline=old)


def test_seeds_of_one_folder_are_of_one_config(tmp_path):
    config = runs.read_config(write(tmp_path / "seed_0"))
    runs.check_seeds(tmp_path, config, 1)
    config = config.changed({"seed": 1, "data.threads": 8})
    runs.check_seeds(tmp_path, config, 1)
    config = config.changed({"loss.gamma": 2.0})
    with pytest.raises(ValueError, match=r"seed_0 is of another config: loss.gamma is 0.5 there, 2.0 here"):
        runs.check_seeds(tmp_path, config, 1)
    runs.check_seeds(tmp_path / "empty", config, 1)
    with pytest.raises(ValueError, match="seed is 2147483648"):
        runs.check_seeds(tmp_path / "empty", config.changed({"seed": 2**31 - 1}), 2)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Images of people on two cameras; some of the last person's are seen by one camera alone (data "lonely")."""
    folder = tmp_path_factory.mktemp("images")
    csv = small_net.write_images(folder)
    lines = csv.read_text().splitlines()
    lonely = [line.replace(",12,1,", ",12,0,") for line in lines]
    (folder / "lonely.csv").write_text("\n".join(lonely) + "\n")
    for name, file in (("mini", csv), ("lonely", folder / "lonely.csv")):
        prepare.prepare("image_folder", name, data_dir=folder / "data", raw_dir=folder, csv=file)
    return folder / "data"


@pytest.mark.parametrize(
    ("data", "changes", "told"),
    [
        ("lonely", {}, r"\d of 12 queries have no right gallery image under market1501"),
        ("mini", {"evaluate.protocol": "single_shot"}, "single_shot wants one gallery image"),
        (
            "mini",
            {"data.train_split": "train+gallery", "attributes.allow_overlap": False},
            "12 images of .*gallery would",
        ),
    ],
)
def test_what_evaluation_would_refuse_is_refused_before_training(data_dir, data, changes, told, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, "train", lambda *_, **__: trained.append(1))
    config = small_net.config("reid", data_dir, data).changed({"loss.kind": "classic", **changes})
    with pytest.raises(ValueError, match=told):
        runs.reproduce(config, attributes=None, workdir=tmp_path / "w")
    assert not trained and not (tmp_path / "w").exists()


def test_a_policy_for_queries_without_a_match_is_obeyed_from_the_start(data_dir, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(training, "train", lambda *_, **__: trained.append(1))
    changes = {"loss.kind": "classic", "evaluate.no_match": "skip"}
    config = small_net.config("reid", data_dir, "lonely").changed(changes)
    with pytest.raises(FileNotFoundError, match="holds no run"):  # what nobody trained
        runs.reproduce(config, attributes=None, workdir=tmp_path / "w")
    assert trained
