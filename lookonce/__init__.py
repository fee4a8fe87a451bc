"""The command line, the local launcher, and the Python client: `from lookonce import Client, AsyncClient`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lookonce.client import AsyncClient, Client, Question, Sampling

__all__ = ["AsyncClient", "Client", "Question", "Sampling"]


def __getattr__(name: str) -> Any:
    """The client, loaded when it is first asked for: the workers' processes need no HTTP client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lookonce import client

    return getattr(client, name)
