"""Every config starts as the documents say, and builds its net; wrong settings are refused before anything is read."""

import functools
import hashlib
import importlib
import json
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from acrn_jax import build, runs, schema, settings
from acrn_jax.configs import ablations, acrn_peta, common, improved
from acrn_jax.data import source
from acrn_jax.data_prep import prepare
from acrn_jax.data_prep.synthetic_pedestrians import synthetic_pedestrians_dataset_builder as drawn
from acrn_jax.models import MODELS, acrn, mva
from acrn_jax.runs import start, training, workdir
from acrn_jax.train import checkpoint, optimizer, state
from tests import commands
from tests.fixtures import googlenet, small_net

PARTS = ("__init__", "ablations", "baseline", "common", "improved", "modes", "small")
MODES = {
    "mva_market1501": ("paper", "small"),
    "mva_peta": ("paper", "small"),
    "demo": ("acrn", "attributes"),
    "acrn_peta": (*acrn_peta.SUBSETS, "3dpes_4"),
    "acrn_cuhk01": ("871_multi_9", "improved", "485_single_3,small,improved"),
    "reidcnn_cuhk01": ("871_multi_9", "improved", "485_single_3,small,improved"),
    "acrn_cuhk03": ("labeled_19", "improved", "detected_3,small,improved"),
    "reidcnn_cuhk03": ("labeled_19", "improved", "detected_3,small,improved"),
    "own": ("200,3400", "4,8", "200,3400,attributes"),
    "acrn_cuhk03_np": ("labeled", "small", "detected,small,improved"),
}  # of a config file; of all others:
BOTH = ("paper", "small", "improved", "small,improved")
NAMES = tuple(f"attribute{i}" for i in range(5))
CONFIGS = [path.stem for path in sorted((commands.ROOT / "configs").glob("*.py")) if path.stem not in PARTS]
CASES = [(name, mode) for name in CONFIGS for mode in (None, *MODES.get(name, BOTH))]


def tree(name, mode=None):
    return importlib.import_module(f"acrn_jax.configs.{name}").get_config(*([mode] if mode else []))


def load(name, mode=None, **changes):
    some = {"data.dir": "somewhere", "attributes.from": "a net", "devices": 1}
    return settings.read(tree(name, mode)).changed(some | changes)


# What the documents tell users to type


@pytest.fixture(scope="module")
def told():
    """What became of each command that the documents show, and of each config with every setting that they show."""
    found = {" ".join(words): words for _, text in commands.documents() for words in commands.shown(text)}
    flags = [flag for flag in commands.settings() if flag != "--config.KEY=VALUE"]
    for name, mode in CASES:
        config = f"--config=configs/{name}.py" + (f":{mode}" if mode else "")
        found[f"{config} {' '.join(flags)}"] = ["train", config, "--workdir=W", *flags]
    assert len(found) > len(CASES) + 60 and len(flags) > 30  # else they are no longer recognised
    return dict(zip(found, commands.ask(list(found.values())), strict=True))


def test_every_command_that_the_documents_show_is_taken(told):
    refused = [f"./launch.sh {command}\n  {answer['said']}" for command, answer in told.items() if answer["code"]]
    assert not refused, "\n".join(refused)


def test_documented_commands_make_configs_that_can_be_trained(told):
    """Every setting arrives, and build.check has nothing to say against them."""
    for command, answer in told.items():
        if not answer["config"]:
            continue
        config = settings.read(answer["config"])
        for path, value in re.findall(r"--config\.([\w.]+)=([\w./]+)(?=\s|$)", command):
            if len(re.findall(rf"--config\.{re.escape(path)}=", command)) == 1:
                assert str(config.flat[path]) in (value, f"{value}.0"), (command, path)
        config = config.changed({"devices": 1, "data.dir": config.data.dir or "D"})  # or by --data_dir
        config = config.changed({"attributes.from": config.attributes.from_ or "M"})  # or by --attributes
        if "--config.accumulate" not in command:  # together with all others
            build.check(config)


