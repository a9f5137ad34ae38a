"""What the conventions for own data share: splits in folders, groups by file name, classes."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.core.errors import ConfigError, LayoutError
from datamodules.core.records import SPLITS, Task, TaskKind
from datamodules.formats.cells import shown, spelling
from datamodules.formats.layout import layout_error, relative, subfolders
from datamodules.reader import DatasetReader


class Convention(DatasetReader):
    """A reader of a convention for own data."""

    organs = ()
    licence = "yours"
    grouping = "see option group"
    published_splits = ()

    def splits(self, root: Path) -> list[tuple[str, Path]]:
        """The folders `train`, `val` and `test`; without these all of `root` is "train"."""
        if not (root / "train").is_dir():
            return [("train", root)]
        for folder in subfolders(root):
            if folder.name not in SPLITS:
                problem = f"lies beside 'train'; expected only {', '.join(SPLITS)}"
                raise layout_error(root, folder, problem)
        return [(split, root / split) for split in SPLITS if (root / split).is_dir()]

    def group_of(self, root: Path, path: Path) -> str:
        """The part of a file's name that the option `group` captures; without it the whole."""
        text = self.options.group
        if not text:
            return relative(root, path)
        try:
            pattern = re.compile(text)
        except re.error as error:
            problem = f"'{text}' is not a regular expression ({error})"
            raise self.option_error("group", problem) from error
        if pattern.groups != 1:
            found = f"'{text}' has {pattern.groups} capture groups"
            remedy = "put the part of the name that identifies the patient in one pair of ()"
            raise self.option_error("group", f"{found}; {remedy}")
        match = pattern.search(path.name)
        if match is None or not match[1]:
            raise layout_error(root, path, f"options.group '{text}' finds no group in its name")
        return match[1]

    def positive_of(self, classes: Sequence[str]) -> str | None:
        """The class of the option `positive`; None where it is empty."""
        positive: str = self.options.positive
        if positive and positive not in classes:
            problem = f"no class '{positive}'; known: {', '.join(classes)}"
            raise self.option_error("positive", problem)
        return positive or None

    def classification(self, name: str, where: str, present: Iterable[str]) -> Task:
        """The task with the classes of the options or, without these, all in the data, sorted.

        Of two classes the last is the positive one unless the options name it.
        """
        classes = tuple(self.options.classes) or tuple(sorted(set(present)))
        self.check_distinct(classes)
        if len(classes) < 2:
            raise LayoutError(f"{where}: {len(classes)} classes, expected at least two")
        if self.options.positive and len(classes) != 2:
            raise self.option_error("positive", f"it takes two classes, not {len(classes)}")
        positive = self.positive_of(classes) or (classes[-1] if len(classes) == 2 else None)
        return Task(name, TaskKind.CLASSIFICATION, classes, positive=positive)

    def check_distinct(self, classes: Sequence[str]) -> None:
        """Check that no two classes are spellings of one name."""
        first: dict[str, str] = {}
        for name in classes:
            other = first.setdefault(spelling(name), name)
            if other is not name:
                both = f"the classes '{shown(other)}' and '{shown(name)}'"
                raise LayoutError(f"{self.name}: {both} differ in spelling only; write them alike")

    def option_error(self, option: str, problem: str) -> ConfigError:
        """The error to raise for an option that does not fit the data."""
        return ConfigError(f"data.*.{self.name}.options.{option}: {problem}")
