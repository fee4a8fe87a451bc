"""Video files: the frames that were drawn come out, and what is no whole video within the limits is refused."""

import io
import os
import struct
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from rpc.errors import InvalidArgument, TooLarge
from tests.videos.clips import drawn, sound, video
from tests.vision_server.pictures import animation, file_of, picture, png
from vision_server.settings import VideoLimits
from vision_server.video import Deadline, Footage, frames, survey
from vision_server.video_files import Container, container_of, is_whole

LIMITS = VideoLimits()
FRAMES = drawn(12)
KINDS = (
    ("mp4", "libx264", "yuv420p"),
    ("mov", "mjpeg", "yuvj420p"),
    ("mp4", "libx265", "yuv420p"),
    ("mp4", "libsvtav1", "yuv420p"),
    ("webm", "libvpx", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"),
    ("matroska", "libx264", "yuv420p"),
    ("avi", "mpeg4", "yuv420p"),
)


def look(data: bytes, limits: VideoLimits = LIMITS) -> Footage:
    return survey(data, limits, Deadline(limits.decode_s))


def read(data: bytes, *places: int, limits: VideoLimits = LIMITS) -> list[np.ndarray]:
    return [np.asarray(frame) for frame in frames(data, places, limits, Deadline(limits.decode_s))]


def test_frames_come_as_they_were_drawn() -> None:
    """The chosen frames of a lossless file are the drawn ones, pixel by pixel; one that is chosen twice comes twice."""
    data = video(FRAMES)
    assert look(data) == Footage(12, 4.0)
    assert all(np.array_equal(*pair) for pair in zip(read(data, *range(12)), FRAMES, strict=True))
    found = read(data, 3, 3, 11)
    assert all(np.array_equal(one, FRAMES[place]) for one, place in zip(found, (3, 3, 11), strict=True))


@pytest.mark.parametrize(("container", "codec", "pixels"), KINDS, ids=[f"{kind[0]}-{kind[1]}" for kind in KINDS])
def test_every_container_and_codec_is_read(container: str, codec: str, pixels: str) -> None:
    """The frame at each place is the drawn one, as near as the codec keeps it: nearer than any other."""
    data = video(FRAMES, container, codec, pixels)
    assert look(data) == Footage(12, 4.0)
    for found, place in zip(read(data, 0, 5, 11), (0, 5, 11), strict=True):
        distances = [np.abs(found.astype(int) - frame).mean() for frame in FRAMES]
        assert int(np.argmin(distances)) == place
        assert distances[place] < 16


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no such scheduling")
def test_making_a_clip_leaves_the_scheduling_as_it_was() -> None:
    """SVT-AV1 makes root's thread a real-time one: then the rest of the tests would starve the machine."""
    before = os.sched_getscheduler(0)
    video(FRAMES[:2], "mp4", "libsvtav1", "yuv420p")
    assert os.sched_getscheduler(0) == before


def test_a_turned_video_comes_upright() -> None:
    """A file whose matrix turns it by a right angle gives frames that are turned."""
    plain = video(FRAMES[:2])
    straight, turned = (0x10000, 0, 0, 0, 0x10000), (0, 0x10000, 0, -0x10000, 0)
    # The track's matrix in the header, as a phone writes it that was held upright.
    places = [at for at in range(len(plain)) if plain.startswith(matrix(straight), at)]
    at = places[-1]
    data = plain[:at] + matrix(turned) + plain[at + len(matrix(turned)) :]
    assert np.array_equal(read(data, 0)[0], np.rot90(FRAMES[0], 3))


def matrix(values: tuple[int, ...]) -> bytes:
    """The beginning of an MP4 matrix: a, b, u, c, d."""
    return b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in values)


