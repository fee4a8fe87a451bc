"""vLLM's AsyncLLM as this package uses it, all of it on one event loop.

Nothing else imports vLLM, but for what its own workers import: `vllm_worker`, `vllm_deepstack`.

VllmDead      vLLM's processes are gone
VllmRefused   vLLM does not take a request
"""

import multiprocessing
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from lm_server.seam import EngineUnusable
from lm_server.vllm_inputs import VllmAdapter
from lm_server.vllm_tether import Tether
from rpc.heartbeat import Pulse

ENVIRONMENT = {
    # A fork of a process with gRPC's threads may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}


class VllmDead(Exception):
    """vLLM's processes are gone."""


class VllmRefused(Exception):
    """vLLM does not take a request."""


def require_vllm(threads: int | None = None) -> None:
    """Sees to it that vLLM can be imported, with so many threads of OpenMP in its workers.

    Raises `EngineUnusable` where it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        # Else vLLM takes every core for itself.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    try:
        import vllm  # noqa: F401
    except ImportError as exc:
        raise EngineUnusable(
            "--engine vllm needs vLLM, which is not installed here: pip install 'lookonce[vllm]' (see docs/vllm.md)"
        ) from exc


def device_type() -> str:
    """The kind of device that this vLLM was built for: cpu, cuda."""
    from vllm.platforms import current_platform

    return str(current_platform.device_type)


class OutputPulse(Pulse):
    """Tells since when vLLM owes an output. Written by the client's loop, read by any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None

    def note(self, num_asked: int) -> None:
        """Something was asked, or came back; so many requests are unanswered now."""
        self._since = time.monotonic() if num_asked else None

    @property
    def busy_s(self) -> float:
        """Seconds since the last output, while any is owed."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


class Usage:
    """What vLLM's scheduler says of itself, in the form of one of its stat loggers.

    Attributes:
        num_running: Requests in its batch.
        kv_share: Of its key/value memory, the part that running requests hold.
    """

    num_running = 0
    kv_share = 0.0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Called by vLLM after every step."""
        if scheduler_stats is not None:
            self.num_running, self.kv_share = scheduler_stats.num_running_reqs, scheduler_stats.kv_cache_usage

    def log_engine_initialized(self) -> None:
        """Nothing is logged."""

    def log(self) -> None:
        """Nothing is logged."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """It never sleeps."""


class VllmClient:
    """One running vLLM. Opened within the event loop that it is used on.

    Attributes:
        pulse: Since when vLLM owes an output.
        usage: What its scheduler says of itself.
    """

    def __init__(self, arguments: Mapping[str, Any], pulse: OutputPulse, usage: Usage) -> None:
        from vllm import SamplingParams
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.exceptions import VLLMClientError
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.engine.exceptions import EngineDeadError

        self.pulse = pulse
        self.usage = usage
        self._dead, self._refused = EngineDeadError, VLLMClientError
        self._form: Callable[..., Any] = StructuredOutputsParams
        self._sampling: Callable[..., Any] = SamplingParams
        self._lora: Callable[..., Any] = LoRARequest
        self._deltas = RequestOutputKind.DELTA
        self._num_requests = 0
        self._num_asked = 0
        self._llm = AsyncLLM.from_engine_args(
            AsyncEngineArgs(**arguments), stat_loggers=[lambda config, engine_index=0: usage]
        )
        self._has_stages = int(arguments.get("pipeline_parallel_size", 1)) > 1
        self._tether = Tether(child.pid for child in multiprocessing.active_children() if child.pid)

    async def prepare(self) -> None:
        """Makes it ready for questions; to be awaited once, before the first."""
        if self._has_stages:
            await self._llm.collective_rpc("make_stage_room")

    async def ask(
        self,
        prompt: Mapping[str, Any],
        sampling: Mapping[str, Any],
        form: Mapping[str, Any] | None = None,
        adapter: VllmAdapter | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Outputs of vLLM for a prompt, each with what is new; leaving the iterator aborts the request.

        `sampling` and `form` are arguments of its SamplingParams and StructuredOutputsParams.

        Raises:
            VllmDead: it can answer nothing any more.
            VllmRefused: it does not take this.
        """
        self._num_requests += 1
        self._num_asked += 1
        self.pulse.note(self._num_asked)
        try:
            held = {"structured_outputs": self._form(**form)} if form else {}
            params = self._sampling(output_kind=self._deltas, **sampling, **held)
            tuned = self._lora(adapter.identity, adapter.number, adapter.path) if adapter else None
            asked = self._llm.generate(dict(prompt), params, str(self._num_requests), lora_request=tuned)
            async with aclosing(asked) as outputs:
                async for output in outputs:
                    self.pulse.note(self._num_asked)
                    yield output
        except self._dead as exc:
            raise VllmDead from exc
        except self._refused as exc:
            raise VllmRefused(str(exc)) from exc
        finally:
            self._num_asked -= 1
            self.pulse.note(self._num_asked)

    @property
    def is_dead(self) -> bool:
        """Whether it can answer nothing any more."""
        return bool(self._llm.errored)

    def close(self) -> None:
        """Ends vLLM's processes."""
        self._llm.shutdown()
        self._tether.close()
