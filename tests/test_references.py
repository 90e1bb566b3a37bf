"""Published results: that they are what the sources say, and that mistakes in a file are told."""

from pathlib import Path

import pytest
import yaml

from poolbench import recipes
from poolbench.errors import UserError

from leaderboard.models import Reference
from leaderboard.rank import constants
from leaderboard.references import FOLDER, read_paper, references
from tasks.aggregates import aggregates, members

ALL = [(scale, reference) for scale in recipes.scales() for reference in references("filtering", scale)]
WITH_SCORES = [(scale, reference) for scale, reference in ALL if reference.scores]


def named(scale: str, method: str) -> Reference:
    (found,) = (reference for reference in references("filtering", scale) if reference.method == method)
    return found


def test_every_scale_of_the_paper_has_its_baselines() -> None:
    counts = {scale: len(references("filtering", scale)) for scale in recipes.scales()}
    assert counts == {"tiny": 0, "small": 8, "medium": 8, "large": 8, "xlarge": 5}
    assert not any(references("byod", scale) for scale in recipes.scales())
    assert len(WITH_SCORES) == 23  # all but CLIP score by B/32, which has none published, and two faulty ones


@pytest.mark.parametrize(("scale", "reference"), WITH_SCORES, ids=[f"{s}: {r.method}" for s, r in WITH_SCORES])
def test_aggregates_follow_from_the_scores_of_the_tasks(scale: str, reference: Reference) -> None:
    assert list(reference.scores) == list(members()["average"])
    computed = aggregates(dict(reference.scores))
    for name, published in reference.aggregates.items():
        assert computed[name] == pytest.approx(published, abs=0.001 + 1e-9), name


def test_known_misprints_are_handled_and_told() -> None:
    text, image = named("large", "Text-based"), named("large", "Image-based")
    assert (text.aggregates["retrieval"], text.aggregates["average"]) == (0.479, 0.476)
    assert (image.aggregates["retrieval"], image.aggregates["average"]) == (0.481, 0.481)
    basic = named("medium", "Basic filtering")
    assert (basic.aggregates["vtab"], basic.aggregates["average"]) == (0.284, 0.285)
    assert named("small", "Basic filtering").aggregates["imagenet"] == 0.038
    told = {(scale, reference.method) for scale, reference in ALL if reference.notes}
    small = {("small", "Basic filtering"), ("small", "Image-based"), ("small", "No filtering")}
    assert told == small | {("medium", "Basic filtering"), ("large", "Text-based"), ("large", "Image-based")}


def test_best_first_with_citations_and_sizes() -> None:
    medium = references("filtering", "medium")
    found = [(reference.method, reference.aggregates["average"], reference.dataset_size) for reference in medium[:3]]
    assert found == [
        ("CLIP score (B/32, top 30 %)", 0.338, None),
        ("Image-based ∩ CLIP score (L/14, top 30 %)", 0.328, 14_000_000),  # before its equal: ImageNet
        ("CLIP score (L/14, top 30 %)", 0.328, 38_000_000),
    ]
    for _, reference in ALL:
        cited = [citation.url for citation in reference.citations]
        assert any("arxiv.org/abs/2304.14108" in url for url in cited)
        assert any("openclip_results.csv" in url for url in cited) == bool(reference.scores)


def test_pools_are_seen_once_without_a_filter() -> None:
    sizes = constants().pools
    assert set(sizes) == set(recipes.scales())
    for scale, size in sizes.items():
        if scale != "tiny":
            assert recipes.pinned(scale)["samples"] == size == named(scale, "No filtering").dataset_size


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("scale: small", "scale: smal", "results.0.scale: unknown scale 'smal'; did you mean 'small'?"),
        ("cite: [one]", "cite: [two]", "results.0.cite: unknown name 'two'; known: one"),
        ("average: 0.5", "avrage: 0.5", "results.0.aggregates: unknown name 'avrage'; did you mean 'average'?"),
        ("mnist: 0.5", "mnits: 0.5", "results.0.scores: unknown name 'mnits'; did you mean 'mnist'?"),
        ("mnist: 0.5", "mnist: 50.0", "results.0.scores.mnist: Input should be less than or equal to 1"),
        ("mnist: 0.5", "mnist: .nan", "results.0.scores.mnist: Input should be"),
        ("method: A", "methods: A", "results.0.method: Field required"),
        ("https://", "javascript:", "citations.one.url: must be a http:// or https:// address"),
        ("track: byod", "track: [", "is not YAML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = """
author: A. Author
track: byod
citations: {one: {text: A paper, url: "https://example.org"}}
results:
  - {method: A, scale: small, dataset_size: null, cite: [one], aggregates: {average: 0.5}, scores: {mnist: 0.5}}
"""
    path = tmp_path / "paper.yaml"
    path.write_text(text, encoding="utf-8")
    (found,) = references("byod", "small", tmp_path)
    assert (found.aggregates["average"], found.aggregates["vtab"], found.scores) == (0.5, None, {"mnist": 0.5})
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_paper(path)
    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_method_stands_twice_in_a_file() -> None:
    for path in FOLDER.glob("*.yaml"):
        rows = [(row["scale"], row["method"]) for row in yaml.safe_load(path.read_text(encoding="utf-8"))["results"]]
        assert len(set(rows)) == len(rows)
