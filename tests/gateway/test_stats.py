from typing import Any

from gateway.stats import stats
from protos import language_pb2, vision_pb2
from rpc.errors import Unavailable
from tests.gateway.conftest import Line


def seen(**counters: float) -> vision_pb2.VisionInfo:
    """A vision worker with some counters."""
    named = {f"lookonce_{name}": value for name, value in counters.items()}
    return vision_pb2.VisionInfo(store="redis", store_healthy=True, counters=named)


def spoken(counters: dict[str, float], **fields: Any) -> language_pb2.LanguageInfo:
    """A language worker with some counters."""
    named = {f"lookonce_{name}": value for name, value in counters.items()}
    return language_pb2.LanguageInfo(store="redis", store_healthy=True, counters=named, **fields)


def test_stats_are_sums_over_the_workers_that_answer() -> None:
    """Every figure is the sum over the workers; one that does not answer is known and not up."""
    vision = {
        "v:1": seen(images_encoded_total=3, image_cache_queries_total=9, image_cache_hits_total=6, images_waiting=1),
        "v:2": seen(images_encoded_total=1, image_cache_queries_total=1),
    }
    counters = {
        "images_asked_total": 20.0,
        "prompt_tokens_total": 1000.0,
        "prefix_tokens_reused_total": 700.0,
        "generated_tokens_total": 50.0,
        'questions_total{outcome="stop"}': 8.0,
        'questions_total{outcome="length"}': 2.0,
        'questions_total{outcome="error"}': 1.0,
        'questions_total{outcome="cancelled"}': 5.0,
    }
    busy = spoken(counters, running=2, waiting=3, kv_bytes_used=10, kv_bytes_budget=100)
    language = {"l:1": busy, "l:2": busy, "l:3": Unavailable("gone")}
    told = stats(vision, language).model_dump()
    assert told["images"] == {"asked": 40, "encoded": 4, "avoided": 36, "looked_up": 10, "found": 6, "waiting": 1}
    assert told["tokens"] == {"prompt": 2000, "reused": 1400, "computed": 600, "generated": 100}
    assert told["questions"] == {"answered": 20, "failed": 2, "running": 4, "waiting": 6}
    assert told["prefixes"] == {"bytes_used": 20, "bytes_budget": 200}
    assert told["store"] == {"kinds": ["redis"], "healthy": True}
    assert (told["vision"], told["language"]) == ({"up": 2, "known": 2}, {"up": 2, "known": 3})


def test_images_that_nobody_asked_about_avoid_nothing() -> None:
    """More encodings than questions, as before the first one, are no negative saving."""
    assert stats({"v:1": seen(images_encoded_total=3)}, {}).images.avoided == 0


def test_store_that_one_worker_finds_down_is_not_healthy() -> None:
    """The store is well when every worker that answers says so."""
    ill = vision_pb2.VisionInfo(store="rediss", store_healthy=False)
    told = stats({"v:1": ill}, {"l:1": spoken({})}).store
    assert (told.kinds, told.healthy) == (["redis", "rediss"], False)


async def test_stats_are_served(line: Line) -> None:
    """GET /v1/stats tells what the workers count now."""
    told = (await line.client.get("/v1/stats")).json()
    assert told["object"] == "stats"
    assert told["images"]["encoded"] == 3
    assert told["tokens"]["reused"] == 7
    assert told["vision"] == told["language"] == {"up": 1, "known": 1}
    await line.vision_servers[0].drain(0)
    assert (await line.client.get("/v1/stats")).json()["vision"] == {"up": 0, "known": 1}
