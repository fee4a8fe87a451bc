"""What vLLM's own workers need of ours. Imported there alone, before they make the model (`worker_extension_cls`)."""

from typing import Any

from vllm.distributed.parallel_state import get_pp_group
from vllm.model_executor.models.registry import ModelRegistry

DEEPSTACK_MODELS = {
    "Qwen3VLForConditionalGeneration": "lm_server.vllm_deepstack:TowerlessQwen3VL",
    "Qwen3VLMoeForConditionalGeneration": "lm_server.vllm_deepstack:TowerlessQwen3VLMoe",
}

for architecture, place in DEEPSTACK_MODELS.items():
    ModelRegistry.register_model(architecture, place)


class WorkerExtension:
    """A method more for each of vLLM's workers, which vLLM puts among its bases."""

    model_runner: Any

    def make_stage_room(self) -> None:
        """Room for what the stage in front sends.

        vLLM makes it in a run to warm up, which its CPU worker leaves out where the key/value memory is given in bytes;
        the first question would end its processes.
        """
        runner = self.model_runner
        if get_pp_group().is_first_rank or runner.intermediate_tensors is not None:
            return
        runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
            batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
        )
