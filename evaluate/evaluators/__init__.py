"""How each kind of task is scored: one module a kind. A new kind is a new module and a line in EVALUATORS."""

from evaluate.evaluators.base import Evaluator, Result
from evaluate.evaluators.classification import Classification
from evaluate.evaluators.retrieval import Retrieval

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "retrieval": Retrieval,
}

__all__ = ["EVALUATORS", "Evaluator", "Result"]
