"""Whether the weights of presets are on this machine or can be fetched, and how to get them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from models.inference.presets import Preset

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CACHED, OPEN, REFUSED, UNREACHABLE = "cached", "can be fetched", "needs access", "unreachable"


def is_cached(preset: Preset) -> bool:
    """Return whether the hub's cache on this machine holds the weights."""
    return any(isinstance(try_to_load_from_cache(preset.hub, name), str) for name in WEIGHT_FILES)


def how_to_get(preset: Preset) -> str:
    """Return what to do where a preset's weights cannot be loaded."""
    page = f"{constants.ENDPOINT}/{preset.hub}"
    login = f"accept its terms at {page} and run `hf auth login`, or "
    return (
        f"{'' if preset.gated is False else login}fetch it elsewhere with "
        f"`hf download {preset.hub} --local-dir FOLDER` and name {preset.name}:FOLDER"
    )


def access(presets: Iterable[Preset], timeout: float) -> dict[str, str]:
    """Return the state of each preset by name; the hub is asked for those that are not cached."""

    def state(preset: Preset) -> str:
        if is_cached(preset):
            return CACHED
        try:
            get_hf_file_metadata(hf_hub_url(preset.hub, "config.json"), timeout=timeout)
        except (GatedRepoError, RepositoryNotFoundError):
            return REFUSED  # without a token the hub does not tell one from the other
        except Exception:  # refused, unknown host, proxy, certificate: all mean "no answer"
            return UNREACHABLE
        return OPEN

    chosen = list(presets)
    with ThreadPoolExecutor(len(chosen)) as pool:
        return dict(zip((p.name for p in chosen), pool.map(state, chosen), strict=True))
