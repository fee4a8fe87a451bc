"""What `lookonce moderate` asks of each image, its row of results, and the flags in sum."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from gateway.policies.policy import Policy, PolicySet
from lookonce.amounts import counted, percent_text
from lookonce.asking import DIGITS, ending_the_run
from lookonce.bulk.progress import HITS, IMAGES, PROMPT_TOKENS, REUSED_TOKENS
from lookonce.bulk.work import Column, Done, Item, Kind, Row
from lookonce.client import AsyncClient
from lookonce.client.values import Answers
from lookonce.policy_asking import ask_policies
from lookonce.policy_files import as_json

SEPARATOR = ", "
COLUMNS = (
    Column("image"),
    Column("id"),
    Column("image_id"),
    Column("flagged", Kind.FLAG),
    Column("flagged_by"),
    Column("scores", Kind.SCORES),
    Column("raw_scores", Kind.SCORES),
    Column("error"),
)


def for_images(policies: PolicySet) -> tuple[Policy, ...]:
    """Those of the policies that are asked about images."""
    return tuple(policy for policy in policies.policies if "image" in policy.inputs)


class Moderating:
    """Policies asked about each item's image or images; a `bulk.work.Work`."""

    columns: Sequence[Column] = COLUMNS

    def __init__(self, policies: PolicySet, client: AsyncClient) -> None:
        self._policies = policies
        self._client = client

    @property
    def asked(self) -> Mapping[str, Any]:
        """What a journal has to agree with: another threshold makes other rows."""
        return as_json(self._policies)

    async def ask(self, item: Item) -> Done:
        """Asks all policies as one request."""
        policies = for_images(self._policies)
        with ending_the_run():
            log_odds, answers = await ask_policies(self._client, item.pictures, (), policies, self._policies.system)
        return Done([_row(item, answers, policies, log_odds)], counts=_counts(answers))

    def failed(self, item: Item, error: str) -> Done:
        """The item's row with its error."""
        return Done([{"image": item.name, "id": item.id or None, "error": error}], failed=True)


def _row(item: Item, answers: Answers, policies: Sequence[Policy], log_odds: Sequence[float]) -> Row:
    verdicts = {policy.name: policy.judge(each) for policy, each in zip(policies, log_odds, strict=True)}
    flagged = [name for name, verdict in verdicts.items() if verdict.flagged]
    return {
        "image": item.name,
        "id": item.id or None,
        "image_id": SEPARATOR.join(answers.images),
        "flagged": bool(flagged),
        "flagged_by": SEPARATOR.join(flagged),
        "scores": {name: round(verdict.score, DIGITS) for name, verdict in verdicts.items()},
        "raw_scores": {name: round(verdict.raw_score, DIGITS) for name, verdict in verdicts.items()},
    }


def _counts(answers: Answers) -> dict[str, int]:
    return {
        IMAGES: len(answers.image_cache),
        HITS: answers.image_cache.count("hit"),
        PROMPT_TOKENS: answers.usage.prompt_tokens,
        REUSED_TOKENS: answers.prefix_tokens_reused,
    }


class Flags:
    """How many images each policy flagged."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.judged = 0
        self.flagged = 0
        self.by_policy: Counter[str] = Counter()
        for row in rows:
            if row.get("flagged") is not None:
                self.judged += 1
                self.flagged += bool(row["flagged"])
                self.by_policy.update(filter(None, row["flagged_by"].split(SEPARATOR)))

    def show(self, policies: Sequence[Policy], console: Console) -> None:
        """A line in sum, and one for each policy."""
        console.print(Text(f"Flagged: {self._share(self.flagged)}", "bold"), soft_wrap=True)
        for policy in policies:
            console.print(Text(f"  {policy.name}: {self._share(self.by_policy[policy.name])}"), soft_wrap=True)

    def _share(self, count: int) -> str:
        return f"{count:,} of {counted(self.judged, 'image')} ({percent_text(count, self.judged)})"
