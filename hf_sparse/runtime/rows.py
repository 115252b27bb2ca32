"""Adding up rows of a table, as LLVM code: whatever the rows are stored as, the sum is made in float32 registers.

A row is D numbers of one type. An int8 row has D bytes, then scale and offset in float32; an int4 row has D/2 bytes,
the even column in the low half of each, then scale and offset in float16: the layouts of FBGEMM, which torch has. The
value is `number * scale + offset`.
"""

import platform
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils, types

from hf_sparse.runtime.vector import constant, intrinsic, load, pointer, splat

# Where the processor has no instruction for it, LLVM would call a function that numba does not bring.
_HAS_FLOAT16: Final = get_host_cpu_features().get("f16c", False) or platform.machine() in ("aarch64", "arm64")

_BYTE: Final = ir.IntType(8)
_HALF: Final = ir.IntType(16)
_INT: Final = ir.IntType(32)
_LONG: Final = ir.IntType(64)
_FLOAT: Final = ir.FloatType()

# The number of each way to store rows, and the bits of a column.
FORMATS: Final = {"float32": 0, "float16": 1, "bfloat16": 2, "int8": 3, "int4": 4}
BITS: Final = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}
# As `weights.map_file` gives them: bfloat16 as its bits, packed rows as bytes.
NUMPY_DTYPES: Final = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "|u1", "int4": "|u1"}
# Bytes of scale and offset behind the columns.
TAILS: Final = {"float32": 0, "float16": 0, "bfloat16": 0, "int8": 8, "int4": 4}


def _widen_float16(builder: Any, halves: Any, lanes: int) -> Any:
    """Return float16 numbers, given as integers, in float32; finite ones only, which rows are."""
    ints = ir.VectorType(_INT, lanes)
    floats = ir.VectorType(_FLOAT, lanes)
    if _HAS_FLOAT16:
        return builder.fpext(builder.bitcast(halves, ir.VectorType(ir.HalfType(), lanes)), floats)
    wide = builder.zext(halves, ints)
    magnitude = builder.and_(wide, constant(_INT, lanes, 0x7FFF))
    # The exponents of the two types differ by 112; numbers below the normal range are multiples of 2**-24.
    shifted = builder.shl(magnitude, constant(_INT, lanes, 13))
    normal = builder.bitcast(builder.add(shifted, constant(_INT, lanes, 112 << 23)), floats)
    small = builder.fmul(builder.uitofp(magnitude, floats), constant(_FLOAT, lanes, 2.0**-24))
    is_small = builder.icmp_unsigned("<", magnitude, constant(_INT, lanes, 1 << 10))
    value = builder.bitcast(builder.select(is_small, small, normal), ints)
    sign = builder.shl(builder.and_(wide, constant(_INT, lanes, 0x8000)), constant(_INT, lanes, 16))
    return builder.bitcast(builder.or_(value, sign), floats)


