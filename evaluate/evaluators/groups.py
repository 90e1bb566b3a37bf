"""Classification tasks whose samples fall into groups: by a field of theirs, or FMoW's regions and years."""

import pyarrow as pa
import torch

from poolbench.errors import UserError

from evaluate.encoder import Encoder
from evaluate.evaluators.classification import Classification
from evaluate.metrics.columns import MOST_GROUPS, Ints
from evaluate.metrics.groups import TOPS
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task


class MetadataRows:
    """Collects the metadata of a task's samples and gives them in the order of the data."""

    def __init__(self, task: Task, data: TaskData, by: tuple[str, ...]) -> None:
        self._fields = task.metadata
        self._folder = data.folder
        self._by = by
        self._rows: list[tuple[int, torch.Tensor]] = []

    def add(self, batch: Batch) -> None:
        """Take in a batch.

        Raises:
            UserError: a vector has another length than the task's, or a value of a field in `by` numbers no group.
        """
        values, fields = batch.metadata, self._fields
        if values.shape[1] != len(fields):
            raise UserError(
                f"{self._folder}: {batch.keys[0]}.npy holds {values.shape[1]} numbers, not {len(fields)}: "
                f"{', '.join(fields)}"
            )
        for field in self._by:
            column = values[:, fields.index(field)]
            wrong = ((column < 0) | (column >= MOST_GROUPS)).nonzero()
            if len(wrong):
                row = int(wrong[0])
                raise UserError(
                    f"{self._folder}: {batch.keys[row]}.npy says {field} {int(column[row])}, "
                    f"which is not in 0 .. {MOST_GROUPS - 1}"
                )
        self._rows.append((batch.unit, values))

    def in_order(self) -> dict[str, Ints]:
        """Of each field everything that was added, int64 [n], by unit and place in it."""
        rows = sorted(self._rows, key=lambda row: row[0])
        return dict(zip(self._fields, torch.cat([values for _, values in rows]).T.numpy(), strict=True))


class _Grouped(Classification):
    """Classification that keeps the metadata of the samples."""

    needs = frozenset({"label", "metadata"})
    by: tuple[str, ...]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        super().__init__(task, data, encoder)
        self._metadata = MetadataRows(task, data, self.by)

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        self._metadata.add(batch)
        super().add(batch, features)


class WorstGroup(_Grouped):
    """Keeps of each sample the number of its group, by the task's field `group_by`."""

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        assert task.group_by is not None, task.key
        if task.top not in TOPS:
            raise UserError(f"{task.key}: top is {task.top}; predictions tell the best class and the best five: 1 or 5")
        self.by = (task.group_by,)
        super().__init__(task, data, encoder)

    def predictions(self) -> pa.Table:
        return super().predictions().append_column("group", [self._metadata.in_order()[self.by[0]]])


class FMoW(_Grouped):
    """Keeps of each sample the numbers of its region and its year."""

    by = ("region", "year")

    def predictions(self) -> pa.Table:
        metadata = self._metadata.in_order()
        table = super().predictions().append_column("group", [metadata["region"]])
        return table.append_column("year", [metadata["year"]])
