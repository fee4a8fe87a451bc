"""What the vision worker counts."""

from prometheus_client import Counter, Gauge, Histogram

IMAGES_ENCODED = Counter("lookonce_images_encoded", "Images, and pieces of videos, that went through the vision tower.")
GROUPS_ENCODED = Counter("lookonce_frame_groups_encoded", "Frame groups of videos that went through the vision tower.")
GROUPS_REUSED = Counter(
    "lookonce_frame_groups_reused",
    "Frame groups of encoded videos whose embedding was there already, of another clip or of the same.",
)
QUERIES = Counter("lookonce_image_cache_queries", "Encode calls that named or held an acceptable image.")
HITS = Counter(
    "lookonce_image_cache_hits",
    "Encode calls that found the embedding there, or being made for somebody else.",
)
AWAITED = Counter(
    "lookonce_encodings_awaited",
    "Encodings that waited for another worker, which was making the same embedding.",
)
ENCODE_SECONDS = Histogram(
    "lookonce_encode_seconds",
    "Seconds of one forward of the vision tower.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITING = Gauge("lookonce_images_waiting", "Images waiting to be encoded, and being encoded.")
