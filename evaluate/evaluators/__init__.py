"""How each kind of task becomes a table of predictions: one module a kind, a line in EVALUATORS for a new one."""

from evaluate.evaluators.base import Evaluator
from evaluate.evaluators.caption_selection import CaptionSelection
from evaluate.evaluators.classification import Classification
from evaluate.evaluators.fairness import Fairness
from evaluate.evaluators.groups import FMoW, WorstGroup
from evaluate.evaluators.multilabel import MultiLabel
from evaluate.evaluators.retrieval import Retrieval
from evaluate.evaluators.winogavil import WinoGAViL
from evaluate.evaluators.winoground import Winoground

EVALUATORS: dict[str, type[Evaluator]] = {
    "classification": Classification,
    "retrieval": Retrieval,
    "winogavil": WinoGAViL,
    "iwildcam": Classification,
    "worst_group": WorstGroup,
    "fmow": FMoW,
    "fairness": Fairness,
    "caption_selection": CaptionSelection,
    "winoground": Winoground,
    "multilabel": MultiLabel,
}

__all__ = ["EVALUATORS", "Evaluator"]
