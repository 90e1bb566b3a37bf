"""Models that open_clip does not know: `model=python:<module>:<function>`, a function of the user's own.

    # my_model.py, in the working folder or on the path
    class Mine:
        normalise = True                           # left out: True
        logit_scale = 20.0                         # left out: 100

        def __init__(self):
            self.network = torch.load("weights.pt", weights_only=True)  # whose content tells this model from others

        def transform(self, image): ...            # a PIL picture in RGB -> a tensor, always of one shape
        def tokenize(self, texts): ...             # list of n texts -> whatever encode_text takes
        def encode_image(self, pictures): ...      # [n, *shape] -> float [n, d]
        def encode_text(self, tokens): ...         # -> float [n, d]

    def load():                                    # with checkpoint=<text>: load(text)
        return Mine()

`ImageTextModel` says what each part has to do.
"""

import contextlib
import hashlib
import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from poolbench.errors import UserError, described
from poolbench.fields import OwnModel
from poolbench.files import digest_file, digest_json
from poolbench.models.conventions import Conventions
from poolbench.models.names import python_parts
from poolbench.shards.pictures import rgb

from evaluate.embedder import LOGIT_SCALE

_PARTS = ("transform", "tokenize", "encode_image", "encode_text")
_SHOWN = 400  # letters of what a transform or tokenizer calls itself


class ImageTextModel(Protocol):
    """What the function has to return. It may also have, in the words of results (`own`):

    - `normalise` (bool, True): whether embeddings are brought to unit length here, and the mean over the prompts of a
      class, too. Without it similarities are the products of the embeddings as they come.
    - `logit_scale` (100): the factor, not its logarithm, before the softmax over classes. It decides how sure the model
      is said to be, and no score.
    - `logit_bias`: told in results; the same for all classes, it changes nothing.
    - `identity` (text): what tells the model from others, where its weights do not lie in it as torch modules or
      tensors. It has to change where they do.
    - `to(device)` and `eval()`, called where they are there.

    Everything runs under torch.inference_mode, and with precision=amp_bf16 under autocast.
    """

    def transform(self, image: Image.Image) -> torch.Tensor:
        """A picture in RGB as the model wants it, normalised: a tensor, of one shape for all. Runs in the workers."""

    def tokenize(self, texts: list[str]) -> Any:
        """Tokens of n texts: a tensor, a mapping of tensors, or what else `encode_text` takes; tensors are moved to the
        device. What the texts beside it in the batch are may change nothing of an embedding: pad to one length, or
        mask."""

    def encode_image(self, pictures: torch.Tensor) -> torch.Tensor:
        """[n, *shape of a picture] on the device -> n rows of d floats."""

    def encode_text(self, tokens: Any) -> torch.Tensor:
        """-> n rows of d floats, of the same d."""


class PythonModel(NamedTuple):
    """What a user's function gave.

    Attributes:
        name: python:<module>:<function>.
        source: `source:` and the digest of the module's file.
        sha256: of the weights, the `identity` and the checkpoint's file, as far as there are any.
    """

    name: str
    model: Any
    source: str
    sha256: str


def load_python(name: str, checkpoint: str | None) -> PythonModel:
    """Import the module, and call the function, with `checkpoint` where there is one.

    Raises:
        UserError: whatever is wrong with either, or with what is returned.
    """
    module_name, function_name = python_parts(name)
    module = _imported(name, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"model={name}: {module_name} has no function {function_name}")
    with _told(name, f"{function_name}({'' if checkpoint is None else repr(checkpoint)}) fails"):
        model = function() if checkpoint is None else function(checkpoint)
    missing = [part for part in _PARTS if not callable(getattr(model, part, None))]
    if missing:
        raise UserError(
            f"model={name}: {function_name} returns a {type(model).__name__} without {', '.join(missing)}()"
        )
    file = getattr(module, "__file__", None)
    source = digest_file(file) if file else digest_json(name)
    return PythonModel(name, model, f"source:{source}", _digest(name, model, checkpoint))


