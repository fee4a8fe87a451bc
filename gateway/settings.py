"""What a gateway process is told when it starts."""

from dataclasses import dataclass, field

from rpc.peers import PeerSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything that a client controls. Each is checked before the work that it bounds.

    Attributes:
        images: Images in one request.
        questions: Questions in one request.
        choices: Choices of one question.
        messages: Messages of one conversation.
        text_chars: Characters of one text: a question, a system prompt, a message part.
        choice_chars: Characters of one choice or stop string.
        id_chars: Characters of a question's id.
        tokens: The largest `max_tokens` that is not taken for a mistake.
        body_bytes: Bytes of one request's body.
        body_s: Seconds that a client has to send its body.
        requests: Requests that may be in work at once; more are told to come back.
    """

    images: int = 64
    questions: int = 1024
    choices: int = 1000
    messages: int = 1024
    text_chars: int = 1_000_000
    choice_chars: int = 1_000
    id_chars: int = 256
    tokens: int = 1_048_576
    body_bytes: int = 128 * 1024 * 1024
    body_s: float = 60.0
    requests: int = 1024


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """One gateway process.

    Attributes:
        vision: Addresses `host:port` of the vision workers.
        language: Addresses `host:port` of the language workers.
        host: Interface to listen on.
        port: TCP port; 0 takes any free one.
        model_name: Name that clients ask for. None: what the language worker calls its model.
        request_timeout_s: Seconds until a request that is still in work is given up.
        scrape_timeout_s: Seconds that /ready and /metrics wait for a worker.
        grace_s: Seconds that running requests have to end when the process is told to stop.
        tokens_file: File of `TOKEN TENANT` lines. None: nobody needs a token, and everybody is tenant "public".
        peers: How this process and the workers know each other.
        log_level: debug, info, warning or error.
        limits: Bounds on what clients send.
    """

    vision: tuple[str, ...]
    language: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str | None = None
    request_timeout_s: float = 300.0
    scrape_timeout_s: float = 2.0
    grace_s: float = 20.0
    tokens_file: str | None = None
    peers: PeerSettings = field(default_factory=PeerSettings)
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
