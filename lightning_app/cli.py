"""The command line: its verbs, and errors as one line with an exit code."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datamodules.config import BATCH_MAX, SIDE_MAX
from datamodules.core.config_ranges import COUNT_MAX, SEED_MAX
from datamodules.core.disk_space import line_about
from datamodules.core.errors import StoppedError, UserError, one_line
from datamodules.core.options import MPP_MAX, MPP_MIN
from lightning_app.loggers.log_filters import install_log_filters, write_alike

log = logging.getLogger(__name__)

PROGRAM = "python -m lightning_app"


VERBS = {
    "doctor": ("check the machine: versions, conflicts, devices, disk, weights", ""),
    "datasets": ("list, show, get, prepare, verify and forge datasets", "list"),
    "config": (
        "explain every key of a configuration, or those that a file sets",
        "configs/pretrain.yaml",
    ),
    "pretrain": (
        "train the encoder, export it, probe it, write the report",
        "--config configs/real_small.yaml data.root=DATA trainer.epochs=2",
    ),
    "rehearse": (
        "will a recipe run here? checks, then two steps and a tiny probe on synthetic copies",
        "--config configs/open.yaml data.root=DATA",
    ),
    "probe": (
        "random forests on frozen features, against baselines",
        "runs/demo-20260101-120000 imagenet:resnet18 probe.repeats=5",
    ),
    "ablate": (
        "which dataset helps? train without each one, and on each alone, and probe",
        "--config configs/real_small.yaml data.root=DATA ablation.epochs=2",
    ),
    "encoders": ("list and show public pathology encoders that can be probed by name", "list"),
    "embed": (
        "write features of slides, a folder of images or a store to HDF5; resumes if interrupted",
        "runs/demo-20260101-120000 slide.svs --out features.h5",
    ),
    "predict": (
        "run trained heads on slides, a folder of images or a store",
        "runs/demo-20260101-120000 slide.svs --out found --task glas/glands",
    ),
    "export": (
        "write the encoder of a checkpoint, or of a run for the Hugging Face hub or for benchmarks",
        "runs/demo-20260101-120000/checkpoints/last.ckpt --out encoder",
    ),
    "dashboard": (
        "save a W&B workspace with panels for the tasks and probes of a run; needs a login",
        "runs/demo-20260101-120000",
    ),
    "report": (
        "write report.html again; several runs give a leaderboard",
        "runs/demo-20260101-120000",
    ),
}
ACTIONS = {
    "list": ("list all datasets and their state", ""),
    "show": ("show the card, class balance and contact sheet of a dataset", "glas --root DATA"),
    "download": ("download, verify and unpack the publisher's archives", "nct_crc --root DATA"),
    "unpack": (
        "check and unpack archives that you fetched by hand, from wherever they lie",
        "glas ~/Downloads/warwick_qu_dataset_released_2016_07_08.zip --root DATA",
    ),
    "prepare": ("write the HDF5 stores", "glas monuseg --root DATA"),
    "verify": ("read everything and report each problem", "glas --root DATA --duplicates"),
    "forge": ("write synthetic copies in the official layout", "--all --root forged"),
}
PRESET_ACTIONS = {
    "list": ("list all presets, and which are on this machine", ""),
    "show": ("show how one is built, pooled and prepared, its licence and sources", "uni2-h"),
}
"""Help text and example of each verb, and of each action of `datasets` and `encoders`."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs. A verb's function is imported only when it runs."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Multi-task pretraining of a histology encoder, and probes of its features.",
        epilog=f"example: {PROGRAM} pretrain --config configs/demo.yaml",
    )
    parser.add_argument("--verbose", action="store_true", help="print details")
    verbs = _add_verbs(parser, "verb", VERBS)
    _add_datasets(verbs["datasets"])
    shown = _add_verbs(verbs["encoders"], "action", PRESET_ACTIONS)["show"]
    shown.add_argument("name", metavar="NAME")
    verbs["config"].add_argument("file", type=Path, nargs="?", metavar="FILE.yaml")
    for name in ("pretrain", "rehearse", "ablate"):
        verbs[name].add_argument(
            "--config", type=Path, help="YAML file; default: real recipe or demo"
        )
        verbs[name].add_argument(
            "overrides", nargs="*", metavar="key=value", help="setting, as in data.batch_size=8"
        )
    verbs["rehearse"].add_argument("--out", type=Path, help="keep what it writes in this folder")
    verbs["ablate"].add_argument(
        "--out", type=Path, help="result folder; default: <out>/ablation-<name>"
    )

    verbs["probe"].add_argument(
        "items",
        nargs="*",
        metavar="ENCODER|key=value",
        help="run folder, .ckpt, exported .safetensors, FILE.safetensors:NAME, imagenet:NAME, "
        "random:NAME, hf-hub:ORG/NAME, local-dir:FOLDER (NAME is timm's), PRESET or PRESET:FOLDER "
        "(see `encoders list`), each with @cls, @mean, @cls+mean or @stages to pool so; "
        "default: the newest run; and settings",
    )
    verbs["probe"].add_argument("--config", type=Path, help="YAML file; default: the run's own")
    verbs["probe"].add_argument("--out", type=Path, help="result folder; default: a new one")

    embed = verbs["embed"].add_argument
    embed("encoder", help="as for probe")
    embed("images", type=Path, help="slide, folder of slides or images with all below, or store")
    embed("--out", type=Path, required=True, help="HDF5 file; for a folder of slides a folder")
    side, batch = _whole(8, SIDE_MAX), _whole(1, BATCH_MAX)
    embed("--size", type=side, default=0, help="input side in pixels; default: its own")
    embed("--batch-size", type=batch, default=64, help="images per forward pass")
    _add_slide_options(verbs["embed"])
    embed("--overlap", type=_whole(0, SIDE_MAX), default=0, help="pixels that tiles share")

    predict = verbs["predict"].add_argument
    predict("run", type=Path, help="folder of a run with checkpoints, or a .ckpt file")
    predict("images", type=Path, help="as for embed")
    predict("--out", type=Path, required=True, help="new folder")
    predict("--task", action="append", default=[], help="DATASET/TASK, or a dataset; repeatable")
    predict("--score", type=_number(0, 1), default=0.5, help="least score of objects, 0.5")
    predict("--batch-size", type=batch, default=64, help="images per forward pass")
    _add_slide_options(verbs["predict"])

    verbs["dashboard"].add_argument("run", type=Path, help="folder of a run")
    verbs["dashboard"].add_argument("--entity", help="account; default: the run's, or the login's")

    parser_of_export = verbs["export"]
    export = parser_of_export.add_argument
    export("source", help="checkpoint, or folder of a finished run; with --onnx any encoder")
    export("--out", type=Path, required=True, help="folder to write into")
    form = parser_of_export.add_mutually_exclusive_group()
    form.add_argument("--bridges", action="store_true", help="files for THUNDER, TRIDENT, eva")
    form.add_argument("--onnx", action="store_true", help="write encoder.onnx, output compared")
    export("--push", default="", metavar="OWNER/NAME", help="upload a run's encoder")
    export("--private", action="store_true", help="make a new repository private")

    verbs["report"].add_argument("runs", type=Path, nargs="+", metavar="RUN")
    verbs["report"].add_argument("--out", type=Path, default=Path("runs/leaderboard.html"))
    return parser


