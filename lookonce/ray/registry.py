"""The roll of a deployment's workers as a small actor, which Ray starts again elsewhere when its node goes."""

import asyncio
import time
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from lookonce.ray.present import Present, Roll

NAMESPACE = "lookonce"
CALL_S = 2.0


class Registry:
    """The actor."""

    def __init__(self) -> None:
        self._roll = Roll(time.monotonic())

    def note(self, half: str, address: str) -> Present:
        """This worker serves; who else does."""
        self._roll.note(half, address, time.monotonic())
        return self.present()

    def strike(self, half: str, address: str) -> None:
        """This worker takes no more requests."""
        self._roll.strike(half, address)

    def present(self) -> Present:
        """Who serves."""
        return self._roll.present(time.monotonic())


class Registered:
    """A deployment's registry as workers and the gateway's side see it: what it cannot tell now stays as it was.

    Attributes:
        known: Who served when it was last told.
    """

    def __init__(self, deployment: str) -> None:
        self._name = registry_name(deployment)
        self._actor = self._find()
        self.known = Present()

    async def note(self, half: str, address: str) -> None:
        """This worker serves."""
        await self._learn("note", half, address)

    async def strike(self, half: str, address: str) -> None:
        """This worker takes no more requests."""
        await self._call("strike", half, address)

    async def look(self) -> None:
        """Learns who serves."""
        await self._learn("present")

    def remove(self) -> None:
        """Ends the registry, for everybody."""
        ray.kill(self._actor)

    async def _learn(self, method: str, *arguments: str) -> None:
        told = await self._call(method, *arguments)
        if isinstance(told, Present):
            self.known = told.after(self.known)

    async def _call(self, method: str, *arguments: str) -> object:
        """The actor's reply; None where it does not give one now."""
        try:
            async with asyncio.timeout(CALL_S):
                return await getattr(self._actor, method).remote(*arguments)
        except RayActorError:
            # While it is being started again this finds the same one.
            self._actor = await asyncio.to_thread(self._find)
        except (RayError, TimeoutError):
            pass
        return None

    def _find(self) -> Any:
        """The actor, made where there is none."""
        return (
            ray.remote(Registry)
            .options(
                name=self._name,
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=-1,
                num_cpus=0,
            )
            .remote()
        )


def registry_name(deployment: str) -> str:
    """The name of a deployment's registry."""
    return f"{deployment}-registry"
