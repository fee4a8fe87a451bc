"""The bounds on a request's parts, checked before any image of it is touched. Pure."""

from collections.abc import Iterable, Sequence

from gateway.errors import BadRequest
from gateway.schema import SamplingFields
from gateway.schema_answers import AnswersRequest, QuestionBody
from gateway.schema_chat import ChatRequest, ImagePart, TextPart
from gateway.schema_formats import ResponseFormat
from gateway.schema_moderations import ModerationsRequest
from gateway.schema_video import VideoPart
from gateway.settings import Limits


def check_chat(request: ChatRequest, limits: Limits) -> None:
    """Checks the numbers of messages and images and every length.

    Raises:
        BadRequest: the first field over its limit, by name, with the limit.
    """
    _at_most(len(request.messages), limits.messages, "messages", "messages")
    images = sum(not isinstance(part, TextPart) for message in request.messages for part in message.content)
    _at_most(images, limits.images, "messages", "images")
    for place, message in enumerate(request.messages):
        for number, part in enumerate(message.content):
            param = f"messages[{place}].content[{number}]"
            if isinstance(part, TextPart):
                _at_most(len(part.text), limits.text_chars, f"{param}.text", "characters")
            elif isinstance(part, VideoPart) and not isinstance(part.video, str):
                _at_most(len(part.video), limits.frames, f"{param}.video", "frames")
    _check_together(request)
    _at_most(request.max_completion_tokens or 0, limits.tokens, "max_completion_tokens", "tokens")
    if request.response_format and request.structured_outputs:
        raise _clash("structured_outputs", "response_format")
    if request.stop and (request.structured_outputs or _asks(request.response_format)):
        raise _clash("stop", "structured_outputs" if request.structured_outputs else "response_format")
    _check_sampling(request, limits)


def _check_together(request: ChatRequest) -> None:
    """Parameters that say something of another one, which is not there."""
    if request.top_logprobs and not request.logprobs:
        raise BadRequest("top_logprobs: needs logprobs to be true", param="top_logprobs", code="invalid_value")
    if request.stream_options is not None and not request.stream:
        raise BadRequest("stream_options: needs stream to be true", param="stream_options", code="invalid_value")


def check_answers(request: AnswersRequest, limits: Limits) -> None:
    """Checks the numbers of images, questions and choices and every length; choices must differ.

    Raises:
        BadRequest: the first field over its limit, by name, with the limit.
    """
    _at_most(len(request.images), limits.images, "images", "images")
    _at_most(len(request.questions), limits.questions, "questions", "questions")
    _at_most(len(request.system or ""), limits.text_chars, "system", "characters")
    for place, question in enumerate(request.questions):
        _check_question(question, f"questions[{place}]", limits)
        if question.choices and _asks(question.response_format):
            raise _clash(f"questions[{place}].response_format", "choices")
        if request.stop and _asks(question.response_format):
            raise _clash("stop", f"questions[{place}].response_format")
    if request.stop and _asks(request.response_format):
        raise _clash("stop", "response_format")
    _check_sampling(request, limits)


def check_moderations(request: ModerationsRequest, limits: Limits) -> None:
    """Checks the numbers of texts and images and every length.

    Raises:
        BadRequest: the first field over its limit, by name, with the limit.
    """
    if isinstance(request.input, str):
        _at_most(len(request.input), limits.text_chars, "input", "characters")
        return
    images = sum(isinstance(item, ImagePart) for item in request.input)
    _at_most(images, limits.images, "input", "images")
    _at_most(len(request.input) - images, limits.questions, "input", "texts")
    for place, item in enumerate(request.input):
        if isinstance(item, str):
            _at_most(len(item), limits.text_chars, f"input[{place}]", "characters")
        elif isinstance(item, TextPart):
            _at_most(len(item.text), limits.text_chars, f"input[{place}].text", "characters")


def _check_question(question: QuestionBody, param: str, limits: Limits) -> None:
    _at_most(len(question.text), limits.text_chars, f"{param}.text", "characters")
    _at_most(len(question.id or ""), limits.id_chars, f"{param}.id", "characters")
    _at_most(question.max_tokens or 0, limits.tokens, f"{param}.max_tokens", "tokens")
    if question.choices is not None:
        _at_most(len(question.choices), limits.choices, f"{param}.choices", "choices")
        _at_most(_longest(question.choices), limits.choice_chars, f"{param}.choices", "characters in a choice")
        _all_differ(question.choices, f"{param}.choices")


def _check_sampling(request: SamplingFields, limits: Limits) -> None:
    _at_most(request.max_tokens or 0, limits.tokens, "max_tokens", "tokens")
    _at_most(_longest(request.stop or ()), limits.choice_chars, "stop", "characters in a stop string")


def _asks(form: ResponseFormat | None) -> bool:
    return form is not None and form.type != "text"


def _clash(param: str, other: str) -> BadRequest:
    return BadRequest(f"{param}: cannot be given together with {other}", param=param, code="conflicting_parameters")


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _all_differ(choices: Sequence[str], param: str) -> None:
    if len(set(choices)) != len(choices):
        raise BadRequest(f"{param}: a choice is there twice", param=param, code="duplicate_choice")


def _at_most(number: int, limit: int, param: str, what: str) -> None:
    if number > limit:
        raise BadRequest(f"{param}: {number} {what}; at most {limit} are allowed", param=param, code="over_limit")
