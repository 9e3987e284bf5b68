"""Every key that exists, with its faithful default (docs/method.md, section 5). Other files here change some of them.

Flags override any key: `--config.loss.gamma=0.25`.
"""

from ml_collections import config_dict


def _sgd(rate: float, **schedule):
    """SGD as in the paper; `every` of the schedule in epochs or steps, whichever is not 0."""
    return {
        "kind": "sgd",  # sgd | adam | adamw
        "rate": rate,  # highest learning rate; 0 freezes the group
        "momentum": 0.9,  # sgd
        "decay": 2e-4,  # weight decay, on kernels alone
        "schedule": "staircase",  # staircase | cosine | constant
        "every_epochs": 0.0,  # staircase: times `factor` after every so many epochs
        "every_steps": 0,  # the same in steps
        "factor": 1.0,  # staircase
        "warmup_epochs": 0.0,  # cosine: linear from 0
        **schedule,
    }


def get_config() -> config_dict.ConfigDict:
    """All keys, set for ACRN as the paper trains it; no data set yet."""
    c = config_dict.ConfigDict()
    c.seed = 0  # of everything that is drawn: first values, batches, augmentation, people held out
    c.phases = (
        "identity",
        "reid",
    )  # ("mva",) for an attribute net; ("reid",) with init_from to share an identity phase
    c.init_from = config_dict.placeholder(
        str
    )  # folder of a phase (RUN/identity, RUN/mva) whose net to start from, or the
    # name of a net; or ImageNet weights for mva's trunk: torchvision's .pth or .safetensors, TF-slim's as .npz
    c.parallel = "jit"  # jit | pmap
    c.devices = 0  # how many to use, 0: all
    c.dtype = "float32"  # float32 | bfloat16, of the convolutions; losses and statistics stay float32
    c.accumulate = 1  # parts that a batch is computed in, one after the other: less memory, a forward pass more
    c.ema = 0.0  # decay of a moving average of the weights, which evaluation then uses; 0: none
    c.log_every = 20  # steps
    c.save_every = 500  # steps
    c.profile_steps = 0  # how many steps are traced into WORKDIR/PHASE/profile, for TensorBoard or Perfetto

    c.data = config_dict.ConfigDict()
    c.data.dir = config_dict.placeholder(str)  # folder made by ./launch.sh prepare
    c.data.name = config_dict.placeholder(str)  # market1501, peta, synthetic_pedestrians, image_folder ...
    c.data.config = "default"  # configuration of the data set, e.g. random_0
    c.data.train_split = "train"  # of attribute nets also "train+val"
    c.data.exclude_subsets = ()  # PETA: subsets left out of attribute training, e.g. ("GRID", "3DPeS")
    c.data.exclude_attributes = ()  # names left out of attribute training, e.g. those that nobody there has
    c.data.people_part = "all"  # all | first_half | second_half of the training people, of whichever net; drawn once
    c.data.batches = "mixed"  # mixed | one_set: of a mixture, whether a batch shows all of its parts or one of them
    c.data.validation_identities = 0  # people held out of re-id training for choosing; 0: train on all, as the paper
    c.data.height = 160  # pixels that the net sees
    c.data.width = 64  # likewise
    c.data.mean = (0.485, 0.456, 0.406)  # of pixels in [0, 1]
    c.data.deviation = (0.229, 0.224, 0.225)  # likewise
    c.data.threads = 2  # decoding batches at a time
    c.data.cache_mib = 1024  # decoded images are kept while they take no more than this
    c.data.augment = {
        "enlarge": 1.125,  # times height and width, of which a random part is cut out
        "flip": 0.5,  # probability of left and right exchanged
        "erase": 0.0,  # probability of a random rectangle erased
        "brightness": 0.0,  # b of factors in [1 - b, 1 + b]
        "contrast": 0.0,  # likewise
        "saturation": 0.0,  # likewise
        "grey": 0.0,  # probability of no colours
        "pad": 0,  # pixels of a black border around the enlarged image, before the cut
    }

    c.model = config_dict.ConfigDict()
    c.model.name = "acrn"  # acrn | mva
    c.model.width = 1.0  # times every channel count
    c.model.feature_dim = 512  # acrn
    c.model.feature_norm = "none"  # acrn: none | l2 | batch_norm | bnneck
    c.model.head_pooling = "flatten"  # acrn: flatten | average | gem
    c.model.parts = 1  # acrn: horizontal stripes that average or gem pool on their own
    c.model.last_stride = 2  # acrn: 2, or 1: the last pooling is left out, the last map twice as high and wide
    c.model.residual_scale = 0.2  # acrn
    c.model.instance_norm = False  # half of the channels of the first convolutions are normalised within each image
    c.model.remat = False  # maps within blocks are computed again for the gradient: less memory, a forward pass more
    c.model.views = ("top", "middle", "bottom")  # mva: local views in use
    c.model.branch_kernel = 5  # mva: 5 as the paper draws it, 3 as the ImageNet weights in circulation have it
    c.model.layout = "ours"  # mva: ours | torchvision | slim, poolings, padding and range of pixels as weights want
    c.model.dropout = 0.0  # mva, before the last layer

    c.attributes = config_dict.ConfigDict()
    c.attributes["from"] = config_dict.placeholder(str)  # workdir of a trained attribute net
    c.attributes.representation = "probabilities"  # probabilities | logits | binary
    c.attributes.allow_overlap = False  # whether the attribute net may have been trained on images of the target

    c.mva = config_dict.ConfigDict()
    c.mva.batch = 64  # images
    c.mva.images_per_person = 0  # at most so many of each person an epoch, drawn anew each; 0: all
    c.mva.steps = 70_000  # 0: from epochs
    c.mva.epochs = 0  # where steps is 0
    c.mva.loss_weights = "wpal"  # wpal | deepmar | none
    c.mva.reduction = "sum"  # over attributes: sum | mean
    c.mva.threshold = 0.5  # of recognition
    c.mva.calibrate = "none"  # none | mA | f1: each attribute's threshold is the best on split val instead
    c.mva.trunk = _sgd(1e-3, every_steps=30_000, factor=0.1)
    c.mva.scratch = _sgd(1e-2, every_steps=30_000, factor=0.1)

    c.identity = config_dict.ConfigDict()
    c.identity.batch = 64  # images
    c.identity.epochs = 10
    c.identity.smoothing = 0.0  # of labels, in cross-entropy
    c.identity.scratch = _sgd(1e-2, every_epochs=2.0, factor=0.8)

    c.reid = config_dict.ConfigDict()
    c.reid.epochs = 20
    c.reid.miner = "offline"  # offline | batch_hard | batch_all | semi_hard
    c.reid.triplets = 40  # offline: triplets a batch
    c.reid.people = 10  # mined: P
    c.reid.images = 4  # mined: K
    c.reid.memory = 0  # batch_hard: images of earlier batches that it chooses from too
    c.reid.memory_after = 0  # steps before it does so
    c.reid.scratch = _sgd(1e-2, every_epochs=2.0, factor=0.8)
    c.reid.attribute_weights = _sgd(0.1, decay=0.0, every_epochs=2.0, factor=0.8)

    c.loss = config_dict.ConfigDict()
    c.loss.kind = "acrn"  # acrn | classic (ReIdCNN)
    c.loss.gamma = 0.5  # influence of attributes beside the feature, in training and at test
    c.loss.margin = 1.0  # in units of (scaled) distance
    c.loss.soft = False  # softplus in place of the hinge of that margin
    c.loss.temperature = 0.25  # of softplus
    c.loss.distance = "squared_euclidean"  # squared_euclidean | euclidean | cosine
    c.loss.distance_scale = "raw"  # raw | unit_mean
    c.loss.mine_on = "combined"  # feature | combined
    c.loss.reduction = "mean"  # mean | active_only
    c.loss.attribute_gradient = "stop"  # stop | flow: whether L_acrn trains w too
    c.loss.identity_weight = 0.0  # times cross-entropy beside the triplets
    c.loss.smoothing = 0.0  # of labels, in that cross-entropy
    c.loss.attribute_margin = 1.0  # m_att
    c.loss.attribute_miner = "offline"  # of L_att: offline | batch_hard | batch_all | semi_hard
    c.loss.attribute_weights = "learned"  # learned | uniform | given
    c.loss.attribute_weights_file = config_dict.placeholder(str)  # given: JSON {attribute name: weight}
    c.loss.weight_form = "raw"  # raw | nonnegative | softplus | unit_rms | unit_mean

    c.evaluate = config_dict.ConfigDict()
    c.evaluate.protocol = config_dict.placeholder(str)  # none: the data set's own
    c.evaluate.no_match = "error"  # error | skip | count_as_miss
    c.evaluate.draws = 10  # repeats of protocols that draw, cuhk03_*
    c.evaluate.draw_seed = 0  # of these draws
    c.evaluate.probe_view = "both"  # cuhk03_single_shot: 1 | 2 | both
    c.evaluate.batch = 128  # images
    c.evaluate.tune_identities = 100  # people held out of the extra run that chooses ReIdCNN+Attributes-tuned's factor
    c.evaluate.kissme_ridge = 1e-3  # share of its covariances' mean eigenvalue, added to them
    c.evaluate.kissme_project = True  # its metric to the positive semidefinite cone
    c.evaluate.kissme_pca = 0  # components, 0: none
    c.evaluate.rank_lists = 6  # queries shown in the report, each of hardest and random
    return c
