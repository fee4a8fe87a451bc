"""What this package counts."""

from prometheus_client import Counter

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