def _imported(name: str, module_name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:  # a command that pip installed has neither
        sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    with _told(name, f"{module_name} cannot be imported"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"model={name}: no module {error.name} on the path or in {Path.cwd()}") from None


@contextlib.contextmanager
def _told(name: str, what: str) -> Iterator[None]:
    """Whatever the user's code raises, in a line."""
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"model={name}: {what}: {described(error)}") from None


def _digest(name: str, model: Any, checkpoint: str | None) -> str:
    """What tells the weights from others.

    Raises:
        UserError: nothing does, so that results of other weights would count as finished.
    """
    identity = getattr(model, "identity", None)
    if identity is not None and not (isinstance(identity, str) and identity):
        raise UserError(f"model={name}: its identity is {identity!r}, not a text")
    found = hashlib.sha256()
    count = 0
    with _told(name, "its weights cannot be read; an `identity` (a text that changes with them) does instead"):
        for key, tensor in [] if identity else _tensors(model):
            array = tensor.detach().cpu().contiguous()
            found.update(f"{key} {array.dtype} {list(array.shape)}\n".encode())
            found.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
            count += 1
    if not identity and not count:
        raise UserError(
            f"model={name}: no torch module or tensor lies in it, so nothing tells its weights from others; give it an "
            "`identity`, a text that changes with them"
        )
    file = digest_file(checkpoint) if checkpoint is not None and Path(checkpoint).is_file() else checkpoint
    return digest_json([identity or found.hexdigest(), file])


