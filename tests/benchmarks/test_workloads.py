"""Workloads are data: the same numbers make the same work for every system."""

from itertools import pairwise

import pytest
from PIL import Image

from benchmarks.checkpoints import RECIPES
from benchmarks.errors import UnknownName
from benchmarks.pictures import picture_path
from benchmarks.workload import Picture, workload_from_json
from benchmarks.workloads import BUILDERS, FULL, TINY, build, open_loop, question_text
from demo.scenes import draw, make_scene

RECIPE = RECIPES["qwen2-vl"]
SIZES = {"W1": (1, 32), "W1s": (1, 8), "W2": (8, 64), "W3": (1, 2), "W4": (16, 256), "W5": (64, 512)}


@pytest.mark.parametrize("name", SIZES)
def test_workloads_have_the_sizes_of_the_issue(name: str) -> None:
    """Pictures and questions are as many as docs/performance.md says, at 576 tokens a picture."""
    workload = build(name, RECIPE, FULL, 0)
    assert (len(workload.pictures), len(workload.questions)) == SIZES[name]
    assert {(picture.width, picture.height) for picture in workload.pictures} == {(672, 672)}


@pytest.mark.parametrize("name", BUILDERS)
def test_pictures_are_new_in_every_repeat(name: str) -> None:
    """No picture of one repeat is seen in another, and the questions are the same, but those about a scene's things."""
    first, second = (build(name, RECIPE, TINY, repeat) for repeat in range(2))
    assert not set(first.pictures) & set(second.pictures)
    if not first.pictures[0].is_scene:
        assert {question.text for question in first.questions} == {question.text for question in second.questions}
    assert build(name, RECIPE, TINY, 0) == first


def test_no_two_workloads_share_a_picture() -> None:
    """Else one would find the other's picture in a cache."""
    pictures = [picture for name in BUILDERS for picture in build(name, RECIPE, FULL, 0).pictures]
    assert len(set(pictures)) == len(pictures)


def test_an_unknown_workload_is_refused_by_name() -> None:
    """The error says which there are."""
    with pytest.raises(UnknownName, match="W1"):
        build("W11", RECIPE, FULL, 0)


def test_questions_differ() -> None:
    """Six hundred of them, for the growth curve."""
    assert len({question_text(number) for number in range(600)}) == 600


def test_a_scene_is_described_in_turn() -> None:
    """Each picture four times, one question after the other; what is asked again is asked as the first time."""
    workload = build("described", RECIPE, FULL, 0)
    assert [question.picture for question in workload.questions] == [place // 4 for place in range(32)]
    assert (len({question.text for question in workload.questions}), workload.in_flight) == (4, 1)
    assert build("W1s-again", RECIPE, FULL, 0).questions == build("W1s", RECIPE, FULL, 0).questions
    assert build("scenes-again", RECIPE, FULL, 0).is_asked_again


def test_a_burst_is_one_request_a_picture() -> None:
    """What may be asked at once is grouped by picture and engine; what comes by and by is not."""
    assert [len(group) for group in build("W2", RECIPE, FULL, 0).groups()] == [8] * 8
    assert [len(group) for group in build("W7", RECIPE, FULL, 0).groups()] == [4] * 16
    assert [len(group) for group in build("W7i", RECIPE, FULL, 0).groups()] == [8] * 8
    assert [len(group) for group in build("W3", RECIPE, FULL, 0).groups()] == [1, 1]


def test_workloads_survive_the_wire() -> None:
    """What a worker process reads is what was sent."""
    for name in ("W4", "W5", "W7"):
        workload = build(name, RECIPE, TINY, 0)
        assert workload_from_json(workload.to_json()) == workload


def test_arrivals_are_open_loop() -> None:
    """About as many questions as the rate says, in order of time, and a few pictures asked about most."""
    workload = open_loop(RECIPE, FULL, 0, rate=20.0, duration_s=50.0, deadline_s=1.0)
    times = [question.at_s for question in workload.questions]
    assert 850 < len(times) < 1150
    assert all(one < other for one, other in pairwise(times))
    asked = [question.picture for question in workload.questions]
    assert asked.count(0) > 3 * asked.count(20) > 0


def test_a_picture_is_drawn_once_and_always_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Equal numbers are equal bytes; another seed is another picture."""
    one = picture_path(Picture(1, 56, 56), tmp_path / "a").read_bytes()
    assert picture_path(Picture(1, 56, 56), tmp_path / "b").read_bytes() == one
    assert picture_path(Picture(2, 56, 56), tmp_path / "a").read_bytes() != one
    assert picture_path(Picture(1, 168, 168), tmp_path / "a") != picture_path(
        Picture(1, 168, 168, True), tmp_path / "a"
    )


def test_a_scene_is_drawn_as_the_demo_draws_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """So that the trained checkpoint sees what it was trained on."""
    workload = build("scenes", RECIPES["demo"], TINY, 0)
    drawn = Image.open(picture_path(workload.pictures[0], tmp_path))
    assert drawn.tobytes() == draw(make_scene(workload.pictures[0].seed)).tobytes()


def test_two_engines_have_as_much_to_do() -> None:
    """Whether questions are dealt out or images; other pictures for each of the two."""
    dealt, by_image = (build(name, RECIPE, FULL, 0) for name in ("W7", "W7i"))
    for workload in (dealt, by_image):
        assert [len(workload.only_door(door).questions) for door in (0, 1)] == [32, 32]
    assert len({question.picture for question in by_image.only_door(0).questions}) == 4
    assert not set(dealt.pictures) & set(by_image.pictures)


def test_a_part_is_for_one_engine() -> None:
    """The questions at some places, all at its one door."""
    workload = build("W7", RECIPE, TINY, 0)
    part = workload.part([0, 1, 3])
    assert [question.text for question in part.questions] == [workload.questions[place].text for place in (0, 1, 3)]
    assert {question.door for question in part.questions} == {0}
    assert part.doors == 1
