"""What `lookonce deploy ray` is told beside the settings of the processes."""

from dataclasses import dataclass

from lookonce.ray.bounds import Bounds

ONE = Bounds(1, 1)


@dataclass(frozen=True, slots=True)
class Role:
    """What one half's workers need of the cluster.

    Attributes:
        half: "vision" or "language".
        replicas: How many there are.
        cpus: Cores of each.
        gpus: Accelerators of each.
        memory_bytes: Memory of each that Ray sets aside; None: Ray does not count it.
        load: Images or questions in work, waiting ones too, that one replica is meant to have.
    """

    half: str
    replicas: Bounds
    cpus: float
    gpus: float
    memory_bytes: int | None
    load: int


@dataclass(frozen=True, slots=True)
class RaySettings:
    """A deployment on a Ray cluster. Raises `ValueError`, naming the field, for a value that cannot be."""

    # The cluster: auto for the one that this machine belongs to, HOST:PORT of its head, or local to start one here.
    address: str = "auto"
    # Tells deployments of one cluster apart.
    name: str = "lookonce"
    # Vision workers, as MIN:MAX.
    vision_replicas: Bounds = ONE
    # Language workers, as MIN:MAX.
    language_replicas: Bounds = ONE
    # Cores of a vision worker.
    vision_cpus: float = 1.0
    # Cores of a language worker.
    language_cpus: float = 1.0
    # Accelerators of a vision worker; give --device too.
    vision_gpus: float = 0.0
    # Accelerators of a language worker.
    language_gpus: float = 0.0
    # Memory that is set aside for a vision worker. None: Ray does not count it.
    vision_memory_bytes: int | None = None
    # Memory that is set aside for a language worker, kv_bytes included. None: Ray does not count it.
    language_memory_bytes: int | None = None
    # At most this many workers of a half on one node. None: as many as fit.
    replicas_per_node: int | None = None
    # Images being encoded or waiting for it, for each of which so many there should be one vision worker.
    images_per_replica: int = 8
    # Questions being answered or waiting for it, for each of which so many there should be one language worker.
    questions_per_replica: int = 32
    # More workers are started once there has been too much to do for so long.
    upscale_s: float = 5.0
    # Workers leave once there has been too little to do for so long.
    downscale_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("vision_cpus", "language_cpus"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")
        for name in ("vision_gpus", "language_gpus"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @property
    def roles(self) -> tuple[Role, Role]:
        """Both halves."""
        return (
            Role(
                "vision",
                self.vision_replicas,
                self.vision_cpus,
                self.vision_gpus,
                self.vision_memory_bytes,
                self.images_per_replica,
            ),
            Role(
                "language",
                self.language_replicas,
                self.language_cpus,
                self.language_gpus,
                self.language_memory_bytes,
                self.questions_per_replica,
            ),
        )
