"""What the language worker makes of its settings."""

import dataclasses

import pytest

from lm_server.main import DEFAULT_HOST_BYTES, lower_tiers
from lm_server.settings import LanguageSettings

SETTINGS = LanguageSettings(model="m", listen="127.0.0.1:0", cache="memory://", vision=())
TOKEN_BYTES = 1000


@pytest.mark.parametrize(
    ("given", "on_accelerator", "host_bytes", "disk_bytes"),
    [
        ({}, False, 0, 0),
        ({}, True, DEFAULT_HOST_BYTES, 0),
        ({"kv_host_bytes": 0}, True, 0, 0),
        ({"kv_host_bytes": 50_000}, False, 50_000, 0),
        ({"kv_disk_dir": "d"}, False, DEFAULT_HOST_BYTES, SETTINGS.kv_disk_bytes),
        ({"kv_disk_dir": "d", "kv_host_bytes": 50_000, "kv_disk_bytes": 90_000}, True, 50_000, 90_000),
    ],
)
def test_the_tiers_are_as_large_as_was_said(
    given: dict[str, object], on_accelerator: bool, host_bytes: int, disk_bytes: int
) -> None:
    """Bytes become tokens; unsaid, there is a host tier where memory is of two kinds, and no disk tier."""
    settings = dataclasses.replace(SETTINGS, **given)  # type: ignore[arg-type]
    tiers = lower_tiers(settings, TOKEN_BYTES, on_accelerator=on_accelerator)
    if not host_bytes:
        assert tiers is None
        return
    assert tiers is not None
    assert (tiers.host_tokens, tiers.disk_tokens) == (host_bytes // TOKEN_BYTES, disk_bytes // TOKEN_BYTES)


def test_fewer_than_no_drafts_are_refused() -> None:
    """0 is none, which is the default; less names the setting."""
    assert SETTINGS.draft_tokens == 0
    with pytest.raises(ValueError, match="draft_tokens"):
        dataclasses.replace(SETTINGS, draft_tokens=-1)
