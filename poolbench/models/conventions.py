"""What weights do not tell of their model: its activation, and how pictures are resized and normalised for it.

A file is loaded with what open_clip has for the name of its architecture. Where open_clip knows published weights of
that architecture that want something else, the user is told.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.transform import PreprocessCfg

from poolbench.text import SHOWN, some

_ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu", "GELUTanh": "gelu_tanh"}  # class -> as results have it
_VISION = {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224}  # what configurations leave out
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 512, "layers": 12}


class Conventions(NamedTuple):
    """Activation of the towers, and mean and deviation of a channel on the 0..1 scale, filter and mode of resizing."""

    activation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str

    def __str__(self) -> str:
        return ", ".join(_said(field, value) for field, value in self._asdict().items())


class Shape(NamedTuple):
    """What open_clip's own towers are told from each other by in their weights: sizes, a side in patches, and whether
    there is SigLIP's bias and CoCa's decoder."""

    embedding: int
    side: int
    patch: int
    width: int
    layers: int
    context: int
    vocabulary: int
    text_width: int
    text_layers: int
    bias: bool
    decoder: bool


def conventions_of(model: torch.nn.Module) -> Conventions:
    """Those of a model that open_clip built."""
    settings = asdict(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)))  # with what open_clip adds to it
    found = {_activation(module) for module in model.modules()} - {""}
    return _conventions("+".join(sorted(found)) or "unknown", settings)


def doubt(name: str, used: Conventions) -> str | None:
    """One line where open_clip has weights of the architecture `name` with other conventions than those `used`."""
    differing: dict[str, list[str]] = {}
    alike = twins(name)
    for twin in alike:
        for tag in open_clip.list_pretrained_tags_by_model(twin):
            other = tag_conventions(twin, tag)
            what = [_said(field, getattr(other, field)) for field in used._fields if _differ(field, used, other)]
            if what:
                differing.setdefault(", ".join(what), []).append(f"{twin}/{tag}")
    if not differing:
        return None
    groups = [f"{what} ({some(tags)})" for what, tags in differing.items()]
    others = [twin for twin in alike if _is_quick(twin) != ("quick_gelu" in used.activation)]
    way = f"model={others[0]}" if others else "a folder with weights and open_clip_config.json as model="
    return (
        f"weights do not tell what they were trained with; assumed for {name}: {used}. Published weights of this "
        f"architecture have {'; or '.join(groups[:SHOWN])}; if these are alike, {way}"
    )


def _differ(field: str, used: Conventions, other: Conventions) -> bool:
    if field == "activation":  # tags tell no more of it than this
        return ("quick_gelu" in used.activation) != ("quick_gelu" in other.activation)
    return bool(getattr(used, field) != getattr(other, field))


def _is_quick(name: str) -> bool:
    return bool((open_clip.get_model_config(name) or {}).get("quick_gelu"))


def tag_conventions(name: str, tag: str) -> Conventions:
    """Those of one of open_clip's pretrained tags."""
    settings = open_clip.get_pretrained_cfg(name, tag)
    quick = settings.get("quick_gelu") or _is_quick(name)
    return _conventions("quick_gelu" if quick else "gelu", settings)


def twins(name: str) -> list[str]:
    """The models of open_clip, `name` among them, whose weights have the same shapes."""
    config = open_clip.get_model_config(name)
    shape = _shape_of_config(config)
    if shape is not None:
        return [other for other in open_clip.list_models() if shape_of_name(other) == shape]
    plain = {**config, "quick_gelu": None}
    configs = ((other, open_clip.get_model_config(other)) for other in open_clip.list_models())
    return [other for other, its in configs if {**its, "quick_gelu": None} == plain]


def fitting(tensors: Mapping[str, torch.Tensor], asked: str) -> list[str]:
    """The models of open_clip that have weights of these shapes, those first whose name is most like the one `asked`
    for; [] where none has, or the towers are not open_clip's own."""
    shape = _shape_of_weights(tensors)
    names = [name for name in open_clip.list_models() if shape is not None and shape_of_name(name) == shape]
    return sorted(names, key=lambda name: -SequenceMatcher(None, name.lower(), asked.lower()).ratio())[:SHOWN]


def shape_of_name(name: str) -> Shape | None:
    """The shape of one of open_clip's models, None where a tower is not open_clip's own transformer."""
    return _shape_of_config(open_clip.get_model_config(name))


def _shape_of_config(config: Mapping[str, Any]) -> Shape | None:
    vision, text = {**_VISION, **config["vision_cfg"]}, {**_TEXT, **config["text_cfg"]}
    sizes = [vision["layers"], vision["image_size"]]
    if vision.get("timm_model_name") or text.get("hf_model_name") or not all(isinstance(size, int) for size in sizes):
        return None
    side = vision["image_size"] // vision["patch_size"]
    pictures = (config["embed_dim"], side, vision["patch_size"], vision["width"], vision["layers"])
    texts = (text["context_length"], text["vocab_size"], text["width"], text["layers"])
    return Shape._make((*pictures, *texts, config.get("init_logit_bias") is not None, "multimodal_cfg" in config))


def _shape_of_weights(tensors: Mapping[str, torch.Tensor]) -> Shape | None:
    text = "text." if "text.positional_embedding" in tensors else ""
    try:
        positions, patches = tensors["visual.positional_embedding"], tensors["visual.conv1.weight"]
        context, vocabulary = tensors[f"{text}positional_embedding"], tensors[f"{text}token_embedding.weight"]
        embedding = tensors["visual.proj"].shape[1]
    except KeyError:
        return None
    return Shape(
        embedding,
        round((len(positions) - 1) ** 0.5),
        patches.shape[-1],
        len(patches),
        _blocks(tensors, "visual.transformer.resblocks."),
        len(context),
        len(vocabulary),
        context.shape[-1],
        _blocks(tensors, f"{text}transformer.resblocks."),
        "logit_bias" in tensors,
        _blocks(tensors, "text_decoder.resblocks.") > 0,
    )


def _blocks(names: Iterable[str], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def _activation(module: torch.nn.Module) -> str:
    name = _ACTIVATIONS.get(type(module).__name__, "")
    return "gelu_tanh" if name == "gelu" and getattr(module, "approximate", None) == "tanh" else name


def _conventions(activation: str, settings: Mapping[str, Any]) -> Conventions:
    mean, std = tuple(settings["mean"]), tuple(settings["std"])
    return Conventions(activation, mean, std, settings["interpolation"], settings["resize_mode"])


def _said(field: str, value: Any) -> str:
    if isinstance(value, str):
        return f"{field} {value}"
    return f"{field} [{', '.join(f'{number:.3g}' for number in value)}]"
