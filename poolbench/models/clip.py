"""Models by open_clip's names, our own small one among them, and their weights from any file that trainings leave."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.transformer import ResidualAttentionBlock

from poolbench.errors import UserError, first_line, nearest
from poolbench.files import read_json
from poolbench.models import big_vision, state_dict
from poolbench.models.conventions import conventions_of, doubt, fitting, tag_conventions
from poolbench.models.hyperbolic import NAMES, Learned
from poolbench.models.names import CONFIG, HUB, OURS, check_name
from poolbench.models.tokenizer import Tokenizer
from poolbench.text import some

open_clip.add_model_config(OURS)  # whose names become names as any other
_STEEP = 50  # logarithms of what a hyperbolic CLIP learns lie nearer to 0


class Preprocess(NamedTuple):
    """How a model wants its pictures: side in pixels, and mean and deviation of a channel on the 0..1 scale."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def create(name: str, *, seed: int = 0, device: torch.device | str = "cpu") -> torch.nn.Module:
    """A freshly initialised open_clip model in float32, the same for the same seed on every machine.

    Its forward returns a dict (`image_features`, `text_features`, `logit_scale`).

    Raises:
        UserError: open_clip knows no such model.
    """
    check_name(name)
    torch.manual_seed(seed)
    # Initialised on the CPU, whose generator gives the same weights on every machine.
    logging.disable(logging.WARNING)  # open_clip warns that a model without pretrained weights has none
    try:
        model: torch.nn.Module = open_clip.create_model(name, precision="fp32", output_dict=True)
    finally:
        logging.disable(logging.NOTSET)
    return model.to(device)


def width_of(name: str) -> int:
    """How many numbers the features of one of open_clip's models have."""
    return int(open_clip.get_model_config(name)["embed_dim"])


def load(
    name: str,
    checkpoint: str,
    *,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    plain: bool = False,
) -> torch.nn.Module:
    """The model `name` with the weights of `checkpoint`: a file, or one of open_clip's pretrained tags.

    A tag has the activation and the normalisation that open_clip knows of it. A file has to be of the architecture
    exactly: state_dict says what is taken off its names, and nothing is resized or left out in silence.

    Args:
        folder: with the open_clip_config.json that describes the model, where `name` is not one of open_clip's.
        say: told what is assumed of the weights, and what of the file is not used, a line each.
        plain: refuse a hyperbolic CLIP, of which only the towers are loaded.

    Raises:
        UserError: no such model, no such file or tag, or weights of another architecture.
    """
    model, logarithms = _loaded(name, checkpoint, folder, say)
    if logarithms and plain:
        raise UserError(f"checkpoint {checkpoint} is of a hyperbolic CLIP; objective=hyperbolic scores by it")
    if logarithms:
        unused = ", ".join(logarithms)
        say(f"{checkpoint}: it is of a hyperbolic CLIP, whose {unused} are not used: its features count as a CLIP's")
    return model.to(device).eval()


