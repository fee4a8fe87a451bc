"""What it costs to have the client at hand."""

import subprocess
import sys

import pytest

from tests.deployment import environment


@pytest.mark.parametrize(
    ("script", "absent"),
    [
        ("from lookonce import AsyncClient, Client", ["torch", "transformers", "grpc", "numpy", "PIL", "pyarrow"]),
        ("import lookonce", ["torch", "transformers", "httpx", "tenacity"]),
    ],
)
def test_the_client_imports_no_model_code(script: str, absent: list[str]) -> None:
    """A program that only asks loads no torch, and a worker that only answers loads no HTTP client."""
    script = f"import sys\n{script}\nprint(sorted(set(sys.modules) & set({absent})))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_another_name_is_not_there() -> None:
    """What the package does not offer is told as Python tells it."""
    with pytest.raises(ImportError, match="Nobody"):
        from lookonce import Nobody  # type: ignore[attr-defined]  # noqa: F401