@pytest.mark.parametrize("standard", [Colorspace.ITU601, Colorspace.ITU709])
def test_colours_are_read_by_the_files_own_standard(standard: Colorspace) -> None:
    """A file that says how its colours are written gives the drawn ones."""
    colour = np.full((64, 64, 3), (200, 50, 30), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream: Any = output.add_stream("libx264", rate=1, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = standard.value
        plain = av.VideoFrame.from_ndarray(colour, format="rgb24")
        output.mux(stream.encode(plain.reformat(format="yuv420p", dst_colorspace=standard)))
        output.mux(stream.encode(None))
    assert np.abs(read(buffer.getvalue(), 0)[0].astype(int) - colour).max() <= 2


def test_what_is_no_video_is_refused() -> None:
    """Empty data, text, pictures, animations, sound alone and random bytes are refused in our words."""
    with pytest.raises(InvalidArgument, match="video is empty"):
        look(b"")
    for data in (b"hello there, this is text", png(), animation("GIF", 5), file_of(picture(), "WEBP"), bytes(100)):
        with pytest.raises(InvalidArgument, match="not an MP4, WebM, Matroska or AVI file"):
            look(data)
    with pytest.raises(InvalidArgument, match="video has no video stream"):
        look(sound())
    for start in (b"\0\0\0\x18ftypisom", b"\x1a\x45\xdf\xa3", b"RIFF\x10\0\0\0AVI "):
        with pytest.raises(InvalidArgument, match=r"damaged or truncated|has no video stream"):
            look(start + np.random.default_rng(1).bytes(500))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_video_is_refused(container: str, codec: str, share: float) -> None:
    """A file whose end is missing is refused, even where a demuxer would take it for a shorter one."""
    faststart = {"movflags": "frag_keyframe+empty_moov"} if container == "mp4" else {}
    data = video(FRAMES, container, codec, "yuv420p", **faststart)
    assert look(data).num_frames == 12
    with pytest.raises(InvalidArgument, match="damaged or truncated"):
        look(data[: int(share * len(data))])


def test_a_damaged_video_is_refused() -> None:
    """A file whose pictures are overwritten is refused when it is decoded."""
    data = bytearray(video(drawn(20), codec="libx264", pixels="yuv420p", movflags="frag_keyframe+empty_moov"))
    data[-len(data) // 2 :] = np.random.default_rng(0).bytes(len(data) // 2)
    with pytest.raises(InvalidArgument, match="damaged or truncated"):
        read(bytes(data), *range(20))


@pytest.mark.parametrize(
    ("limits", "kind", "match"),
    [
        ({"file_bytes": 100}, TooLarge, "over the limit of 100 bytes"),
        ({"pixels": 5000}, InvalidArgument, "80×64 pixels is over the limit of 5000 pixels"),
        ({"decoded_frames": 11}, InvalidArgument, "more frames than the limit of 11"),
        ({"length_s": 2.5}, InvalidArgument, "video of 3 s is over the limit of 2.5 s"),
        ({"decode_s": 1e-9}, InvalidArgument, "takes longer to decode than the limit"),
    ],
)
def test_limits_are_kept(limits: dict[str, Any], kind: type[Exception], match: str) -> None:
    """A file over a limit on bytes, pixels, frames or seconds is refused before it is decoded, naming the limit."""
    with pytest.raises(kind, match=match):
        look(video(FRAMES), VideoLimits(**limits))


def claiming(kind: str, samples: int) -> bytes:
    """A small video whose tables say that so many samples of one byte follow each other; or one in fragments."""
    if kind == "trun":
        data = bytearray(video(FRAMES, codec="libx264", pixels="yuv420p", movflags="frag_keyframe+empty_moov"))
        struct.pack_into(">I", data, data.index(b"trun") + 8, samples)
        return bytes(data)
    data = bytearray(video(FRAMES))
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 1, samples)
    struct.pack_into(">I", data, data.index(b"stsc") + 16, samples)
    return bytes(data)


@pytest.mark.parametrize("kind", ["stsz", "trun"])
def test_a_small_file_that_claims_many_samples_is_refused(kind: str) -> None:
    """FFmpeg would reserve memory for each of them before a frame is counted."""
    with pytest.raises(InvalidArgument, match="more samples than the limit of 1000000"):
        look(claiming(kind, 1_000_001))


def test_a_video_with_uncompressed_sound_is_read() -> None:
    """Its sound has a sample for each point in time, more than any table of pictures may have."""
    data = video(FRAMES, "mov", sound_samples=1_000_001)
    assert look(data) == Footage(12, 4.0)
    assert all(np.array_equal(*pair) for pair in zip(read(data, *range(12)), FRAMES, strict=True))


def test_other_codecs_are_refused() -> None:
    """A codec that is not listed is refused by our list, whatever this FFmpeg could decode."""
    with pytest.raises(InvalidArgument, match="codec is not one of h264"):
        look(video(FRAMES, "matroska", "ffv1", "bgr0"))


def test_a_video_that_changes_its_size_is_refused() -> None:
    """Frames of another size than the first are not shown beside it."""
    small, large = (video(drawn(3, width=width), "matroska", "mjpeg", "yuvj420p") for width in (80, 160))
    data = spliced(small, large)
    with pytest.raises(InvalidArgument, match="video changes its size"):
        read(data, *range(6))


def spliced(first: bytes, second: bytes) -> bytes:
    """A video with the packets of the first and then those of the second."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(first)) as one, av.open(io.BytesIO(second)) as two, av.open(buffer, "w", "avi") as out:
        stream = out.add_stream_from_template(one.streams.video[0])
        for place, packet in enumerate([*one.demux(video=0), *two.demux(video=0)]):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, place, place
                packet.time_base = stream.time_base
                out.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "http://127.0.0.1:9/x", "/etc/hostname"])
def test_no_file_leads_to_another(reference: str) -> None:
    """A playlist that names files or URLs is no video of ours, whatever container it is said to be."""
    playlist = f"#EXTM3U\n#EXTINF:1,\n{reference}\n".encode()
    concat = f"ffconcat version 1.0\nfile '{reference}'\n".encode()
    for data in (playlist, concat, b"\0\0\0\x18ftypisom" + playlist, b"RIFF\0\0\0\0AVI " + concat):
        with pytest.raises(InvalidArgument, match=r"video (is|has)"):
            look(data)


def test_pictures_in_the_container_of_mp4_are_no_videos() -> None:
    """AVIF and HEIC files are not taken for videos."""
    assert container_of(b"\0\0\0\x18ftypavif") is None
    assert container_of(b"\0\0\0\x18ftypheic") is None
    assert container_of(b"\0\0\0\x18ftypisom") is Container.MP4


def test_a_stream_of_unknown_length_is_whole() -> None:
    """A WebM that was written without its length, as browsers record it, may end anywhere."""
    data = video(FRAMES, "webm", "libvpx", "yuv420p", live="1")
    assert is_whole(data, Container.MATROSKA)
    assert look(data).num_frames == 12
