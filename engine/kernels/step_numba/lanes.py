"""Vectors and job counters for loops that numba compiles: what step/vector.h and step/team.h are to the C++ step.

A vector is an LLVM value with a power of two of lanes, float32 or int32. Memory is named by its address, an int64.
"""

import operator
import os
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic, models, overload, register_model

FLOAT, INT, WORD, BYTE = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(8)
NUMBERS = {"float32": FLOAT, "int32": INT}
SUMMED = binding.get_host_cpu_features().get("avx512vnni", False)
"""Whether one instruction multiplies bytes by bytes and adds four products."""
PATIENCE = 4096
"""Looks at a barrier before the core is offered to others."""
together = njit(nogil=True, error_model="numpy", forceinline=True)


class Lanes(types.Type):
    """The type of a vector of `count` numbers."""

    def __init__(self, number: str, count: int):
        self.number, self.count = number, count
        super().__init__(f"{count} lanes of {number}")


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes):
        super().__init__(manager, lanes, ir.VectorType(NUMBERS[lanes.number], lanes.count))


def _emit(signature: Any, build: Callable) -> tuple:
    """What an intrinsic hands to numba; `build` writes the code and returns its value, if it has one."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        made = build(builder, *values)
        return context.get_dummy_value() if signature.return_type == types.void else made

    return signature, code


def _at(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type) -> ir.Value:
    return builder.inttoptr(address, kind.as_pointer())


def _shuffled(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: list[int]) -> ir.Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(lanes)), lanes))


def _parts(builder: ir.IRBuilder, v: ir.Value, count: int) -> list[ir.Value]:
    firsts = range(0, v.type.count, count)
    return [_shuffled(builder, v, v, list(range(first, first + count))) for first in firsts]


def _pairwise(parts: list[ir.Value], joined: Callable) -> ir.Value:
    while len(parts) > 1:
        parts = [joined(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    return _pairwise(parts, lambda a, b: _shuffled(builder, a, b, list(range(2 * a.type.count))))


def _splat(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    empty = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    return _shuffled(builder, builder.insert_element(empty, value, INT(0)), empty, [0] * count)


def _called(builder: ir.IRBuilder, name: str, result: ir.Type, *values: ir.Value, **how: Any) -> ir.Value:
    """A call of one of LLVM's own functions; a star in its name stands for the type of the last value."""
    last = values[-1].type
    if "*" in name:
        name = name.replace("*", f"v{last.count}{'f32' if last.element == FLOAT else 'i32'}")
    kind = ir.FunctionType(result, [value.type for value in values])
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), values, **how)


def _loading(number: str) -> tuple[Callable, Callable]:
    @intrinsic(prefer_literal=True)
    def load(context, address, count):
        """`count` neighbouring numbers."""
        kind = ir.VectorType(NUMBERS[number], count.literal_value)
        build = lambda builder, at, _: builder.load(_at(builder, at, kind), align=4)  # noqa: E731
        return _emit(Lanes(number, count.literal_value)(types.int64, count), build)

    @intrinsic(prefer_literal=True)
    def spread(context, address, stride, several, count):
        """`several` numbers that lie `stride` bytes apart, each in `count` lanes."""

        def build(builder, at, stride, *_):
            parts = []
            for _ in range(several.literal_value):
                value = builder.load(_at(builder, at, NUMBERS[number]), align=1)
                parts.append(_splat(builder, value, count.literal_value))
                at = builder.add(at, stride)
            return _joined(builder, parts)

        lanes = Lanes(number, several.literal_value * count.literal_value)
        return _emit(lanes(types.int64, types.int64, several, count), build)

    return load, spread


floats, spread_floats = _loading("float32")
wholes, spread_wholes = _loading("int32")


@intrinsic
def store(context, address, v):
    build = lambda builder, at, v: builder.store(v, _at(builder, at, v.type), align=4)  # noqa: E731
    return _emit(types.void(types.int64, v), build)


@intrinsic
def store_bytes(context, address, v):
    """The lowest byte of each whole number."""
    kind = ir.VectorType(BYTE, v.count)

    def build(builder, at, v):
        builder.store(builder.trunc(v, kind), _at(builder, at, kind), align=1)

    return _emit(types.void(types.int64, v), build)


@intrinsic(prefer_literal=True)
def repeated(context, v, several):
    """The vector, `several` times over."""
    lanes = Lanes(v.number, v.count * several.literal_value)
    return _emit(lanes(v, several), lambda builder, v, _: _joined(builder, [v] * several.literal_value))


@intrinsic
def joined(context, a, b):
    """The lanes of one vector, and then those of the other."""
    return _emit(Lanes(a.number, 2 * a.count)(a, a), lambda builder, a, b: _joined(builder, [a, b]))


@intrinsic(prefer_literal=True)
def splat(context, number, count):
    """One number in `count` lanes, of float32 if it has a fraction and of int32 if not."""
    kind = types.float32 if isinstance(number, types.Float) else types.int32
    lanes = Lanes(kind.name, count.literal_value)
    return _emit(lanes(kind, count), lambda builder, value, _: _splat(builder, value, lanes.count))


