"""Policies asked of a server about images and texts: questions with labels, through /v1/answers."""

from collections.abc import Sequence

from gateway.policies.policy import Policy
from lookonce.client import AsyncClient
from lookonce.client.calls import Sampling
from lookonce.client.pictures import Picture
from lookonce.client.values import Answers, Question
from lookonce.errors import LookonceError


class NotScored(LookonceError):
    """A policy's question has no answer."""


async def ask_policies(
    client: AsyncClient, pictures: Sequence[Picture], texts: Sequence[str], policies: Sequence[Policy], system: str
) -> tuple[list[float], Answers]:
    """Each policy's log-odds, raw, and the reply: all policies are one request, which computes their prefix once.

    Raises:
        ClientError: the request failed.
        NotScored: one of its questions did.
    """
    questions = [Question(policy.prompt(texts), choices=policy.labels) for policy in policies]
    answers = await client.ask(pictures, questions, Sampling(system=system or None))
    for policy, answer in zip(policies, answers, strict=True):
        if answer.error is not None:
            raise NotScored(f"{policy.name}: {answer.error.message}")
    scored = zip(policies, answers, strict=True)
    return [policy.log_odds({c.text: c.logprob for c in answer.choices}) for policy, answer in scored], answers