@pytest.mark.parametrize("name, mode", CASES)
def test_no_config_lost_a_key_or_its_type(name, mode):
    """A key that holds None takes a flag only as a placeholder, which a copy with references resolved is no more."""
    own, default = tree(name, mode), common.get_config()
    assert settings.read(own).flat.keys() == settings.read(default).flat.keys()
    for key in settings.read(default).flat:
        *path, last = key.split(".")
        types = [functools.reduce(getattr, path, c).get_type(last) for c in (own, default)]
        assert types[0] is types[1] is not type(None), key


def test_modes_are_told_where_there_is_no_such_one():
    for name, wrong, words in (
        ("acrn_market1501", "best", "Unknown mode 'best'; there are paper, small and improved"),
        (
            "reidcnn_cuhk03",
            "best",
            "Unknown split 'best'; write one such as detected_0 or labeled_dev_4, and small or improved",
        ),
        ("acrn_cuhk01", "486_single_0", "Unknown split '486_single_0'; write one such as 485_single_0 or 871_multi_9"),
        ("acrn_cuhk03", "labeled_20", "Unknown split 'labeled_20'"),
        ("acrn_cuhk03_np", "labeled,best", "Unknown mode 'best'"),
        ("acrn_msmt17", "small,best", "Unknown mode 'best'"),
        ("acrn_market1501", "paper,small", "Mode 'paper,small' asks for the paper's settings and for others"),
        ("acrn_peta", "mit", "No sub-set 'mit'"),
        ("mva_peta", "improved", "Unknown mode 'improved'"),
        ("demo", "improved", "Unknown part 'improved'"),
    ):
        with pytest.raises(ValueError, match=words):
            load(name, wrong)


@pytest.mark.parametrize("mode", ["small", "improved", "small,improved"])
def test_modes_without_a_split_are_of_the_first_one(mode):
    for name, split in (
        ("acrn_cuhk01", "485_single_0"),
        ("acrn_cuhk03", "detected_0"),
        ("reidcnn_cuhk03", "detected_0"),
        ("acrn_cuhk03_np", "detected"),
    ):
        assert load(name, mode) == load(name, f"{split},{mode}") != load(name, split)
        assert load(name, mode).data.config == split


