"""What is sent to load and unload LoRA adapters, and what is told of them."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.schema import Ignored, Input, NonEmptyText, Output

MAX_PATH_CHARS = 4096
AdapterName = Annotated[NonEmptyText, Field(max_length=128)]
AdapterPath = Annotated[NonEmptyText, Field(max_length=MAX_PATH_CHARS)]


class LoadAdapterBody(Input):
    """An adapter to be served by every language worker."""

    lora_name: AdapterName = Field(description="What requests name as their `model`.")
    lora_path: AdapterPath = Field(description="A directory on the language workers' hosts, as PEFT writes it.")
    load_inplace: Ignored = None


class UnloadAdapterBody(Input):
    """An adapter to be served no longer."""

    lora_name: AdapterName
    lora_int_id: Ignored = None


class AdapterBody(Output):
    """An adapter that every language worker has loaded."""

    id: str
    object: Literal["lora_adapter"]
    parent: str
    created: int
    rank: int
    bytes: int = Field(description="Of its weights, in the memory of each worker.")


class UnloadedAdapter(Output):
    """An adapter that no language worker serves any more."""

    id: str
    object: Literal["lora_adapter"]
    unloaded: bool
