"""The task registry, the selection of tasks, the aggregates, `python -m tasks list`."""

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from poolbench.errors import UserError

from tasks.aggregates import AGGREGATES_VERSION, aggregates, members
from tasks.listing import table
from tasks.registry import GROUPS, KINDS, Task, load_tasks, read_task, select, suite_of

ROOT = Path(__file__).parent.parent
TASKS = list(load_tasks().values())
MAIN = [task for task in TASKS if task.suite == "main"]

# Published (open_clip, docs/openclip_results.csv): OpenAI ViT-B/32, DataComp xlarge ViT-B/32 and ViT-L/14.
PUBLISHED = {
    "ImageNet 1k": (0.6332, 0.6917, 0.7921),
    "Caltech-101": (0.8758, 0.9230, 0.9465),
    "CIFAR-10": (0.8983, 0.9561, 0.9824),
    "CIFAR-100": (0.6423, 0.8031, 0.8736),
    "CLEVR Counts": (0.2320, 0.1294, 0.3555),
    "CLEVR Distance": (0.2335, 0.2423, 0.2443),
    "Country211": (0.1720, 0.1756, 0.3157),
    "Describable Textures": (0.4436, 0.5713, 0.6649),
    "EuroSAT": (0.5044, 0.5746, 0.7124),
    "FGVC Aircraft": (0.1953, 0.2463, 0.4750),
    "Food-101": (0.8400, 0.8632, 0.9452),
    "GTSRB": (0.3258, 0.5185, 0.5853),
    "ImageNet Sketch": (0.4229, 0.5676, 0.6795),
    "ImageNet v2": (0.5592, 0.6075, 0.7205),
    "ImageNet-A": (0.3155, 0.3035, 0.6959),
    "ImageNet-O": (0.4775, 0.4975, 0.3255),
    "ImageNet-R": (0.6933, 0.7818, 0.9083),
    "KITTI Vehicle Distance": (0.2743, 0.1632, 0.2785),
    "MNIST": (0.4839, 0.8124, 0.8661),
    "ObjectNet": (0.4431, 0.5510, 0.7425),
    "Oxford Flowers-102": (0.6670, 0.7353, 0.8262),
    "Oxford-IIIT Pet": (0.8700, 0.9002, 0.9506),
    "Pascal VOC 2007": (0.7640, 0.8151, 0.8247),
    "PatchCamelyon": (0.6224, 0.5284, 0.5118),
    "Rendered SST2": (0.5865, 0.4849, 0.6101),
    "RESISC45": (0.5362, 0.6343, 0.6941),
    "Stanford Cars": (0.5963, 0.8728, 0.9305),
    "STL-10": (0.9713, 0.9654, 0.9925),
    "SUN397": (0.6248, 0.6780, 0.7427),
    "SVHN": (0.3159, 0.6240, 0.6769),
    "Flickr": (0.6884, 0.7004, 0.8119),
    "MSCOCO": (0.4028, 0.4534, 0.5451),
    "WinoGAViL": (0.4125, 0.4594, 0.4666),
    "iWildCam": (0.0732, 0.0863, 0.1614),
    "Camelyon17": (0.6061, 0.6656, 0.5089),
    "FMoW": (0.1676, 0.0000, 0.2403),
    "Dollar Street": (0.5386, 0.5643, 0.6624),
    "GeoDE": (0.8217, 0.8731, 0.9152),
}

VALID = """\
key: some/thing
name: Some Thing
kind: classification
samples: 10
classes: 5
main_metric: acc1
groups: [other]
source: {repo: me/wds_some-thing_test}
"""


