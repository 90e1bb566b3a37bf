"""Run a filter of the original harness as its baselines.py does, with a stand-in for what it would download.

    <its python> bench/original_filter.py --harness <checkout> --name basic_filter --metadata <folder> --save <file.npy>
        --workers 2 --language <lid.176 model> [--arch l14] [--fraction 0.3]

Its fastText model comes from a file; `nltk`, which only text_based uses, may be missing. fasttext-predict, which has
the same code as fasttext, answers through a wrapper as small as fasttext's own.
"""

import argparse
import sys
import types
from typing import Any


class Model:
    """`predict` of a text, as fasttext's own model has it."""

    def __init__(self, path: str) -> None:
        import fasttext

        self._model = fasttext.FastText._FastText(path).f if hasattr(fasttext, "FastText") else None

    def predict(self, text: str) -> tuple[tuple[str, ...], list[float]]:
        assert self._model is not None
        found = self._model.predict(f"{text}\n", 1, 0.0, "strict")
        return tuple(label for _, label in found), [probability for probability, _ in found]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("harness", "name", "metadata", "save", "language"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--arch")
    parser.add_argument("--fraction", type=float)
    return parser.parse_args()


def prepared(options: argparse.Namespace) -> Any:
    """Its module of filters with the stand-ins, which each process that it starts needs too."""
    sys.path.insert(0, options.harness)
    for name in ("nltk", "nltk.corpus"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["nltk.corpus"].wordnet = None  # type: ignore[attr-defined]
    from baselines import apply_filter as theirs  # type: ignore[import-not-found]

    theirs.download = lambda *_: options.language
    theirs.fasttext.load_model = Model
    return theirs


def main() -> None:
    options = parse()
    described: dict[str, Any] = {
        "name": options.name,
        "metadata_dir": options.metadata,
        "save_path": options.save,
        "num_workers": options.workers,
        "arch": options.arch,
        "fraction": options.fraction,
        "threshold": None,
    }
    prepared(options).apply_filter(types.SimpleNamespace(**described))


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":
    prepared(parse())
