"""What a language worker is told at its start."""

from dataclasses import dataclass, field

from lm_server.vllm_options import read_options
from rpc.peers import PeerSettings

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class LanguageSettings:
    """Everything that a language worker's flags and environment decide."""

    # A checkpoint's directory.
    model: str
    # host:port; port 0 takes any free one.
    listen: str
    # The store's URL. memory:// means that entries come from the vision worker alone.
    cache: str
    # host:port of every vision worker; dns:host:port for every address that a name has, file:path for
    # those that a file lists, one a line.
    vision: tuple[str, ...]
    # builtin, or vllm where the package is installed: docs/vllm.md.
    engine: str = "builtin"
    # With the engine vllm: a JSON object of its own options, of those that docs/vllm.md lists.
    vllm_args: str | None = None
    # float32, bfloat16, float16, or auto: as the checkpoint says.
    dtype: str = "auto"
    # Where the half is put, as torch names it: cpu, cuda, cuda:1.
    device: str = "cpu"
    # "auto" spreads the layers over devices, through accelerate; None puts all on `device`.
    device_map: str | None = None
    # Where layers that fit no device are kept.
    offload_folder: str | None = None
    # The name that clients use; None is the directory's name.
    model_name: str | None = None
    # Key/value memory, for running questions and kept prefixes together.
    kv_bytes: int = 1024 * MIB
    # Host memory for prefixes that had to leave the key/value memory; 0 is none. None is 1 GiB where the model is on an
    # accelerator or kv_disk_dir is given, else 0: on the CPU kv_bytes is host memory already.
    kv_host_bytes: int | None = None
    # A directory for prefixes that had to leave the host memory; what is put there goes with the process. None is none.
    kv_disk_dir: str | None = None
    # The most that is kept in kv_disk_dir.
    kv_disk_bytes: int = 8192 * MIB
    # Rows of one step while a stream runs. It waits at most for one step, so this bounds its stalls.
    max_step_rows: int = 512
    # Questions decoding together.
    max_running: int = 256
    # Tokens of an answer about an image that are guessed from earlier answers about it and tried within one step; 0 is
    # none. Answers stay the same.
    draft_tokens: int = 0
    # Questions taken in and not yet answered; more are refused.
    max_questions: int = 4096
    # A question that has waited so long with nothing of it computed is refused, so that those after it are answered in
    # time. None: it waits as long as whoever asked.
    max_wait_s: float | None = None
    # A step that takes longer is taken for hung: health says NOT_SERVING until the model goes on.
    hang_s: float = 120.0
    # Images in one request.
    max_images: int = 64
    # Choices of one question.
    max_choices: int = 1000
    # Compiled grammars that are kept for the next request that has the same.
    max_grammars: int = 64
    # Processor seconds that compiling one grammar may take.
    grammar_s: float = 0.4
    # Tokens of an answer whose request names no limit.
    default_max_tokens: int = 512
    # Entries kept in this process.
    local_cache_bytes: int = 256 * MIB
    # The largest entry that is read.
    max_entry_bytes: int = 256 * MIB
    # The largest request that is taken; images are not in it, only their ids.
    max_request_bytes: int = 8 * MIB
    # The longest that one store operation takes.
    store_timeout_s: float = 5.0
    # For one entry from the vision worker, encoding included.
    fetch_timeout_s: float = 120.0
    # LoRA adapters that are served from the start: NAME=PATH, with commas between them. They may lie anywhere.
    lora: tuple[str, ...] = ()
    # Directories below which adapters may be loaded from while the worker serves, with commas between them. Without
    # any, none is loaded then.
    lora_dirs: tuple[str, ...] = ()
    # Adapters that may be served at a time.
    max_loras: int = 16
    # Memory for the weights of all of them together.
    lora_bytes: int = 1024 * MIB
    # How long running answers may go on after SIGTERM.
    grace_s: float = 20.0
    # torch's threads; None leaves torch's choice.
    threads: int | None = None
    # A file through which workers that share this machine's cores take turns, made where it is missing; the same for
    # all of them. None: they compete, and are several times slower when both have work.
    turns: str | None = None
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
            "kv_bytes",
            "kv_disk_bytes",
            "max_running",
            "max_questions",
            "max_wait_s",
            "hang_s",
            "max_grammars",
            "grammar_s",
            "default_max_tokens",
            "max_loras",
            "lora_bytes",
            "max_entry_bytes",
            "max_request_bytes",
            "store_timeout_s",
            "fetch_timeout_s",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive")
        if self.vllm_args is not None and self.engine != "vllm":
            raise ValueError("vllm_args needs the engine vllm")
        read_options(self.vllm_args)
        if self.draft_tokens < 0:
            raise ValueError("draft_tokens must not be negative")
        if self.kv_disk_dir and self.kv_host_bytes == 0:
            raise ValueError("kv_disk_dir needs kv_host_bytes: what goes to disk and back goes through host memory")
        if self.max_step_rows < self.max_running:
            raise ValueError(
                f"max_step_rows ({self.max_step_rows}) must be at least max_running ({self.max_running}): "
                "every running question takes a row of each step"
            )
