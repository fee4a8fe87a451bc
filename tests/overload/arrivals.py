"""Requests that come at a steady rate, whether or not earlier ones are answered."""

import asyncio
import itertools
import time
from dataclasses import dataclass

import httpx

TIMEOUT_S = 60.0
# Answers are long, so that capacity is the model's and not HTTP's, and unlike, so that they do not end sixteen at a
# time: a minute's figure would depend on whether one sixteen more ended within it.
TOKENS = (512, 768, 1024, 1280, 1536)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one request.

    Attributes:
        tenant: Whose it was.
        ended: time.monotonic() at its end.
        seconds: It took.
        verdict: answered, refused (a typed error with a time to try again), or lost (anything else).
        told: What came instead of an answer.
    """

    tenant: str
    ended: float
    seconds: float
    verdict: str
    told: str = ""


async def one(http: httpx.AsyncClient, tenant: str, image_id: str, number: int) -> Arrival:
    """Asks one question, the tenant's `number`-th, with the tenant's token, which is its name."""
    body = {
        "images": [f"image:{image_id}"],
        "questions": [{"text": "What is this?", "max_tokens": TOKENS[number % len(TOKENS)]}],
        "temperature": 0,
    }
    began = time.monotonic()
    try:
        response = await http.post("/v1/answers", json=body, headers={"Authorization": f"Bearer {tenant}"})
        verdict, told = judge(response)
    except httpx.HTTPError as exc:
        verdict, told = "lost", f"{type(exc).__name__}: {exc}"
    ended = time.monotonic()
    return Arrival(tenant, ended, ended - began, verdict, told)


def judge(response: httpx.Response) -> tuple[str, str]:
    """answered, refused or lost."""
    if response.status_code == httpx.codes.OK:
        answer = response.json()["answers"][0]
        if not answer.get("error"):
            return "answered", ""
        return ("refused" if answer["error"]["code"] == "overloaded" else "lost"), str(answer["error"])
    is_refusal = response.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in response.headers
    return ("refused" if is_refusal else "lost"), f"{response.status_code} {response.text}"


async def closed_loop(http: httpx.AsyncClient, tenant: str, image_id: str, clients: int, seconds: float) -> float:
    """Answers a second to so many clients that each ask again as soon as they are answered."""
    end = time.monotonic() + seconds
    began, answered, numbers = time.monotonic(), 0, itertools.count()

    async def client() -> None:
        nonlocal answered
        while time.monotonic() < end:
            arrival = await one(http, tenant, image_id, next(numbers))
            # Not in one line: what is added to would be read before the wait.
            answered += arrival.verdict == "answered"

    await asyncio.gather(*(client() for _ in range(clients)))
    return answered / (time.monotonic() - began)


async def open_loop(http: httpx.AsyncClient, tenant: str, image_id: str, rate: float, seconds: float) -> list[Arrival]:
    """Sends `rate` requests a second for so long, and waits for the end of each."""
    tasks: list[asyncio.Task[Arrival]] = []
    began = time.monotonic()
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(one(http, tenant, image_id, number)))
    return list(await asyncio.gather(*tasks))
