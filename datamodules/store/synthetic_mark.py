"""The mark that distinguishes synthetic copies of datasets from real ones."""

from pathlib import Path

MARK = "SYNTHETIC.json"


def is_forged(root: Path) -> bool:
    """Whether the dataset below `root` is synthetic."""
    return (root / MARK).is_file()
