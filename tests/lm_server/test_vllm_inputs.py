"""Questions in vLLM's words."""

from typing import Any

import pytest
import torch

from checkpoint import VideoLayout
from lm_server.constraints import Constraint
from lm_server.prompt import Prompt
from lm_server.runner import ImageEmbedding
from lm_server.sampler import Sampling
from lm_server.showing import ImageRef, ImageSpan, VideoFacts, rotary_positions
from lm_server.tickets import Work
from lm_server.vllm_inputs import ImageMarks, folded, form_of, prompt_of, sampling_of, scoring_of

PAD = 9
ONE, TWO = ImageRef("img_1", (1, 4, 4)), ImageRef("img_2", (1, 2, 4))
VIDEO = VideoFacts(VideoLayout.COUNTED, token_id=8, start_token_id=7)
SPANS = (ImageSpan(ONE, 2, 4), ImageSpan(TWO, 7, 2))
TOKENS = (1, 2, PAD, PAD, PAD, PAD, 3, PAD, PAD, 4)
EMBEDDINGS = {
    "img_1": ImageEmbedding(torch.full((4, 8), 1.0, dtype=torch.float16), ()),
    "img_2": ImageEmbedding(torch.full((2, 8), 2.0, dtype=torch.float16), ()),
}


def work(**more: Any) -> Work:
    positions, after = rotary_positions(len(TOKENS), SPANS, 2, VIDEO)
    values = {"embeddings": EMBEDDINGS, "tenant": "t", "fingerprint": "f", **more}
    return Work(Prompt(TOKENS, positions, after, SPANS, ()), (), 5, **values)


def test_each_image_is_one_placeholder() -> None:
    """What stands around the images stays, and each image is one token, which vLLM expands itself."""
    assert folded(work().prompt) == [1, 2, PAD, 3, PAD, 4]


def test_a_placeholder_that_stands_for_itself_stays() -> None:
    """Tokens outside of images are never taken for one."""
    positions, after = rotary_positions(3, (), 2, VIDEO)
    assert folded(Prompt((1, PAD, PAD), positions, after, (), ())) == [1, PAD, PAD]


def test_embeddings_and_grids_go_in_order_with_every_question() -> None:
    """Every image's embedding is sent, in the model's dtype, one behind the other."""
    image = prompt_of(work(), EMBEDDINGS, ImageMarks(), torch.float32)["multi_modal_data"]["image"]
    assert image["image_embeds"].dtype == torch.float32
    assert image["image_embeds"][:, 0].tolist() == [1, 1, 1, 1, 2, 2]
    assert image["image_grid_thw"].tolist() == [[1, 4, 4], [1, 2, 4]]


def test_deepstack_features_stand_behind_the_merged_ones() -> None:
    """Each token's row has the embedding first and then every DeepStack layer's features, in order."""
    layers = tuple(torch.full((4, 8), value) for value in (3.0, 4.0))
    shorter = tuple(layer[:2] for layer in layers)
    deep = {
        "img_1": ImageEmbedding(torch.full((4, 8), 1.0), layers),
        "img_2": ImageEmbedding(torch.full((2, 8), 2.0), shorter),
    }
    rows = prompt_of(work(), deep, ImageMarks(), torch.float32)["multi_modal_data"]["image"]["image_embeds"]
    assert rows[:, ::8].tolist() == [[1, 3, 4]] * 4 + [[2, 3, 4]] * 2


def test_a_prompt_without_images_brings_none() -> None:
    """Text goes as tokens and the tenant's salt, and nothing else."""
    positions, after = rotary_positions(2, (), 2, VIDEO)
    asked = prompt_of(Work(Prompt((1, 2), positions, after, (), ()), (), 5), {}, ImageMarks(), torch.float32)
    assert asked == {"prompt_token_ids": [1, 2], "cache_salt": "public"}


def test_prefixes_are_kept_under_tenant_fingerprint_and_image() -> None:
    """Another tenant, another tower or a forgotten image is never found under an old name."""
    marks = ImageMarks()

    def name(asked: Work) -> tuple[str, list[str]]:
        prompt = prompt_of(asked, EMBEDDINGS, marks, torch.float32)
        return prompt["cache_salt"], prompt["multi_modal_uuids"]["image"]

    first = name(work())
    assert name(work()) == first
    assert name(work(tenant="u"))[0] != first[0]
    assert name(work(fingerprint="g"))[1] != first[1]
    marks.forget("img_1")
    forgotten = name(work())[1]
    assert forgotten[0] not in first[1]
    assert forgotten[1] == first[1][1]


def test_marks_are_bounded() -> None:
    """An image that comes back after many others has another mark; no mark is given twice."""
    marks = ImageMarks(most=2)
    given = [marks.of(image) for image in ("a", "b", "c", "a", "c")]
    assert given[4] == given[2]
    assert len({*given[:4]}) == 4


def test_sampling_is_passed_on_in_vllms_bounds() -> None:
    """Every parameter has its counterpart; 0 for top_p keeps the likeliest token, and seeds fit."""
    sampling = Sampling(0.5, 0.0, 7, 2**64 - 1, 0.1, 0.2, 1.3, ("stop",), 4)
    assert sampling_of(work(sampling=sampling), {3, 2}) == {
        "max_tokens": 5,
        "stop_token_ids": [2, 3],
        "detokenize": False,
        "logprobs": 4,
        "temperature": 0.5,
        "top_p": 1e-9,
        "top_k": 7,
        "seed": 2**63 - 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "repetition_penalty": 1.3,
    }


def test_a_place_is_scored_by_naming_its_tokens() -> None:
    """One token is drawn and thrown away; the named ones' log-probabilities are what is wanted."""
    assert scoring_of((4, 5))["logprob_token_ids"] == [4, 5]
    assert scoring_of((4, 5))["max_tokens"] == 1


@pytest.mark.parametrize(
    ("constraint", "form"),
    [
        (Constraint("json_schema", ('{"type": "object"}',)), {"json": '{"type": "object"}'}),
        (Constraint("json_object", ()), {"json_object": True}),
        (Constraint("regex", ("a|b",)), {"regex": "a|b"}),
        (Constraint("lark", ('start: "a"',)), {"grammar": 'start: "a"'}),
        (Constraint("choices", ("a", "b")), {"choice": ["a", "b"]}),
    ],
    ids=lambda value: value.kind if isinstance(value, Constraint) else "",
)
def test_each_form_of_the_contract_has_vllms_own(constraint: Constraint, form: dict[str, Any]) -> None:
    """Every kind of constraint is named as vLLM's structured outputs name it."""
    assert form_of(constraint) == form
