"""What vLLM holds in memory of a checkpoint, as JSON: run by vLLM's own Python, with everything in one process."""

import json
import os
import sys
from typing import Any

from lm_server.settings import LanguageSettings
from lm_server.vllm_client import require_vllm
from lm_server.vllm_half import examine


def main(model: str) -> None:
    """Loads the half as the worker would and prints what there is."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    settings = LanguageSettings(
        model=model, listen="h:1", cache="memory://", vision=("h:2",), engine="vllm", kv_bytes=1 << 24
    )
    half = examine(settings)
    require_vllm(threads=1)
    from vllm import LLM

    arguments = {name: value for name, value in half.arguments.items() if name != "enable_log_requests"}
    [told] = LLM(**arguments).apply_model(_told)
    print(json.dumps({**told, "half_bytes": half.report.bytes_read}))


def _told(model: Any) -> dict[str, object]:
    parameters = dict(model.named_parameters())
    return {
        "tower": type(model.visual).__name__,
        "visual": [name for name in parameters if "visual" in name],
        "parameter_bytes": sum(each.numel() * each.element_size() for each in parameters.values()),
    }


if __name__ == "__main__":
    main(sys.argv[1])
