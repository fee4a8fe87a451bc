"""Videos at the gateway: what is written becomes what the vision worker is asked, and what is wrong is named."""

import base64
from typing import Any

import pytest

from gateway.settings import Limits
from gateway.videos import looks_like_video
from rpc.errors import InvalidArgument
from tests.gateway.conftest import Line, StartLine

MP4 = b"\0\0\0\x18ftypisom pretend"
PNG = b"\x89PNG pretend"


def url(data: bytes, mime: str = "video/mp4") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def chat(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]}


async def test_a_file_in_a_chat_reaches_the_workers(line: Line) -> None:
    """A file as vLLM spells it and as Qwen does is the same video; the language worker gets its id."""
    spellings: list[dict[str, Any]] = [
        {"type": "video_url", "video_url": {"url": url(MP4), "fps": 1.5}},
        {"type": "video_url", "video_url": {"url": url(MP4)}, "fps": 1.5},
        {"type": "video", "video": url(MP4), "fps": 1.5},
    ]
    replies = [(await line.post("/v1/chat/completions", chat(part))).json() for part in spellings]
    assert {(asked.video.data, asked.video.fps) for asked in line.vision.videos} == {(MP4, 1.5)}
    assert not any(asked.video.HasField("num_frames") for asked in line.vision.videos)
    (image_id,) = {reply["lookonce"]["images"][0] for reply in replies}
    assert [reply["lookonce"]["image_cache"] for reply in replies] == [["miss"], ["hit"], ["hit"]]
    parts = line.language.requests[0].messages[0].content
    assert [part.image_id or part.text for part in parts] == [image_id, "What happens?"]


async def test_a_list_of_frames_reaches_the_worker(line: Line) -> None:
    """Frames are data URLs or ids, in order; their rate is left to the worker where it is not said."""
    frames = [url(PNG, "image/png"), "image:img_abc", url(PNG + b"2", "image/png")]
    reply = await line.post("/v1/chat/completions", chat({"type": "video", "video": frames, "fps": 3}))
    assert reply.status_code == 200
    await line.post("/v1/chat/completions", chat({"type": "video", "video": frames}))
    with_rate, without = (asked.frames for asked in line.vision.videos)
    assert [frame.image or frame.image_id for frame in with_rate.frames] == [PNG, "img_abc", PNG + b"2"]
    assert (with_rate.fps, without.HasField("fps")) == (3.0, False)


async def test_videos_and_images_keep_their_order(line: Line) -> None:
    """The ids stand where the images and videos stood."""
    image = {"type": "image_url", "image_url": {"url": url(PNG, "image/png")}}
    video = {"type": "video_url", "video_url": {"url": url(MP4), "num_frames": 4}}
    reply = await line.post("/v1/chat/completions", chat(image, video, image))
    ids = reply.json()["lookonce"]["images"]
    assert (ids[0], len(set(ids))) == (ids[2], 2)
    assert [part.image_id for part in line.language.requests[0].messages[0].content][:3] == ids
    assert line.vision.videos[0].video.num_frames == 4


async def test_answers_are_given_about_videos(line: Line) -> None:
    """A video is among the images of an answers request, as data or by the id of its upload."""
    uploaded = (await line.client.post("/v1/images", content=MP4)).json()["id"]
    body = {"images": [f"image:{uploaded}", url(MP4)], "questions": [{"text": "What happens?"}]}
    reply = await line.post("/v1/answers", body)
    assert reply.json()["images"] == [uploaded, uploaded]


@pytest.mark.parametrize("data", [MP4, b"\x1a\x45\xdf\xa3 webm", b"RIFF\0\0\0\0AVI LIST"])
async def test_a_video_is_uploaded_as_an_image_is(line: Line, data: bytes) -> None:
    """A file that begins as a video is one, with the options of the query, whatever its type is said to be."""
    form = {"file": ("clip", data, "application/octet-stream")}
    reply = await line.client.post("/v1/images?num_frames=8", files=form)
    assert reply.json()["video"] == {"timestamps": [0.25, 1.25], "seconds_per_grid": 1.0}
    assert (line.vision.videos[0].video.data, line.vision.videos[0].video.num_frames) == (data, 8)
    assert (await line.client.get(f"/v1/images/{reply.json()['id']}")).json()["video"]["timestamps"] == [0.25, 1.25]
    assert (await line.client.post("/v1/images?fps=0.5", content=data)).json()["id"] != reply.json()["id"]


