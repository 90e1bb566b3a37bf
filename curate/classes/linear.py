"""Logistic regressions: on embeddings, and on the words of captions."""

from typing import Any

import numpy as np

from poolbench.errors import UserError

from curate.classes.items import Lesson, captions_of, vectors_of

_EXTRA = "pip install 'poolbench[classify]'"
_WORDS = 2**18  # columns that single words and pairs of them are hashed into
_STEPS = 1000  # of L-BFGS, at most


def check_packages() -> None:
    """
    Raises:
        UserError: scikit-learn is missing.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing, the package scikit-learn; {_EXTRA}") from None


def by_embeddings(lesson: Lesson) -> list[np.ndarray]:
    """Classes of what is asked, int64 [n] each, by a logistic regression (L2, C = 1) on the embeddings' columns, each
    brought to mean 0 and standard deviation 1 by those of the training samples."""
    from sklearn.linear_model import LogisticRegression

    train = vectors_of(lesson.stores, lesson.train)
    mean, deviation = train.mean(axis=0), np.maximum(train.std(axis=0), 1e-6)
    model = LogisticRegression(C=1.0, max_iter=_STEPS).fit((train - mean) / deviation, lesson.train.label)
    return [_of(model, (vectors_of(lesson.stores, items) - mean) / deviation) for items in lesson.asked]


def by_captions(lesson: Lesson) -> list[np.ndarray]:
    """The same by the captions' words and pairs of words, hashed: how often each stands there, to unit length."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    words = HashingVectorizer(ngram_range=(1, 2), n_features=_WORDS, alternate_sign=False)
    train = words.transform(captions_of(lesson.stores, lesson.train))
    model = LogisticRegression(C=10.0, max_iter=_STEPS).fit(train, lesson.train.label)
    return [_of(model, words.transform(captions_of(lesson.stores, items))) for items in lesson.asked]


def _of(model: Any, values: Any) -> np.ndarray:
    found: np.ndarray = model.predict(values).astype(np.int64)
    return found
