"""The one gate for what clients send: protobuf messages → checked values of this package."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lm_server.constraints import Constraint, read_constraint
from lm_server.sampler import Sampling
from protos import language_pb2
from rpc.errors import InvalidArgument

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_TEMPERATURE = 100.0
MAX_PENALTY = 2.0
MAX_TOP_LOGPROBS = 20
# Answers to one prompt, as OpenAI bounds them.
MAX_ANSWERS = 128
NUM_SEEDS = 2**64
MAX_CHOICE_CHARACTERS = 1000
# Echoed in every event.
MAX_ID_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How much one request may ask for."""

    max_images: int
    max_choices: int
    max_questions: int


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image named in a message."""

    image_id: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A message as sent: a role and its parts, text or image, in order."""

    role: str
    parts: tuple[str | ImagePart, ...]

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images of this message."""
        return tuple(part.image_id for part in self.parts if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, whichever method it came by.

    Attributes:
        turns: The conversation.
        sampling: How tokens are chosen.
        max_tokens: The client's limit; None leaves it to the worker.
        choices: Given, they are scored and nothing is generated.
        constraint: What the answer has to be; None leaves it free.
    """

    turns: tuple[Turn, ...]
    sampling: Sampling
    max_tokens: int | None
    choices: tuple[str, ...] = ()
    constraint: Constraint | None = None


def read_generate(request: language_pb2.GenerateRequest, limits: RequestLimits) -> Ask:
    """A checked Generate request. Raises InvalidArgument."""
    turns = _turns(request.messages, limits)
    sampling = read_sampling(request.sampling)
    constraint = _constraint(request.constraint, sampling, limits)
    return Ask(turns, sampling, _max_tokens(request.sampling), constraint=constraint)


def answers_to(ask: Ask, request: language_pb2.GenerateRequest, limits: RequestLimits) -> list[Ask]:
    """The prompt once for each of the request's n answers; with a seed, answer i draws from seed + i.

    Raises InvalidArgument.
    """
    n, most = request.n if request.HasField("n") else 1, min(MAX_ANSWERS, limits.max_questions)
    if not 0 < n <= most:
        raise InvalidArgument(f"n must be a number from 1 to {most}")
    return [replace(ask, sampling=_drawn_apart(ask.sampling, index)) for index in range(n)]


def _drawn_apart(sampling: Sampling, index: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=(sampling.seed + index) % NUM_SEEDS)


def read_score(request: language_pb2.ScoreRequest, limits: RequestLimits) -> Ask:
    """A checked Score request. Raises InvalidArgument."""
    if not request.choices:
        raise InvalidArgument("choices must not be empty")
    return Ask(_turns(request.messages, limits), Sampling(), None, _choices(request.choices, limits))


def read_answer(request: language_pb2.AnswerRequest, limits: RequestLimits) -> list[Ask]:
    """A checked Answer request: each question behind the same images and system message. Raises InvalidArgument."""
    if not 0 < len(request.questions) <= limits.max_questions:
        raise InvalidArgument(f"questions: 1 to {limits.max_questions} are taken, {len(request.questions)} were given")
    _check_image_count(len(request.image_ids), limits)
    sampling, max_tokens = read_sampling(request.sampling), _max_tokens(request.sampling)
    system = (Turn("system", (request.system,)),) if request.system else ()
    images = tuple(ImagePart(image_id) for image_id in request.image_ids)
    constraint = _constraint(request.constraint, sampling, limits)
    asks: list[Ask] = []
    for question in request.questions:
        if len(question.id) > MAX_ID_CHARACTERS:
            raise InvalidArgument(f"questions: an id may have {MAX_ID_CHARACTERS} characters")
        own_limit = question.max_tokens if question.HasField("max_tokens") else max_tokens
        turns = (*system, Turn("user", (*images, question.text)))
        choices = _choices(question.choices, limits)
        own = _own_constraint(question, sampling, limits) if question.HasField("constraint") else constraint
        asks.append(Ask(turns, sampling, _positive(own_limit), choices, None if choices else own))
    return asks