def _add_slide_options(parser: argparse.ArgumentParser) -> None:
    slides = parser.add_argument_group("slides").add_argument
    mpp = _number(MPP_MIN, MPP_MAX)
    slides(
        "--mpp", type=mpp, default=0.0, help="µm/px of a tile; default: the run's, or the task's"
    )
    slides("--tissue", type=_number(0, 1), default=0.25, help="least share in a tile, 0.25")
    slides(
        "--slide-mpp", type=mpp, default=0.0, help="µm/px of slides or images that do not state it"
    )
    slides("--readers", type=_whole(0, 64), default=2, help="processes that read ahead, 2")
    slides("--processes", type=_whole(0, 64), default=0, help="share the slides; 0: one per GPU")


def _number(low: float, high: float) -> Callable[[str], float]:
    """Return a parser of a number in a closed range."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not low <= float(text) <= high:
            raise argparse.ArgumentTypeError(f"give a number from {low:g} to {high:g}")
        return float(text)

    return parse


def _add_datasets(parser: argparse.ArgumentParser) -> None:
    for name, action in _add_verbs(parser, "action", ACTIONS).items():
        action.add_argument("--root", help="folder of the published datasets; default: data")
        action.add_argument("--stores", help="folder of the HDF5 stores; default: data/stores")
        if name == "list":
            continue
        action.add_argument("names", nargs="*", metavar="NAME")
        if name == "unpack":
            continue
        action.add_argument("--all", action="store_true", help="every public dataset")
        action.add_argument("--recipe", type=Path, help="YAML file with datasets and settings")
        workers = _whole(0, 1024)
        action.add_argument("--workers", type=workers, default=0, help="processes; 0: one per core")
        if name == "forge":
            images, seed = _whole(1, COUNT_MAX), _whole(0, SEED_MAX)
            action.add_argument("--images", type=images, default=40, help="about so many each")
            action.add_argument("--seed", type=seed, default=0, help="of everything drawn")
        if name == "verify":
            action.add_argument("--duplicates", action="store_true", help="also look for copies")
        if name == "show":
            action.add_argument("--out", type=Path, help="PNG of the contact sheet, or a folder")


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of a whole number in a closed range."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"give a whole number from {low} to {high}")
        return int(text)

    return parse


def _add_verbs(
    parser: argparse.ArgumentParser, key: str, texts: Mapping[str, tuple[str, str]]
) -> dict[str, argparse.ArgumentParser]:
    group = parser.add_subparsers(dest=key, required=True, metavar=key.upper())
    parsers = {}
    for name, (text, example) in texts.items():
        epilog = f"example: {parser.prog} {name} {example}".rstrip()
        parsers[name] = group.add_parser(name, help=text, description=text, epilog=epilog)
    return parsers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 on success, 2 for invalid input, 130 if interrupted, 128 + the signal's number if a
        signal ended training after a checkpoint (143 SIGTERM, 138 SIGUSR1).
    """
    write_alike()
    options = _parse(build_parser(), arguments)
    _set_up_logging(options.verbose)
    try:
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if options.verbose or not line_about(error):
            raise
        print(one_line(f"error: {line_about(error)}"), file=sys.stderr)
        return 2
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse settings before and after options; argparse alone accepts one uninterrupted list."""
    options, rest = parser.parse_known_args(arguments)
    key = next((k for k in ("overrides", "items", "names") if hasattr(options, k)), None)
    if rest and (key is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if key:
        setattr(options, key, [*getattr(options, key), *rest])
    return options


def _run(options: argparse.Namespace) -> int:
    if options.verb == "doctor":
        from lightning_app.commands.doctor import run_doctor

        return run_doctor()
    if options.verb == "datasets":
        from lightning_app.commands.datasets import run_datasets

        return run_datasets(options)
    if options.verb == "config":
        from lightning_app.commands.configuration import run_config

        return run_config(options.file)
    if options.verb == "encoders":
        from lightning_app.commands.presets import run_encoders

        return run_encoders(options)
    if not options.verbose:
        install_log_filters()
    if options.verb == "pretrain":
        from lightning_app.commands.pretrain import run_pretrain

        return run_pretrain(options.config, options.overrides)
    if options.verb == "rehearse":
        from lightning_app.commands.rehearse import run_rehearse

        return run_rehearse(options.config, options.overrides, options.out)
    if options.verb == "ablate":
        from lightning_app.commands.ablate import run_ablate

        return run_ablate(options.config, options.overrides, options.out)
    if options.verb == "dashboard":
        from lightning_app.commands.dashboard import run_dashboard

        return run_dashboard(options.run, options.entity)
    if options.verb == "predict":
        from lightning_app.commands.slides import run_predict

        return run_predict(options)
    from lightning_app.commands import encoders as encoder_commands

    command = {
        "probe": encoder_commands.run_probe,
        "embed": encoder_commands.run_embed,
        "export": encoder_commands.run_export,
        "report": encoder_commands.run_report,
    }[options.verb]
    return command(options)


class _OneLine(logging.Formatter):
    """The project's own messages on one line each, whatever the names in them hold."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the message; a traceback follows it unchanged."""
        text = super().formatMessage(record)
        return one_line(text) if record.name.partition(".")[0] in _OWN else text


_OWN = ("datamodules", "models", "evaluation", "lightning_app")


def _set_up_logging(verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, handlers=[handler], force=True)
