"""What one vision worker is told at its start."""

from dataclasses import dataclass, field

from cache import CODECS, MAX_TIMES
from rpc.peers import PeerSettings

MIB = 1 << 20
DAY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """What is taken and decoded of one video at most. Raises `ValueError`, naming the field."""

    # The largest video file that is taken, and the most that all files of a list of frames may have together.
    file_bytes: int = 64 * MIB
    # Width times height of the largest frame that is decoded.
    pixels: int = 4096 * 2304
    # Seconds of the longest video that is taken.
    length_s: float = 3600.0
    # Frames of the longest video that is taken: all before the last one that is shown have to be decoded.
    decoded_frames: int = 20_000
    # Frames of one video that are shown to the model.
    frames: int = 768
    # Tokens of one video: the frames of a larger one are scaled down further.
    tokens: int = 16_384
    # The longest that the decoding of one video may take.
    decode_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("file_bytes", "pixels", "length_s", "decoded_frames", "frames", "tokens", "decode_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"video_{name} must be positive")
        if self.frames > 2 * MAX_TIMES:
            raise ValueError(f"video_frames must be at most {2 * MAX_TIMES}")


@dataclass(frozen=True, slots=True)
class VisionSettings:
    """A vision worker's settings. Raises `ValueError`, naming the field, for a value that cannot be.

    `entry_ttl_s` and `original_ttl_s` count from the last time each was written: an entry when it was encoded, the
    original bytes when they were uploaded (again, once half of their time is over). An image id can be used until its
    original bytes expire; an entry that goes earlier is encoded again from them.
    """

    # Directory of the checkpoint.
    model: str
    # host:port; port 0 takes any free one, which the log's "ready" line tells.
    listen: str
    # URL of the store.
    cache: str
    # float32, bfloat16, float16, or auto: as the checkpoint says.
    dtype: str = "auto"
    # Where the tower is put, as torch names it: cpu, cuda, cuda:1.
    device: str = "cpu"
    # Name of the model as served; None: the checkpoint's.
    model_name: str | None = None
    # The largest file that is taken.
    max_image_bytes: int = 20 * MIB
    # Width times height of the largest picture that is decoded.
    max_image_pixels: int = 50_000_000
    # At most this many tokens for one image: larger images are scaled down further. None: the checkpoint's own bound.
    max_image_tokens: int | None = None
    # Images encoded in one forward. None: 1 on the CPU, where batching gains nothing, else 8.
    max_batch_images: int | None = None
    # Images waiting to be encoded, together with those being encoded; further ones are refused.
    max_waiting_images: int = 256
    # Uploaded bytes of all those images together.
    max_waiting_bytes: int = 512 * MIB
    # An image that would wait longer than this to be encoded is refused. None: however long it takes.
    max_wait_s: float | None = None
    # An encoding that takes longer is taken for hung: health says NOT_SERVING until the model goes on.
    hang_s: float = 120.0
    # An image that another worker of this store encodes already is waited for, until nothing has been heard of that
    # worker for so long. 0: it is encoded here as well.
    encode_lease_s: float = 1.5
    # How long an embedding is kept.
    entry_ttl_s: float = 7 * DAY_S
    # How long the embedding of each frame group of a video is kept besides the video's own, for other clips that show
    # the same frames. 0: not at all.
    frame_group_ttl_s: float = 3600.0
    # How long the uploaded bytes are kept, and with them the image id.
    original_ttl_s: float = 7 * DAY_S
    # Entries and original bytes kept in this process while the store does not take them; all of a memory:// store.
    local_cache_bytes: int = 256 * MIB
    # The largest entry that is stored.
    max_entry_bytes: int = 256 * MIB
    # none, or zstd: new entries are compressed without loss, which pays where the link to the store is slow. Language
    # workers read both.
    entry_compression: str = "none"
    # The longest that one store operation takes.
    store_timeout_s: float = 5.0
    # How long running calls may go on after SIGTERM.
    grace_s: float = 20.0
    # CPU threads for the model; None leaves torch's own choice.
    threads: int | None = None
    # A file through which workers that share this machine's cores take turns, made where it is missing; the same for
    # all of them. None: they compete, and are several times slower when both have work.
    turns: str | None = None
    # What is taken and decoded of one video at most.
    videos: VideoLimits = field(default_factory=VideoLimits)
    # host:port where this process's metrics can be read over HTTP, for Prometheus. None: only through the gateway.
    metrics_listen: str | None = None
    # URL or host:port of an OTLP collector that traces go to. None: what OTEL_EXPORTER_OTLP_ENDPOINT names, or none.
    otlp_endpoint: str | None = None
    # How this process and the others of the deployment know each other.
    peers: PeerSettings = field(default_factory=PeerSettings)
    # debug, info, warning or error.
    log_level: str = "info"

    def __post_init__(self) -> None:
        for name in (
            "max_image_bytes",
            "max_image_pixels",
            "max_image_tokens",
            "max_batch_images",
            "max_waiting_images",
            "max_waiting_bytes",
            "max_wait_s",
            "hang_s",
            "entry_ttl_s",
            "original_ttl_s",
            "max_entry_bytes",
            "store_timeout_s",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive")
        if not self.frame_group_ttl_s >= 0:
            raise ValueError("frame_group_ttl_s must be positive, or 0")
        if self.entry_compression not in CODECS:
            raise ValueError(f"entry_compression must be one of {', '.join(CODECS)}")

    @property
    def max_upload_bytes(self) -> int:
        """Of the largest image or video."""
        return max(self.max_image_bytes, self.videos.file_bytes)

    @property
    def batch_images(self) -> int:
        """Images encoded in one forward."""
        if self.max_batch_images is not None:
            return self.max_batch_images
        return 1 if self.device == "cpu" else 8
