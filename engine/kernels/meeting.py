"""A barrier of programs that all run at once: what one wrote before it, every other one reads after it.

Programs arrive, may ask for what depends on nobody, and then wait: `arrive`, loads, `met`. A wait is bounded: one that
has lasted for `PATIENCE` looks, in all barriers of a launch, gives up for good, so that no grid ever hangs. What was
written elsewhere needs no special loads: that one thread has acquired at the GPU's scope, and the others have met it in
the program's own barrier, forbids older values by PTX's memory model, and ptxas makes the look an invalidation of the
multiprocessor's first cache (CCTL.IVALL). Source: PTX ISA, memory consistency model; as cooperative_groups' sync().
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
PATIENCE = 1 << 20
"""Looks of a launch: each takes a third of a microsecond or more, and a step of a small model needs some thousand."""
GONE, BROKEN, WORDS = tl.constexpr(32), tl.constexpr(33), 64
"""Where in its int32 [WORDS], zero at first, a barrier counts who has left and marks who gave up; arrivals are at 0."""


@triton.jit
def arrive(state):
    """All of the program's writes so far come before what others do after they have met."""
    tl.debug_barrier()  # every thread has written before one of them says so
    tl.atomic_add(state, 1, sem="release", scope="gpu")


@triton.jit
def met(state, arrivals, patience):
    """Wait until there were so many arrivals since the launch; the looks that are left, 0 after giving up."""
    if INTERPRETED:
        patience = tl.where(tl.load(state) >= arrivals, patience, 0)
    else:  # the first thread alone looks: all of them would keep others' arrivals waiting
        patience = tl.inline_asm_elementwise(
            """{
            .reg .pred over;
            .reg .b32 seen, left;
            mov.b32 left, $3;
            mov.u32 seen, %tid.x;
            setp.ne.u32 over, seen, 0;
            @over bra done;
            again:
            setp.le.s32 over, left, 0;
            @over bra done;
            sub.s32 left, left, 1;
            ld.acquire.gpu.global.s32 seen, [$1];
            setp.lt.s32 over, seen, $2;
            @over bra again;
            done:
            mov.b32 $0, left;
            }""",
            "=r,l,r,r", [state, arrivals, patience], dtype=tl.int32, is_pure=False, pack=1,
        )  # fmt: skip
        tl.debug_barrier()
    return patience


@triton.jit
def leave(state, patience, PROGRAMS: tl.constexpr):
    """After the last wait: whoever gave up says so, and the last to leave makes the barrier ready for a next launch."""
    if patience <= 0:
        tl.store(state + BROKEN, 1)
    if tl.atomic_add(state + GONE, 1, sem="acq_rel", scope="gpu") == PROGRAMS - 1:
        tl.store(state + GONE, 0)
        tl.store(state, 0)
