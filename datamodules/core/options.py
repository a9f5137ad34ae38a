"""Options of a reader: what all of them have, how they are checked, which ones name a store."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.core.config_ranges import LATER, check_limits
from datamodules.core.errors import ConfigError

MPP_MIN, MPP_MAX = 0.01, 100.0  # µm per pixel that microscopes and scanners can give


@dataclass
class ReaderOptions:
    """Options of every reader.

    Attributes:
        allow_missing: go without listed images and folders that do not exist; they are counted.
    """

    allow_missing: bool = field(default=False, metadata=LATER)


def read_options(where: str, kind: type[Any], given: dict[str, Any]) -> Any:
    """An object of a dataclass of options, or a ConfigError; its `mpp`, if any, is 0 if unknown."""
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), given))
        check_limits(options)
    except (OmegaConfBaseException, OverflowError) as error:
        key = getattr(error, "full_key", None)
        place = f"{where}.{key}" if key else where
        raise ConfigError(f"{place}: {str(error).splitlines()[0]}") from error
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error
    mpp = getattr(options, "mpp", 0)
    if mpp != 0 and not MPP_MIN <= mpp <= MPP_MAX:
        raise ConfigError(f"{where}.mpp={mpp}: must be 0 or from {MPP_MIN:g} to {MPP_MAX:g}")
    return options


def stated_options(options: Any) -> dict[str, Any]:
    """All options but those that came later (`LATER`) and have their default."""
    later = {one.name: one.default for one in fields(options) if one.metadata.get("later")}
    values = asdict(options)
    return {name: v for name, v in values.items() if name not in later or v != later[name]}
