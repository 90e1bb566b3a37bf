"""How each kind of task becomes a table of predictions: one module a kind, a line in EVALUATORS for a new one."""

from evaluate.evaluators.base import Evaluator
from evaluate.evaluators.classification import Classification
from evaluate.evaluators.fairness import Fairness
from evaluate.evaluators.groups import FMoW, WorstGroup
from evaluate.evaluators.retrieval import Retrieval
from evaluate.evaluators.winogavil import WinoGAViL

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "retrieval": Retrieval,
    "winogavil": WinoGAViL,
    "iwildcam": Classification,
    "worst_group": WorstGroup,
    "fmow": FMoW,
    "fairness": Fairness,
}

__all__ = ["EVALUATORS", "Evaluator"]
