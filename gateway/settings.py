"""What a gateway process is told when it starts."""

from dataclasses import dataclass, field

from rpc.peers import PeerSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything that a client controls. Each is checked before the work that it bounds.

    Attributes:
        images: Images and videos in one request.
        frames: Frames of one video that is a list of them.
        questions: Questions in one request.
        choices: Choices of one question.
        messages: Messages of one conversation.
        text_chars: Characters of one text: a question, a system prompt, a message part.
        choice_chars: Characters of one choice or stop string.
        id_chars: Characters of a question's id.
        tokens: The largest `max_tokens` that is not taken for a mistake.
        body_bytes: Bytes of one request's body.
        bodies_bytes: Bytes of the bodies of all requests in work; tenants have equal shares of them.
        body_s: Seconds that a client has to send its body.
        requests: Requests that may be in work at once; more are told to come back.
    """

    images: int = 64
    frames: int = 768
    questions: int = 1024
    choices: int = 1000
    messages: int = 1024
    text_chars: int = 1_000_000
    choice_chars: int = 1_000
    id_chars: int = 256
    tokens: int = 1_048_576
    body_bytes: int = 128 * 1024 * 1024
    bodies_bytes: int = 256 * 1024 * 1024
    body_s: float = 60.0
    requests: int = 1024

    def __post_init__(self) -> None:
        if self.bodies_bytes < self.body_bytes:
            raise ValueError("limit_bodies_bytes must be at least limit_body_bytes, for one body to fit")


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """Images that clients give as http and https URLs.

    Attributes:
        domains: Domains that images may be fetched from, with commas between them: `*.example.org` for everything below
            one, `example.org:8443` for another port than the usual. None: nothing is fetched.
        image_bytes: Bytes of one fetched image.
        video_bytes: Bytes of all fetched frames of one video.
        image_s: Seconds until one is given up, redirects included.
    """

    domains: tuple[str, ...] = ()
    image_bytes: int = 20 * 1024 * 1024
    video_bytes: int = 64 * 1024 * 1024
    image_s: float = 10.0


@dataclass(frozen=True, slots=True)
class RateSettings:
    """How often each tenant may ask; beyond that a request is told to come back, with 429.

    Attributes:
        per_minute: Requests a minute in the long run. None: as many as it likes.
        burst: Requests at once after a pause.
    """

    per_minute: int | None = None
    burst: int = 60


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS of the gateway's own port. Raises `ValueError` for one without the other.

    Attributes:
        cert: PEM file of the certificate, and those between it and its authority. None: plain HTTP.
        key: PEM file of its private key.
    """

    cert: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls_cert and tls_key belong together: give both or neither")


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """How requests find workers. Raises `ValueError`, naming the field, for a value that cannot be.

    Attributes:
        resolve_s: Seconds between two look-ups of names given as `dns:host:port`.
        slow_start_s: Seconds in which a language worker that joined or came back is led up to its full share. 0: none.
        eject_failures: Calls of one worker that fail in a row until it is asked last for a while.
        eject_s: Seconds of that while the first time, twice as many each time after that. 0: never.
    """

    resolve_s: float = 5.0
    slow_start_s: float = 10.0
    eject_failures: int = 5
    eject_s: float = 10.0

    def __post_init__(self) -> None:
        if not self.resolve_s > 0:
            raise ValueError("routing_resolve_s must be positive")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """One gateway process.

    Attributes:
        vision: Addresses `host:port` of the vision workers; `dns:host:port` for every address that a name
            has, `file:path` for those that a file lists, one a line.
        language: The same of the language workers.
        host: Interface to listen on.
        port: TCP port; 0 takes any free one.
        model_name: Name that clients ask for. None: what the language worker calls its model.
        request_timeout_s: Seconds until a request that is still in work is given up.
        scrape_timeout_s: Seconds that /ready and /metrics wait for a worker.
        grace_s: Seconds that running requests have to end when the process is told to stop.
        tokens_file: File of `TOKEN TENANT` lines. None: nobody needs a token, and everybody is tenant "public".
        policies: YAML file of the policies that /v1/moderations holds inputs against. None: that route answers 404.
        lora_tenant: The tenant whose tokens may load and unload LoRA adapters, which are served to all. None: nobody
            may where there is a tokens file; where there is none, everybody may.
        fetch: What is fetched from the network.
        rates: How often tenants may ask.
        routing: How requests find workers.
        tls: What this gateway's own port shows its clients.
        peers: How this process and the workers know each other.
        otlp_endpoint: URL or host:port of an OTLP collector that traces are sent to. None: what
            OTEL_EXPORTER_OTLP_ENDPOINT names, or none.
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
    policies: str | None = None
    lora_tenant: str | None = None
    fetch: FetchSettings = field(default_factory=FetchSettings)
    rates: RateSettings = field(default_factory=RateSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    peers: PeerSettings = field(default_factory=PeerSettings)
    otlp_endpoint: str | None = None
    log_level: str = "info"
    limits: Limits = field(default_factory=Limits)
