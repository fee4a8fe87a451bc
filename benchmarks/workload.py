"""What is asked of every system: pictures, questions, and when each question comes. Values only, plain JSON on a wire.

Needs the standard library alone: vLLM's environment imports it too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to draw: the same numbers are the same pixels.

    Attributes:
        seed: Tells it from others of its size.
        width: Pixels.
        height: Pixels.
        is_scene: Of the kind that the demo checkpoint was trained on.
    """

    seed: int
    width: int
    height: int
    is_scene: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one picture.

    Attributes:
        picture: Place of the picture in the workload.
        text: The question.
        max_tokens: So many tokens are generated: random weights end no answer earlier.
        choices: Given, they are scored and nothing is generated.
        at_s: Seconds after the start when it is asked.
        door: Which of several engines is asked.
    """

    picture: int
    text: str
    max_tokens: int = 16
    choices: tuple[str, ...] = ()
    at_s: float = 0.0
    door: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Questions, and how they are put.

    Attributes:
        name: W1, W1s, …
        pictures: New for every repeat, so that nothing of an earlier one helps.
        questions: In the order in which they are asked.
        in_flight: At most so many are unanswered at a time; None: everything is asked at its `at_s`.
        kv_tokens: Room for keys and values; None: plenty.
        doors: Engines among which the questions are divided.
        is_streamed: Whether first tokens are timed, which costs a little over HTTP.
        is_after_restart: The same has been asked before, and the language half was restarted since.
        is_asked_again: The same has been asked before, of the same engine.
        deadline_s: A client leaves after so long; None: it waits.
        is_ending: Answers may end before `max_tokens`, as a trained model's do.
    """

    name: str
    pictures: tuple[Picture, ...]
    questions: tuple[Question, ...]
    in_flight: int | None = None
    kv_tokens: int | None = None
    doors: int = 1
    is_streamed: bool = False
    is_after_restart: bool = False
    is_asked_again: bool = False
    deadline_s: float | None = None
    is_ending: bool = False

    @property
    def is_burst(self) -> bool:
        """Whether everything is asked at once."""
        return self.in_flight is None and all(question.at_s == 0 for question in self.questions)

    def groups(self) -> list[tuple[int, ...]]:
        """Places of the questions that a client who may ask many at once puts into one request."""
        if not self.is_burst:
            return [(place,) for place in range(len(self.questions))]
        groups: dict[tuple[int, int], list[int]] = {}
        for place, question in enumerate(self.questions):
            groups.setdefault((question.picture, question.door), []).append(place)
        return [tuple(group) for group in groups.values()]

    def only_door(self, door: int) -> "Workload":
        """The questions of one door alone."""
        return self.part([place for place, question in enumerate(self.questions) if question.door == door])

    def part(self, places: Sequence[int]) -> "Workload":
        """The questions at some places, for one engine."""
        questions = tuple(replace(self.questions[place], door=0) for place in places)
        return replace(self, questions=questions, doors=1)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question.

    Attributes:
        text: The answer; of a scored question the best choice.
        num_tokens: Tokens generated.
        time_s: From when it was asked to the end.
        first_token_s: From when it was asked to the first token; None where nobody looked.
        probabilities: Of each choice, among the choices.
        error: Why there is no answer.
    """

    text: str
    num_tokens: int
    time_s: float
    first_token_s: float | None = None
    probabilities: tuple[float, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of a workload: its wall clock, and the answers in the questions' order."""

    seconds: float
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def workload_from_json(values: dict[str, Any]) -> Workload:
    """The workload that `to_json` wrote."""
    pictures = tuple(Picture(**picture) for picture in values["pictures"])
    questions = tuple(
        Question(**{**question, "choices": tuple(question["choices"])}) for question in values["questions"]
    )
    return Workload(**{**values, "pictures": pictures, "questions": questions})


def outcome_from_json(values: dict[str, Any]) -> Outcome:
    """The outcome that `to_json` wrote."""
    answers = (Answer(**{**answer, "probabilities": tuple(answer["probabilities"])}) for answer in values["answers"])
    return Outcome(values["seconds"], tuple(answers))
