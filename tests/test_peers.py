"""Other people's tests, as scenarios: on both engines, under every profile where they apply."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from peers import PEERS, Peer
from scn import SCENARIOS, Answer

from pyksm import Machine, MachineError
from pyksm.core import mkswap
from pyksm.profiles import PROFILES
from pyksm.scenario import parse

FILES = SCENARIOS / "peers"
CASES = [
    (peer, name)
    for peer in PEERS
    for name, profile in PROFILES.items()
    if peer.needs <= profile.features
]


def test_every_file_is_a_case() -> None:
    assert sorted(path.stem for path in FILES.glob("*.ksm")) == sorted(each.name for each in PEERS)


@pytest.mark.parametrize(
    ("peer", "profile"),
    CASES,
    ids=[f"{peer.name}-{profile}" for peer, profile in CASES],
)
def test_peer(peer: Peer, profile: str, engine: str) -> None:
    scenario = parse((FILES / f"{peer.name}.ksm").read_bytes(), peer.name)
    peer.check(Answer(scenario, engine, profile=profile), PROFILES[profile].features)


def test_swapon02(engine: str, tmp_path: Path) -> None:
    """swapon of a missing file, of what is no swap area, and of one that is on already."""
    plain, area = tmp_path / "plain", tmp_path / "area"
    plain.write_bytes(bytes(8 * 4096))
    mkswap(area, 8)
    with Machine(engine) as m:
        m.swap.on(path=str(area))
        for path, code in (
            (tmp_path / "none", errno.ENOENT),
            (plain, errno.EINVAL),
            (area, errno.EBUSY),
        ):
            with pytest.raises(MachineError) as caught:
                m.swap.on(path=str(path))
            assert caught.value.errno == code


@pytest.mark.parametrize("profile", PROFILES)
def test_swapon03(profile: str, engine: str) -> None:
    """The area after the last that there can be is EPERM; LTP wants at least 15 to be possible."""
    with Machine(engine, profile=profile) as m:
        with pytest.raises(MachineError) as caught:
            [m.swap.on(4) for _ in range(33)]
        assert caught.value.errno == errno.EPERM
        assert 15 <= len(m.swap.areas) <= 32
        m.swap.areas[0].off()
        m.swap.on(4)


@pytest.mark.parametrize("profile", ["6.12", "6.18"])
def test_new_vma_of_a_mergeable_process_joins_its_neighbour(profile: str, engine: str) -> None:
    """merge.c, ksm_merge: since cf7e7a3503df (6.17) it has the flag before it may merge."""
    with Machine(engine, profile=profile) as m:
        process = m.spawn()
        process.memory_merge = True
        assert process.memory_merge
        first = process.mmap(4)
        process.mmap(4, addr=first.addr + 4 * 4096)
        joins = "merge-any-joins-vmas" in m.config.features
        assert [vma.mergeable for vma in process.vmas] == [True] * (1 if joins else 2)
        child = process.fork()
        assert child.memory_merge
        child.memory_merge = False
        assert process.memory_merge
        assert not child.memory_merge


@pytest.mark.parametrize("profile", ["3.9", "6.1"])
def test_no_prctl_before_its_time(profile: str, engine: str) -> None:
    with Machine(engine, profile=profile) as m:
        process = m.spawn()
        with pytest.raises(MachineError) as caught:
            process.memory_merge = True
        assert caught.value.errno == errno.EINVAL
