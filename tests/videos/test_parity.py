"""Videos through both halves against transformers' whole model: prompts, positions and greedy tokens equal."""

import pytest
import torch

from lm_server.showing import shown
from tests.families import FAMILIES
from tests.videos import whole
from tests.videos.conftest import MakeHalves
from tests.videos.halves import Film, Part, work_of

SHORT, ODD, OTHER = Film(1, 4), Film(2, 5, fps=1.5), Film(3, 6, fps=0.7)
LONG = Film(4, 24, fps=3.0)
TURNS: tuple[tuple[Part, ...], ...] = (
    (SHORT, "What happens?"),
    (ODD, "What happens?"),
    (Film(5, 1), "One frame?"),
    ("Look: ", SHORT, " and ", OTHER, "which is longer?"),
    (1, OTHER, 2, "Is the picture in the video?"),
    (LONG, "?"),
)
IDS = ("one", "odd", "single", "two", "mixed", "long")
QUESTIONS = ("What happens?", "这里发生了什么？", "Is anybody there, and if so, who would that be?", "Why?")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", TURNS, ids=IDS)
def test_a_prompt_with_videos_is_the_whole_models(halves: MakeHalves, family: str, parts: tuple[Part, ...]) -> None:
    """A prompt with videos has the whole model's tokens and positions, and the answer's go on from its last one."""
    both = halves(family)
    prompt, arguments = both.prompt(*parts), both.whole(*parts)
    assert list(prompt.tokens) == arguments["input_ids"][0].tolist()
    positions = whole.positions(both.shop.oracle, arguments)
    assert torch.equal(torch.from_numpy(prompt.positions), positions)
    assert prompt.next_position == positions[0, -1] + 1
    expected = [f"img_{part}" for part in parts if not isinstance(part, str)]
    assert [ref.image_id for ref, _ in shown(prompt.images)] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_about_videos_equal_the_whole_model(halves: MakeHalves, family: str) -> None:
    """One video, two, an odd number of frames, one frame, and pictures between them, all at the same time."""
    both = halves(family)
    works = work_of(both, TURNS, [both.prompt(*parts) for parts in TURNS])
    with both.shop.engine() as bench:
        told = bench.submit(works)
        for one in told:
            one.end()
    for one, parts in zip(told, TURNS, strict=True):
        assert one.tokens == whole.generate(both.shop.oracle, both.whole(*parts), 12).tokens, parts


@pytest.mark.parametrize("family", FAMILIES)
def test_questions_about_one_video_share_its_prefix(halves: MakeHalves, family: str) -> None:
    """Several questions about one video compute its tokens once, and each gets the whole model's answer."""
    both = halves(family)
    turns: list[tuple[Part, ...]] = [(ODD, question) for question in QUESTIONS]
    prompts = [both.prompt(*parts) for parts in turns]
    with both.shop.engine() as bench:
        told = bench.submit(work_of(both, turns, prompts))
        ends = [one.end() for one in told]
    for one, parts in zip(told, turns, strict=True):
        assert one.tokens == whole.generate(both.shop.oracle, both.whole(*parts), 12).tokens, parts
    video_end = prompts[0].images[-1].end
    assert sum(end.cached_tokens >= video_end for end in ends) == len(QUESTIONS) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_about_clips_made_of_kept_groups_equal_the_whole_model(halves: MakeHalves, family: str) -> None:
    """A clip most of whose groups were encoded for another one has the whole model's answers."""
    both = halves(family)
    first, window = Film(9, 8), Film(9, 8, start=2)
    seen = both.film_by_groups(first, window)
    assert seen == [4, 1]
    turns: list[tuple[Part, ...]] = [(window, question) for question in QUESTIONS]
    with both.shop.engine() as bench:
        told = bench.submit(work_of(both, turns, [both.prompt(*parts) for parts in turns]))
        for one in told:
            one.end()
    for one, parts in zip(told, turns, strict=True):
        assert one.tokens == whole.generate(both.shop.oracle, both.whole(*parts), 12).tokens, parts
