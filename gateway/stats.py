"""GET /v1/stats: what the split has saved and how busy it is, summed over the workers. For people and pages to watch.

/metrics tells more, and each worker's own share of it, to a Prometheus.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from gateway.openapi import json_reply
from gateway.schema_stats import ImageStats, PrefixStats, QuestionStats, Stats, StoreStats, TokenStats, WorkerStats
from gateway.service import service_of
from protos import language_pb2, vision_pb2
from rpc.errors import RpcError

Info = TypeVar("Info", vision_pb2.VisionInfo, language_pb2.LanguageInfo)

ANSWERED = ("stop", "length")

router = APIRouter(tags=["service"])


@router.get("/v1/stats", response_model=Stats)
async def read_stats(request: Request) -> Response:
    """What was saved and what is in work, summed over every worker that answers."""
    service = service_of(request)
    timeout_s = service.settings.scrape_timeout_s
    vision, language = await asyncio.gather(service.vision.infos(timeout_s), service.language.infos(timeout_s))
    return json_reply(stats(vision, language))


def stats(
    vision: Mapping[str, vision_pb2.VisionInfo | RpcError], language: Mapping[str, language_pb2.LanguageInfo | RpcError]
) -> Stats:
    """The sums over the workers that answer, by address. A counter that none of them knows is 0. Pure."""
    eyes, mouths = answering(vision.values()), answering(language.values())
    return Stats(
        object="stats",
        images=_images(_counters(eyes), _counters(mouths)),
        tokens=_tokens(_counters(mouths)),
        questions=_questions(mouths),
        prefixes=PrefixStats(
            bytes_used=sum(info.kv_bytes_used for info in mouths),
            bytes_budget=sum(info.kv_bytes_budget for info in mouths),
        ),
        store=_store([*eyes, *mouths]),
        vision=WorkerStats(up=len(eyes), known=len(vision)),
        language=WorkerStats(up=len(mouths), known=len(language)),
    )


def answering(infos: Iterable[Info | RpcError]) -> list[Info]:
    """The workers that answered."""
    return [info for info in infos if not isinstance(info, RpcError)]


def _counters(infos: Iterable[vision_pb2.VisionInfo] | Iterable[language_pb2.LanguageInfo]) -> list[dict[str, float]]:
    return [dict(info.counters) for info in infos]


def _total(counters: Iterable[Mapping[str, float]], *series: str) -> int:
    return int(sum(each.get(name, 0.0) for each in counters for name in series))


def _images(vision: list[dict[str, float]], language: list[dict[str, float]]) -> ImageStats:
    asked = _total(language, "lookonce_images_asked_total")
    encoded = _total(vision, "lookonce_images_encoded_total")
    return ImageStats(
        asked=asked,
        encoded=encoded,
        # Images are also encoded for questions that nobody asked yet.
        avoided=max(0, asked - encoded),
        looked_up=_total(vision, "lookonce_image_cache_queries_total"),
        found=_total(vision, "lookonce_image_cache_hits_total"),
        waiting=_total(vision, "lookonce_images_waiting"),
    )


def _tokens(language: list[dict[str, float]]) -> TokenStats:
    prompt = _total(language, "lookonce_prompt_tokens_total")
    reused = _total(language, "lookonce_prefix_tokens_reused_total")
    return TokenStats(
        prompt=prompt,
        reused=reused,
        computed=max(0, prompt - reused),
        generated=_total(language, "lookonce_generated_tokens_total"),
    )


def _questions(language: list[language_pb2.LanguageInfo]) -> QuestionStats:
    counters = _counters(language)
    return QuestionStats(
        answered=_total(counters, *(_outcome(outcome) for outcome in ANSWERED)),
        failed=_total(counters, _outcome("error")),
        running=sum(info.running for info in language),
        waiting=sum(info.waiting for info in language),
    )


def _outcome(outcome: str) -> str:
    return f'lookonce_questions_total{{outcome="{outcome}"}}'


def _store(infos: list[vision_pb2.VisionInfo | language_pb2.LanguageInfo]) -> StoreStats:
    kinds = sorted({info.store for info in infos if info.store})
    return StoreStats(kinds=kinds, healthy=all(info.store_healthy for info in infos if info.store))
