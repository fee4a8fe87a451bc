"""One command line for a whole deployment."""

import socket
from pathlib import Path
from typing import Any

import pytest
import typer

from lookonce.errors import PortTaken
from lookonce.models import DEMO_DIR, model_dir, named
from lookonce.serve_settings import CACHE_BYTES, free_ports, from_environment, serve_options, serve_settings

MODEL = str(DEMO_DIR)


def settings_with(**values: Any) -> Any:
    """The settings of `serve`, the rest as by default."""
    return serve_settings(from_environment(**{"model": MODEL, "port": 0} | values))


def test_every_setting_of_every_process_is_offered_once() -> None:
    """`serve` takes what its processes take, but for the addresses that it decides itself."""
    names = [setting.name for setting, _ in serve_options()]
    assert len(names) == len(set(names))
    assert {"kv_bytes", "kv_host_bytes", "kv_disk_dir", "kv_disk_bytes", "draft_tokens"} <= set(names)
    assert {"max_image_tokens", "tokens_file", "limit_images", "device_map", "cache_bytes"} <= set(names)
    assert not {"listen", "vision", "language"} & set(names)


def test_the_processes_know_each_other() -> None:
    """Workers are on loopback ports that the gateway and the language worker are told."""
    settings = settings_with()
    assert settings.language.vision == settings.gateway.vision == (settings.vision.listen,)
    assert settings.gateway.language == (settings.language.listen,)
    assert settings.vision.listen.startswith("127.0.0.1:")
    assert settings.gateway.port not in (0, 8000)


def test_a_setting_of_several_processes_reaches_all_of_them() -> None:
    """--dtype and --grace-s are said once."""
    settings = settings_with(dtype="bfloat16", grace_s=3.0)
    assert (settings.vision.dtype, settings.language.dtype) == ("bfloat16", "bfloat16")
    assert settings.vision.grace_s == settings.language.grace_s == settings.gateway.grace_s == 3.0


def test_without_a_cache_the_store_is_embedded_and_entries_fit_it() -> None:
    """The largest entry is cut to the embedded store's memory; a store that is given is used as it is."""
    small = settings_with(cache_bytes=128 << 20)
    assert small.cache_bytes == 128 << 20
    assert small.vision.max_entry_bytes == small.language.max_entry_bytes == 32 << 20
    given = settings_with(cache="redis://elsewhere")
    assert given.cache_bytes is None
    assert given.vision.cache == given.language.cache == "redis://elsewhere"
    assert given.vision.max_entry_bytes == 256 << 20


def test_workers_take_turns_through_one_file() -> None:
    """The launcher's, unless the user names another."""
    settings = settings_with().with_turns("/run/turns")
    assert settings.vision.turns == settings.language.turns == "/run/turns"
    given = settings_with(turns="/run/mine").with_turns("/run/turns")
    assert given.vision.turns == given.language.turns == "/run/mine"


def test_an_embedded_store_has_a_least_size() -> None:
    """A store that holds hardly an image is refused."""
    with pytest.raises(typer.BadParameter, match="at least 64MiB"):
        CACHE_BYTES.read("1MiB")


def test_the_environment_is_read_where_no_flag_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ask --model` obeys the same variables as `serve`; a bad one is named."""
    monkeypatch.setenv("LOOKONCE_DTYPE", "float16")
    monkeypatch.setenv("LOOKONCE_PORT", "1")
    values = from_environment(model=MODEL, port=0)
    assert (values["dtype"], values["port"]) == ("float16", 0)
    monkeypatch.setenv("LOOKONCE_KV_BYTES", "plenty")
    with pytest.raises(typer.BadParameter, match="LOOKONCE_KV_BYTES"):
        from_environment(model=MODEL)


def test_the_tiers_below_the_key_value_memory_fit_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 turns the host tier off; a disk tier without it is refused, naming both settings."""
    monkeypatch.setenv("LOOKONCE_KV_HOST_BYTES", "0")
    assert settings_with().language.kv_host_bytes == 0
    with pytest.raises(typer.BadParameter, match="kv_disk_dir needs kv_host_bytes"):
        settings_with(kv_disk_dir="somewhere")


def test_a_taken_port_is_named_before_anything_starts() -> None:
    """The message has the port and the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port}: Address already in use.*--port"):
            settings_with(port=port)


def test_free_ports_differ() -> None:
    """Ports that are asked for together are not the same."""
    assert len(set(free_ports(20))) == 20


def test_a_model_is_a_directory_or_the_demo(tmp_path: Path) -> None:
    """`demo` is the shipped checkpoint under its own name; a directory must hold a config.json."""
    assert model_dir("demo") == MODEL
    assert named({"model": MODEL, "model_name": None})["model_name"] == "demo"
    assert named({"model": MODEL, "model_name": "mine"})["model_name"] == "mine"
    with pytest.raises(typer.BadParameter, match="is not a directory; give"):
        model_dir(str(tmp_path / "gone"))
    with pytest.raises(typer.BadParameter, match=r"holds no config\.json"):
        model_dir(str(tmp_path))
