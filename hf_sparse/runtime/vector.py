"""What the loops need and Python cannot say: vector instructions, unaligned loads and prefetching, as LLVM code.

Everything is portable LLVM: vectors wider than the machine's are cut into several. Nothing checks a bound: the callers
keep 64 readable bytes behind what they read.
"""

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic as _intrinsic

_BIT: Final = ir.IntType(1)
_BYTE: Final = ir.IntType(8)
_INT: Final = ir.IntType(32)
_LONG: Final = ir.IntType(64)
_FLOAT: Final = ir.FloatType()


def intrinsic(function: Callable[..., Any]) -> Any:
    """Mark a function that writes LLVM code; what calls it is compiled, too, and leaves the first argument out."""
    return _intrinsic(function)


def constant(element: Any, lanes: int, value: float) -> Any:
    """Return a constant vector with the same value in all lanes."""
    return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector with a value in all lanes."""
    vector = ir.VectorType(value.type, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), constant(_INT, lanes, 0))


def pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, *, target: Any) -> Any:
    """Return a pointer to an element of an array, to be read as another type."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def load(builder: Any, place: Any, align: int = 1) -> Any:
    """Read from a pointer that has a certain alignment."""
    value = builder.load(place)
    value.align = align
    return value


@intrinsic
def ascii_masks(_: Any, raw: Any, place: Any, lowered: Any, out: Any) -> Any:
    """Write 64 bytes in lower case; return where letters are, what stands alone, each `<`, and what is not ASCII.

    Letters are digits and the underscore, too; alone stands any other visible character. Bit i is byte `place + i`.
    """
    signature = types.UniTuple(types.uint64, 4)(raw, types.int64, lowered, types.int64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(_BYTE, 64)
        types_ = signature.args
        codes = load(builder, pointer(context, builder, types_[0], arguments[0], arguments[1], target=vector))

        def between(values: Any, first: int, last: int) -> Any:
            shifted = builder.sub(values, constant(_BYTE, 64, first))
            return builder.icmp_unsigned("<=", shifted, constant(_BYTE, 64, last - first))

        is_upper = between(codes, ord("A"), ord("Z"))
        lower = builder.or_(codes, builder.select(is_upper, constant(_BYTE, 64, 32), constant(_BYTE, 64, 0)))
        stored = builder.store(lower, pointer(context, builder, types_[2], arguments[2], arguments[3], target=vector))
        stored.align = 1
        letters = builder.or_(between(lower, ord("a"), ord("z")), between(codes, ord("0"), ord("9")))
        letters = builder.or_(letters, between(codes, ord("_"), ord("_")))
        alone = builder.and_(between(codes, ord("!"), ord("~")), builder.not_(letters))
        high = builder.icmp_signed("<", codes, constant(_BYTE, 64, 0))
        opening = between(codes, ord("<"), ord("<"))
        masks = [builder.bitcast(mask, _LONG) for mask in (letters, alone, opening, high)]
        return context.make_tuple(builder, signature.return_type, masks)

    return signature, generate


@intrinsic
def high_bits(_: Any, raw: Any, place: Any) -> Any:
    """Return which of 64 bytes are not ASCII; bit i is byte `place + i`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(_BYTE, 64)
        codes = load(builder, pointer(context, builder, signature.args[0], *arguments, target=vector))
        return builder.bitcast(builder.icmp_signed("<", codes, constant(_BYTE, 64, 0)), _LONG)

    return types.uint64(raw, types.int64), generate


@intrinsic
def load_word(_: Any, raw: Any, place: Any) -> Any:
    """Return 8 bytes, the first one in the lowest bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return load(builder, pointer(context, builder, signature.args[0], *arguments, target=_LONG))

    return types.uint64(raw, types.int64), generate


@intrinsic
def trailing_zeros(_: Any, mask: Any) -> Any:
    """Return the place of the lowest bit of a mask that is not 0."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(_BIT, 1))

    return types.int64(types.uint64), generate


@intrinsic
def find_eight(_: Any, entries: Any, first: Any, tag: Any) -> Any:
    """Return the low 32 bits of that of eight entries, on one cache line, whose high 32 bits are a tag, or 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(_LONG, 8)
        line = load(builder, pointer(context, builder, signature.args[0], *arguments[:2], target=vector), 64)
        tags = builder.lshr(line, constant(_LONG, 8, 32))
        same = builder.icmp_unsigned("==", tags, splat(builder, arguments[2], 8))
        # No branch on what was found, which the processor could not foresee: all but one of the eight become 0.
        kept = builder.select(same, line, constant(_LONG, 8, 0))
        kind = ir.FunctionType(_LONG, [vector])
        either = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.or.v8i64")
        return builder.and_(builder.call(either, [kept]), ir.Constant(_LONG, 0xFFFFFFFF))

    return types.int64(entries, types.int64, types.uint64), generate


def _prefetch(builder: Any, place: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # To be read, and soon again, as data.
    builder.call(function, [place, *(ir.Constant(_INT, value) for value in (0, 3, 1))])


@intrinsic
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of an element without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, pointer(context, builder, signature.args[0], *arguments, target=_BYTE))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def prefetch_address(_: Any, address: Any) -> Any:
    """Ask for the cache line at an address without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, builder.inttoptr(arguments[0], _BYTE.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def borrow(_: Any, array: Any) -> Any:
    """Return an array whose references are not counted: only good while the function's caller has it.

    Counting is atomic: threads that read the same tables would wait for each other at every text.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        fields = cgutils.create_struct_proxy(signature.return_type)(context, builder, value=arguments[0])
        fields.meminfo = cgutils.get_null_value(fields.meminfo.type)
        fields.parent = cgutils.get_null_value(fields.parent.type)
        return fields._getvalue()

    return array(array), generate