def write_task(folder: Path, text: str, name: str = "some-thing.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_suite_has_40_tasks_of_which_38_are_averaged() -> None:
    assert len(MAIN) == 40
    assert sum(task.main_metric is not None for task in MAIN) == 38
    unscored = {task.key for task in MAIN if task.main_metric is None}
    assert unscored == {"fairness/fairface", "fairness/utkface"}


def test_sums_of_the_published_counts() -> None:
    assert sum(task.samples for task in MAIN) == 732026
    assert sum(task.classes or 0 for task in MAIN) == 5630


FIELDS = """
imagenet1k      | ImageNet 1k     | classification | 50000  | 1000 | acc1                  | imagenet | wds_imagenet1k_test
vtab/pets       | Oxford-IIIT Pet | classification | 3669   | 37   | mean_per_class_recall | vtab     | wds_vtab-pets_test
sun397          | SUN397          | classification | 108754 | 397  | acc1                  | vtab     | wds_sun397_test
wilds/iwildcam  | iWildCam        | iwildcam       | 42791  | 182  | F1-macro_all          | wilds    | wds_wilds-iwildcam_test
wilds/fmow      | FMoW            | fmow           | 22108  | 62   | acc_worst_region      | wilds    | wds_wilds-fmow_test
fairness/geode  | GeoDE           | worst_group    | 12488  | 40   | acc_wg                | fairness | wds_geode_test
fairness/utkface| UTKFace         | fairness       | 23703  | None | None                  | fairness | wds_utkface_test
misc/winogavil  | WinoGAViL       | winogavil      | 3563   | None | jaccard_score_10-12   | retrieval| winogavil
"""  # noqa: E501


@pytest.mark.parametrize("row", FIELDS.strip().splitlines(), ids=lambda row: row.split()[0])
def test_fields(row: str) -> None:
    task = load_tasks()[row.split("|")[0].strip()]
    fields = (task.key, task.name, task.kind, task.samples, task.classes, task.main_metric, *task.groups)
    assert [str(field) for field in (*fields, task.folder)] == [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_every_task_is_complete(task: Task) -> None:
    assert task.kind in KINDS
    without = ("retrieval", "winogavil", "fairness", "caption_selection", "winoground")
    assert (task.classes is None) == (task.kind in without)
    assert (task.main_metric is None) == (task.kind == "fairness")
    assert ("demo" in task.groups) == (task.suite == "demo")
    assert (task.source.by_hand is not None) == (task.suite == "extra" and task.prompts is None)
    assert task.citation is None or "\n" not in task.citation
    expected = ("imagenet1k" if task.prompts else task.key).removeprefix("fairness/").replace("/", "-")
    if task.kind in ("retrieval", "winogavil") and task.suite == "main":
        assert task.source.repo == f"nlphuji/{task.key.split('/')[1]}"
        assert task.source.revision == "refs/convert/parquet"
    else:
        assert task.folder == f"wds_{expected}_test"
    if task.suite == "main" and task.kind not in ("retrieval", "winogavil"):
        assert (task.source.repo, task.source.revision) == (f"djghosh/wds_{expected}_test", None)


def test_keys_names_and_folders_are_unique() -> None:
    for values in (
        [task.key for task in TASKS],
        [task.name for task in TASKS],
        [task.folder for task in TASKS if task.prompts is None],  # the others read the folder of a task again
    ):
        assert len(set(values)) == len(values)


def test_sizes_of_the_groups() -> None:
    sizes = {group: sum(group in task.groups for task in MAIN) for group in GROUPS}
    expected = {
        "imagenet": 1,
        "imagenet_shifts": 6,
        "vtab": 13,
        "other": 10,
        "retrieval": 3,
        "wilds": 3,
        "fairness": 4,
    }
    assert sizes == {**dict.fromkeys(GROUPS, 0), **expected}


def test_every_file_is_loaded_from_any_folder(tmp_path: Path) -> None:
    files = list((ROOT / "tasks").glob("*/*.yaml"))
    assert len(files) == len(TASKS)
    output = run_list(tmp_path)
    assert len(output.splitlines()) == 1 + len(TASKS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("samples: 10\n", "", "the key 'samples' is missing"),
        ("classes:", "clases:", "unknown key 'clases'; did you mean 'classes'?"),
        (
            "kind: classification",
            "kind: clasification",
            "kind: unknown 'clasification'; did you mean 'class",
        ),
        ("groups: [other]", "groups: [vtap]", "groups.0: unknown 'vtap'; did you mean 'vtab'?"),
        ("groups: [other]", "groups: other", "groups is not a list"),
        ("groups: [other]", "groups: []", "groups: Tuple should have at least 1 item"),
        ("samples: 10", "samples: 0", "samples: Input should be greater than 0"),
        ("samples: 10", "samples: yes", "samples: Input should be a valid integer"),
        ("classes: 5", "classes: five", "classes: Input should be a valid integer"),
        ("main_metric: acc1", "main_metric:", "main_metric: it has no value; leave the field out or give it one"),
        ("key: some/thing", "key: other/thing", "does not fit the file's name"),
        ("source: {repo: me/wds_some-thing_test}", "source: someone/thing", "source is not a mapping"),
        ("source: {repo: me/wds_some-thing_test}", "source: {url: x}", "source: unknown key 'url'"),
        (
            "source: {repo: me/wds_some-thing_test}",
            "source: {revision: x}",
            "source: the key 'repo' is missing",
        ),
        ("repo: me/", "by_hand: ask, repo: me/", "source: it has by_hand, and then nothing else"),
        (
            "source: {repo: me/wds_some-thing_test}",
            "source: {packages: x}",
            "source.packages is not a list",
        ),
        ("name: Some Thing", "name: ' '", "name: it is blank"),
        ("name: Some Thing", "name: 7", "name: Input should be a valid string"),
        ("name: Some Thing", "name: [", "is not YAML"),
        ("groups: [other]", "groups: [other]\nsuite: demo", "unknown key 'suite'"),
        ("groups: [other]", "groups: [other]\nmetadata: [a]\ngroup_by: b", "group_by: 'b' is not one of"),
        ("repo: me/", "packages: [a], repo: me/", "source: it has packages, and then neither"),
        (VALID, "- key", "is not a mapping of fields"),
    ],
)
def test_wrong_file_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in VALID
    path = write_task(tmp_path, VALID.replace(old, new))
    with pytest.raises(ValueError, match=r"some-thing\.yaml") as error:
        read_task(path, "main")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_is_what_its_file_says_and_does_not_change(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, VALID), "demo")
    assert task.model_dump(exclude_defaults=True) == yaml.safe_load(VALID) | {"groups": ("other",)}
    assert pickle.loads(pickle.dumps(task)) == task and task != read_task(write_task(tmp_path, VALID), "main")
    with pytest.raises(ValidationError):
        task.samples = 11  # type: ignore[misc]


