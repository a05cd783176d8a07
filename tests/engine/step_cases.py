"""The kernels of a whole decode step against plain float64; run as a program, so that the interpreter can be chosen."""

import sys
from dataclasses import dataclass

import torch

from engine.kernels import decode_attention as kernel
from engine.kernels.argmax import Feed, Mailbox, advance, argmax_advance, room
from engine.kernels.decode_attention import Parts, decode_attention, workspace
from engine.kernels.rope import HeadNorm

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@dataclass(frozen=True)
class Case:
    """One shape of the attention: `place` columns are in the cache, of all rows or of each; `pads` of them unseen."""

    group: int
    size: int
    tokens: int
    place: int | tuple[int, ...]
    pads: tuple[int, ...] = (0,)
    kv_heads: int = 2
    normed: bool = False
    length: int = 96

    @property
    def places(self) -> tuple[int, ...]:
        return self.place if isinstance(self.place, tuple) else (self.place,) * len(self.pads)

    def __call__(self, dtype: torch.dtype, room: Parts | None = None) -> Parts:
        rows, heads = len(self.pads), self.group * self.kv_heads
        qkv = torch.randn(rows, self.tokens, (heads + 2 * self.kv_heads) * self.size, device=DEVICE).to(dtype)
        cache = torch.randn(2, rows, self.kv_heads, self.length, self.size, device=DEVICE).to(dtype)
        for row, (pad, place) in enumerate(zip(self.pads, self.places, strict=True)):
            cache[:, row, :, :pad] = torch.nan
            cache[:, row, :, place:] = torch.nan  # never to be read
        turns = torch.rand(self.length + 16, self.size // 2, device=DEVICE) * 6
        norm = HeadNorm(*(torch.randn(self.size, device=DEVICE).to(dtype) for _ in range(2)), 1e-6)
        norm = norm if self.normed else None
        pads = torch.tensor(self.pads, device=DEVICE)
        wanted, after = plain(self, qkv, turns, cache, norm)
        sizes = rows, self.tokens, heads, self.kv_heads, self.size, self.length, DEVICE
        room = room or workspace(*sizes)
        keys, values = cache.clone()
        angles, place = (turns.cos(), turns.sin()), torch.tensor(self.place, device=DEVICE).view(-1)
        found = decode_attention(qkv, angles, (keys, values), place, pads, room, norm=norm)
        close(f"{self} {dtype}", found, wanted)
        for name, one, then, was in zip(("keys", "values"), (keys, values), after, cache, strict=True):
            for row, place in enumerate(self.places):
                span = slice(place, place + self.tokens)
                close(f"{name} of {self}", one[row, :, span], then[row, :, : self.length - place])
                one[row, :, span] = was[row, :, span]
            assert torch.equal(one.nan_to_num(7e3), was.nan_to_num(7e3)), f"{self} touches other {name}"
        assert not room.arrived.any(), "the counters are zero again"
        return room


def close(name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    bound = CLOSE[found.dtype] * max(1.0, float(wanted.abs().max()))
    worst = float((found.double() - wanted).abs().max())
    assert worst <= bound, f"{name}: off by {worst}, allowed {bound}"
    assert found.shape == wanted.shape


def turned(x: torch.Tensor, turns: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """x [tokens, heads, size], normalised by `weight` and rotated by `turns` [tokens, size / 2]."""
    if weight is not None:
        x = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    first, second = x.chunk(2, -1)
    cos, sin = turns.double().cos()[:, None], turns.double().sin()[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def plain(case: Case, qkv, turns, cache, norm) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The attention's result, and the new keys and values [rows, kv heads, tokens, size], in float64."""
    kv, results, news = case.kv_heads, [], []
    for row, (pad, place) in enumerate(zip(case.pads, case.places, strict=True)):
        span = range(place, place + case.tokens)
        q, k, v = qkv[row].double().view(case.tokens, -1, case.size).split([case.group * kv, kv, kv], 1)
        angle = turns[[max(0, column - pad) for column in span]]
        q, k = turned(q, angle, norm and norm.q), turned(k, angle, norm and norm.k)
        new = torch.stack((k, v)).transpose(1, 2)
        keys, values = torch.cat((cache[:, row, :, pad:place].double(), new), 2)
        keys, values = (part.repeat_interleave(case.group, 0) for part in (keys, values))
        scores = q.transpose(0, 1) @ keys.transpose(1, 2) / case.size**0.5
        columns = torch.tensor([*range(pad, place), *span])
        seen = (columns >= pad) & (columns <= torch.tensor(span)[:, None])
        weights = scores.masked_fill(~seen.to(DEVICE), -torch.inf).softmax(-1)
        mixed = weights.nan_to_num(0) @ values  # a token that sees nothing is zero
        results.append(mixed.transpose(0, 1).flatten(1))
        news.append(new)
    return torch.stack(results), list(torch.stack(news, 1))


CASES = (
    Case(group=1, size=64, tokens=1, place=0),
    Case(group=3, size=64, tokens=1, place=16, pads=(0, 5, 16)),
    Case(group=3, size=64, tokens=1, place=95, normed=True),
    Case(group=4, size=128, tokens=3, place=31, pads=(2, 31, 17)),
    Case(group=4, size=16, tokens=8, place=32, pads=(33, 0, 40), kv_heads=1),
    Case(group=8, size=128, tokens=1, place=33, normed=True),
    Case(group=8, size=64, tokens=8, place=64, pads=(0, 20, 63), normed=True),
    Case(group=3, size=96, tokens=3, place=80, pads=(48, 0, 79), normed=True),
    Case(group=1, size=128, tokens=8, place=88, kv_heads=4),
    Case(group=1, size=16, tokens=16, place=47, pads=(1, 2, 3)),
    Case(group=3, size=64, tokens=1, place=(16, 95, 0, 40), pads=(16, 0, 0, 3), normed=True),
    Case(group=2, size=16, tokens=4, place=(31, 94), pads=(5, 0), kv_heads=1),
    Case(group=2, size=16, tokens=4, place=94, pads=(90, 0)),  # past the end: not written, not even into the next head
)


def feed(rows: int, vocabulary: int, slots: int, dtype: torch.dtype) -> Feed:
    numbers = [torch.zeros(*shape, dtype=torch.int64, device=DEVICE) for shape in ((rows,), (1,), (1,), (slots, rows))]
    embedding = torch.randn(vocabulary, 40, device=DEVICE).to(dtype)
    return Feed(*numbers, Mailbox(slots, rows, DEVICE), embedding, torch.zeros(rows, 40, dtype=dtype, device=DEVICE))


def choices(dtype: torch.dtype) -> None:
    """Greedy choices of five steps, with equals in one block and across blocks, banned ids, and a ring of three."""
    for rows, vocabulary in ((1, 37), (3, 5000), (3, 4096)):
        end, peaks = feed(rows, vocabulary, 3, dtype), room(rows, vocabulary, DEVICE)
        banned = torch.tensor([7, vocabulary - 1], device=DEVICE)
        for step in range(5):
            logits = torch.randn(rows, vocabulary, device=DEVICE).to(dtype)
            logits[:, banned] = 50.0
            logits[:, [vocabulary - 2, 11, vocabulary - 3, 30]] = 40.0
            bans = banned if step % 2 else None
            argmax_advance(logits, end, peaks, bans)
            wanted = logits.index_fill(-1, banned, -torch.inf).argmax(-1) if step % 2 else logits.argmax(-1)
            check_end(end, step, wanted.tolist())
            assert not peaks.met.any()
        advance(wanted + 1, end)
        check_end(end, 5, [number + 1 for number in wanted.tolist()])


def check_end(end: Feed, step: int, wanted: list[int]) -> None:
    assert end.tokens.tolist() == wanted == end.ring[step % 3].tolist(), (step, end.tokens, wanted)
    assert end.mailbox.read(step, 5.0) == wanted
    assert end.place.item() == end.step.item() == step + 1 and not end.arrived.any()
    assert torch.equal(end.hidden, end.embedding[end.tokens])


def broken() -> None:
    """A row with a NaN, or with nothing finite, says so and harms no other; without a mailbox the ring says it."""
    for boxed in (True, False):
        end, peaks = feed(4, 3000, 2, torch.float32), room(4, 3000, DEVICE)
        end.mailbox = end.mailbox if boxed else None
        logits = torch.zeros(4, 3000, device=DEVICE)
        logits[0, 2500], logits[1], logits[2, 2999], logits[3, 5] = torch.nan, -torch.inf, torch.inf, 1.0
        argmax_advance(logits, end, peaks)
        assert end.ring[0].tolist() == [-1, -1, 2999, 5] and end.tokens.tolist() == [0, 0, 2999, 5]
        if boxed:
            assert end.mailbox.read(0, 5.0) == [-1, -1, 2999, 5]


def main() -> None:
    torch.manual_seed(0)
    for dtype in CLOSE:
        choices(dtype)
    broken()
    for case in CASES:
        case(torch.float32)
    kernel.NARROW = kernel.BROAD = 16, 2
    kernel.LEAST = 1  # many parts in a short cache
    for case in CASES:
        assert case(torch.float32, case(torch.float32)).splits == 6
    for case in CASES[2::2]:
        for dtype in (torch.bfloat16, torch.float16):
            case(dtype)
    print("every kernel of the step agrees")


if __name__ == "__main__":
    main()
