"""What the language worker counts."""

from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram

PREFIX_TOKENS_REUSED = Counter(
    "lookonce_prefix_tokens_reused_total", "Prompt tokens whose keys and values were computed for an earlier question."
)
PROMPT_TOKENS = Counter("lookonce_prompt_tokens_total", "Prompt tokens of answered questions, reused ones included.")
GENERATED_TOKENS = Counter("lookonce_generated_tokens_total", "Tokens generated.")
DRAFTED_TOKENS = Counter(
    "lookonce_drafted_tokens_total", "Tokens guessed from earlier answers and tried; with --draft-tokens."
)
ACCEPTED_TOKENS = Counter("lookonce_accepted_tokens_total", "Of these, the tokens that were right and were used.")
QUESTIONS = Counter("lookonce_questions_total", "Questions by outcome: stop, length, error or cancelled.", ["outcome"])
IMAGES_ASKED = Counter(
    "lookonce_images_asked_total", "Images of answered questions, each as often as a question was about it."
)
OVERDUE = Counter(
    "lookonce_questions_overdue_total", "Questions refused because they had waited too long; with --max-wait-s."
)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
QUEUE_SECONDS = Histogram(
    "lookonce_request_queue_time_seconds",
    "Seconds from taking a question in to the first step that computes something of it.",
    buckets=SECONDS,
)
FIRST_TOKEN_SECONDS = Histogram(
    "lookonce_time_to_first_token_seconds",
    "Seconds from taking a question in to its first token, or its scores.",
    buckets=SECONDS,
)
INTER_TOKEN_SECONDS = Histogram(
    "lookonce_inter_token_latency_seconds", "Seconds between two steps that gave a question tokens.", buckets=SECONDS
)
ANSWER_SECONDS = Histogram(
    "lookonce_e2e_request_latency_seconds", "Seconds from taking a question in to its whole answer.", buckets=SECONDS
)
RUNNING = Gauge("lookonce_num_requests_running", "Questions in the batch.")
WAITING = Gauge("lookonce_num_requests_waiting", "Questions taken in and not in the batch.")
KV_USAGE = Gauge(
    "lookonce_kv_cache_usage_perc", "Key/value memory that is taken, kept prefixes included; 1 is all of it."
)
GRAMMARS = Counter(
    "lookonce_grammars_total", "Grammars asked for: compiled, refused, or kept from before.", ["outcome"]
)
GRAMMAR_WAIT = Counter(
    "lookonce_grammar_wait_seconds_total", "Seconds that the engine has waited for masks of allowed tokens."
)
STEP_ROWS = Histogram(
    "lookonce_step_rows", "Rows of a step of the engine.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
ENTRIES_READ = Counter(
    "lookonce_entries_read_total", "Embeddings brought to the engine, by where they were.", ["source"]
)
ENTRIES_REFUSED = Counter(
    "lookonce_entries_refused_total", "Entries that were damaged or foreign and not used, by reason.", ["reason"]
)
KV_TOKENS = Counter(
    "lookonce_kv_tokens_total",
    "Tokens whose keys and values were evicted from memory, spilled to the host tier, restored from it, written to "
    "disk, read from it, or unreadable there.",
    ["event"],
)
KV_BYTES = Counter("lookonce_kv_bytes_total", "The same in bytes.", ["event"])
KV_HELD_TOKENS = Gauge(
    "lookonce_kv_held_tokens",
    "Tokens that room is taken for: in memory, kept prefixes included, in the host tier and on disk.",
    ["tier"],
)
KV_HELD_BYTES = Gauge("lookonce_kv_held_bytes", "The same in bytes.", ["tier"])


class _Engine(Protocol):
    @property
    def num_running(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def kv_bytes_used(self) -> int: ...
    @property
    def kv_bytes_budget(self) -> int: ...


def watch(engine: _Engine) -> None:
    """Lets the gauges read the engine whenever somebody looks at them."""
    RUNNING.set_function(lambda: engine.num_running)
    WAITING.set_function(lambda: engine.num_waiting)
    KV_USAGE.set_function(lambda: engine.kv_bytes_used / engine.kv_bytes_budget)
