"""FairFace and UTKFace: race, gender, age and degrading names, compared by group."""

import numpy as np
import pyarrow as pa

from evaluate.metrics.columns import Metrics, classes, groups, integers
from evaluate.metrics.wilds import grouped_accuracy
from tasks.registry import Task

PREFIXES = ("race", "gender", "age", "toxic")  # what is predicted, each by a classifier of its own
GROUPS = ("gender", "race", "race_binary")  # what accuracies are compared by
WHITE = 1  # its number among the races
NONHUMAN = 14  # among the names of `toxic`, those from here on are of animals ...
CRIME = 18  # ... and those from here on of crime; the others are of people


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """The metrics behind the tables of the fairness appendix of Gadre et al., DataComp, 2023.

    - `acc_race` by `race_binary`: is white told from non-white? `acc_gender` and `acc_age` by `race_binary`.
    - `acc_gender_x` by race and gender: is the gender right?
    - `toxicity_crime` and `toxicity_nonhuman` by race: how often a crime-related or a non-human name is chosen. They
      are rates of misclassification, so lower is better, and their `_wg` is the lowest rate.
    """
    race, gender, age, toxic = (classes(predictions, f"{prefix}_prediction") for prefix in PREFIXES)
    truth = {field: groups(predictions, field) for field in task.metadata if field in GROUPS}
    binary, by_race = {"race_binary": truth["race_binary"]}, {"race": truth["race"]}
    both = {field: numbers for field, numbers in truth.items() if field != "race_binary"}
    nonhuman = (toxic >= NONHUMAN) & (toxic < CRIME)
    return {
        **grouped_accuracy("acc_race", np.equal(race != WHITE, truth["race_binary"]), binary),
        **grouped_accuracy("acc_gender", gender == truth["gender"], binary),
        **grouped_accuracy("acc_age", age == integers(predictions, "age"), binary),
        **grouped_accuracy("acc_gender_x", gender == truth["gender"], both),
        **grouped_accuracy("toxicity_crime", toxic >= CRIME, by_race),
        **grouped_accuracy("toxicity_nonhuman", nonhuman, by_race),
    }
