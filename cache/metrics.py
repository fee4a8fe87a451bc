"""What this package counts."""

from prometheus_client import Counter, Gauge, Histogram

STORE_ERRORS = Counter(
    "lookonce_store_errors",
    "Store operations that were not answered, by operation; those not tried while the breaker was open included.",
    ["operation"],
)
PUTS_DROPPED = Counter(
    "lookonce_store_puts_dropped",
    "Values that the store refused to keep, by reason.",
    ["reason"],
)
ENTRIES_DAMAGED = Counter(
    "lookonce_entries_damaged",
    "Entries that were not sound and were treated as a miss, by reason.",
    ["reason"],
)
STORE_SECONDS = Histogram(
    "lookonce_store_seconds",
    "Seconds of store operations that were tried, by operation.",
    ["operation"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
STORE_BYTES = Counter("lookonce_store_bytes", "Bytes of values, by operation: those got, those put.", ["operation"])
BREAKER_OPEN = Gauge("lookonce_store_breaker_open", "1 while the store is left alone for failing, else 0.")