@intrinsic
def fused(context, a, b, c):
    """a * b + c, rounded once."""
    return _emit(a(a, b, c), lambda builder, *abc: _called(builder, "llvm.fma.*", abc[0].type, *abc))


@intrinsic
def converted(context, v):
    """Whole numbers as floats, or floats, cut, as whole numbers."""
    to = Lanes("float32" if v.number == "int32" else "int32", v.count)
    kind, name = ir.VectorType(NUMBERS[to.number], v.count), "sitofp" if v.number == "int32" else "fptosi"
    return _emit(to(v), lambda builder, v: getattr(builder, name)(v, kind))


@intrinsic
def bits(context, v):
    """The float32 numbers that these bits are."""
    kind = ir.VectorType(FLOAT, v.count)
    return _emit(Lanes("float32", v.count)(v), lambda builder, v: builder.bitcast(v, kind))


@intrinsic
def larger(context, a, b):
    return _emit(a(a, b), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@intrinsic
def total(context, v):
    """The sum over all lanes: of floats in any order."""

    def build(builder, v):
        if v.type.element == INT:
            return _called(builder, "llvm.vector.reduce.add.*", INT, v)
        return _called(builder, "llvm.vector.reduce.fadd.*", FLOAT, FLOAT(0), v, fastmath=("reassoc",))

    return _emit((types.int32 if v.number == "int32" else types.float32)(v), build)


@intrinsic
def largest(context, v):
    return _emit(types.float32(v), lambda builder, v: _called(builder, "llvm.vector.reduce.fmax.*", FLOAT, v))


@intrinsic(prefer_literal=True)
def folded(context, v, count):
    """The sum of the vector's parts of `count` lanes."""
    build = lambda builder, v, _: _pairwise(_parts(builder, v, count.literal_value), builder.fadd)  # noqa: E731
    return _emit(Lanes(v.number, count.literal_value)(v, count), build)


@intrinsic
def summed(context, sums, unsigned4, signed4):
    """sums + the products of four unsigned bytes with four signed ones, in each lane."""

    def at_once(builder, *given):
        parts = zip(*(_parts(builder, v, 16) for v in given), strict=True)
        kind = ir.VectorType(INT, 16)
        return _joined(builder, [_called(builder, "llvm.x86.avx512.vpdpbusd.512", kind, *part) for part in parts])

    def one_by_one(builder, sums, unsigned4, signed4):
        number = lambda value: ir.Constant(sums.type, [value] * sums.type.count)  # noqa: E731
        for bit in range(0, 32, 8):
            first = builder.and_(builder.lshr(unsigned4, number(bit)), number(255))
            second = builder.ashr(builder.shl(signed4, number(24 - bit)), number(24))
            sums = builder.add(sums, builder.mul(first, second))
        return sums

    return _emit(sums(sums, unsigned4, signed4), at_once if SUMMED else one_by_one)


def _operate(sign: Callable, on_floats: str, on_wholes: str) -> None:
    @intrinsic
    def both(context, a, b):
        name = on_floats if a.number == "float32" else on_wholes
        return _emit(a(a, b), lambda builder, a, b: getattr(builder, name)(a, b))

    @overload(sign, jit_options={"forceinline": True})
    def chosen(a, b):
        """Two vectors, or a vector and one number."""
        if not isinstance(a, Lanes):
            return None
        count = a.count
        return (lambda a, b: both(a, b)) if isinstance(b, Lanes) else lambda a, b: both(a, splat(b, count))


for _sign, *_names in (
    (operator.add, "fadd", "add"), (operator.sub, "fsub", "sub"), (operator.mul, "fmul", "mul"),
    (operator.truediv, "fdiv", ""), (operator.and_, "", "and_"), (operator.lshift, "", "shl"),
    (operator.rshift, "", "ashr"),
):  # fmt: skip
    _operate(_sign, *_names)


@intrinsic
def _add(context, address, value):
    build = lambda builder, at, value: builder.atomic_rmw("add", _at(builder, at, WORD), value, "acq_rel")  # noqa: E731
    return _emit(types.int64(types.int64, types.int64), build)


@intrinsic
def word(context, address):
    """A whole number of 64 bits, and what other threads wrote before it."""
    return _emit(
        types.int64(types.int64), lambda builder, at: builder.load_atomic(_at(builder, at, WORD), "acquire", 8)
    )


@intrinsic
def _write(context, address, value):
    build = lambda builder, at, value: builder.store_atomic(value, _at(builder, at, WORD), "release", 8)  # noqa: E731
    return _emit(types.void(types.int64, types.int64), build)


_offer = types.ExternalFunction("sched_yield" if os.name == "posix" else "SwitchToThread", types.int32())


@together
def take(team):
    """The next job of this pass, for whoever is free. `team` is the address of three counters, 64 bytes apart."""
    return _add(team, 1)


@together
def meet(team, size):
    """Wait for all threads. What they wrote before can be read after, and jobs are counted from 0 again."""
    turn, looks = word(team + 128), 0
    if _add(team + 64, 1) + 1 == size:
        _write(team + 64, 0)
        _write(team, 0)
        _write(team + 128, turn + 1)
    while word(team + 128) == turn:
        looks += 1
        if looks > PATIENCE:
            _offer()
