"""Errors that a user can correct.

Library code raises these; the command line turns them into one line and exit code 2.
Every message states what is wrong, where (file, item), and what to do about it.
"""


def one_line(text: str) -> str:
    r"""Return a text with line breaks and other control characters as escapes.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class UserError(Exception):
    """Base of all errors caused by the input rather than by the program."""

    def __str__(self) -> str:
        """The message on one line, whatever the names in it hold."""
        return one_line(super().__str__())


class ConfigError(UserError):
    """A configuration key is unknown, missing or of the wrong type."""


class DatasetNotFoundError(UserError):
    """A dataset's folder or archive is missing."""


class LayoutError(UserError):
    """A file of a dataset does not fit the publisher's official layout."""


class ImageError(UserError):
    """An image file does not decode or has an unexpected shape."""


class SlideError(UserError):
    """A whole slide cannot be read, lacks what is needed, or holds no tissue."""


class StoreError(UserError):
    """An HDF5 store is missing, incomplete, damaged or of another version."""


class ChecksumError(UserError):
    """A downloaded file does not have the published checksum."""


class DownloadError(UserError):
    """A file cannot be downloaded, does not fit on the disk or is unsafe to unpack."""


class DiskError(UserError):
    """A file does not fit on its disk, or the disk does not return what was written."""


class LeakageError(UserError):
    """Training and evaluation data share a source, a patient or an image."""


class WeightsError(UserError):
    """Pretrained weights are unavailable or do not fit the encoder."""


class EncoderError(UserError):
    """A timm model cannot serve as the shared encoder."""


class TrainingError(UserError):
    """Training cannot continue (non-finite loss, out of memory, lost rank)."""


class ProbeError(UserError):
    """A probe cannot run on the given data or features."""


class StoppedError(Exception):
    """A signal ended training, after a checkpoint was written; the program exits with 128 + it."""

    def __init__(self, signal: int, run: str, steps: int) -> None:
        super().__init__(f"stopped after step {steps}; go on with: pretrain resume={run}")
        self.exit_code = 128 + signal
