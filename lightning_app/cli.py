"""The command line: what it understands, and how an error of the input is told."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.core.errors import StoppedError, UserError

log = logging.getLogger(__name__)

PROGRAM = "python -m lightning_app"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs. A verb's function is imported only when it runs."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Multi-task pretraining of a histology encoder, and probes of its worth.",
        epilog=f"example: {PROGRAM} pretrain --config configs/demo.yaml",
    )
    parser.add_argument("--verbose", action="store_true", help="show what is done in detail")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    _verb(verbs, "doctor", "check the machine: versions, devices, disk, clashes, weights", "")
    _add_datasets(verbs)

    pretrain = _verb(
        verbs,
        "pretrain",
        "train the encoder, export it, probe it, write the report",
        "--config configs/real_small.yaml data.root=DATA trainer.epochs=2",
    )
    _add_config(pretrain)

    probe = _verb(
        verbs,
        "probe",
        "random forests on frozen features, against baselines",
        "runs/demo-20260101-120000 imagenet:resnet18 probe.repeats=5",
    )
    probe.add_argument(
        "items",
        nargs="*",
        metavar="ENCODER|key=value",
        help="run folder, .ckpt or .safetensors of ours, FILE.safetensors:NAME, imagenet:NAME, "
        "random:NAME, hf-hub:ORG/NAME or local-dir:FOLDER (NAME as timm calls it), the newest run "
        "where none is given; settings",
    )
    probe.add_argument("--config", type=Path, help="YAML file; the run's own if there is one")
    probe.add_argument("--out", type=Path, help="folder of the result; a new one below runs/")

    ablate = _verb(
        verbs,
        "ablate",
        "which dataset helps? train without each one, and on each alone, and probe",
        "--config configs/real_small.yaml data.root=DATA ablation.epochs=2",
    )
    _add_config(ablate)
    ablate.add_argument("--out", type=Path, help="its folder; <out>/ablation-<name> if not given")

    embed = _verb(
        verbs,
        "embed",
        "write the features of a folder of images or of a store to HDF5; goes on where it stopped",
        "runs/demo-20260101-120000 my_images --out features.h5",
    )
    embed.add_argument("encoder", help="as for probe")
    embed.add_argument("images", type=Path, help="folder, searched below as well, or .h5 store")
    embed.add_argument("--out", type=Path, required=True, help="HDF5 file to write")
    embed.add_argument("--size", type=int, default=0, help="input side in pixels (its own)")
    embed.add_argument("--batch-size", type=int, default=64)

    export = _verb(
        verbs,
        "export",
        "write a checkpoint's encoder as safetensors, or a run's for the Hugging Face hub",
        "runs/demo-20260101-120000/checkpoints/last.ckpt --out encoder",
    )
    export.add_argument("source", type=Path, help="checkpoint, or folder of a finished run")
    export.add_argument("--out", type=Path, required=True, help="folder to write into")
    export.add_argument("--push", default="", metavar="OWNER/NAME", help="upload a run's, too")
    export.add_argument("--private", action="store_true", help="a new repository is private")

    report = _verb(
        verbs,
        "report",
        "write report.html again; several runs give a leaderboard",
        "runs/demo-20260101-120000",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    report.add_argument("--out", type=Path, default=Path("runs/leaderboard.html"))
    return parser


def _add_datasets(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    datasets = _verb(
        verbs, "datasets", "list, show, get, prepare, verify and forge datasets", "list"
    )
    actions = datasets.add_subparsers(dest="action", required=True, metavar="ACTION")
    described = {
        "list": ("what is known, present and prepared", ""),
        "show": ("a dataset's card, class balance and contact sheet", "glas --root DATA"),
        "download": ("fetch, check and unpack the publisher's archives", "nct_crc --root DATA"),
        "prepare": ("write the HDF5 stores", "glas monuseg --root DATA"),
        "verify": ("read everything and name each offender", "glas --root DATA --duplicates"),
        "forge": ("write synthetic copies in the official layout", "--all --root forged"),
        "readme": ("write datamodules/README.md from the cards", ""),
    }
    for name, (text, example) in described.items():
        action = _verb(actions, name, text, example, f"datasets {name}")
        if name == "readme":
            continue
        action.add_argument("--root", help="folder of the published datasets (data)")
        action.add_argument("--stores", help="folder of the HDF5 stores (data/stores)")
        if name == "list":
            continue
        action.add_argument("names", nargs="*", metavar="NAME")
        action.add_argument("--all", action="store_true", help="every public dataset")
        action.add_argument("--recipe", type=Path, help="the datasets and settings of a YAML file")
        action.add_argument("--workers", type=int, default=0, help="processes; 0: one per core")
        if name == "forge":
            action.add_argument("--images", type=int, default=40, help="about how many each")
            action.add_argument("--seed", type=int, default=0)
        if name == "verify":
            action.add_argument("--duplicates", action="store_true", help="look for copies too")
        if name == "show":
            action.add_argument("--out", type=Path, help="PNG of the contact sheet, or a folder")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    example: str,
    shown: str = "",
) -> argparse.ArgumentParser:
    epilog = f"example: {PROGRAM} {shown or name} {example}".rstrip()
    return verbs.add_parser(name, help=text, description=text, epilog=epilog)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="YAML file; chosen by what data there are")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.batch_size=8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns:
        0 when all went well, 2 when the input was at fault, 130 when interrupted; 128 + the
        signal's number when one ended training after a checkpoint (143 SIGTERM, 138 SIGUSR1).
    """
    options = _parse(build_parser(), arguments)
    _set_up_logging(options.verbose)
    try:
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, also where settings follow an option: argparse alone takes them in one piece only."""
    options, left = parser.parse_known_args(arguments)
    listed = next((k for k in ("overrides", "items", "names") if hasattr(options, k)), None)
    if left and (listed is None or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if listed:
        setattr(options, listed, [*getattr(options, listed), *left])
    return options


def _run(options: argparse.Namespace) -> int:
    if options.verb == "doctor":
        from lightning_app.commands.doctor import run_doctor

        return run_doctor()
    if options.verb == "datasets":
        from lightning_app.commands.datasets import run_datasets

        return run_datasets(options)
    if not options.verbose:
        from lightning_app.loggers.log_filters import hush  # imports torch and Lightning

        hush()
    if options.verb == "pretrain":
        from lightning_app.commands.pretrain import run_pretrain

        return run_pretrain(options.config, options.overrides)
    if options.verb == "ablate":
        from lightning_app.commands.ablate import run_ablate

        return run_ablate(options.config, options.overrides, options.out)
    from lightning_app.commands import encoders as encoder_commands

    command = {
        "probe": encoder_commands.run_probe,
        "embed": encoder_commands.run_embed,
        "export": encoder_commands.run_export,
        "report": encoder_commands.run_report,
    }[options.verb]
    return command(options)


def _set_up_logging(verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", force=True
    )
