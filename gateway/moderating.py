"""One input against every policy: which questions that makes, and a result from the answers. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.images import RequestImage, image_cache
from gateway.policies.policy import InputType, Policy, PolicySet, Verdict
from gateway.references import Reference, parse
from gateway.schema_chat import ImagePart
from gateway.schema_moderations import (
    ModerationLookonce,
    ModerationPart,
    ModerationResult,
    ModerationsRequest,
    PolicyVerdict,
)
from gateway.usage import usage_body
from protos import language_pb2


@dataclass(frozen=True, slots=True)
class Given:
    """One input.

    Attributes:
        param: The request's field, for errors.
        texts: Its texts, in order.
        images: Its images, in order.
    """

    param: str
    texts: tuple[str, ...]
    images: tuple[Reference, ...] = ()

    def types(self, policy: Policy) -> list[InputType]:
        """What of this input the policy is asked about."""
        there: dict[InputType, bool] = {"text": bool(self.texts), "image": bool(self.images)}
        return [kind for kind in policy.inputs if there[kind]]


@dataclass(frozen=True, slots=True)
class Pass:
    """Policies that are asked about the same images, which is one call: their common prefix is computed once.

    Attributes:
        given: The input.
        images: Its images; () for policies that are asked about the texts alone.
        policies: At least one.
    """

    given: Given
    images: tuple[Reference, ...]
    policies: tuple[Policy, ...]

    def request(self, images: Sequence[RequestImage], tenant: str, system: str) -> language_pb2.AnswerRequest:
        """What the language worker is asked."""
        questions = [
            language_pb2.Question(text=policy.prompt(self._texts(policy)), choices=policy.labels)
            for policy in self.policies
        ]
        ids = [image.id for image in images]
        return language_pb2.AnswerRequest(tenant=tenant, image_ids=ids, system=system, questions=questions)

    def _texts(self, policy: Policy) -> tuple[str, ...]:
        return self.given.texts if "text" in policy.inputs else ()


@dataclass(frozen=True, slots=True)
class Passed:
    """A pass with its answers, in the policies' order."""

    asked: Pass
    images: Sequence[RequestImage]
    answers: Sequence[language_pb2.Answer]


def given_inputs(request: ModerationsRequest) -> list[Given]:
    """The inputs of a request: a text, each of several texts, or all parts together.

    Raises:
        ApiError: an image's URL is none.
    """
    if isinstance(request.input, str):
        return [Given("input", (request.input,))]
    texts = [item for item in request.input if isinstance(item, str)]
    if texts:
        return [Given(f"input[{place}]", (text,)) for place, text in enumerate(texts)]
    return [_from_parts([part for part in request.input if not isinstance(part, str)])]


def _from_parts(parts: Sequence[ModerationPart]) -> Given:
    texts: list[str] = []
    images: list[Reference] = []
    for place, part in enumerate(parts):
        if isinstance(part, ImagePart):
            images.append(parse(part.image_url.url, f"input[{place}].image_url.url"))
        else:
            texts.append(part.text)
    return Given("input", tuple(texts), tuple(images))


def passes(policies: PolicySet, given: Given) -> list[Pass]:
    """The calls that an input needs: one about its images, and one for the policies that leave them out."""
    applied = [policy for policy in policies.policies if given.types(policy)]
    seen = tuple(policy for policy in applied if given.images and "image" in policy.inputs)
    read = tuple(policy for policy in applied if policy not in seen)
    both = [Pass(given, given.images, seen), Pass(given, (), read)]
    return [each for each in both if each.policies]


def result(policies: PolicySet, given: Given, passed: Sequence[Passed]) -> ModerationResult:
    """What came of every policy for one input."""
    bodies: dict[str, PolicyVerdict] = {}
    verdicts: dict[str, Verdict] = {}
    for each in passed:
        for policy, answer in zip(each.asked.policies, each.answers, strict=True):
            verdict = policy.verdict({choice.text: choice.logprob for choice in answer.choices})
            verdicts[policy.name] = verdict
            bodies[policy.name] = PolicyVerdict(
                raw_score=verdict.raw_score,
                calibrated_score=verdict.score,
                threshold=policy.threshold,
                labels={choice.text: choice.probability for choice in answer.choices},
            )
    names = [policy.name for policy in policies.policies]
    return ModerationResult(
        flagged=any(verdict.flagged for verdict in verdicts.values()),
        categories={name: name in verdicts and verdicts[name].flagged for name in names},
        category_scores={name: verdicts[name].score if name in verdicts else 0.0 for name in names},
        category_applied_input_types={policy.name: given.types(policy) for policy in policies.policies},
        lookonce=_lookonce(passed, {name: bodies[name] for name in names if name in bodies}),
    )


def _lookonce(passed: Sequence[Passed], verdicts: Mapping[str, PolicyVerdict]) -> ModerationLookonce:
    answers = [answer for each in passed for answer in each.answers]
    seen = next((each for each in passed if each.images), None)
    sources = [answer.image_sources for answer in seen.answers] if seen else []
    images = seen.images if seen else ()
    return ModerationLookonce(
        images=[image.id for image in images],
        image_cache=image_cache(images, sources),
        prefix_tokens_reused=sum(answer.usage.cached_tokens for answer in answers),
        usage=usage_body(answer.usage for answer in answers),
        policies=dict(verdicts),
    )
