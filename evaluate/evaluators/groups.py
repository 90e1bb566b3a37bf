"""Classification tasks whose samples fall into groups: the worst group, FMoW's regions and years, iWildCam."""

import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Result
from evaluate.evaluators.classification import Classification, in_order
from evaluate.stream import Batch
from evaluate.wilds_metrics import Metadata, Metrics, grouped_accuracy, macro_scores
from poolbench.errors import UserError
from tasks.readers import TaskData
from tasks.registry import Task

MOST_GROUPS = 3000  # a higher number of a group is taken for damage; each costs time, whether it occurs or not
SMALLEST_SHARE = 100  # a region counts as one where at least one in so many pictures is of it


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

    def in_order(self) -> Metadata:
        """Everything that was added, by unit and place in it."""
        rows = sorted(self._rows, key=lambda row: row[0])
        return Metadata(self._fields, torch.cat([values for _, values in rows]))


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
    """Besides the metrics of classification the accuracy of each value of the task's field `group_by`, and the worst.

    With `top` 1 they are named `acc_...`. With a `top` of k a sample is right when its class is among the k best ones,
    and they are named `acc_top<k>_...`.
    """

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        assert task.group_by is not None, task.key
        self.by = (task.group_by,)
        super().__init__(task, data, encoder)
        self._top = task.top

    def result(self) -> Result:
        plain, metadata = super().result(), self._metadata.in_order()
        _, (labels, predictions, ranks) = in_order(self._rows)
        if self._top == 1:
            groups = grouped_accuracy("acc", predictions, labels, metadata, self.by)
        else:
            hits = ranks < self._top
            groups = grouped_accuracy(f"acc_top{self._top}", hits, torch.ones_like(hits), metadata, self.by)
        table = plain.predictions.append_column("group", [metadata[self.by[0]].numpy()])
        return Result({**plain.metrics, **groups}, plain.samples, table)


class FMoW(_Grouped):
    """Besides the metrics of classification the accuracy of each year and region, and the worst of each.

    `acc_worst_region` is the published metric: the worst of all regions with pictures, among them "Other", whose 4 of
    22,108 pictures often make it exactly 0. Its authors mean to leave that region out, but look for it by a name that
    the data do not hold; `acc_worst_region_corrected` is the worst of the regions with at least 1 % of the pictures.
    """

    by = ("region", "year")

    def result(self) -> Result:
        plain, metadata = super().result(), self._metadata.in_order()
        _, (labels, predictions, _) = in_order(self._rows)
        years = grouped_accuracy("acc", predictions, labels, metadata, ["year"])
        regions = grouped_accuracy("acc", predictions, labels, metadata, ["region"])
        metrics = {**plain.metrics, **years, **regions}
        metrics["acc_worst_year"], metrics["acc_worst_region"] = years["acc_wg"], regions["acc_wg"]
        del metrics["acc_wg"]
        metrics["acc_worst_region_corrected"] = worst_of_large(regions, plain.samples)
        table = plain.predictions.append_column("group", [metadata["region"].numpy()])
        return Result(metrics, plain.samples, table.append_column("year", [metadata["year"].numpy()]))


def worst_of_large(regions: Metrics, samples: int) -> float | None:
    """The lowest accuracy of a region with at least 1 % of the pictures; None where there is none so large.

    Args:
        regions: `acc_region:<k>` and `count_region:<k>` of every region, as `grouped_accuracy` gives them.
    """
    counts = {name.removeprefix("count_"): count for name, count in regions.items() if name.startswith("count_")}
    large = [regions[f"acc_{region}"] for region, count in counts.items() if SMALLEST_SHARE * (count or 0) >= samples]
    return min((accuracy for accuracy in large if accuracy is not None), default=None)


class IWildCam(Classification):
    """Besides the metrics of classification `acc_avg`, `recall-macro_all` and `F1-macro_all`."""

    def result(self) -> Result:
        plain = super().result()
        _, (labels, predictions, _) = in_order(self._rows)
        return plain._replace(metrics={**plain.metrics, **macro_scores(predictions, labels)})
