"""What training and probing must not share, and under which terms trained weights stand."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.core.errors import LeakageError
from datamodules.reader import DatasetReader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A dataset that an encoder says it was trained on; it need not be on this machine.

    Attributes:
        name: the dataset's name in the run that trained the encoder.
        sources: where its images come from.
        folder: its folder below `data.root`.
    """

    name: str
    sources: tuple[str, ...]
    folder: str


Card = DatasetReader | type[DatasetReader] | Trained
"""A dataset of a run, the class that describes it, or what an encoder tells of it."""


def trained_on(facts: Mapping[str, Any]) -> list[Trained]:
    """The training data that an exported encoder names in its facts; none where it names none."""
    return [
        Trained(name, tuple(entry.get("sources", ())), entry.get("folder", ""))
        for name, entry in facts.get("datasets", {}).items()
        if entry.get("role") == "train"
    ]


def overlap(train: Sequence[Card], unseen: Sequence[Card]) -> list[str]:
    """Sources that datasets for training and datasets for probing have in common.

    Two datasets made from the same slides, or from the same cohort, are not independent: a probe
    on one flatters an encoder that was trained on the other. Cards name their sources; own data
    without any are only compared by the folder in which they lie.

    Returns:
        One sentence for each pair of datasets that share something.
    """
    return [
        f"{_name(probe)} (unseen) and {_name(trained)} (training) share {shared}"
        for probe in unseen
        for trained in train
        if (shared := _shared(probe, trained))
    ]


def check_overlap(train: Sequence[Card], unseen: Sequence[Card], allow: bool) -> None:
    """Refuse probes on data whose source was trained on.

    Args:
        train: datasets that train the encoder.
        unseen: datasets for probes.
        allow: log what is shared in place of refusing it.

    Raises:
        LeakageError: says what is shared and how to allow it.
    """
    shared = overlap(train, unseen)
    if not shared:
        return
    if allow:
        for sentence in shared:
            log.warning("not unseen: %s; allowed by probe.allow_overlap=true", sentence)
        return
    raise LeakageError(
        f"{'; '.join(shared)}. Such data are not unseen: take one of each pair out, or set "
        "probe.allow_overlap=true; the report then says so"
    )


def licence_line(datasets: Sequence[DatasetReader | type[DatasetReader]]) -> str:
    """One line that says whether weights trained on these datasets may be used commercially."""
    closed = [_name(dataset) for dataset in datasets if dataset.commercial is False]
    unclear = [_name(dataset) for dataset in datasets if dataset.commercial is None]
    doubt = f"terms unclear, ask the publishers: {', '.join(unclear)}" if unclear else ""
    if closed:
        line = f"weights trained on non-commercial data: {', '.join(closed)}"
        return f"{line}; {doubt}" if doubt else line
    return doubt or "all training data allow commercial use"


def _name(dataset: Card) -> str:
    return dataset.__name__ if isinstance(dataset, type) else dataset.name


def _shared(one: Card, other: Card) -> str:
    """What two datasets share, in words; empty where nothing is known to be."""
    if isinstance(one, DatasetReader):
        if isinstance(other, DatasetReader) and one.root.resolve() == other.root.resolve():
            return f"the folder {one.root}"
        if isinstance(other, Trained) and one.placed == other.folder:
            return f"the folder {one.placed}"
    elif one is other:
        return "everything: they are the same dataset"
    known = {source.casefold() for source in other.sources}
    common = [source for source in one.sources if source.casefold() in known]
    return f"the source {', '.join(common)}" if common else ""
