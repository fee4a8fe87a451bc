"""Grammars compiled within bounds: what explodes is refused and harms nobody, and what is kept is bounded."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lm_server.constraints import MAX_CHARACTERS, Constraint, read_constraint
from lm_server.grammar_text import grammar_text
from lm_server.grammars import MAX_COMPILING, Grammar, GrammarLibrary
from lm_server.probing import ParserLimits, Probes
from protos import language_pb2
from rpc.errors import InvalidArgument, Overloaded
from tests.lm_server.workshop import Workshop

KEPT = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(one_workshop: Workshop) -> AsyncIterator[GrammarLibrary]:
    """A library that keeps four."""
    made = GrammarLibrary(one_workshop.vocabulary, max_kept=KEPT, cpu_s=0.4)
    yield made
    made.close()


def schema(value: dict[str, Any]) -> Constraint:
    """A schema as it is asked for."""
    return Constraint("json_schema", (json.dumps(value),))


def lark(text: str) -> Constraint:
    """A Lark grammar as it is asked for."""
    return Constraint("lark", (text,))


def chain(length: int) -> dict[str, Any]:
    """A schema whose references are so many deep."""
    links: dict[str, Any] = {f"a{number}": {"$ref": f"#/$defs/a{number + 1}"} for number in range(length)}
    return {"$defs": {**links, f"a{length}": {"type": "string"}}, "$ref": "#/$defs/a0"}


def rules(name: str, length: int) -> str:
    """A Lark grammar whose rules are so many deep."""
    links = "\n".join(f'{name}{number}: {name}{number + 1} "x"' for number in range(length))
    return f'start: {name}0\n{links}\n{name}{length}: "x"'


# Each was seen to compile for minutes, or to end the process that compiled it.
EXPLODING = {
    "patterns that all count": schema(
        {"type": "string", "allOf": [{"pattern": f"(a|b)*a(a|b){{{number}}}"} for number in range(30)]}
    ),
    "multiples of primes": schema({"allOf": [{"type": "integer", "multipleOf": p} for p in (9973, 9967, 9949, 9941)]}),
    "expressions that all count": lark(
        "start: X\nX: " + " & ".join(f"/(a|b)*a(a|b){{{number}}}/" for number in range(2, 40))
    ),
    "references without end": schema(chain(2000)),
    "rules without end": lark(rules("a", 4000)),
    "terminals without end": lark(rules("A", 4000)),
    "terminals that double": lark(
        "start: A0\n" + "\n".join(f"A{number}: A{number + 1} A{number + 1}" for number in range(30)) + '\nA30: "x"'
    ),
}
WRONG = {
    "no_such_rule": (lark("start: foo"), "lark: names a rule that is not defined"),
    "syntax": (lark('start: "a"\nb: ??'), "lark: is not valid at line 2, column 4"),
    "special_token": (lark("start: <|im_end|>"), "lark: special tokens cannot be part of an answer"),
    "open_group": (Constraint("regex", ("(a",)), "regex: holds a regular expression that is not valid"),
    "look_around": (Constraint("regex", ("(?=a)b",)), "regex: look-around is not supported in regular expressions"),
    "nothing": (Constraint("regex", ("[^\\s\\S]",)), "regex: nothing can match it"),
    "keyword": (
        schema({"not": {}, "uniqueItems": True}),
        "json_schema: these keywords are not supported: not, uniqueItems",
    ),
    "lenient": (
        schema({"not": {}, "x-guidance": {"lenient": True}}),
        "json_schema: these keywords are not supported: not",
    ),
    "pointer": (schema({"$ref": "#/$defs/x"}), "json_schema: a $ref points at nothing"),
    "itself": (schema({"$ref": "#"}), "json_schema: nothing can match it"),
    "type": (schema({"type": "strong"}), "json_schema: names a type that does not exist"),
    "value": (schema({"properties": 5}), "json_schema: is not valid"),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", EXPLODING)
async def test_what_explodes_is_refused(library: GrammarLibrary, name: str) -> None:
    """It is said to be too complex, by the field, and the next grammar is compiled."""
    constraint = EXPLODING[name]
    with pytest.raises(InvalidArgument, match=f"^{constraint.kind}: is too complex$"):
        await asyncio.wait_for(library.get(constraint), 30)
    assert isinstance(await library.get(Constraint("regex", (f"{name}|a",))), Grammar)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_wrong_is_told_in_our_words(library: GrammarLibrary) -> None:
    """Each message names the field and what is wrong with it."""
    for constraint, words in WRONG.values():
        with pytest.raises(InvalidArgument) as caught:
            await library.get(constraint)
        assert (caught.value.message, caught.value.reason) == (words, "INVALID_GRAMMAR")


@pytest.mark.asyncio(loop_scope="module")
async def test_distinct_schemas_are_kept_up_to_a_number(library: GrammarLibrary) -> None:
    """However many come, as many as the library keeps are kept; one that is asked for again is the same one."""
    for number in range(300):
        await library.get(schema({"enum": [number]}))
        assert len(library) <= KEPT
    kept = schema({"enum": [299]})
    assert await library.get(kept) is await library.get(kept)


@pytest.mark.asyncio(loop_scope="module")
async def test_those_who_ask_together_are_given_one(library: GrammarLibrary) -> None:
    """A grammar that many wait for is compiled once, and one of them may leave."""
    wanted = schema({"enum": ["together"]})
    first = asyncio.create_task(library.get(wanted))
    others = [asyncio.create_task(library.get(wanted)) for _ in range(4)]
    await asyncio.sleep(0)
    first.cancel()
    assert len({id(grammar) for grammar in await asyncio.gather(*others)}) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_too_many_at_once_are_told_to_come_back(library: GrammarLibrary) -> None:
    """A bounded number waits to be compiled."""
    asked = [library.get(schema({"enum": [f"much {number}"]})) for number in range(MAX_COMPILING + 5)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 5
    assert isinstance(await library.get(schema({"enum": ["much later"]})), Grammar)


@pytest.mark.asyncio(loop_scope="module")
async def test_one_request_may_want_more_than_are_compiled_at_once(library: GrammarLibrary) -> None:
    """Each of its grammars is made in its turn."""
    wanted = [schema({"enum": [f"each {number}"]}) for number in range(MAX_COMPILING + 5)]
    assert all(isinstance(grammar, Grammar) for grammar in (await library.get_all(wanted)).values())


def test_what_needs_no_compiling_is_refused_at_the_gate() -> None:
    """Sizes, depth, JSON and references are checked before anything is compiled."""
    deep = '{"not":' * 65 + "{}" + "}" * 65
    texts = language_pb2.Choices
    for message, words in (
        (language_pb2.Constraint(regex=""), "regex: must not be empty"),
        (language_pb2.Constraint(lark="a" * (MAX_CHARACTERS + 1)), "lark: has 65537 characters; at most 65536"),
        (language_pb2.Constraint(json_schema="{"), "json_schema: is not valid JSON"),
        (language_pb2.Constraint(json_schema='{"const": NaN}'), "json_schema: is not valid JSON"),
        (language_pb2.Constraint(json_schema="[]"), "json_schema: must be a JSON object"),
        (language_pb2.Constraint(json_schema=deep), "json_schema: is nested more than 64 deep"),
        (language_pb2.Constraint(json_schema='{"not":' * 9_000), "json_schema: is nested more than 64 deep"),
        (language_pb2.Constraint(json_schema='{"$ref": "https://a.b/c"}'), r"json_schema: a \$ref may only point into"),
        (language_pb2.Constraint(choices=texts()), "choices: 1 to 3 are taken, 0 were given"),
        (language_pb2.Constraint(choices=texts(texts=["a", "a"])), "choices: must differ"),
        (language_pb2.Constraint(choices=texts(texts=["a", ""])), "choices: each must have 1 to 1000"),
        (language_pb2.Constraint(choices=texts(texts=["a", "b", "c", "d"])), "choices: 1 to 3 are taken, 4 were given"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            read_constraint(message, 3)


def test_data_in_a_schema_refers_to_nothing() -> None:
    """A constant that looks like a reference is not one."""
    text = '{"const": {"$ref": "https://a.b/c"}}'
    assert read_constraint(language_pb2.Constraint(json_schema=text), 3) == Constraint("json_schema", (text,))


def test_a_process_that_was_killed_while_it_waited_is_replaced() -> None:
    """The next grammar is tried by another one, and not refused for what it has no part in."""
    probes, grammar = Probes(ParserLimits(), 5.0), grammar_text(Constraint("regex", ("[ab]+",)))
    try:
        assert probes.complaint(grammar) == ""
        probe = probes._idle.get()
        probe._process.kill()
        probe._process.wait()
        probes._idle.put(probe)
        assert probes.complaint(grammar) == ""
    finally:
        probes.close()
