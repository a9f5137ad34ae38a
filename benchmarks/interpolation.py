"""Choose `optim.interpolate` by training datasets, without a look at an unseen one.

    python -m benchmarks.recipes --data DATA --out runs/recipes "without glands/0" ...
    python -m benchmarks.interpolation --data DATA --out runs/recipes
    python -m benchmarks.interpolation --show

Three trainings of `benchmarks.recipes` leave out the glands, the nuclei or the tumour regions. What
each left out is probed with weights between ImageNet's and its own: the share that serves datasets
which did not train is the setting for the recipe. The table is results/interpolation.csv.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from benchmarks.recipes import FURTHER, VARIANTS, config_of
from datamodules.config import DatasetConfig
from datamodules.core.atomic import write_table
from evaluation.run_files import NUMBERS
from lightning_app.cli import main as run_program
from lightning_app.commands.ablation_runs import AblationRun
from lightning_app.config import Config, save_config
from models.inference.export import FACTS_FILE, WEIGHTS_FILE
from models.network.weights import build_model

TABLE = Path(__file__).parent / "results" / "interpolation.csv"
SHARES = (0.25, 0.5, 0.75, 1.0)
AREAS = {
    "without glands": {"glas_06": "gland"},
    "without nuclei": {"brecahad_05": "nucleus", "tnbc_nuclei": "nucleus"},
    "without tumour": {"camelyon_tumour": "tumour"},
}
"""Segmentation datasets that a variant left out, and the class whose area is predicted."""


def left_out(variant: str, config: Config) -> dict[str, DatasetConfig]:
    """Return the datasets to probe: the area of a class, and the grade of the glands."""
    sets = {
        name: replace(
            config.data.train[name],
            area_share=[label],
            weights={},
            input_size=config.data.train[name].patch_size,
            folds=3,
        )
        for name, label in AREAS[variant].items()
    }
    if variant == "without glands":
        sets["glas_grade"] = replace(FURTHER["glas_grade"], input_size=224, folds=3)
    return sets


def write_shares(run: Path) -> list[str]:
    """Write weights between the initial and the trained ones; return their specifications."""
    facts = json.loads((run / FACTS_FILE).read_text(encoding="utf-8"))
    name = facts["timm_name"]
    model, _ = build_model(name, "imagenet", facts["input_size"])
    initial, trained = model.state_dict(), load_file(run / WEIGHTS_FILE)
    specs = []
    for share in SHARES:
        state = {
            key: torch.lerp(initial[key], value, share) if value.is_floating_point() else value
            for key, value in trained.items()
        }
        path = run / f"share-{share:g}.safetensors"
        save_file(state, path)
        specs.append(f"{path}:{name}")
    return specs


def probe(variant: str, data: str, out: Path) -> list[dict[str, object]]:
    """Probe what a finished training left out, with every share; return a row per result."""
    whole = config_of(VARIANTS[0], 0, data, out)
    (chosen,) = (one for one in VARIANTS if one.name == variant)
    config = config_of(chosen, 0, data, out)
    run = AblationRun(variant, config).result()
    if run is None:
        print(f'{variant}: not trained yet; run python -m benchmarks.recipes "{variant}/0"')
        return []
    config.data.unseen = left_out(variant, whole)
    config.probe.allow_overlap = False
    folder = Path(config.out) / "left-out"
    settings = Path(config.out) / "left-out.yaml"
    save_config(config, settings)
    arguments = ["probe", *write_shares(run), "--config", str(settings), "--out", str(folder)]
    if code := run_program(arguments):
        raise SystemExit(code)
    report = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    rows = []
    for study in report["probes"]:
        (base,) = (c for c in study["curves"] if c["encoder"].startswith("imagenet"))
        for one in study["comparisons"]:
            if not one["encoder"].startswith("share-"):
                continue
            area = {key: round(one["area"][key], 6) for key in ("value", "low", "high")}
            rows.append({
                "left out": variant.removeprefix("without "),
                "dataset": study["dataset"],
                "metric": study["metric"]["name"],
                "groups": study["groups"],
                "share": float(one["encoder"].removeprefix("share-")),
                "imagenet": round(base["area"]["value"], 6),
                "difference": area["value"], "low": area["low"], "high": area["high"],
            })  # fmt: skip
    return rows


def show(table: pd.DataFrame) -> None:
    """Print the gain of every share over ImageNet, in F1 points or % of the MSE."""
    sign = table["metric"].eq("mse").map({True: -1.0, False: 1.0})
    unit = table["imagenet"].where(table["metric"].eq("mse"), 1)
    table = table.assign(gain=100 * sign * table["difference"] / unit)
    wide = table.pivot_table("gain", "share", "dataset").round(1)
    print(wide.assign(mean=wide.mean(axis=1).round(1)).to_string())


def main() -> None:
    """Probe every training that is there, write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()
    if not arguments.show:
        rows = [row for name in AREAS for row in probe(name, arguments.data, arguments.out)]
        if not rows:
            raise SystemExit(f"{arguments.out}: none of the three trainings is finished")
        write_table(TABLE, pd.DataFrame(rows))
    show(pd.read_csv(TABLE))


if __name__ == "__main__":
    main()
