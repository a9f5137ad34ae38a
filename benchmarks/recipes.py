"""What carries the gain of configs/real_dense.yaml: short trainings of variants, each probed.

    python -m benchmarks.recipes --data DATA --out runs/recipes            all that are not done
    python -m benchmarks.recipes --data DATA --out runs/recipes dense/0 quarter/1
    python -m benchmarks.recipes --add RUN NAME                            a run made by hand

Each training is a pretraining with probes on the development half, in a folder and a process of its
own, as in `make ablate`; a repeated call continues. Every finished one adds its rows to
results/recipes.csv: one per unseen dataset, the mean over the learning curve up to 100 labels, and
its paired difference to ImageNet features with a 95 % interval.
"""

import argparse
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from datamodules.config import DatasetConfig
from datamodules.core.atomic import write_table
from lightning_app.commands.ablation_runs import AblationRun, lock, train, write_config
from lightning_app.config import Config, load_config

TABLE = Path(__file__).parent / "results" / "recipes.csv"
RECIPE = Path("configs/real_dense.yaml")
SHORT = ["trainer.epochs=2", "trainer.val_every=2", "probe.repeats=5", "probe.baselines=[imagenet]"]
CLASSIFICATION = ("nct_crc", "lc25000", "prostate_gleason", "mitosis_crops")
"""Unseen sets of the recipe that two variants train on instead."""

IMAGES_PER_STEP = 56  # about as many in every variant

FURTHER = {
    "glas_grade": DatasetConfig(
        "class_folders", "folders/glas_grade", options={"group": r"^(patient\d+)_"}
    ),
    "osteosarcoma": DatasetConfig(
        "class_folders", "folders/osteosarcoma", options={"group": r"^((?:Case-)?[A-Z]?\d+)-"}
    ),
}


@dataclass(frozen=True)
class Variant:
    """One change of the recipe, trained with some seeds."""

    name: str
    keep: Callable[[str], bool] = lambda name: True
    overrides: tuple[str, ...] = ()
    classification: bool = False
    seeds: tuple[int, ...] = (0,)


def without(*prefixes: str) -> Callable[[str], bool]:
    """Keep the datasets whose names begin otherwise."""
    return lambda name: not name.startswith(prefixes)


NUCLEI = ("monuseg", "dsb2018", "tnbc", "brecahad")
VARIANTS = (
    Variant("dense", seeds=(0, 1, 2)),
    Variant("quarter", overrides=("data.val_fraction=0.75",), seeds=(0, 1, 2)),
    Variant("classification", keep=lambda name: False, classification=True),
    Variant("dense and classification", classification=True),
    Variant("half", overrides=("data.val_fraction=0.5",), seeds=(0, 1, 2)),
    Variant("no validation", overrides=("data.val_fraction=0",)),
    Variant("without nuclei", keep=without(*NUCLEI)),
    Variant("without tumour", keep=without("bcss", "camelyon")),
    Variant("without glands", keep=without("glas")),
    Variant("one resolution", keep=without(*(f"{s}_{m}" for s in ("bcss", "glas", "brecahad",
            "monuseg") for m in ("10", "12", "20", "40")))),
    Variant("learning rate 3e-4", overrides=("optim.encoder_lr=3e-4",)),
    Variant("learning rate 3e-5", overrides=("optim.encoder_lr=3e-5",)),
    Variant("layer decay 0.7", overrides=("optim.layer_decay=0.7",)),
    Variant("norm statistics trained", overrides=("model.freeze_norm=false",)),
    Variant("no averaging", overrides=("optim.ema_decay=0",)),
    Variant("stronger stain", overrides=("data.augmentation.stain=0.15",)),
)  # fmt: skip


def config_of(variant: Variant, seed: int, data: str, out: Path) -> Config:
    """Return the configuration of one training."""
    name = f"{variant.name.replace(' ', '-')}-{seed}"
    overrides = [f"seed={seed}", f"data.root={data}", f"data.stores={out / 'stores'}"]
    overrides += [f"name={name}", f"out={out / name}", *SHORT, *variant.overrides]
    config = load_config(RECIPE, overrides)
    config.data.train = {k: v for k, v in config.data.train.items() if variant.keep(k)}
    if variant.classification:
        for moved in CLASSIFICATION:
            entry = config.data.unseen.pop(moved)
            config.data.train[moved] = replace(entry, input_size=None, folds=0)
        config.data.train |= FURTHER
    config.data.batch_size = round(IMAGES_PER_STEP / len(config.data.train))
    return config


def rows_of(run: Path, variant: str) -> list[dict[str, object]]:
    """Return one row per unseen dataset of a probed run."""
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    origin, config = report["provenance"], report["config"]
    log = pd.read_csv(run / "metrics.csv")
    steps = int(log["step"].max()) + 1
    images_per_step = config["data"]["batch_size"] * len(config["data"]["train"])
    common = {
        "recipe": variant,
        "seed": config["seed"],
        "encoder": config["model"]["encoder"],
        "training_images": sum(
            facts["training_images"]
            for facts in origin["datasets"].values()
            if facts["role"] == "train"
        ),
        "steps": steps,
        "images": steps * images_per_step,
        "seconds": origin["seconds"],
        "commit": origin["commit"],
        "role": origin["role"],
        "machine": f"{platform.machine()}, CPU",
    }
    rows = []
    for probe in report["probes"]:
        ours, imagenet = (curve["area"]["value"] for curve in probe["curves"][:2])
        difference = probe["comparisons"][0]["area"]
        rows.append({
            **common,
            "dataset": probe["dataset"],
            "metric": probe["metric"]["name"],
            "groups": probe["groups"],
            "labels": " ".join(f"{n:g}" for n in probe["labels"]),
            "repeats": probe["repeats"],
            "ours": round(ours, 4),
            "imagenet": round(imagenet, 4),
            "difference": round(difference["value"], 4),
            "low": round(difference["low"], 4),
            "high": round(difference["high"], 4),
        })  # fmt: skip
    return rows


def add(run: Path, variant: str) -> None:
    """Put a run's rows into the table, in place of earlier ones of the same training."""
    rows = pd.DataFrame(rows_of(run, variant))
    if TABLE.is_file():
        table = pd.read_csv(TABLE)
        key = ["recipe", "seed", "steps", "role"]
        same = table[key].eq(rows.loc[0, key]).all(axis=1)
        rows = pd.concat([table[~same], rows], ignore_index=True)
    write_table(TABLE, rows)
    print(rows.tail(len(rows_of(run, variant)))[["dataset", "difference", "low", "high"]])


def main() -> None:
    """Train what is not done, and add it to the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainings", nargs="*", help="variant/seed; all if none is named")
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--add", nargs=2, metavar=("RUN", "NAME"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.add:
        add(Path(arguments.add[0]), arguments.add[1])
        return
    for variant in VARIANTS:
        for seed in variant.seeds:
            if arguments.trainings and f"{variant.name}/{seed}" not in arguments.trainings:
                continue
            config = config_of(variant, seed, arguments.data, arguments.out)
            run = AblationRun(variant.name, config)
            write_config(run)
            with lock(run) as free:
                if free and run.result() is None and train(run):
                    finished = run.result()
                    assert finished is not None
                    add(finished, variant.name)


if __name__ == "__main__":
    main()
