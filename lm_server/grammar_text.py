"""Constraints in llguidance's words, and llguidance's complaints in ours. Pure."""

import json
import re

from llguidance import LLMatcher, regex_to_lark

from lm_server.constraints import Constraint

# Between two tokens of JSON: what writers of JSON put there. With no bound a weak model writes nothing else.
_WHITESPACE = r"\x20|\x0A\x20{0,32}"
# In place of the schema's own wishes, which could make its keywords count for less than they say.
_JSON_OPTIONS = {"whitespace_pattern": _WHITESPACE, "coerce_one_of": False, "lenient": False}
# Where only one text can follow, its tokens are the model's choice still.
_HEAD = '%llguidance {"no_forcing": true}\n'

# The first that is found in a complaint tells what is wrong.
_WORDS = (
    (
        re.compile(r"oneOf constraints are not supported"),
        "oneOf is taken where its branches exclude each other; use anyOf",
    ),
    (re.compile(r"[Uu]nknown format"), "names a format that is not supported"),
    (re.compile(r"Pointer .* does not exist"), "a $ref points at nothing"),
    (re.compile(r"not present in a registry"), "refers to something outside itself"),
    (re.compile(r"unknown special token"), "special tokens cannot be part of an answer"),
    (re.compile(r"[Uu]nknown (name|grammar)"), "names a rule that is not defined"),
    (re.compile(r"patternProperty regexes .* not disjoint"), "patternProperties must exclude each other"),
    (re.compile(r"look-around"), "look-around is not supported in regular expressions"),
    (re.compile(r"backreferences"), "backreferences are not supported in regular expressions"),
    (re.compile(r"too (big|large|deeply)|too many|fuel|limit|[Uu]nable to determine|too complex"), "is too complex"),
    (re.compile(r"[Uu]nsatisfiable|NoExtension|is empty"), "nothing can match it"),
    (re.compile(r"regex parse error|invalid regex"), "holds a regular expression that is not valid"),
    (re.compile(r"[Ii]nvalid type"), "names a type that does not exist"),
)
_UNSUPPORTED = re.compile(r"Unimplemented keys: (\[.*?\])")
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): (?!failed to compile JSON)")
# Behind the complaint stands the grammar itself.
_EXCERPT = re.compile(r"\n +\d+ \| ")
_KEYWORD = re.compile(r"[$\w]{1,64}")


def grammar_text(constraint: Constraint) -> str:
    """The constraint as llguidance takes it."""
    match constraint.kind:
        case "json_schema":
            lark = _of_schema(json.loads(constraint.texts[0]))
        case "json_object":
            lark = _of_schema({"type": "object"})
        case "regex":
            lark = _of_regex(constraint.texts[0])
        case "choices":
            lark = _of_regex("|".join(map(_literally, constraint.texts)))
        case _:
            lark = constraint.texts[0]
    return LLMatcher.grammar_from_lark(_HEAD + lark)


def _of_schema(schema: dict[str, object]) -> str:
    return f"start: %json {json.dumps(schema | {'x-guidance': _JSON_OPTIONS})}"


def _of_regex(expression: str) -> str:
    # Digits are Unicode's, as everywhere else in these expressions.
    return f"start: /{regex_to_lark(expression, '')}/"


def _literally(text: str) -> str:
    """A regular expression that matches the text alone."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def in_our_words(complaint: str) -> str:
    """What is wrong with a constraint; `complaint` is llguidance's."""
    complaint = _EXCERPT.split(complaint, maxsplit=1)[0]
    unsupported = _UNSUPPORTED.search(complaint)
    if unsupported:
        keywords = [word for word in json.loads(unsupported.group(1)) if _KEYWORD.fullmatch(word)]
        return f"these keywords are not supported: {', '.join(keywords)}" if keywords else "has unknown keywords"
    for pattern, words in _WORDS:
        if pattern.search(complaint):
            return words
    place = _PLACE.match(complaint)
    if place is None:
        return "is not valid"
    line, column = int(place.group(1)) - _HEAD.count("\n"), place.group(2)
    return f"is not valid at line {line}, column {column}"
