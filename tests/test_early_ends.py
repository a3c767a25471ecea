"""Loops that the core does in bulk end early, or are disturbed: core and oracle count alike.

Pages lie at the ends and in the middle of page tables, with none, present and swapped ones between.
"""

from __future__ import annotations

import pytest

from pyksm.scenario import parse, run
from pyksm.testing import examine

MIXED = """\
machine frames=3000 profile={profile}
spawn A
spawn B
mmap A r 1100
mmap B r 1100
write A r[0:3] 1+
write A r[200:205] 7
write A r[509:516] 20+
write A r[1099] 9
write B r[1:4] 7
write B r[508:515] 7
write B r[1023:1026] 30+
madvise A r mergeable
madvise B r mergeable
scan 3
swapon S 64
swapout *
read A r[201:203]
read A r[511]
read B r[2]
write A r[300:303] 3
fork B C
"""


@pytest.mark.parametrize("kind", ["page", "read", "signal"])
@pytest.mark.parametrize("profile", ["3.9", "6.1", "6.18"])
def test_swapoff_that_fails(profile: str, kind: str) -> None:
    for nth in (1, 4, 9):
        text = MIXED.format(profile=profile) + f"inject {kind} {nth}\nswapoff S\nobserve failed\n"
        scenario = parse(text + "swapoff S\nobserve end\nread A r\nread B r\n")
        assert examine(scenario) == [], nth


def test_swapoff_that_fails_does_fail() -> None:
    """Else the test above would look at nothing."""
    for kind, errno in (("page", "ENOMEM"), ("signal", "EINTR")):
        text = MIXED.format(profile="6.18") + f"inject {kind} 2\nswapoff S\n"
        assert run(parse(text), "core")["results"][-1]["errno"] == errno


@pytest.mark.parametrize("point", ["try_to_unuse:lock_page", "try_to_unuse:next_entry"])
@pytest.mark.parametrize(
    "other",
    [
        "read A r[0:3]",
        "read A r[509:516]",
        "madvise A r[512:516] dontneed",
        "write A r[200:600] 50+",
        "exit C",
        "munmap B r[500:1030]",
        "swapout *",
    ],
)
def test_swapoff_disturbed(point: str, other: str) -> None:
    for nth in (1, 4):
        text = MIXED.format(profile="6.18") + f"at {point} {nth} {other}\nswapoff S\n"
        scenario = parse(text + "observe end\ncensus\nread A r\nread B r\n")
        assert examine(scenario) == [], nth


PRESSED = """\
machine frames=3000 profile={profile}
spawn A
spawn B
mmap A r 700
mmap B r 700
write A r[0:150] 1+
write A r[480:560] 200+
write B r[100:180] 400+
swapon S 600
"""


@pytest.mark.parametrize("what", ["*", "A r[0:500]", "B r[150:700]"])
@pytest.mark.parametrize(
    "other", ["", "read A r[100:130]", "write A r[300:310] 9", "write B r[150:160] 5", "exit B"]
)
def test_swapout_disturbed(what: str, other: str) -> None:
    """Without a hook no pte is looked at twice; with one, pages come back behind what was seen."""
    for profile in ("4.19", "6.18"):
        for nth in (1, 14) if other else (0,):
            at = f"at shrink_zone:begin {nth} {other}\n" if other else ""
            text = PRESSED.format(profile=profile) + f"{at}swapout {what}\nobserve out\n"
            scenario = parse(text + "swapout *\nobserve end\nswapoff S\nread A r\n")
            assert examine(scenario) == [], (profile, nth)
