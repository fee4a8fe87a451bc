from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeRequest(_message.Message):
    __slots__ = ("tenant", "image", "image_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    image: bytes
    image_id: str
    def __init__(self, tenant: _Optional[str] = ..., image: _Optional[bytes] = ..., image_id: _Optional[str] = ...) -> None: ...

class FetchEmbeddingRequest(_message.Message):
    __slots__ = ("tenant", "image_id", "fingerprint")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    image_id: str
    fingerprint: str
    def __init__(self, tenant: _Optional[str] = ..., image_id: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class EntryChunk(_message.Message):
    __slots__ = ("data", "total_bytes", "encoded")
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    total_bytes: int
    encoded: bool
    def __init__(self, data: _Optional[bytes] = ..., total_bytes: _Optional[int] = ..., encoded: _Optional[bool] = ...) -> None: ...

class GetImageRequest(_message.Message):
    __slots__ = ("tenant", "image_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    image_id: str
    def __init__(self, tenant: _Optional[str] = ..., image_id: _Optional[str] = ...) -> None: ...

class DeleteImageRequest(_message.Message):
    __slots__ = ("tenant", "image_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    image_id: str
    def __init__(self, tenant: _Optional[str] = ..., image_id: _Optional[str] = ...) -> None: ...

class DeleteImageResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class Grid(_message.Message):
    __slots__ = ("t", "h", "w")
    T_FIELD_NUMBER: _ClassVar[int]
    H_FIELD_NUMBER: _ClassVar[int]
    W_FIELD_NUMBER: _ClassVar[int]
    t: int
    h: int
    w: int
    def __init__(self, t: _Optional[int] = ..., h: _Optional[int] = ..., w: _Optional[int] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("image_id", "width", "height", "bytes", "image_tokens", "grid", "cached", "created", "expires_at", "entry_bytes")
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ENTRY_BYTES_FIELD_NUMBER: _ClassVar[int]
    image_id: str
    width: int
    height: int
    bytes: int
    image_tokens: int
    grid: Grid
    cached: bool
    created: int
    expires_at: int
    entry_bytes: int
    def __init__(self, image_id: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., bytes: _Optional[int] = ..., image_tokens: _Optional[int] = ..., grid: _Optional[_Union[Grid, _Mapping]] = ..., cached: _Optional[bool] = ..., created: _Optional[int] = ..., expires_at: _Optional[int] = ..., entry_bytes: _Optional[int] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VisionInfo(_message.Message):
    __slots__ = ("model", "family", "fingerprint", "checkpoint", "dtype", "device", "hidden_size", "num_deepstack", "spatial_merge_size", "entry_format", "tensors", "parameters", "bytes_read", "max_image_bytes", "max_image_pixels", "max_image_tokens", "store", "store_healthy", "counters", "entry_ttl_s", "original_ttl_s", "max_entry_bytes", "now")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_DEEPSTACK_FIELD_NUMBER: _ClassVar[int]
    SPATIAL_MERGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FORMAT_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    BYTES_READ_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    STORE_HEALTHY_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_TTL_S_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_TTL_S_FIELD_NUMBER: _ClassVar[int]
    MAX_ENTRY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NOW_FIELD_NUMBER: _ClassVar[int]
    model: str
    family: str
    fingerprint: str
    checkpoint: Checkpoint
    dtype: str
    device: str
    hidden_size: int
    num_deepstack: int
    spatial_merge_size: int
    entry_format: int
    tensors: int
    parameters: int
    bytes_read: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_tokens: int
    store: str
    store_healthy: bool
    counters: _containers.ScalarMap[str, float]
    entry_ttl_s: float
    original_ttl_s: float
    max_entry_bytes: int
    now: float
    def __init__(self, model: _Optional[str] = ..., family: _Optional[str] = ..., fingerprint: _Optional[str] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., dtype: _Optional[str] = ..., device: _Optional[str] = ..., hidden_size: _Optional[int] = ..., num_deepstack: _Optional[int] = ..., spatial_merge_size: _Optional[int] = ..., entry_format: _Optional[int] = ..., tensors: _Optional[int] = ..., parameters: _Optional[int] = ..., bytes_read: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_image_tokens: _Optional[int] = ..., store: _Optional[str] = ..., store_healthy: _Optional[bool] = ..., counters: _Optional[_Mapping[str, float]] = ..., entry_ttl_s: _Optional[float] = ..., original_ttl_s: _Optional[float] = ..., max_entry_bytes: _Optional[int] = ..., now: _Optional[float] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("config", "vision", "language")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    VISION_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    config: str
    vision: str
    language: str
    def __init__(self, config: _Optional[str] = ..., vision: _Optional[str] = ..., language: _Optional[str] = ...) -> None: ...
