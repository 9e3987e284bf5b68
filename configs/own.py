"""The shipped net acrn-small, trained further on people of your own: any set of image_folder. docs/own.md.

./launch.sh prepare --dataset=image_folder --config_name=mine --raw_dir=PEOPLE --data_dir=D
./launch.sh train --config=configs/own.py:200,3400 --config.data.config=mine --config.data.dir=D --workdir=R

200 and 3400 are the people and images to train on, which `prepare` prints. Batches, length and how many people are held
out follow from them. That is a ReIdCNN; `own.py:200,3400,attributes` is an ACRN, whose attribute net is mva-small.
"""

from acrn_jax.configs import small

IMAGES = 20_000  # that training looks at, at most 100 times each


def get_config(holds: str = "200,3400"):
    people, images, *word = holds.split(",") if holds.count(",") in (1, 2) else ("", "")
    if not (people.isdecimal() and images.isdecimal()) or word not in ([], ["attributes"]):
        raise ValueError(
            f"own.py:{holds} does not say what the set holds; write its people and images to train on, as in "
            "own.py:200,3400, or own.py:200,3400,attributes."
        )
    people, images = int(people), int(images)
    if people < 4 or images < 2 * people:
        raise ValueError(f"{people} people with {images} images are too few; 4 people with two images each are needed.")
    c = small.reid()
    c.data.name, c.init_from, c.phases = "image_folder", "acrn-small", ("reid",)
    c.model.instance_norm = True  # as acrn-small has it
    c.reid.scratch.rate = 2e-4  # it has learned already: five times as much forgets cameras that it knows
    c.data.augment.update({"erase": 0.3, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "grey": 0.1})
    c.data.validation_identities = min(people // 10, 50)
    held_in = people - c.data.validation_identities
    c.reid.update({"miner": "batch_hard", "people": min(held_in, 32), "images": min(images // people, 4)})
    c.reid.epochs = min(max(IMAGES // images, 4), 100)
    c.loss.distance = "euclidean"
    c.evaluate.tune_identities = 0  # the run itself holds people out
    if word:
        c.attributes["from"] = "mva-small"
    else:
        c.loss.kind = "classic"
    return c
