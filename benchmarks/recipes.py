"""What carries the gain of configs/real_dense.yaml: short trainings of variants, each probed.

    python -m benchmarks.recipes --data DATA --out runs/recipes            all that are not done
    python -m benchmarks.recipes --data DATA --out runs/recipes dense/0 quarter/1
    python -m benchmarks.recipes --add RUN NAME                            a run made by hand
    python -m benchmarks.recipes --show                                    table and figure of all

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
from matplotlib.figure import Figure

from datamodules.config import DatasetConfig
from datamodules.core.atomic import write_table
from evaluation.figure_files import save_drawing
from evaluation.figures.canvas import MUTED, SLOTS, Drawing, new_figure, style
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
    Variant("size power 0.3", overrides=("data.size_power=0.3",)),
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
    steps = int(log["step"].max())  # of the final scores
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


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per training: gain on each unseen set, in points of F1 or % of the MSE."""
    table = table[table["role"] == "develop"].copy()
    error = table["metric"] == "mse"
    table["gain"] = 100 * table["difference"].where(
        ~error, -table["difference"] / table["imagenet"]
    )
    key = ["recipe", "seed", "steps", "training_images"]
    wide = table.pivot_table("gain", key, "dataset", dropna=False).dropna(how="all")
    scored = [name for name in wide if name not in ("consep_area", "glas_grade")]
    wide.insert(0, "mean F1", wide[scored].mean(axis=1))
    wide.insert(1, "worst F1", wide[scored].min(axis=1))
    return wide.round(1).reset_index()


@style()
def draw(table: pd.DataFrame) -> Figure:
    """Draw the gain against the amount of training data and against the length of training."""
    figure = new_figure(9.0, 3.4)
    data, length = figure.subplots(1, 2, sharey=True)
    amounts = table[table["recipe"].isin(("quarter", "half", "dense"))].copy()
    of_recipe = amounts.groupby("recipe")["training_images"]  # seeds hold out different groups
    amounts["training_images"] = of_recipe.transform("mean").round(-1)
    steps = table[table["recipe"].isin(("dense", "real_dense", "real_dense, 1500 steps"))]
    steps = steps[steps["steps"].isin((200, 500, 1500))]
    series = (("mean F1", "mean over the F1 sets"), ("idc", "IDC"), ("consep_area", "nuclear area"))
    panels = ((data, amounts, "training_images"), (length, steps, "steps"))
    for axes, rows, x in panels:
        for (column, label), (_, colour, _, marker) in zip(series, SLOTS, strict=False):
            points = rows.dropna(subset=[x, column])
            axes.plot(points[x], points[column], marker, color=colour, alpha=0.45, ms=5)
            mean = points.groupby(x)[column].mean()
            axes.plot(mean.index, mean, color=colour, marker=marker, label=label)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set_xscale("log")
        values = sorted(rows[x].dropna().unique())
        axes.set_xticks(values, [f"{value:,.0f}" for value in values])
        axes.minorticks_off()
    data.set_xlabel("training crops in the stores (quarter, half, all), 200 steps")
    length.set_xlabel("optimizer steps of 56 images")
    data.set_ylabel("gain over ImageNet: F1 points, % of MSE")
    length.legend(frameon=False, fontsize=9)
    return figure


def show() -> None:
    """Print the table of all trainings as Markdown, and draw the figure."""
    table = gains(pd.read_csv(TABLE))
    cells = table.astype(object).where(table.notna(), "")
    for row in (list(table), ["---"] * len(table.columns), *cells.to_numpy().tolist()):
        print(f"| {' | '.join(str(cell) for cell in row)} |")
    title = "Gain over ImageNet features on the development half"
    save_drawing(Drawing("gain", draw(table), title, title), TABLE.parent)


def main() -> None:
    """Train what is not done, and add it to the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trainings", nargs="*", help="variant/seed; all if none is named")
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--add", nargs=2, metavar=("RUN", "NAME"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.show:
        show()
        return
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
