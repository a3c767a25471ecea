"""The oracle's xxHash against what its author publishes, and against itself at every length."""

from __future__ import annotations

import pytest

from pyksm.oracle.xxhash import xxh64


def sanity_buffer(length: int) -> bytes:
    """The bytes that the reference implementation's own checks are made of."""
    prime32, prime64 = 2654435761, 11400714785074694797
    state, out = prime32, bytearray()
    for _ in range(length):
        out.append(state >> 56)
        state = state * prime64 & 0xFFFFFFFFFFFFFFFF
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "seed", "wanted"),
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"", 1, 0xD5AFBA1336A3BE4B),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"abc", 0, 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        (sanity_buffer(0), 0, 0xEF46DB3751D8E999),
        (sanity_buffer(0), 2654435761, 0xAC75FDA2929B17EF),
        (sanity_buffer(1), 0, 0xE934A84ADB052768),
        (sanity_buffer(1), 2654435761, 0x5014607643A9B4C3),
        (sanity_buffer(4), 0, 0x9136A0DCA57457EE),
        (sanity_buffer(14), 0, 0x8282DCC4994E35C8),
        (sanity_buffer(14), 2654435761, 0xC3BD6BF63DEB6DF0),
        (sanity_buffer(222), 0, 0xB641AE8CB691C174),
        (sanity_buffer(222), 2654435761, 0x20CB8AB7AE10C14A),
        (bytes(4096), 0, 0xAC869B6F32D8BBDB),
    ],
)
def test_published(data: bytes, seed: int, wanted: int) -> None:
    assert xxh64(data, seed) == wanted


def test_every_byte_counts() -> None:
    for length in (1, 4, 8, 31, 32, 63, 96):
        data = bytes(range(length))
        hashes = {xxh64(data[:at] + b"\xff" + data[at + 1 :]) for at in range(length)}
        assert len(hashes) == length
        assert xxh64(data) not in hashes
