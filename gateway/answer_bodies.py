"""One question's answer or error, as the client is told."""

from gateway.errors import ApiError
from gateway.handlers import error_object
from gateway.images import paid_for_prefix
from gateway.schema_answers import AnswerBody, AnswerLookonce, ChoiceBody
from gateway.usage import finish_reason, usage_body
from protos import language_pb2


def answer_body(question_id: str, answer: language_pb2.Answer, num_images: int) -> AnswerBody:
    """A finished answer; `choices` is there for a question that had choices."""
    choices = [
        ChoiceBody(text=choice.text, logprob=choice.logprob, probability=choice.probability)
        for choice in answer.choices
    ]
    body = AnswerBody(
        id=question_id,
        text=answer.text,
        finish_reason=finish_reason(answer),
        usage=usage_body([answer.usage]),
        lookonce=AnswerLookonce(
            image_cache=[paid_for_prefix(answer.usage)] * num_images,
            time_s=answer.time_s,
            time_to_first_token_s=answer.time_to_first_token_s,
        ),
    )
    return body.model_copy(update={"choices": choices}) if choices else body


def failed_body(question_id: str, error: ApiError) -> AnswerBody:
    """A question that failed while others went on."""
    return AnswerBody(id=question_id, text="", finish_reason="error", usage=usage_body(()), error=error_object(error))
