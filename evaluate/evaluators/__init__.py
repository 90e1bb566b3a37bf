"""How each kind of task is scored: one module a kind. A new kind is a new module and a line in EVALUATORS."""

from evaluate.evaluators.base import Evaluator, Result
from evaluate.evaluators.classification import Classification
from evaluate.evaluators.fairness import Fairness
from evaluate.evaluators.groups import FMoW, IWildCam, WorstGroup
from evaluate.evaluators.retrieval import Retrieval
from evaluate.evaluators.winogavil import WinoGAViL

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "retrieval": Retrieval,
    "winogavil": WinoGAViL,
    "iwildcam": IWildCam,
    "worst_group": WorstGroup,
    "fmow": FMoW,
    "fairness": Fairness,
}

__all__ = ["EVALUATORS", "Evaluator", "Result"]
