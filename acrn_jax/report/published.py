"""The paper's published numbers, beside which a report sets ours, and the field's display names of attributes.

All in per cent, as printed. Source: Schumann and Stiefelhagen, "Person Re-identification by Deep Learning
Attribute-Complementary Information", 2017, tables 1 to 6.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One table of re-id results: {row: (mAP, rank 1, rank 5, rank 10, rank 20)}, None where nothing was printed."""

    title: str
    protocols: tuple[str, ...]  # of ours that count as the paper's
    mean_average_precision: str  # which of our two the paper's mAP is
    methods: dict[str, tuple[float | None, ...]]  # rows that we have too
    others: dict[str, tuple[float | None, ...]]  # other systems in the paper's table
    weights: tuple[str, str]  # attributes with the highest and the lowest learned weights (table 6)


PAPER = {
    "cuhk03": Published(
        title="table 3, CUHK03 detected, single shot",
        protocols=("single_shot", "cuhk03_single_shot"),
        mean_average_precision="mAP_precision",
        methods={
            "ReIdCNN": (68.1, 58.3, 83.1, 87.4, 91.1),
            "Attributes": (10.3, 12.5, 28.9, 37.6, 41.1),
            "Attributes-KISSME": (21.1, 34.3, 45.3, 53.2, 59.1),
            "ReIdCNN+Attributes": (68.5, 58.9, 84.3, 88.5, 93.0),
            "ACRN": (70.2, 62.63, 89.69, 94.72, 97.12),
        },
        others={
            "NullSpace": (None, 54.70, 84.75, 94.80, 95.20),
            "Gated Siamese": (51.25, 61.8, 80.9, 88.3, None),
            "LSTM Siamese": (46.3, 57.3, 80.1, 88.3, None),
            "MLAPG": (None, 57.96, 87.09, 94.74, 98.00),
            "PIE": (67.21, 61.50, 89.30, 94.50, 97.60),
            "PIE+KISSME": (71.32, 67.10, 92.20, 96.60, 98.10),
        },
        weights=("Male, LongHair, Jacket, Backpack", "Sandals, V-Neck"),
    ),
    "market1501": Published(
        title="table 4, Market-1501",
        protocols=("market1501",),
        mean_average_precision="mAP_trapezoid",
        methods={
            "ReIdCNN": (58.84, 79.51, 90.40, 92.21, 96.5),
            "Attributes": (10.36, 14.88, 25.96, 45.81, 55.73),
            "Attributes-KISSME": (19.70, 25.44, 41.28, 54.48, 63.23),
            "ReIdCNN+Attributes": (59.99, 81.45, 91.36, 93.78, 96.81),
            "ACRN": (62.60, 83.61, 92.61, 95.34, 97.00),
        },
        others={
            "Gated Siamese": (39.55, 65.88, None, None, None),
            "GAN": (55.95, 79.33, None, None, None),
            "PIE": (56.23, 78.06, 90.76, 94.41, 96.52),
            "DeepTransfer": (65.5, 83.7, None, None, None),
            "APR": (64.67, 84.29, 93.20, 95.19, 97.00),
        },
        weights=("Backpack, Skirt, Male, LongHair", "Hat, V-Neck"),
    ),
    "dukemtmc_reid": Published(
        title="table 5, DukeMTMC-reID",
        protocols=("market1501",),
        mean_average_precision="mAP_trapezoid",
        methods={
            "ReIdCNN": (49.41, 68.74, 78.31, 84.98, 88.97),
            "Attributes": (7.23, 11.34, 24.42, 32.31, 41.24),
            "Attributes-KISSME": (12.83, 21.97, 42.28, 50.00, 60.53),
            "ReIdCNN+Attributes": (50.01, 69.91, 80.34, 86.87, 90.43),
            "ACRN": (51.96, 72.58, 84.79, 88.87, 91.52),
        },
        others={
            "LOMO+XQDA": (17.04, 30.75, None, None, None),
            "GAN": (47.13, 67.69, None, None, None),
            "APR": (51.88, 70.69, None, None, None),
        },
        weights=("Jacket, CasualUpper, Trousers, Male", "Sandals, MessengerBag"),
    ),
}

RECOGNITION = {"ACN": 81.15, "DeepMAR": 82.89, "WPAL-GMP": 85.50, "MVA": 84.61}  # mA on PETA, table 1
ATTRIBUTES = {  # mA on PETA, table 2: the best six and the worst six
    "personalLarger60": 92.8,
    "personalMale": 92.3,
    "hairLong": 90.5,
    "accessoryHat": 89.4,
    "accessoryMuffler": 89.3,
    "upperBodyShortSleeve": 88.3,
    "upperBodyThinStripes": 76.4,
    "carryingOther": 76.1,
    "upperBodyLogo": 72.1,
    "footwearSandals": 66.1,
    "accessorySunglasses": 65.3,
    "upperBodyVNeck": 63.5,
}

DISPLAY = {  # PETA's names -> what the literature prints
    "personalLess30": "Age16-30",
    "personalLess45": "Age31-45",
    "personalLess60": "Age46-60",
    "personalLarger60": "AgeAbove61",
    "carryingBackpack": "Backpack",
    "carryingOther": "CarryOther",
    "lowerBodyCasual": "CasualLower",
    "upperBodyCasual": "CasualUpper",
    "lowerBodyFormal": "FormalLower",
    "upperBodyFormal": "FormalUpper",
    "accessoryHat": "Hat",
    "upperBodyJacket": "Jacket",
    "lowerBodyJeans": "Jeans",
    "footwearLeatherShoes": "LeatherShoes",
    "upperBodyLogo": "Logo",
    "hairLong": "LongHair",
    "personalMale": "Male",
    "carryingMessengerBag": "MessengerBag",
    "accessoryMuffler": "Muffler",
    "accessoryNothing": "NoAccessory",
    "carryingNothing": "NoCarrying",
    "upperBodyPlaid": "Plaid",
    "carryingPlasticBags": "PlasticBags",
    "footwearSandals": "Sandals",
    "footwearShoes": "Shoes",
    "lowerBodyShorts": "Shorts",
    "upperBodyShortSleeve": "ShortSleeve",
    "lowerBodyShortSkirt": "Skirt",
    "footwearSneaker": "Sneaker",
    "upperBodyThinStripes": "Stripes",
    "accessorySunglasses": "Sunglasses",
    "lowerBodyTrousers": "Trousers",
    "upperBodyTshirt": "Tshirt",
    "upperBodyOther": "UpperOther",
    "upperBodyVNeck": "V-Neck",
}
