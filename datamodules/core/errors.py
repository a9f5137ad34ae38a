"""Errors that a user can mend.

Library code raises these; the command line turns them into one line and exit code 2.
Every message says what is wrong, where (file, item), and what to do about it.
"""


class UserError(Exception):
    """Base of everything that is the input's fault and not the program's."""


class ConfigError(UserError):
    """A configuration key is unknown, missing or of the wrong type."""


class DatasetNotFoundError(UserError):
    """A dataset's folder or archive does not lie where it was looked for."""


class LayoutError(UserError):
    """A file of a dataset does not fit the publisher's official layout."""


class ImageError(UserError):
    """An image file does not decode or has an unexpected shape."""


class StoreError(UserError):
    """An HDF5 store is missing, incomplete, damaged or of another version."""


class ChecksumError(UserError):
    """A downloaded file differs from what its publisher announced."""


class DownloadError(UserError):
    """A file cannot be fetched, does not fit on the disk or is unsafe to unpack."""


class LeakageError(UserError):
    """Training and evaluation data share a source, a patient or an image."""


class WeightsError(UserError):
    """Pretrained weights cannot be had or do not fit the encoder."""


class EncoderError(UserError):
    """A timm model cannot serve as the shared encoder."""


class TrainingError(UserError):
    """Training cannot go on (non-finite loss, out of memory, lost rank)."""


class ProbeError(UserError):
    """A probe cannot be run on the data or features that were given."""


class StoppedError(Exception):
    """A signal ended training, after a checkpoint; nothing is at fault.

    Args:
        signal: its number; the program ends with 128 + that.
        run: folder of the run.
        steps: optimizer steps behind the checkpoint.
    """

    def __init__(self, signal: int, run: str, steps: int) -> None:
        super().__init__(signal, run, steps)
        self.exit_code = 128 + signal
        self.run = run
        self.steps = steps

    def __str__(self) -> str:
        return f"stopped after step {self.steps}; go on with: pretrain resume={self.run}"