def load_hyperbolic(
    name: str,
    checkpoint: str,
    *,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> tuple[torch.nn.Module, Learned]:
    """As `load`, the model and what it has learned besides: of a checkpoint of objective=hyperbolic, or of HYPE's own.

    Raises:
        UserError: see `load`; a CLIP that is not hyperbolic, or numbers that are not finite.
    """
    model, logarithms = _loaded(name, checkpoint, folder, say)
    if not logarithms:
        raise UserError(f"checkpoint {checkpoint} is of no hyperbolic CLIP: it has no {', no '.join(NAMES)}")
    for key, value in logarithms.items():
        if not abs(value) < _STEEP:
            raise UserError(f"checkpoint {checkpoint}: its {key} is exp({value:g}); did its training diverge?")
    values = (torch.tensor(logarithms[key], dtype=torch.float64, device=device).exp() for key in NAMES)
    return model.to(device).eval(), Learned(*values)


def _loaded(
    name: str, checkpoint: str, folder: Path | None, say: Callable[[str], None]
) -> tuple[torch.nn.Module, dict[str, float]]:
    """See `load`, on the CPU; and what state_dict.StateDict has of a hyperbolic CLIP."""
    if folder is None:
        check_checkpoint(name, checkpoint)
    logarithms: dict[str, float] = {}
    if Path(checkpoint).is_file():
        model, logarithms = _of_file(name, Path(checkpoint), folder, say)
    else:
        try:
            quick = "quick_gelu" in tag_conventions(name, checkpoint).activation
            # open_clip itself only warns where the tag's activation is not that of the name: the scores would be wrong.
            model = open_clip.create_model(
                name, pretrained=checkpoint, precision="fp32", output_dict=True, force_quick_gelu=quick
            )
        except Exception as error:  # open_clip, torch, pickle and safetensors each raise their own
            raise UserError(f"checkpoint {checkpoint} cannot be loaded as {name}: {first_line(error)}") from None
    return model, logarithms


def check_checkpoint(name: str, checkpoint: str) -> None:
    """Raise UserError where `checkpoint` is neither a file nor a pretrained tag that open_clip has of model `name`."""
    check_name(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if Path(checkpoint).is_dir():
        raise UserError(f"checkpoint {checkpoint} is a folder; name the file, or a folder with {CONFIG} as model=")
    if not Path(checkpoint).is_file() and checkpoint not in tags:
        known = nearest(checkpoint, tags) if tags else f"{name} has no tags"
        raise UserError(f"checkpoint {checkpoint} is neither a file nor a pretrained tag of {name}; {known}")


def check_tensors(name: str, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise UserError where the model `name` cannot be loaded from these tensors, which are called `path`."""
    _fill(_without_weights(name, None), dict(tensors), path, name)


def _of_file(
    name: str, path: Path, folder: Path | None, say: Callable[[str], None]
) -> tuple[torch.nn.Module, dict[str, float]]:
    model, logarithms = _without_weights(name, folder), dict[str, float]()
    if path.suffix in (".npz", ".npy"):
        big_vision.fill(model, path, name)
        sure = False
    else:
        found = state_dict.read(path, list(model.state_dict()))
        if found.model not in (None, name):
            raise UserError(f"checkpoint {path} is of model={found.model}, as it says itself, and not of {name}")
        # A file that open_clip's own training wrote says "...-model_ViT-B-32-lr_...".
        sure = found.model == name or f"-model_{name}-lr_" in (found.experiment or "")
        logarithms = found.logarithms
        if logarithms and found.model is None:
            _take_for_hypes(model)
        for note in [*found.notes, *_fill(model, found.tensors, path, name)]:
            say(f"{path}: {note}")
    if folder is None and not sure:
        doubts = doubt(name, conventions_of(model))
        if doubts is not None:
            say(f"{path}: {doubts}")
    return model, logarithms


def _without_weights(name: str, folder: Path | None) -> torch.nn.Module:
    """The model as open_clip builds it, its weights random."""
    named = name if folder is None else f"local-dir:{folder}"
    logging.disable(logging.WARNING)  # open_clip warns that a model without pretrained weights has none
    try:
        model: torch.nn.Module = open_clip.create_model(
            named, precision="fp32", output_dict=True, load_weights=False, pretrained_text=False
        )
    except Exception as error:  # a configuration may be wrong in any way, and name parts that are to be downloaded
        raise UserError(f"model {name} cannot be built: {first_line(error)}") from None
    finally:
        logging.disable(logging.NOTSET)
    return model


def _take_for_hypes(model: torch.nn.Module) -> None:
    """Give a model the layer norms of HYPE's own, which add the smallest step of float32 to a variance, not 1e-5."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = torch.finfo(torch.float32).eps


def _fill(model: Any, tensors: dict[str, torch.Tensor], path: Path, name: str) -> list[str]:
    """Put the tensors into the model as open_clip.factory.load_checkpoint does, but for resizing; notes on the rest.

    Raises:
        UserError: a tensor is missing, or of another shape, or there is one too many.
    """
    try:
        state = convert_state_dict(model, tensors)  # of MobileCLIP's own files
    except (KeyError, RuntimeError, AttributeError) as error:
        raise UserError(f"checkpoint {path} cannot be loaded as {name}: {first_line(error)}") from None
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)  # of a time when all text towers had the same names
    state.pop("text.transformer.embeddings.position_ids", None)  # which newer versions of transformers do not have
    own = model.state_dict()
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in state and scalar in own and state[scalar].numel() == 1:
            state[scalar] = state[scalar].reshape(own[scalar].shape)
    notes = []
    if "logit_bias" in own and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(own["logit_bias"])
        notes.append("it has no logit_bias, which is taken for 0; no score depends on it")
    problem = _misfit(state, own)
    if problem is not None:
        names = [other for other in fitting(tensors, name) if other != name]
        way = f"its weights fit model={' or '.join(names)}" if names else "is it damaged, or of another architecture?"
        raise UserError(f"checkpoint {path} cannot be loaded as {name}: {problem}; {way}")
    model.load_state_dict(state)
    return notes


def _misfit(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str | None:
    """How the tensors of a file differ from the model's in names or shapes, None where they do not."""
    for key in sorted(state.keys() & own.keys(), key=lambda key: "positional" not in key):
        if state[key].shape != own[key].shape:
            return f"{key} is {list(state[key].shape)} in the file and {list(own[key].shape)} in the model"
    missing, surplus = ([key for key in one if key not in other] for one, other in ((own, state), (state, own)))
    parts = [f"it lacks {some(missing)}"] if missing else []
    parts += [f"it holds {some(surplus)}, which the model lacks"] if surplus else []
    return "; ".join(parts) or None


def compile_blocks(model: torch.nn.Module) -> None:
    """Compile the transformer blocks of both towers in place: once for all blocks, which are alike.

    The whole model would be compiled anew for each mix of text lengths.

    Raises:
        UserError: there is no C++ compiler, which a CPU's code needs.
    """
    if next(model.parameters()).device.type == "cpu":
        _check_compiler()
    for name, module in model.named_modules():
        if isinstance(module, ResidualAttentionBlock):
            module.compile(dynamic=not name.startswith("visual."))


def _check_compiler() -> None:
    """Find out at once what would otherwise come out minutes later, at the first step."""
    from torch._inductor import cpp_builder  # here, as it takes seconds that few need

    find = getattr(cpp_builder, "get_cpp_compiler", lambda: None)  # not public
    try:
        find()
    except Exception as error:  # of several kinds, by torch's version
        raise UserError(compiling_failed(error)) from None


def compiling_failed(error: BaseException) -> str:
    """What the user can do where torch cannot compile a model."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[1] if lines[0].endswith("raised:") and len(lines) > 1 else lines[0]
    return (
        f"efficiency.compile=true failed: {reason}; it needs a C++ compiler (install g++, or name one by CXX), on a "
        "GPU one for C; efficiency.compile=false trains the same without"
    )


def multiply_patches(model: Any) -> None:
    """Let a ViT compute its patch embedding as a product of matrices, in place: the same up to rounding.

    torch's convolutions on CPUs are made for small kernels: with one as large as a patch their backward pass takes 2
    (16 pixels, float32) to 30 times (32 pixels, bfloat16) as long as that of the product. Other towers are left alone.
    """
    conv = getattr(model.visual, "conv1", None)
    if (
        isinstance(conv, torch.nn.Conv2d)
        and conv.kernel_size == conv.stride
        and conv.padding == (0, 0)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    ):
        conv.forward = MethodType(_product_of_patches, conv)  # type: ignore[method-assign]


def _product_of_patches(conv: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """[n, channels, h, w] -> [n, width, rows, columns], as the convolution, whose windows do not overlap, gives it."""
    high, wide = (int(side) for side in conv.kernel_size)
    count, channels, height, width = images.shape
    rows, columns = height // high, width // wide
    whole = images[:, :, : rows * high, : columns * wide].reshape(count, channels, rows, high, columns, wide)
    patches = whole.permute(0, 2, 4, 1, 3, 5).flatten(3)
    return torch.nn.functional.linear(patches, conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


def preprocess_of(model: torch.nn.Module) -> Preprocess:
    """Picture side, mean and deviation of a model that open_clip built."""
    settings: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"]
    return Preprocess(size if isinstance(size, int) else size[0], tuple(settings["mean"]), tuple(settings["std"]))


def tokenizer_of(name: str, folder: Path | None = None) -> Any:
    """open_clip's tokenizer for the model `name`: list of strings -> int64 tensor [n, context length].

    Args:
        folder: with the open_clip_config.json of a model that is not one of open_clip's.

    Raises:
        UserError: its files are not there and cannot be downloaded.
    """
    try:
        # A repository's configuration may name the tokenizer of another one; a folder holds its own.
        local = folder is not None and not (name.startswith(HUB) and _names_tokenizer(folder))
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}" if local else name)
    except Exception as error:  # transformers and network libraries raise many kinds
        raise UserError(f"the tokenizer of {name} cannot be loaded: {first_line(error)}") from None
    plain = type(tokenizer) is open_clip.SimpleTokenizer and tokenizer.reduction_fn is None
    return Tokenizer(tokenizer) if plain else tokenizer


def _names_tokenizer(folder: Path) -> bool:
    text = read_json(folder / CONFIG)["model_cfg"].get("text_cfg", {})
    return bool(text.get("hf_tokenizer_name"))
