"""Studies for ./launch.sh ablate, as data: {study: {arm: {dotted key of configs/common.py: value}}}. docs/ablations.md.

The arm "reference", else the first, is what the others are compared with; one without overrides is --config as it is,
and arms that come out like an earlier one under that config are left out. Studies of the attribute net (the last two)
want a config of phase mva (configs/mva_peta.py), all others one of ACRN.
"""

from acrn_jax.configs import improved

VIEWS = ("top", "middle", "bottom")

STUDIES = {
    "gamma": {"reference": {}} | {f"gamma_{g}": {"loss.gamma": g} for g in (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)},
    "margin": {"reference": {}}
    | {f"margin_{m}": {"loss.margin": m} for m in (0.1, 0.3, 1.0)}
    | {f"soft_{t}": {"loss.soft": True, "loss.temperature": t} for t in (0.25, 1.0)},
    "attribute_margin": {"reference": {}}
    | {f"margin_{m}": {"loss.attribute_margin": m} for m in (0.03, 0.1, 0.3, 1.0)},
    "distance": {"reference": {}} | {d: {"loss.distance": d} for d in ("squared_euclidean", "euclidean", "cosine")},
    "distance_scale": {"reference": {}} | {s: {"loss.distance_scale": s} for s in ("raw", "unit_mean")},
    # Both losses see one batch: a miner other than offline goes with the attributes' batch_all, which spares w.
    "mining": {
        "reference": {},
        "offline": {"reid.miner": "offline", "loss.attribute_miner": "offline"},
        **{m: {"reid.miner": m, "loss.attribute_miner": "batch_all"} for m in ("batch_all", "semi_hard", "batch_hard")},
    },
    "mine_on": {  # matters to miners that choose by distance
        "reference": {"reid.miner": "batch_hard", "loss.attribute_miner": "batch_all"},
        "feature": {"reid.miner": "batch_hard", "loss.attribute_miner": "batch_all", "loss.mine_on": "feature"},
    },
    # given: of --config.loss.attribute_weights_file, or else the attribute net's mA of each attribute
    "attribute_weights": {"reference": {}}
    | {w: {"loss.attribute_weights": w} for w in ("learned", "uniform", "given")},
    "weight_form": {"reference": {}}
    | {f: {"loss.weight_form": f} for f in ("raw", "nonnegative", "softplus", "unit_rms", "unit_mean")},
    "attribute_gradient": {"reference": {}, "flow": {"loss.attribute_gradient": "flow"}},
    "representation": {"reference": {}}
    | {r: {"attributes.representation": r} for r in ("probabilities", "logits", "binary")},
    "feature_norm": {"reference": {}} | {n: {"model.feature_norm": n} for n in ("none", "l2", "batch_norm", "bnneck")},
    "pooling": {"reference": {}} | {p: {"model.head_pooling": p} for p in ("flatten", "average", "gem")},
    "identity_phase": {"reference": {}, "without": {"phases": ("reid",)}},
    # What the paper leaves open, one reading at a time: docs/evidence.md
    "readings": {
        "reference": {},
        "flow": {"loss.attribute_gradient": "flow"},
        "euclidean": {"loss.distance": "euclidean"},
        "cosine": {"loss.distance": "cosine"},
        "offline": {"reid.miner": "offline", "loss.attribute_miner": "offline"},
        "batch_hard": {"reid.miner": "batch_hard", "loss.attribute_miner": "batch_all"},
        "norm_none": {"model.feature_norm": "none"},
        "norm_l2": {"model.feature_norm": "l2"},
    },
    "ingredients": improved.study(),
    # Of the attribute net
    "attribute_loss": {"reference": {}} | {w: {"mva.loss_weights": w} for w in ("wpal", "deepmar", "none")},
    "views": {"reference": {}, "global_alone": {"model.views": ()}}
    | {f"without_{view}": {"model.views": tuple(v for v in VIEWS if v != view)} for view in VIEWS},
}
