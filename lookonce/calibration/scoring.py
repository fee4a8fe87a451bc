"""The model's log-odds for labelled examples, asked of a server: all policies of an input in one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from gateway.policies.policy import Policy, PolicySet
from lookonce.bulk.progress import progress
from lookonce.bulk.run import Run
from lookonce.bulk.work import Column, Done, Item
from lookonce.calibration.examples import Example
from lookonce.calibration.tuning import Labelled, labelled
from lookonce.client import AsyncClient
from lookonce.errors import LookonceError
from lookonce.policy_asking import ask_policies


class NotAllScored(LookonceError):
    """An example has no score, so that nothing is fitted."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One input with the policies that it is an example for."""

    image: str
    text: str
    policies: tuple[Policy, ...]


class _Scoring:
    """What is asked of each input; a `bulk.work.Work`."""

    columns: Sequence[Column] = ()
    asked: Mapping[str, Any] = {}

    def __init__(self, client: AsyncClient, inputs: Mapping[str, _Asked], system: str) -> None:
        self._client = client
        self._inputs = inputs
        self._system = system

    async def ask(self, item: Item) -> Done:
        """The log-odds of each policy as the item's detail."""
        given = self._inputs[item.key]
        texts = (given.text,) if given.text else ()
        log_odds, _ = await ask_policies(self._client, item.pictures, texts, given.policies, self._system)
        names = (policy.name for policy in given.policies)
        return Done((), detail=dict(zip(names, log_odds, strict=True)))

    def failed(self, item: Item, error: str) -> Done:
        """The run tells of it."""
        return Done((), failed=True)


async def score(
    client: AsyncClient, policies: PolicySet, examples: Sequence[Example], parallel: int, console: Console
) -> dict[str, Labelled]:
    """Policy → its examples, scored. A policy without examples is not there.

    Raises:
        NotAllScored: some example has no score.
        BulkError: no example can have one.
    """
    inputs = _inputs(policies, examples)
    found: dict[str, dict[str, float]] = {}

    def keep(item: Item, done: Done) -> None:
        found[item.key] = done.detail or {}

    run = Run(_Scoring(client, inputs, policies.system), keep, parallel=parallel)
    with progress(console, len(inputs)) as step:
        run.step = step
        tally = await run.all(_item(key, given) for key, given in inputs.items())
    if tally.failed:
        raise NotAllScored(f"{tally.failed} of {len(inputs)} inputs have no score; the first: {tally.first_error}")
    return {
        policy.name: labelled([found[_key(each)][policy.name] for each in own], [each.flagged for each in own])
        for policy in policies.policies
        if (own := [each for each in examples if each.policy == policy.name])
    }


def _key(example: Example) -> str:
    return f"{example.image}\n{example.text}"


def _inputs(policies: PolicySet, examples: Sequence[Example]) -> dict[str, _Asked]:
    wanted: dict[str, set[str]] = {}
    for example in examples:
        wanted.setdefault(_key(example), set()).add(example.policy)
    first = {_key(example): example for example in reversed(examples)}
    return {
        key: _Asked(
            first[key].image, first[key].text, tuple(each for each in policies.policies if each.name in wanted[key])
        )
        for key in wanted
    }


def _item(key: str, given: _Asked) -> Item:
    return Item(key, given.image or "a text", (given.image,) if given.image else ())