def _tensors(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a model and in the modules that are its attributes, by name."""
    if isinstance(model, torch.nn.Module):
        parts: Mapping[str, Any] = {"": model}
    else:
        parts = getattr(model, "__dict__", {})
    for name, part in sorted(parts.items()):
        held = part.state_dict() if isinstance(part, torch.nn.Module) else {"": part}
        yield from ((f"{name}.{key}", one) for key, one in sorted(held.items()) if isinstance(one, torch.Tensor))


class PythonEmbedder:
    """A model of a user's own on a device; see evaluate.embedder.Embedder."""

    conventions: Conventions | None = None

    def __init__(self, given: PythonModel, device: torch.device, precision: str, batch_size: int) -> None:
        """Try the model on two pictures and two texts, so that what is wrong is told before any data are read.

        Raises:
            UserError: it cannot do what `ImageTextModel` says.
        """
        self._name, self._batch_size, self._precision = given.name, batch_size, precision
        if precision == "fp32":
            torch.set_float32_matmul_precision("highest")  # as poolbench.models.towers has it
            torch.backends.cudnn.allow_tf32 = False
        with _told(given.name, f"it cannot be moved to {device}"):
            model = given.model.to(device) if hasattr(given.model, "to") else given.model
            self._model = given.model if model is None else model
            if hasattr(self._model, "eval"):
                self._model.eval()
        self.device = device
        self.unit = self._setting("normalise", bool, True)
        scale, bias = (self._number(name) for name in ("logit_scale", "logit_bias"))
        if scale is not None and scale <= 0:
            raise UserError(f"model={given.name}: its logit_scale is {scale}; it is a factor, not a logarithm")
        self.logit_scale = LOGIT_SCALE if scale is None else scale
        self.transform = _called(self._model.transform)
        self.pixels: Callable[[bytes], torch.Tensor] = _Pixels(given.name, self._model.transform)
        self._width: int | None = None
        self._try()
        assert self._width is not None
        self.own: OwnModel | None = OwnModel(
            transform=self.transform,
            tokenizer=_called(self._model.tokenize),
            normalised=self.unit,
            width=self._width,
            logit_scale=scale,
            logit_bias=bias,
        )

    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        """[n, *shape] -> float32 [n, d]."""
        return self._encoded("encode_image", pictures.to(self.device, non_blocking=True), len(pictures))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """n texts -> float32 [n, d], in their order, a batch at a time."""
        vectors = []
        for start in range(0, len(texts), self._batch_size):
            batch = list(texts[start : start + self._batch_size])
            with _told(self._name, "tokenize fails"):
                tokens = _moved(self._model.tokenize(batch), self.device)
            vectors.append(self._encoded("encode_text", tokens, len(batch)))
        return torch.cat(vectors)

    @torch.inference_mode()
    def _encoded(self, method: str, batch: Any, count: int) -> torch.Tensor:
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "amp_bf16")
        with _told(self._name, f"{method} fails"), autocast:
            given = getattr(self._model, method)(batch)
        wanted = f"not {count} rows of {self._width or 'd'} floats"
        if not isinstance(given, torch.Tensor):
            raise UserError(f"model={self._name}: {method} gives a {type(given).__name__}, {wanted}")
        width = self._width or (given.shape[1] if given.ndim == 2 else 0)
        if given.shape != (count, width) or not width or not given.is_floating_point():
            kind = str(given.dtype).removeprefix("torch.")
            raise UserError(f"model={self._name}: {method} gives {kind} {list(given.shape)}, {wanted}")
        self._width = width
        vectors = given.to(self.device, torch.float32)
        vectors = functional.normalize(vectors, dim=-1) if self.unit else vectors
        if not torch.isfinite(vectors).all():
            raise UserError(f"model={self._name}: {method} gives numbers that are not finite")
        return vectors

    def _try(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
        files = []
        for picture in (noise[0], noise[1].transpose(1, 0, 2)):  # of different shapes, as pictures are
            buffer = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
            files.append(buffer.getvalue())
        with _told(self._name, "transform fails"):
            pixels = [self.pixels(file) for file in files]
        self.images(torch.stack(pixels))
        self.texts(["a photo of a cat.", "two dogs"])

    def _setting(self, name: str, kind: type, default: Any) -> Any:
        value = getattr(self._model, name, default)
        if not isinstance(value, kind):
            raise UserError(f"model={self._name}: its {name} is {value!r}, not a {kind.__name__}")
        return value

    def _number(self, name: str) -> float | None:
        value = getattr(self._model, name, None)
        if value is None:
            return None
        try:
            number = float(value.detach() if isinstance(value, torch.Tensor) else value)
        except (TypeError, ValueError, RuntimeError):
            number = float("nan")
        if not np.isfinite(number):
            raise UserError(
                f"model={self._name}: its {name} is {' '.join(str(value).split())[:80]}, not a finite number"
            )
        return number


class _Pixels:
    """From a picture file to what the model's transform gives for it, of the shape that it gave first."""

    def __init__(self, name: str, transform: Callable[[Image.Image], Any]) -> None:
        self._name, self._transform = name, transform
        self._kind: tuple[torch.Size, torch.dtype] | None = None

    def __call__(self, data: bytes) -> torch.Tensor:
        """Raises whatever Pillow raises for bytes that are not a whole picture, and UserError for no such tensor."""
        with Image.open(io.BytesIO(data)) as image:
            given = self._transform(rgb(image))
        if not isinstance(given, torch.Tensor):
            raise UserError(f"model={self._name}: transform gives a {type(given).__name__}, not a tensor")
        kind = given.shape, given.dtype
        self._kind = self._kind or kind
        if kind != self._kind:
            raise UserError(
                f"model={self._name}: transform gives {list(kind[0])} for one picture, "
                f"{list(self._kind[0])} for another"
            )
        return given


def _moved(tokens: Any, device: torch.device) -> Any:
    """Tokens with their tensors on the device."""
    if isinstance(tokens, torch.Tensor):
        return tokens.to(device, non_blocking=True)
    if isinstance(tokens, Mapping):
        return {name: _moved(one, device) for name, one in tokens.items()}
    return tokens


def _called(part: Any) -> str:
    """What a function or object calls itself, the same in every process."""
    name = getattr(part, "__qualname__", None)
    said = f"{part.__module__}.{name}" if name else re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(part).split()))
    return said[:_SHOWN]