def test_the_registry_is_quick_and_light() -> None:
    """Every command reads it. What it imports may not grow; torch alone would take seconds."""
    code = "import sys; from tasks.registry import load_tasks; load_tasks(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "pydantic" in loaded
    assert not loaded & {"torch", "torchvision", "open_clip", "clip_benchmark", "webdataset", "numpy", "pyarrow"}


def test_optional_fields_and_packages(tmp_path: Path) -> None:
    text = VALID.replace("classes: 5\nmain_metric: acc1\n", "")
    text = text.replace("{repo: me/wds_some-thing_test}", "{packages: [one==1.0, two]}")
    task = read_task(write_task(tmp_path, text), "demo")
    assert (task.classes, task.main_metric, task.citation, task.suite) == (None, None, None, "demo")
    assert task.folder == "wds_some-thing_test"
    assert str(task.source) == "one==1.0, two"


def test_order_is_main_first_and_by_group() -> None:
    keys = [task.key for task in TASKS]
    assert keys[0] == "imagenet1k"
    assert [task.suite for task in TASKS] == sorted((task.suite for task in TASKS), reverse=True)
    assert keys.index("objectnet") < keys.index("vtab/pcam") < keys.index("mnist") < keys.index("fairness/geode")


def test_select() -> None:
    keys = list(load_tasks())
    assert select(["all"]) == MAIN == select([])
    assert select([], suite_default="demo") == [task for task in TASKS if task.suite == "demo"]
    assert [task.key for task in select(["imagenet"])] == ["imagenet1k"]
    assert len(select(["vtab"])) == 13
    assert {task.key for task in select(["vtab/*"])} == {task.key for task in select(["vtab"])} - {"sun397"}
    assert [task.key for task in select(["imagenet?*"])] == keys[:6]
    mixed = [task.key for task in select(["wilds/fmow", "mnist", "wilds", "mnist"])]
    assert mixed == ["mnist", "wilds/camelyon17", "wilds/fmow", "wilds/iwildcam"]
    assert select(["all", "vtab", "mnist"]) == MAIN == select(["main"])
    assert {task.suite for task in select(["extra"])} == {"extra"} and len(select(["sugarcrepe"])) == 7
    assert select(["sugarcrepe/*", "aro"]) == [task for task in select(["composition"]) if "/" in task.key]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("vtb", "did you mean 'vtab'?"),
        ("fairness/geod", "did you mean 'fairness/geode'?"),
        ("vtab/x*", "vtab/"),
        ("", "known: all, "),
    ],
)
def test_select_unknown_word(word: str, hint: str) -> None:
    with pytest.raises(UserError, match="names no task or group") as error:
        select(["all", word])
    assert hint in str(error.value)


def test_suite_of_scale() -> None:
    assert [suite_of(scale) for scale in ("tiny", "small", "xlarge")] == ["demo", "main", "main"]


