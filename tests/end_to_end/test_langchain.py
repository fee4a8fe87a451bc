"""LangChain's ChatOpenAI against real processes that serve the demo model, held against the whole model."""

import asyncio
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from tests.deployment import Deployment
from tests.end_to_end.scenes import MAX_TOKENS, expected, scene_base64, shown, user

DESCRIBE = "Describe the picture."


@pytest.fixture(scope="module")
def model(demo: Deployment) -> ChatOpenAI:
    return chat(demo)


def chat(demo: Deployment, **more: Any) -> ChatOpenAI:
    """LangChain's client of the deployment."""
    options = {"temperature": 0, "max_tokens": MAX_TOKENS, "max_retries": 0, **more}
    return ChatOpenAI(base_url=f"{demo.url}/v1", api_key="none", model="demo", **options)


def human(text: str, *numbers: int) -> HumanMessage:
    """A question about pictures, in LangChain's own content blocks."""
    images = [{"type": "image", "base64": scene_base64(number), "mime_type": "image/png"} for number in numbers]
    return HumanMessage([*images, {"type": "text", "text": text}])


def test_a_conversation_is_answered(model: ChatOpenAI) -> None:
    """System, human and earlier answers with several images get the whole model's answer and its usage."""
    messages: list[BaseMessage] = [
        SystemMessage("You answer questions about pictures."),
        human("How many objects are in the picture?", 1),
        AIMessage("3"),
        human(DESCRIBE, 2, 3),
    ]
    whole = expected(
        [
            {"role": "system", "content": "You answer questions about pictures."},
            user("How many objects are in the picture?", 1),
            {"role": "assistant", "content": "3"},
            user(DESCRIBE, 2, 3),
        ]
    )
    reply = model.invoke(messages)
    assert reply.content == whole.text
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_tokens"] == len(whole.prompt_tokens)
    assert reply.usage_metadata["output_tokens"] == len(whole.tokens)
    assert (reply.response_metadata["finish_reason"], reply.response_metadata["model_name"]) == ("stop", "demo")


def test_streams_join_to_the_answer_with_usage(model: ChatOpenAI) -> None:
    """The pieces of a stream add up to the answer, with the usage that LangChain asks for itself."""
    whole = expected([user(DESCRIBE, 1)])
    pieces = list(model.stream([human(DESCRIBE, 1)], stream_usage=True))
    total = pieces[0]
    for piece in pieces[1:]:
        total += piece
    assert isinstance(total, AIMessageChunk)
    assert len(pieces) > 3
    assert total.content == whole.text
    assert total.usage_metadata is not None
    assert total.usage_metadata["output_tokens"] == len(whole.tokens)


def test_batches_and_async_calls_are_answered(demo: Deployment) -> None:
    """A batch, and asynchronous calls and streams, each get their own picture's answer."""
    asked = [[HumanMessage([shown(number), {"type": "text", "text": DESCRIBE}])] for number in range(1, 5)]
    texts = [expected([user(DESCRIBE, number)]).text for number in range(1, 5)]

    async def every() -> list[Any]:
        model = chat(demo)
        pieces = [piece.content async for piece in model.astream(asked[0])]
        answers = await asyncio.gather(*map(model.ainvoke, asked))
        await model.root_async_client.close()
        return ["".join(map(str, pieces)), *(answer.content for answer in answers)]

    assert [reply.content for reply in chat(demo).batch(asked)] == texts
    assert asyncio.run(every()) == [texts[0], *texts]


def test_several_answers_stop_and_logprobs(demo: Deployment, model: ChatOpenAI) -> None:
    """LangChain's n gives as many generations, its stop ends them, and bound logprobs come in the metadata."""
    whole = expected([user(DESCRIBE, 1)]).text
    drawn = chat(demo, n=3, temperature=2, seed=1, max_tokens=12)
    unsure = "Describe the picture in as many words as you like, whatever it is that you can see in it."
    (generations,) = drawn.generate([[human(unsure, 4)]]).generations
    assert len(generations) == 3
    assert len({generation.text for generation in generations}) > 1
    assert model.invoke([human(DESCRIBE, 1)], stop=[" circle"]).content == whole[: whole.index(" circle")]
    told = model.bind(logprobs=True, top_logprobs=2).invoke([human(DESCRIBE, 1)]).response_metadata["logprobs"]
    assert "".join(token["token"] for token in told["content"]) == whole
    assert all(len(token["top_logprobs"]) == 2 for token in told["content"])


def test_errors_are_openais(model: ChatOpenAI) -> None:
    """What is refused raises the exception of OpenAI's client, with the field's name."""
    with pytest.raises(openai.BadRequestError) as caught:
        model.invoke([human(DESCRIBE, 1)], logit_bias={"1": 5})
    assert caught.value.param == "logit_bias"
