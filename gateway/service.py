"""What the routes share: the workers, the metrics, and the name of the model."""

import logging
import time
from dataclasses import dataclass, field

from fastapi import Request

from gateway.deadline import Deadline
from gateway.errors import Missing
from gateway.fetching import Fetcher
from gateway.language import LanguageWorkers
from gateway.metrics import Metrics
from gateway.settings import GatewaySettings
from gateway.vision import VisionWorkers
from gateway.workers import Routing
from protos import language_pb2
from rpc.errors import RpcError, Unavailable
from rpc.peers import Identity

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Service:
    """One gateway at work.

    Attributes:
        settings: What the process was told.
        vision: The vision workers.
        language: The language workers.
        fetcher: Gets images from the network, where that is allowed.
        metrics: The process's own histograms.
        began: Unix seconds of the start.
        model_name: The served model's name, once known.
    """

    settings: GatewaySettings
    vision: VisionWorkers
    language: LanguageWorkers
    fetcher: Fetcher
    metrics: Metrics
    began: int = field(default_factory=lambda: int(time.time()))
    model_name: str | None = None

    def deadline(self) -> Deadline:
        """The time that a request which comes now has."""
        return Deadline(self.settings.request_timeout_s)

    async def model(self) -> str:
        """The served model's name: the one that was set, or else a language worker's.

        Raises:
            Unavailable: no language worker has answered yet.
        """
        if self.settings.model_name is not None:
            return self.settings.model_name
        if self.model_name is None:
            self.model_name = await self._ask_model()
        return self.model_name

    async def check_model(self, asked: str | None) -> str:
        """The served model's name, if a request may be answered by it.

        Raises:
            Missing: another model was asked for.
            Unavailable: no language worker has answered yet.
        """
        served = await self.model()
        if asked not in (None, served):
            self.model_name = None
            served = await self.model()
        if asked not in (None, served):
            raise Missing(
                f"the model {asked!r:.100} is not served here; {served!r} is", param="model", code="model_not_found"
            )
        return served

    async def _ask_model(self) -> str:
        await self.language.until_one_connected()
        infos = await self.language.infos(self.settings.scrape_timeout_s)
        names = [info.model for info in infos.values() if isinstance(info, language_pb2.LanguageInfo)]
        if not names:
            failures = [info for info in infos.values() if isinstance(info, RpcError)]
            self.language.require_one()
            raise failures[0] if failures else Unavailable("the language workers have just left", retry_after_s=1.0)
        if len(set(names)) > 1:
            logger.warning("the language workers serve different models", extra={"models": sorted(set(names))})
        return names[0]

    async def close(self) -> None:
        """Closes the channels to the workers."""
        await self.vision.close()
        await self.language.close()
        await self.fetcher.close()


def open_service(settings: GatewaySettings, metrics: Metrics, identity: Identity) -> Service:
    """Opens channels to every worker; none needs to be there yet. To be called on the running loop."""
    most = settings.limits.body_bytes
    routing = Routing(settings.routing, metrics.ejection)
    return Service(
        settings=settings,
        vision=VisionWorkers(settings.vision, most, identity, routing),
        language=LanguageWorkers(settings.language, most, identity, routing),
        fetcher=Fetcher(settings.fetch),
        metrics=metrics,
    )


def service_of(request: Request) -> Service:
    """The service behind a request."""
    service = request.app.state.service
    if not isinstance(service, Service):
        raise TypeError("the application has not been started")
    return service


def tenant_of(request: Request) -> str:
    """The tenant that a request was admitted as."""
    return str(request.state.tenant)