def test_pictures_in_the_container_of_mp4_are_no_videos() -> None:
    """AVIF and HEIC are not taken for videos, nor are WebP and sound in RIFF."""
    for data in (b"\0\0\0\x18ftypavif", b"\0\0\0\x18ftypheic", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WAVEfmt "):
        assert not looks_like_video(data)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "video_url", "video_url": {"url": url(MP4, "image/png")}}, "video_url.url", "MIME type is not video/"),
    ({"type": "video_url", "video_url": {"url": "ftp://x/a.mp4"}}, "video_url.url", "a video is a data URL"),
    ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,@@@@"}}, "video_url.url", "bad base64"),
    ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,"}}, "video_url.url", "the video is empty"),
    (
        {"type": "video_url", "video_url": {"url": url(MP4), "fps": 0}},
        "video_url.fps",
        "greater than or equal to 0.00001",
    ),
    ({"type": "video_url", "video_url": {"url": url(MP4), "fps": 500}}, "video_url.fps", "less than or equal to 240"),
    ({"type": "video_url", "video_url": {"url": url(MP4), "num_frames": 0}}, "video_url.num_frames", "equal to 1"),
    ({"type": "video_url", "video_url": {"url": url(MP4), "fps": 1, "num_frames": 2}}, "video_url.url", "exclude"),
    ({"type": "video_url", "video_url": {"url": "image:img_abc", "fps": 1}}, "video_url.url", "leave out fps"),
    ({"type": "video_url", "video_url": {"url": url(MP4), "speed": 2}}, "video_url.speed", "no such field"),
    ({"type": "video", "video": []}, "video", "at least 1"),
    ({"type": "video", "video": [url(MP4)]}, "video[0]", "MIME type is not image/"),
    ({"type": "video", "video": ["image:img_abc"] * 4}, "video", "4 frames; at most 3 are allowed"),
    ({"type": "video", "video": ["image:img_abc"], "num_frames": 2}, "video", "num_frames is for video files"),
    ({"type": "image_url", "image_url": {"url": url(MP4)}}, "image_url.url", "MIME type is not image/"),
]


@pytest.mark.parametrize(("part", "field", "words"), BAD)
async def test_what_is_wrong_is_named(start_line: StartLine, part: dict[str, Any], field: str, words: str) -> None:
    """A part that cannot be is refused by its field before any worker is asked."""
    line = await start_line(limits=Limits(frames=3))
    reply = await line.post("/v1/chat/completions", chat(part))
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["param"].startswith(f"messages[0].content[0].{field}")
    assert words in error["message"]
    assert not line.vision.videos


async def test_only_users_show_videos(line: Line) -> None:
    """A system message cannot hold a video."""
    body = chat({"type": "video_url", "video_url": {"url": url(MP4)}})
    body["messages"][0]["role"] = "system"
    assert (await line.post("/v1/chat/completions", body)).status_code == 400


async def test_options_of_videos_are_refused_for_pictures(line: Line) -> None:
    """A picture has no rate and no number of frames, and a video only one of the two."""
    for query, data in (("fps=2", PNG), ("num_frames=2", PNG), ("fps=2&num_frames=2", MP4), ("fps=nan", MP4)):
        reply = await line.client.post(f"/v1/images?{query}", content=data)
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] in ("fps", "num_frames", "query.fps")


async def test_the_workers_refusal_names_the_field(line: Line) -> None:
    """What the vision worker does not take is an error of the part that held it."""
    line.vision.error = InvalidArgument("video is damaged or truncated")
    reply = await line.post("/v1/chat/completions", chat({"type": "video_url", "video_url": {"url": url(MP4)}}))
    assert reply.json()["error"]["param"] == "messages[0].content[0].video_url.url"
    assert "damaged or truncated" in reply.json()["error"]["message"]
