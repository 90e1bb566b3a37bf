"""WinoGAViL: which of the pictures go with a cue, scored by the Jaccard index."""

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.metrics.winogavil import jaccard
from evaluate.stream import Batch, UnitEnd
from tasks.examples import Puzzle
from tasks.readers import TaskData
from tasks.registry import Task


class WinoGAViL(Evaluator):
    """Keeps the embedding of each different picture; some 12 puzzles share one.

    As many candidates are chosen as are right, those most similar to the cue (Bitton et al., WinoGAViL, 2022,
    section 4). Of equally similar ones the later is chosen. A puzzle with a picture that cannot be read is left out.
    """

    needs = frozenset({"puzzles"})

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._encoder = encoder
        self._pictures: dict[str, torch.Tensor] = {}
        self._puzzles: list[Puzzle] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        self._pictures |= zip(batch.keys, features.cpu(), strict=True)

    def end(self, end: UnitEnd) -> None:
        self._puzzles += end.puzzles

    def predictions(self) -> pa.Table:
        puzzles = [puzzle for puzzle in self._puzzles if all(key in self._pictures for key in puzzle.pictures)]
        cues = self._encoder.encode_texts([prompt_of(puzzle.cue) for puzzle in puzzles]).cpu() if puzzles else ()
        chosen = [
            choose(torch.stack([self._pictures[key] for key in puzzle.pictures]) @ cue, sum(puzzle.right)).tolist()
            for puzzle, cue in zip(puzzles, cues, strict=True)
        ]
        table = {
            "key": [puzzle.key for puzzle in puzzles],
            "cue": [puzzle.cue for puzzle in puzzles],
            "candidates": [list(puzzle.names) for puzzle in puzzles],
            "pictures": [list(puzzle.pictures) for puzzle in puzzles],
            "right": [list(puzzle.right) for puzzle in puzzles],
            "chosen": chosen,
            "size": [len(puzzle.right) for puzzle in puzzles],
            "score": [jaccard(puzzle.right, picks) for puzzle, picks in zip(puzzles, chosen, strict=True)],
        }
        return pa.table(table)


def prompt_of(cue: str) -> str:
    """ "A " or, before a vowel, "An " and the cue in small letters."""
    cue = cue.lower()
    return f"{'An' if cue[0] in 'aeiou' else 'A'} {cue}"


def choose(similarities: torch.Tensor, count: int) -> torch.Tensor:
    """Which `count` of n candidates are most similar, bool [n]; of equal ones the later.

    Args:
        similarities: [n].
    """
    order = torch.argsort(similarities, stable=True)
    chosen = torch.zeros(len(similarities), dtype=torch.bool)
    chosen[order[len(order) - count :]] = True
    return chosen