def _own_constraint(question: language_pb2.Question, sampling: Sampling, limits: RequestLimits) -> Constraint | None:
    constraint = _constraint(question.constraint, sampling, limits)
    if constraint and question.choices:
        raise constraint.refuse("a question with choices is scored: its answer cannot be given a form as well")
    return constraint


def _constraint(message: language_pb2.Constraint, sampling: Sampling, limits: RequestLimits) -> Constraint | None:
    constraint = read_constraint(message, limits.max_choices)
    if constraint and sampling.stop:
        raise constraint.refuse("cannot be given together with stop, which would cut the answer's form off")
    return constraint


def read_sampling(sampling: language_pb2.Sampling) -> Sampling:
    """Checked sampling parameters. Raises InvalidArgument naming the field and its bounds."""
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    repetition = sampling.repetition_penalty if sampling.HasField("repetition_penalty") else 1.0
    _check("temperature", sampling.temperature, 0.0, MAX_TEMPERATURE)
    _check("top_p", top_p, 0.0, 1.0)
    _check("presence_penalty", sampling.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
    _check("frequency_penalty", sampling.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
    _check("repetition_penalty", repetition, 0.01, 100.0)
    return Sampling(
        temperature=sampling.temperature,
        top_p=top_p,
        top_k=sampling.top_k if sampling.HasField("top_k") else 0,
        seed=sampling.seed if sampling.HasField("seed") else None,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=repetition,
        stop=_stops(sampling.stop),
        top_logprobs=_top_logprobs(sampling),
    )


def _check(field: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidArgument(f"{field} must be a number from {low:g} to {high:g}")


def _top_logprobs(sampling: language_pb2.Sampling) -> int | None:
    if sampling.top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidArgument(f"top_logprobs must be a number from 0 to {MAX_TOP_LOGPROBS}")
    return sampling.top_logprobs if sampling.HasField("top_logprobs") else None


def _stops(stops: Sequence[str]) -> tuple[str, ...]:
    if len(stops) > MAX_STOPS:
        raise InvalidArgument(f"stop: at most {MAX_STOPS} strings are taken")
    if any(not 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops):
        raise InvalidArgument(f"stop: each string must have 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _max_tokens(sampling: language_pb2.Sampling) -> int | None:
    return _positive(sampling.max_tokens if sampling.HasField("max_tokens") else None)


def _positive(max_tokens: int | None) -> int | None:
    if max_tokens is not None and max_tokens < 1:
        raise InvalidArgument("max_tokens must be at least 1")
    return max_tokens


def _turns(messages: Sequence[language_pb2.Message], limits: RequestLimits) -> tuple[Turn, ...]:
    turns = tuple(Turn(message.role, tuple(_part(part) for part in message.content)) for message in messages)
    _check_image_count(sum(len(turn.image_ids) for turn in turns), limits)
    return turns


def _part(part: language_pb2.ContentPart) -> str | ImagePart:
    match part.WhichOneof("part"):
        case "text":
            return part.text
        case "image_id":
            return ImagePart(part.image_id)
        case _:
            raise InvalidArgument("a content part must hold text or image_id")


def _check_image_count(count: int, limits: RequestLimits) -> None:
    if count > limits.max_images:
        raise InvalidArgument(f"images: at most {limits.max_images} are taken in a request, {count} were given")


def _choices(choices: Sequence[str], limits: RequestLimits) -> tuple[str, ...]:
    if len(choices) > limits.max_choices:
        raise InvalidArgument(f"choices: at most {limits.max_choices} are taken, {len(choices)} were given")
    if any(not 0 < len(choice) <= MAX_CHOICE_CHARACTERS for choice in choices):
        raise InvalidArgument(f"choices: each must have 1 to {MAX_CHOICE_CHARACTERS} characters")
    if len(set(choices)) != len(choices):
        raise InvalidArgument("choices must differ from each other")
    return tuple(choices)
