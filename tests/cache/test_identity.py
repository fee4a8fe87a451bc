"""Keys and ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import InvalidIdentity, check_image_id, check_tenant, entry_key, image_id, lease_key, original_key
from tests.cache.sample import FINGERPRINT, IMAGE_ID


def test_an_id_depends_on_bytes_and_options() -> None:
    """The same bytes and options give the same id, whatever the options' order; any other give another."""
    base = image_id(b"bytes", {"a": 1, "b": "2"})
    assert base == image_id(memoryview(b"bytes"), {"b": "2", "a": 1})
    others = [
        image_id(b"bytes.", {"a": 1, "b": "2"}),
        image_id(b"bytes", {"a": 1}),
        image_id(b"bytes", {"a": "1", "b": "2"}),
    ]
    assert len({base, *others}) == 4
    assert check_image_id(base) == base


def test_bytes_cannot_pass_for_options() -> None:
    """An upload that begins like the options of another id does not get that id."""
    assert image_id(b'{"a":1}x', {}) != image_id(b"x", {"a": 1})


def test_keys_are_as_documented() -> None:
    """Entry, original and lease of an image share the part in braces, and the empty tenant is public."""
    assert lease_key(IMAGE_ID, FINGERPRINT, "") == f"lookonce:{{{'ab' * 20}}}:lease:{FINGERPRINT}:public"
    assert entry_key(IMAGE_ID, FINGERPRINT, "") == f"lookonce:{{{'ab' * 20}}}:{FINGERPRINT}:public"
    assert original_key(IMAGE_ID, "acme") == f"lookonce:{{{'ab' * 20}}}:original:acme"


@pytest.mark.parametrize(
    "tenant", ["a\0b", "a:b", "{a}", "a" * 65, "a" * 1_000_000, "../x", " a", "a\n", "é", "a/b", "-a", "*"]
)
def test_a_tenant_that_could_leave_its_place_is_refused(tenant: str) -> None:
    """Separators, control characters and long names cannot be part of a key, and are not repeated in the message."""
    with pytest.raises(InvalidIdentity) as caught:
        check_tenant(tenant)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "wrong", ["", "img_", "../etc", "img_" + "AB" * 20, "img_" + "ab" * 21, IMAGE_ID + "\n", "x" + IMAGE_ID]
)
def test_an_image_id_of_another_form_is_refused(wrong: str) -> None:
    """Only ids as the server makes them can be part of a key."""
    with pytest.raises(InvalidIdentity):
        original_key(wrong, "public")


@pytest.mark.parametrize("wrong", ["", "original", "g" * 32, "a" * 15, "a" * 129])
def test_a_fingerprint_of_another_form_is_refused(wrong: str) -> None:
    """No fingerprint can make an entry's key that of an original."""
    with pytest.raises(InvalidIdentity):
        entry_key(IMAGE_ID, wrong, "public")


@given(one=st.text(max_size=12), two=st.text(max_size=12))
def test_two_tenants_never_share_a_key(one: str, two: str) -> None:
    """Different accepted tenants have different keys."""
    try:
        keys = {original_key(IMAGE_ID, one), original_key(IMAGE_ID, two)}
    except InvalidIdentity:
        return
    assert len(keys) == 2 or (one or "public") == (two or "public")
