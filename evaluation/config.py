"""Typed settings of the probes: the keys below `probe`."""

from dataclasses import dataclass, field
from typing import Literal

from datamodules.core.config_ranges import SEED_MAX, limited

FOREST, LINEAR, KNN = "forest", "linear", "knn"

TITLES = {FOREST: "random forest", LINEAR: "linear model", KNN: "nearest-neighbour vote"}
"""Known predictors and their names in texts."""

Role = Literal["all", "develop", "report"]


@dataclass
class ProbeConfig:
    """Random forests, and optionally other predictors, on frozen features.

    Attributes:
        sizes: numbers of labelled training images; 0 stands for all of them.
        repeats: draws of the nested subsets per fold.
        predictors: what learns from the features: "forest", "linear" (ridge or logistic
            regression), "knn". The forest, if included, is the study's headline.
        trees: trees per forest.
        seed: of subsets and forests.
        baselines: encoders probed beside the trained one: "imagenet" and "random" are weights of
            its own architecture; others are named as for the verb `probe`. Differences are taken
            to the first.
        role: "all" probes on all groups (patients, slides or cases) of a dataset. "develop" and
            "report" probe on one half of them each (see `folds.groups_of_role`): settings are
            chosen on the first and reported on the second, and each look at it is counted. Probes
            during training and ablations never use the report half.
        batch_size: images per forward pass.
        robustness_k: nearest neighbours of each image that the robustness index counts.
        precision: "fp32" or "bf16" for the frozen encoder; features depend on it.
        bootstrap: resamples behind each interval.
        jobs: processes for the sweep; -1 or 0 uses every core.
        backend: joblib backend of the sweep: "loky", or a cluster's, "dask" or "ray" (see
            `evaluation.probe.jobs`).
        allow_overlap: probe even if an unseen dataset shares its sources with the training data;
            the report then notes it.
        budget: seconds after which no further work is started; what is done by then becomes a
            complete smaller study. 0 is no limit.
        every: epochs between two probes during training, after a validation; 0 probes at the end
            only.
        every_budget: seconds for each probe during training; see `budget`.
        map_points: images per embedding map and candidates for neighbours, at most; 0 draws
            neither.
        neighbours: images per dataset that are shown with their nearest neighbours; 0 shows none.
    """

    sizes: list[int] = limited((10, 30, 100, 300, 1000, 0), 0)
    repeats: int = limited(10, 1, 10_000)
    predictors: list[str] = field(default_factory=lambda: ["forest"])
    trees: int = limited(500, 1, 100_000)
    seed: int = limited(0, 0, SEED_MAX)
    baselines: list[str] = field(default_factory=lambda: ["imagenet", "random"])
    role: Role = "all"
    batch_size: int = limited(64, 1, 65_536)
    robustness_k: int = limited(20, 1, 1000)
    precision: Literal["fp32", "bf16"] = "fp32"
    bootstrap: int = limited(2000, 10)
    jobs: int = limited(-1, -1, 1024)
    backend: str = "loky"
    allow_overlap: bool = False
    budget: float = limited(0.0, 0, 10**9)
    every: int = limited(0, 0)
    every_budget: float = limited(300.0, 0, 10**9)
    map_points: int = limited(1500, 0)
    neighbours: int = limited(6, 0, 1000)