@pytest.mark.parametrize(("column", "average"), [(0, 0.5245), (1, 0.5794), (2, 0.6627)])
def test_published_averages(column: int, average: float) -> None:
    """The average of the published columns; they are rounded to four digits, and so is their mean."""
    scores = {task.key: PUBLISHED[task.name][column] for task in MAIN if task.main_metric is not None}
    assert len(scores) == len(PUBLISHED) == 38
    found = aggregates(scores)["average"]
    assert found is not None
    assert abs(found - average) < 1.01e-4


def test_aggregates_against_plain_means() -> None:
    draw = random.Random(0)
    scores = {task.key: draw.random() for task in MAIN}
    found = aggregates(scores)
    by_group = {group: [scores[task.key] for task in MAIN if group in task.groups] for group in GROUPS}
    for group in ("imagenet", "imagenet_shifts", "vtab", "retrieval"):
        assert found[group] == pytest.approx(sum(by_group[group]) / len(by_group[group]), abs=1e-12)
    scored = [scores[task.key] for task in MAIN if task.main_metric is not None]
    assert found["average"] == pytest.approx(sum(scored) / 38, abs=1e-12)
    assert list(found) == ["imagenet", "imagenet_shifts", "vtab", "retrieval", "average"]
    assert aggregates(dict(reversed(scores.items()))) == found


def test_aggregates_are_never_over_fewer_tasks() -> None:
    complete = {task.key: 0.5 for task in MAIN if task.main_metric is not None}
    assert set(aggregates(complete).values()) == {0.5}
    without = {key: value for key, value in complete.items() if key != "vtab/dtd"}
    for scores in (without, {**complete, "vtab/dtd": None}):
        found = aggregates(scores)
        assert found == {
            "imagenet": 0.5,
            "imagenet_shifts": 0.5,
            "vtab": None,
            "retrieval": 0.5,
            "average": None,
        }
    assert set(aggregates({}).values()) == {None}
    assert aggregates({**complete, "fairness/fairface": 0.1, "unknown": 0.0}) == aggregates(complete)
    with pytest.raises(ValueError, match="not a finite number"):
        aggregates({**complete, "mnist": float("nan")})


def test_aggregates_of_the_demo_suite() -> None:
    demo = {task.key: 0.25 for task in TASKS if task.suite == "demo"}
    assert members("demo") == {"average": tuple(demo)}
    assert aggregates(demo, "demo") == {"average": 0.25 if demo else None}
    assert aggregates({}, "demo") == {"average": None}


def test_members_are_those_of_version_1() -> None:
    sizes = {name: len(keys) for name, keys in members().items()}
    assert AGGREGATES_VERSION == 1
    assert sizes == {"imagenet": 1, "imagenet_shifts": 6, "vtab": 13, "retrieval": 3, "average": 38}


def test_the_extra_suite_is_in_no_aggregate() -> None:
    extra = {task.key for task in TASKS if task.suite == "extra"}
    assert extra and members("extra") == {} == aggregates(dict.fromkeys(extra, 0.5), "extra")
    for suite in ("main", "demo"):
        assert extra.isdisjoint(key for keys in members(suite).values() for key in keys)
    assert {suite_of(scale) for scale in ("tiny", "small", "medium", "large", "xlarge")} == {"main", "demo"}


def run_list(folder: Path, *arguments: str, status: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tasks", *(arguments or ("list",))]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_table_is_aligned() -> None:
    lines = table(select(["imagenet", "retrieval", "fairness"])).splitlines()
    heading, flickr = lines[0], next(line for line in lines if " Flickr " in line)
    assert heading.index("kind") == flickr.index("retrieval ", flickr.index("Flickr"))
    assert heading.index("samples") + len("samples") == flickr.index(" 1000") + len(" 1000")
    assert flickr.endswith("nlphuji/flickr_1k_test_image_text_retrieval@refs/convert/parquet")
    assert "wds_fairface_test" in lines[-3]


def test_list_on_the_command_line(tmp_path: Path) -> None:
    assert len(run_list(tmp_path, "list", "tasks=[imagenet_shifts,wilds/*]").splitlines()) == 1 + 6 + 3
    assert run_list(tmp_path, "lst", status=2) == "error: unknown command 'lst': did you mean 'list'?\n"
    assert run_list(tmp_path, "list", "task=all", status=2) == "error: unknown key 'task': did you mean 'tasks'?\n"
    assert "write tasks=vtab" in run_list(tmp_path, "list", "vtab", status=2)
    assert "did you mean 'vtab'?" in run_list(tmp_path, "list", "tasks=vtb", status=2)