def _columns(builder: Any, row: Any, column: Any, lanes: int, bits: int) -> Any:
    """Read columns of a row as integers of some bits, from whole bytes."""
    offset = builder.lshr(builder.mul(column, ir.Constant(_LONG, bits)), ir.Constant(_LONG, 3))
    vector = ir.VectorType(ir.IntType(max(bits, 8)), lanes * bits // max(bits, 8))
    return load(builder, builder.bitcast(builder.gep(row, [offset]), vector.as_pointer()))


def _read_float32(builder: Any, row: Any, column: Any, lanes: int) -> Any:
    return builder.bitcast(_columns(builder, row, column, lanes, 32), ir.VectorType(_FLOAT, lanes))


def _read_float16(builder: Any, row: Any, column: Any, lanes: int) -> Any:
    return _widen_float16(builder, _columns(builder, row, column, lanes, 16), lanes)


def _read_bfloat16(builder: Any, row: Any, column: Any, lanes: int) -> Any:
    wide = builder.zext(_columns(builder, row, column, lanes, 16), ir.VectorType(_INT, lanes))
    return builder.bitcast(builder.shl(wide, constant(_INT, lanes, 16)), ir.VectorType(_FLOAT, lanes))


def _read_int8(builder: Any, row: Any, column: Any, lanes: int) -> Any:
    numbers = _columns(builder, row, column, lanes, 8)
    return builder.uitofp(builder.zext(numbers, ir.VectorType(_INT, lanes)), ir.VectorType(_FLOAT, lanes))


def _read_int4(builder: Any, row: Any, column: Any, lanes: int) -> Any:
    both = _columns(builder, row, column, lanes, 4)
    low = builder.and_(both, constant(_BYTE, lanes // 2, 15))
    high = builder.lshr(both, constant(_BYTE, lanes // 2, 4))
    order = [index // 2 + lanes // 2 * (index % 2) for index in range(lanes)]
    numbers = builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INT, lanes), order))
    return builder.uitofp(builder.zext(numbers, ir.VectorType(_INT, lanes)), ir.VectorType(_FLOAT, lanes))


_READERS: Final[dict[int, Callable[[Any, Any, Any, int], Any]]] = {
    0: _read_float32,
    1: _read_float16,
    2: _read_bfloat16,
    3: _read_int8,
    4: _read_int4,
}


def _scale_and_offset(builder: Any, row: Any, width: Any, row_format: int) -> tuple[Any, Any] | None:
    """Read scale and offset of a row of integers."""
    if row_format == FORMATS["int8"]:
        pair = load(builder, builder.bitcast(builder.gep(row, [width]), ir.VectorType(_FLOAT, 2).as_pointer()))
    elif row_format == FORMATS["int4"]:
        half = builder.lshr(width, ir.Constant(_LONG, 1))
        halves = load(builder, builder.bitcast(builder.gep(row, [half]), ir.VectorType(_HALF, 2).as_pointer()))
        pair = _widen_float16(builder, halves, 2)
    else:
        return None
    lanes = [builder.extract_element(pair, ir.Constant(_INT, index)) for index in (0, 1)]
    return lanes[0], lanes[1]


def _combine(builder: Any, total: Any, values: Any, scaling: tuple[Any, Any] | None, lanes: int, maximum: bool) -> Any:
    """Return the new maximum, or the new sum without the offsets, of some columns."""
    if scaling is not None:
        scale, offset = (splat(builder, number, lanes) for number in scaling)
        vector = values.type
        name = f"llvm.fma.v{lanes}f32"
        fma = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
        if not maximum:
            return builder.call(fma, [values, scale, total])
        values = builder.call(fma, [values, scale, offset])
    if maximum:
        return builder.select(builder.fcmp_ordered(">", values, total), values, total)
    return builder.fadd(total, values)


@intrinsic
def add_rows(
    _: Any,
    addresses: Any,
    num_rows: Any,
    column: Any,
    width: Any,
    totals: Any,
    row_format: Any,
    lanes: Any,
    maximum: Any,
) -> Any:
    """Add some columns of rows to totals, or take the maximum.

    Args (of the compiled function):
        addresses: Where the rows begin (N,) int64.
        num_rows: How many of them to add.
        column: First column.
        width: Number of columns D of a row.
        totals: The sums (D,) float32 so far.
        row_format: A literal of `FORMATS`.
        lanes: A literal, how many columns.
        maximum: A literal, 1 for the maximum.
    """
    if not all(isinstance(literal, types.IntegerLiteral) for literal in (row_format, lanes, maximum)):
        return None
    long = types.int64
    signature = types.void(addresses, long, long, long, totals, row_format, lanes, maximum)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, kind = lanes.literal_value, row_format.literal_value
        vector = ir.VectorType(_FLOAT, number)
        rows, count, first, columns, sums, *_ = arguments
        place = pointer(context, builder, signature.args[4], sums, first, target=vector)
        # A variable that lives in registers once LLVM has seen that nothing takes its address.
        total = cgutils.alloca_once(builder, vector)
        builder.store(load(builder, place), total)
        # The offset of a row is the same for all columns: one number is added instead of a vector.
        offsets = cgutils.alloca_once(builder, _FLOAT)
        builder.store(ir.Constant(_FLOAT, 0.0), offsets)
        with cgutils.for_range(builder, count) as loop:
            address = load(builder, pointer(context, builder, signature.args[0], rows, loop.index, target=_LONG))
            row = builder.inttoptr(address, _BYTE.as_pointer())
            values = _READERS[kind](builder, row, first, number)
            scaling = _scale_and_offset(builder, row, columns, kind)
            combined = _combine(builder, builder.load(total), values, scaling, number, bool(maximum.literal_value))
            builder.store(combined, total)
            if scaling is not None and not maximum.literal_value:
                builder.store(builder.fadd(builder.load(offsets), scaling[1]), offsets)
        result = builder.fadd(builder.load(total), splat(builder, builder.load(offsets), number))
        stored = builder.store(result, place)
        stored.align = 1
        return context.get_dummy_value()

    return signature, generate