# To the first step, on miniatures of the releases


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(folder of prepared sets, function that sees to it that a data set is there)."""
    raw, data = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")

    def see_to(dataset, name):
        if dataset == "synthetic_pedestrians":
            if not (data / dataset / name).exists():
                sizes = {"train": 12, "test": 6, **({"distractors": 2, "junk": 2} if "target" in name else {"val": 4})}
                config = drawn.Config(name=name, target="target" in name, seed=0, sizes=sizes)
                drawn.Builder(config=config, data_dir=data, file_format="array_record").download_and_prepare()
            return
        source = raw / dataset.removesuffix("_np")
        if not source.exists():
            source.mkdir()
            importlib.import_module(f"tests.fixtures.{source.name}").write(source)
        prepare.prepare(dataset, name, data_dir=data, raw_dir=source, allow_partial=True)

    return data, see_to


def first_steps(name, mode, workdir, prepared, monkeypatch, **paths):
    """Trains the config as its docstring says, but narrow and one or two steps a phase; returns the losses."""
    data, see_to = prepared
    config = load(name, mode, **{"data.dir": str(data)}, **paths)
    if name == "demo":  # no other set may have the whole one's name
        config = config.changed({"data.config": f"{config.data.config}_mini"})
    see_to(config.data.name, config.data.config)
    config = config.changed(
        {
            "data": {"height": small_net.HEIGHT, "width": small_net.WIDTH},
            "mva": {"steps": 1, "batch": 8},
            "identity": {"batch": 4, "epochs": 1},
            "reid": {"triplets": 2, "people": 2, "images": 2, "epochs": 1},
            "log_every": 1,
            "data.validation_identities": int(config.data.validation_identities and name != "acrn_peta"),
        }
    )
    monkeypatch.setattr(build, "net", small_net.net)
    runs.train(config, workdir)
    files = [workdir / phase / "scalars.jsonl" for phase in config.phases]
    return [json.loads(line)["loss"] for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def attribute_net(prepared, tmp_path_factory):
    """Of PETA without GRID and CUHK, as acrn_peta.py and acrn_cuhk03.py say."""
    workdir, left_out = tmp_path_factory.mktemp("m") / "M", ("GRID", "CUHK")
    with pytest.MonkeyPatch.context() as patch:
        losses = first_steps("mva_peta", "small", workdir, prepared, patch, **{"data.exclude_subsets": left_out})
    assert np.isfinite(losses).all() and len(losses) == 1
    return workdir


QUICK = [("acrn_market1501", "improved"), ("acrn_peta", "grid"), ("acrn_cuhk01", "871_multi_9")]


@pytest.mark.parametrize(
    "name, mode",
    [
        case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
        for case in CASES
        if case[1] and not case[0].startswith("reidcnn") and case != ("mva_peta", "small")
        if case[0] != "mva_market1501"  # wants annotations, of more people than a miniature has; see test_halves.py
    ],
)
def test_configs_train_as_their_docstrings_say(name, mode, prepared, attribute_net, tmp_path, monkeypatch):
    paths = {"attributes.from": str(attribute_net)} if load(name, mode).model_name == "acrn" else {}
    if name == "acrn_peta" and mode != "grid":  # the miniature is too small to leave out more
        paths["attributes.allow_overlap"] = True
    losses = first_steps(name, mode, tmp_path / "R", prepared, monkeypatch, **paths)
    assert losses and np.isfinite(losses).all()
    beside = name.replace("acrn", "reidcnn")
    if beside != name and beside in CONFIGS:
        init = {"init_from": str(tmp_path / "R" / "identity")}
        losses = first_steps(beside, mode, tmp_path / "C", prepared, monkeypatch, **init)
        assert losses and np.isfinite(losses).all()
        report = json.loads((tmp_path / "C" / "reid" / "init.json").read_text())
        assert report["taken"] and not set(report["new"]) - {"classifier"}


def test_an_attribute_net_that_saw_peoples_other_images_is_refused(prepared, tmp_path, monkeypatch):
    first_steps("mva_peta", "small", tmp_path / "M", prepared, monkeypatch, **{"data.exclude_subsets": ("GRID",)})
    paths = {"attributes.from": str(tmp_path / "M")}
    for name in ("acrn_cuhk01", "acrn_cuhk03", "acrn_cuhk03_np"):
        told = f"/M was trained on images of peta/CUHK, which may show people of {name[5:]}; train one with "
        with pytest.raises(
            ValueError, match=told + re.escape("""--config.data.exclude_subsets="('GRID', 'CUHK')", or""")
        ):
            first_steps(name, None, tmp_path / "R", prepared, monkeypatch, **paths)
        assert not (tmp_path / "R").exists()
    assert first_steps(
        "acrn_cuhk01", None, tmp_path / "R", prepared, monkeypatch, **paths, **{"attributes.allow_overlap": True}
    )


# What they hold


@functools.cache
def shapes(module, height, width):
    image = jax.ShapeDtypeStruct((2, height, width, 3), np.float32)
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)


@pytest.mark.parametrize("name, mode", CASES)
def test_config_builds(name, mode):
    config = load(name, mode)
    build.check(config)
    for phase in config.phases:
        own = config.phase(phase)
        attributes, people = (len(NAMES), None) if phase == "mva" else (0, 7)
        net = build.net(config, attributes=attributes, people=people)
        params = {"net": shapes(net, config.data.height, config.data.width)["params"]}
        if phase == "reid":
            _, weights = build.reid_objective(config, NAMES)
            if weights is not None:
                params["attribute_weights"] = {"raw": weights}
        named = jax.tree_util.tree_map_with_path(
            lambda path, _: optimizer.group_of(path, MODELS[config.model_name].groups), params
        )
        groups = jax.tree.leaves(named)
        assert all(isinstance(getattr(own, group), optimizer.Group) for group in set(groups))
        assert own.steps or own.epochs


def test_the_phases_are_the_papers():
    paper = load("acrn_market1501")
    assert (paper.identity.epochs, paper.identity.batch) == (10, 64)
    assert (paper.reid.epochs, paper.reid.batch) == (20, 120)
    assert (paper.reid.scratch.rate, paper.reid.scratch.factor, paper.reid.scratch.every_epochs) == (1e-2, 0.8, 2)
    mva = load("mva_peta")
    assert (mva.mva.steps, mva.mva.batch, mva.mva.trunk.rate, mva.mva.scratch.rate) == (70_000, 64, 1e-3, 1e-2)
    assert (mva.mva.trunk.every_steps, mva.mva.trunk.factor, mva.mva.trunk.decay) == (30_000, 0.1, 2e-4)
    base = load("reidcnn_market1501")
    assert base.loss.kind == "classic" and tuple(base.phases) == ("reid",)


@pytest.mark.parametrize(
    "name, mode",
    [
        ("acrn_market1501", "improved"),
        ("acrn_dukemtmc_reid", "improved"),
        ("acrn_msmt17", "improved"),
        ("acrn_cuhk03", "detected_3,improved"),
        ("acrn_cuhk03_np", "labeled,improved"),
        ("reidcnn_market1501", "improved"),
    ],
)
def test_improved_configs_have_the_papers_net_and_hold_people_out(name, mode):
    paper, better = load(name, mode.removesuffix("improved").removesuffix(",") or None), load(name, mode)
    build.check(better)
    differing = {key for key in paper.flat if key.startswith("model.") and paper.flat[key] != better.flat[key]}
    assert differing == {"model.feature_norm"} and better.model.feature_norm == "batch_norm"
    assert better.loss.identity_weight == 0
    assert paper.data.validation_identities == 0 and better.data.validation_identities == 100
    assert (better.data.name, better.data.config) == (paper.data.name, paper.data.config)
    assert better.reid.miner == "batch_hard" and better.reid.scratch.warmup_epochs > 0 and better.data.augment.erase


def test_small_is_a_size_and_improved_a_recipe():
    for name in ("acrn_market1501", "acrn_dukemtmc_reid", "acrn_msmt17", "acrn_cuhk03_np", "reidcnn_market1501"):
        paper, small = load(name), load(name, "small")
        assert (small.data.height, small.data.width, small.model.width) == (128, 48, 0.25)
        assert (small.model.feature_norm, small.loss.distance_scale, small.loss.margin) == (
            "batch_norm",
            "unit_mean",
            0.3,
        )
        assert (small.identity.epochs, small.reid.epochs, small.data.validation_identities) == (12, 16, 50)
        assert (small.reid.miner, small.reid.people, small.reid.images) == ("batch_all", 16, 4)
        for group, rate in ((small.identity.scratch, 3e-3), (small.reid.scratch, 1e-3)):
            assert (group.kind, group.schedule, group.warmup_epochs, group.rate) == ("adamw", "cosine", 1, rate)
        both, better = load(name, "small,improved"), load(name, "improved")
        assert both == load(name, "improved,small")
        recipe = settings.flat(improved.merged(*improved.INGREDIENTS))
        of_size = {key for key, value in paper.flat.items() if small.flat[key] != value}
        assert {key: both.flat[key] for key in recipe} == recipe
        assert all(both.flat[key] == small.flat[key] for key in of_size - recipe.keys())
        assert all(both.flat[key] == better.flat[key] for key in paper.flat.keys() - of_size)


@pytest.mark.parametrize("study", ablations.STUDIES)
def test_arms_fit_the_configs(study):
    attributes = study in ("attribute_loss", "views")
    defaults = settings.read(common.get_config()).flat
    for overrides in ablations.STUDIES[study].values():
        for key, value in settings.flat(overrides).items():
            assert defaults[key] is None or type(value) is type(defaults[key]), key
        config = load(
            "mva_peta" if attributes else "acrn_market1501", **{"loss.attribute_weights_file": "weights.json"}
        )
        build.check(config.changed(overrides))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data.dir": None}, "config.data.dir is not set"),
        ({"reid.memory": 512}, "memory is 512 with config.reid.miner offline: batch_hard alone"),
        (
            {"reid.memory": 39, "reid.miner": "batch_hard", "loss.attribute_miner": "batch_all"},
            "config.reid.memory is 39, less than the 40 images of a batch",
        ),
        ({"data.augment.pad": 64}, "pad is 64, so that a window of 160 x 64 may show no image"),
        (
            {"phases": ("reid", "sleep")},
            "config.phases is ['reid', 'sleep']; known: ('mva',), ('identity',), ('reid',)",
        ),
        ({"model.name": "mva"}, "the phases of each model are acrn: identity and reid; mva: mva."),
        ({"model.layout": "caffe"}, "known: ours, torchvision, slim"),
        ({"dtype": "float16"}, "known: float32, bfloat16"),
        ({"loss.distance": "manhattan"}, "known: squared_euclidean"),
        ({"reid.miner": "hardest"}, "config.reid.miner is 'hardest'"),
        ({"reid.miner": "batch_hard"}, "either both are offline or none"),
        ({"attributes.from": None}, "--config.attributes.from=M"),
        ({"loss.attribute_weights": "given"}, "wants config.loss.attribute_weights_file"),
        ({"devices": 7}, "batches of 64 images, which 7 devices do not divide"),
        ({"devices": 99}, "this machine shows 8"),
        ({"devices": 2, "accumulate": 3}, "does not divide the 32 images a device of a batch of phase identity"),
        ({"ema": 1.0}, "config.ema is 1.0; it must be a number of at least 0 and below 1"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build.check(load("acrn_market1501", **change))


def test_workdir_of_another_config_is_refused(tmp_path):
    config = load("demo", "acrn")
    workdir.store_config(tmp_path / "w", config)
    workdir.store_config(tmp_path / "w", config)
    config = config.changed({"log_every": config.log_every + 1})  # changes no result
    workdir.store_config(tmp_path / "w", config)
    config = config.changed({"loss.gamma": 0.25})
    with pytest.raises(ValueError, match=r"loss\.gamma is 0\.5 there, 0\.25 here"):
        workdir.store_config(tmp_path / "w", config)


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="no run's folder"):
        workdir.store_config(tmp_path, load("demo", "acrn"))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_own_follows_what_the_set_holds():
    few, many = load("own", "12,30"), load("own", "2000,40000,attributes")
    assert (few.reid.people, few.reid.images, few.reid.epochs, few.data.validation_identities) == (11, 2, 100, 1)
    assert (many.reid.people, many.reid.images, many.reid.epochs, many.data.validation_identities) == (32, 4, 4, 50)
    assert not few.of_acrn and many.of_acrn
    for wrong in ("200", "a,b", "200,3400,colours", "3,30", "10,19"):
        with pytest.raises(ValueError, match=r"own\.py:.* does not say|are too few"):
            tree("own", wrong)


def test_starting_from_another_run(tmp_path):
    small = {"model.width": 0.0625, "model.feature_dim": 4, "data.height": 32, "data.width": 16}
    config = load("demo", "acrn", **small)
    tx = optimizer.make({"scratch": {"kind": "sgd", "rate": 0.1}}, acrn.GROUPS)
    with_classifier = build.net(config, people=3)
    first, nothing = start.first_variables(config, with_classifier, None)
    assert nothing is None
    saved = checkpoint.Checkpoints(tmp_path / "identity" / "checkpoints")
    saved.save(state.create(jax.tree.map(lambda x: x + 1, first), tx))
    saved.close()
    nine = build.net(config, people=9)
    found, report = start.first_variables(config, nine, tmp_path / "identity", same_people=True)
    np.testing.assert_array_equal(
        found["params"]["stem0"]["conv"]["kernel"], first["params"]["stem0"]["conv"]["kernel"] + 1
    )
    np.testing.assert_array_equal(found["batch_stats"]["v3"]["pool"]["conv0"]["norm"]["mean"], 1)
    assert found["params"]["classifier"]["kernel"].shape == (4, 9)
    assert report["source"] == "run" and report["from"] == str(tmp_path / "identity")
    assert report["new"] == {"classifier": ["params/classifier/bias", "params/classifier/kernel"]}
    assert not report["dropped"] and "params/stem0/conv/kernel" in report["taken"]["stem0"]
    _, report = start.first_variables(config, build.net(config), tmp_path / "identity")
    assert report["dropped"] == {"classifier": ["params/classifier/bias", "params/classifier/kernel"]}
    assert start.describe(report).endswith(" 0 new (none), 2 dropped (classifier).")
    found, report = start.first_variables(config, with_classifier, tmp_path / "identity", same_people=True)
    kernels = (values["params"]["classifier"]["kernel"] for values in (found, first))
    np.testing.assert_array_equal(next(kernels), next(kernels) + 1)
    _, report = start.first_variables(config, with_classifier, tmp_path / "identity")
    assert list(report["new"]) == ["classifier"]  # as many people may be others
    with pytest.raises(FileNotFoundError, match=f"name one of its phases: {tmp_path}/identity"):
        start.first_variables(config, with_classifier, tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a file of weights nor a phase"):
        start.first_variables(config, with_classifier, tmp_path / "nowhere")
    config = config.changed({"model.width": 0.125})
    with pytest.raises(ValueError, match="cannot start this net"):
        start.first_variables(config, build.net(config, people=3), tmp_path / "identity")


def test_batch_norm_starts_instance_norm(tmp_path):
    config = load(
        "demo", "acrn", **{"model.width": 0.0625, "model.feature_dim": 4, "data.height": 32, "data.width": 16}
    )
    first, _ = start.first_variables(config, build.net(config), None)
    numbered = jax.tree.map(lambda x: x + np.arange(x.shape[-1]), first)
    saved = checkpoint.Checkpoints(tmp_path / "reid" / "checkpoints")
    saved.save(state.create(numbered, optimizer.make({"scratch": {"kind": "sgd", "rate": 0.1}}, acrn.GROUPS)))
    saved.close()
    config = config.changed({"model.instance_norm": True})
    found, report = start.first_variables(config, build.net(config), tmp_path / "reid")
    stem, old = found["params"]["stem0"], numbered["params"]["stem0"]["norm"]
    half = len(old["bias"]) // 2
    for leaf in ("scale", "bias"):
        np.testing.assert_array_equal(stem["instance"][leaf], old[leaf][:half])
        np.testing.assert_array_equal(stem["norm"][leaf], old[leaf][half:])
    for leaf, stored in numbered["batch_stats"]["stem0"]["norm"].items():
        np.testing.assert_array_equal(found["batch_stats"]["stem0"]["norm"][leaf], stored[half:])
    late = [tree["batch_stats"]["v3"]["pool"]["conv0"]["norm"]["var"] for tree in (found, numbered)]
    np.testing.assert_array_equal(*late)
    assert not report["new"] and not report["dropped"]


def narrow_mva(**model):
    model = {"width": 0.0625, "branch_kernel": 3, "layout": "torchvision"} | model
    return load("demo", "attributes").changed({"model": model, "data.height": 48, "data.width": 16})


def test_starting_from_imagenet_weights(tmp_path, capsys):
    file, config, arrays = tmp_path / "w.safetensors", narrow_mva(), googlenet.torchvision(0.0625)
    safetensors.numpy.save_file({name: np.array(a, order="C") for name, a in arrays.items()}, file)
    net = build.net(config, attributes=3)
    drawn, _ = start.first_variables(config, net, None)
    found, report = start.first_variables(config, net, str(file))
    np.testing.assert_array_equal(
        found["params"]["trunk"]["conv1"]["conv"]["kernel"], arrays["conv1.conv.weight"].transpose(2, 3, 1, 0)
    )
    for name in drawn["params"].keys() - {"trunk"}:
        jax.tree.map(np.testing.assert_array_equal, found["params"][name], drawn["params"][name])
    assert report["source"] == "torchvision" and report["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert list(report["taken"]) == ["trunk"] and len(report["taken"]["trunk"]) == 285
    assert report["new"].keys() == {*drawn["params"], *drawn["batch_stats"]} - {"trunk"}
    assert sorted(report["dropped"]["fc"]) == ["fc.bias", "fc.weight"]
    for _ in range(2):  # the second time as when a killed run goes on before its first checkpoint
        training._begin(tmp_path / "mva", {"steps": 500}, report)
        assert "(torchvision): 285 taken (trunk), " in capsys.readouterr().out
        assert json.loads((tmp_path / "mva" / "init.json").read_text()) == report
    (tmp_path / "mva" / "checkpoints" / "500").mkdir(parents=True)
    training._begin(tmp_path / "mva", {"steps": 500}, report | {"from": "another"})
    assert not capsys.readouterr().out
    assert json.loads((tmp_path / "mva" / "init.json").read_text()) == report
    with pytest.raises(ValueError, match="fit the trunk of model mva alone; acrn starts from scratch"):
        start.first_variables(load("demo", "acrn"), build.net(load("demo", "acrn"), people=3), str(file))
    other = build.net(narrow_mva().changed({"model.instance_norm": True}), attributes=3)
    with pytest.raises(ValueError, match=r"lacks 6 of .* Pass --config\.model\.instance_norm=False\.$"):
        start.first_variables(config, other, str(file))
    other = narrow_mva(layout="ours")
    with pytest.raises(ValueError, match=r"Pass --config\.model\.layout=torchvision\."):
        start.first_variables(other, build.net(other, attributes=3), str(file))


def test_attributes_of_another_number_start_anew(tmp_path):
    config = narrow_mva(views=())
    first, _ = start.first_variables(config, build.net(config, attributes=3), None)
    saved = checkpoint.Checkpoints(tmp_path / "mva" / "checkpoints")
    frozen = {group: {"kind": "sgd", "rate": 0.0} for group in ("trunk", "scratch")}
    saved.save(state.create(first, optimizer.make(frozen, mva.GROUPS)))
    saved.close()
    for count, new in ((3, []), (4, ["attributes"])):
        _, report = start.first_variables(config, build.net(config, attributes=count), tmp_path / "mva")
        assert list(report["new"]) == new and not report["dropped"]


def test_given_weights_must_name_every_attribute(tmp_path):
    file = tmp_path / "weights.json"
    file.write_text('{"attribute0": 2, "attribute1": 1, "attribute2": 0, "attribute3": 3, "attribute4": -1, "more": 9}')
    config = load("demo", "acrn", **{"loss.attribute_weights_file": str(file)})
    np.testing.assert_array_equal(build.given_weights(config, NAMES), [2, 1, 0, 3, -1])
    with pytest.raises(ValueError, match="gives no weight for hat"):
        build.given_weights(config, (*NAMES, "hat"))


def test_decay_momentum_and_rates_reach_the_optimiser():
    config = load("acrn_market1501")
    assert config.identity.scratch.decay == 2e-4
    group = {"decay": 0.5, "momentum": 0.25, "every_epochs": 2, "factor": 0.1, "rate": 0.01}
    config = config.changed({"identity.scratch": group})
    steps, tx, rates = build.optimisation(config, "identity", 3, ("scratch",))
    assert steps == 30 and [round(float(rates["scratch"](s)), 9) for s in (0, 5, 6, 11, 12)] == [0.01] * 2 + [
        1e-3
    ] * 2 + [1e-4]
    params = {"net": {"stem0": {"kernel": np.full((2, 2), 4.0, np.float32), "bias": np.full(2, 4.0, np.float32)}}}
    opt = tx.init(params)
    for wanted in (-0.01 * 2, -0.01 * (2 + 0.25 * 2)):  # no gradient: half of 4, and a quarter of what it did before
        updates, opt = tx.update(jax.tree.map(np.zeros_like, params), opt, params)
        np.testing.assert_allclose(updates["net"]["stem0"]["kernel"], wanted, rtol=1e-5)
        np.testing.assert_array_equal(updates["net"]["stem0"]["bias"], 0)


@pytest.mark.parametrize(
    "scheme, weights", [("wpal", lambda r: (1 / (2 * r), 1 / (2 - 2 * r))), ("none", lambda r: (1, 1))]
)
def test_unknown_labels_do_not_count_in_the_shares_of_positives(scheme, weights):
    labels = np.array([[1, 0], [1, -1], [0, -1], [0, -1], [-1, 1], [0, 1]], np.int8)  # shares 2 of 5 and 2 of 3
    split = source.Split(*["s", *3 * [np.arange(6)], -np.ones(6), labels, ("hat", "bag"), {}, "", np.arange(6), None])
    config = load("mva_peta", **{"mva.loss_weights": scheme, "mva.reduction": "sum"})
    objective = build.attribute_objective(config, split)
    for column, share in enumerate((2 / 5, 2 / 3)):
        for label, weight in zip((1, 0), weights(share), strict=True):
            batch = np.full((1, 2), -1, np.int8)
            batch[0, column] = label
            loss, _ = objective(
                {}, schema.Outputs(attribute_logits=np.zeros((1, 2), np.float32)), {"attributes": batch}, {}
            )
            assert float(loss) == pytest.approx(weight * np.log(2), rel=1e-5)


def test_an_attribute_that_everybody_has_is_named():
    labels = np.array([[1, 0], [1, 1], [1, -1]], np.int8)
    split = source.Split(*["s", *3 * [np.arange(3)], -np.ones(3), labels, ("hat", "bag"), {}, "", np.arange(3), None])
    with pytest.raises(ValueError, match=r"nobody or everybody has; leave these out: hat \(1\)"):
        build.attribute_objective(load("mva_peta"), split)


def test_images_per_person_decide_steps_shares_and_what_is_refused():
    labels = np.array([[1]] * 6 + [[0]] + [[1]] * 2, np.int8)  # of person 7: all of the first six
    people = np.array([7] * 6 + [8, 9, 9])
    split = source.Split(*["s", *2 * [np.arange(9)], people, -np.ones(9), labels, ("hat",), {}, "", np.arange(9), None])
    changes = {"mva.batch": 2, "mva.steps": 0, "mva.epochs": 3}
    every = load("mva_peta", **changes)
    capped = load("mva_peta", **changes, **{"mva.images_per_person": 1})
    assert build.planned_steps(every, "mva", split) == 3 * 5 and build.planned_steps(capped, "mva", split) == 3 * 2
    plans = [build.epoch_plan(capped, split, "mva")(epoch) for epoch in range(9)]
    assert all(sorted(people[plan.ravel()[:3]]) == [7, 8, 9] for plan in plans)
    assert len({tuple(sorted(plan.ravel()[:3])) for plan in plans}) > 1
    for config, share in ((every, 8 / 9), (capped, 2 / 3)):  # an epoch of the second shows one image of each
        np.testing.assert_allclose(build.attribute_objective(config, split).positive_weight, [1 / (2 * share)])
    build.check_images(capped.changed({"mva.batch": 3}), split)
    with pytest.raises(ValueError, match=r"config.mva.batch is 4, but there are 3 images to train on"):
        build.check_images(capped.changed({"mva.batch": 4}), split)


def test_averaged_weights_are_what_a_finished_run_is_used_with(tmp_path, monkeypatch):
    size = {"data.height": small_net.HEIGHT, "data.width": small_net.WIDTH}
    config = load("demo", "acrn", **size, phases=("identity",))
    monkeypatch.setattr(build, "net", small_net.net)
    net = build.net(config, people=3)
    variables, _ = start.first_variables(config, net, None)
    for ema in (0.0, 0.9):
        config = config.changed({"ema": ema})
        _, tx, _ = build.optimisation(config, "identity", 5, ("scratch",))
        found = state.create(variables, tx)
        found = found.replace(params=jax.tree.map(lambda x: x + 1, found.params))  # the average stays at the start
        folder = tmp_path / str(ema) / "identity"
        saved = checkpoint.Checkpoints(folder / "checkpoints")
        saved.save(found)
        saved.close()
        used = runs.ReidCnnRun(folder.parent, config).variables["params"]
        started, _ = start.first_variables(config, net, folder)
        for params in (used, started["params"]):
            kernel = params["stem"]["kernel"] - variables["params"]["stem"]["kernel"]
            np.testing.assert_allclose(kernel, 0 if ema else 1, atol=1e-6)


def test_runs_from_before_a_key_was_one_go_on(tmp_path):
    config = load("demo", "acrn")
    workdir.store_config(tmp_path, config)
    file = tmp_path / "config.json"
    old = json.loads(file.read_text())
    del old["ema"], old["accumulate"], old["profile_steps"], old["model"]["remat"]
    file.write_text(json.dumps(old))
    workdir.store_config(tmp_path, config)
    file.write_text(json.dumps(old))
    config = config.changed({"ema": 0.99})
    with pytest.raises(ValueError, match=r"ema is 0\.0 there, 0\.99 here"):
        workdir.store_config(tmp_path, config)
