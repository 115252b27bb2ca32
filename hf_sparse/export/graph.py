"""The graph of a student in ONNX: padded ids in, logits and probabilities out.

It is built node by node and not traced from torch: the student is a dozen operators, its table may be larger than
memory should hold twice, and packed rows must stay packed in the file. Only operators of opset 18 are used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from hf_sparse.export.initializers import Initializers, Reader
from hf_sparse.runtime.head import Head
from hf_sparse.runtime.pairs import SHARPNESS, Alignment
from hf_sparse.runtime.weights import as_float32

OPSET: Final = 18
_IR_VERSION: Final = 8  # that of opset 18: newer ones are refused by older runtimes
_TABLE: Final = "model.table.blocks."

Weights = Mapping[str, npt.NDArray[Any]]


class StudentGraph:
    """Builds the graph of a student.

    Inputs are `input_ids` (B, L) int64, padded with 0, and for pairs `token_type_ids` (B, L) int64, 0 for the first
    text; L is at least 1. Outputs are `logits` (B, C) float32 and, but for regressions, `probabilities` (B, C).

    Args:
        config: What `config.json` holds.
        weights: Tensors by name, as `hf_sparse.runtime.weights.map_weights` gives them.
    """

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self._config, self._weights = config, weights
        self._head = Head.from_weights(config, weights)
        self._alignment = Alignment.from_weights(config, weights)
        self._nodes: list[Any] = []
        self._initializers = Initializers()

    def save(self, file: Path) -> onnx.ModelProto:
        """Write the model, and what is too large for it into `<file>.data`.

        Returns:
            The model as it is in the file.
        """
        model = self._build()
        self._initializers.save(model.graph, file.with_name(f"{file.name}.data"))
        onnx.save(model, str(file))
        return model

    def _build(self) -> onnx.ModelProto:
        """Return the model without its constants."""
        ids = "input_ids"
        inputs = [helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", "length"])]
        rows, known = self._rows(ids), self._node("Not", self._node("Equal", ids, self._constant(np.int64(0))))
        if self._head.sentence_pairs:
            inputs.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "length"]))
            bags = self._bags(ids, "token_type_ids", known)
            pooled = [self._finish(self._pool(rows, bag)) for bag in bags]
            if self._head.pair_bags == "overlap" and self._config["pooling"] in ("mean", "attentive"):
                pooled = self._weighed(pooled, bags)
            if self._alignment is not None:
                pooled = self._aligned(pooled, rows, bags, ids)
            vector = self._pair_features(pooled)
        else:
            vector = self._finish(self._pool(rows, known))
        for weight, bias in self._head.layers:
            vector = self._activate(self._linear(vector, weight, bias))
        logits = vector if self._head.classifier is None else self._linear(vector, *self._head.classifier)
        return self._model(inputs, self._outputs(logits))

    def _rows(self, ids: str) -> str:
        """Gather the rows of ids: (B, L, D) float32."""
        count = sum(name.startswith(_TABLE) for name in self._weights)
        blocks = [self._weights[f"{_TABLE}{index}"] for index in range(count)]
        width, dtype = int(self._config["embedding_size"]), self._config.get("table_dtype", "float32")
        if dtype not in ("int8", "int4"):
            # Few runtimes know bfloat16.
            read: Reader = as_float32 if blocks[0].dtype == np.uint16 else np.asarray
            return self._node("Cast", self._gather(blocks, ids, read), to=TensorProto.FLOAT)
        num_bytes, tail = (width, "<f4") if dtype == "int8" else (width // 2, "<f2")
        numbers = self._gather(blocks, ids, lambda rows: rows[:, :num_bytes])
        if dtype == "int4":
            numbers = self._unpacked(numbers, width)
        scale, offset = (self._gather(blocks, ids, _tail_reader(num_bytes, tail, column)) for column in range(2))
        scaled = self._node("Mul", self._node("Cast", numbers, to=TensorProto.FLOAT), scale)
        return self._node("Add", scaled, offset)

    def _unpacked(self, numbers: str, width: int) -> str:
        """Turn bytes of two columns each, the even one in the low half, into columns."""
        sixteen, four = self._constant(np.uint8(16)), self._constant(np.uint8(4))
        halves = [
            self._node("Mod", numbers, sixteen),
            self._node("BitShift", numbers, four, direction="RIGHT"),
        ]
        last = self._constant(np.array([3], np.int64))
        pairs = self._node("Concat", *(self._node("Unsqueeze", half, last) for half in halves), axis=3)
        return self._node("Reshape", pairs, self._constant(np.array([0, 0, width], np.int64)))

    def _pool(self, rows: str, chosen: str) -> str:
        """Pool the chosen rows (B, L) of each text: (B, D)."""
        last, middle = self._constant(np.array([2], np.int64)), self._constant(np.array([1], np.int64))
        mask = self._node("Unsqueeze", chosen, last)
        zero = self._constant(np.float32(0))
        if self._config["pooling"] == "attentive":
            return self._attend(rows, chosen, mask)
        if self._config["pooling"] == "max":
            lowest = self._node("Where", mask, rows, self._constant(np.float32(-np.inf)))
            best = self._node("ReduceMax", lowest, middle, keepdims=0)
            return self._node("Where", self._node("Greater", self._count(chosen), zero), best, zero)
        total = self._node("ReduceSum", self._node("Where", mask, rows, zero), middle, keepdims=0)
        return total if self._config["pooling"] == "sum" else self._mean(total, chosen)

    def _mean(self, total: str, chosen: str) -> str:
        return self._node("Div", total, self._node("Max", self._count(chosen), self._constant(np.float32(1))))

    def _count(self, chosen: str) -> str:
        """Count the chosen rows of each text: (B, 1) float32."""
        ones = self._node("Cast", chosen, to=TensorProto.FLOAT)
        return self._node("ReduceSum", ones, self._constant(np.array([1], np.int64)), keepdims=1)

    def _attend(self, rows: str, chosen: str, mask: str) -> str:
        """Weigh rows by `softmax(v . tanh(W_g e_i + W_h h))`, h their mean."""
        zero, middle = self._constant(np.float32(0)), self._constant(np.array([1], np.int64))
        total = self._node("ReduceSum", self._node("Where", mask, rows, zero), middle, keepdims=0)
        of_mean = self._node("MatMul", self._mean(total, chosen), self._attention("mean"))
        of_rows = self._node("MatMul", rows, self._attention("row"))
        mixed = self._node("Tanh", self._node("Add", of_rows, self._node("Unsqueeze", of_mean, middle)))
        # A large negative number and not -inf: a text without n-grams must not become NaN.
        scores = self._node("Where", mask, self._node("MatMul", mixed, self._attention("score")), self._least())
        weights = self._node("Where", mask, self._node("Softmax", scores, axis=1), zero)
        return self._node("ReduceSum", self._node("Mul", weights, rows), middle, keepdims=0)

    def _attention(self, name: str) -> str:
        return self._constant(np.ascontiguousarray(as_float32(self._weights[f"model.attention.{name}.weight"]).T))

    def _least(self) -> str:
        return self._constant(np.float32(np.finfo(np.float32).min))

    def _bags(self, ids: str, sides: str, known: str) -> list[str]:
        """Return for each bag of pairs which ids (B, L) are in it; see `pairs_sparse_ngram.py`."""
        second = self._node("And", known, self._node("Cast", sides, to=TensorProto.BOOL))
        first = self._node("And", known, self._node("Not", second))
        if self._head.pair_bags != "overlap":
            return [first, second]
        across, down = (self._constant(np.array([axis], np.int64)) for axis in (1, 2))
        equal = self._node("Equal", self._node("Unsqueeze", ids, down), self._node("Unsqueeze", ids, across))
        seen = [self._is_among(equal, side, across, down) for side in (first, second)]
        both = self._node("And", known, self._node("And", *seen))
        alone = self._node("Not", both)
        return [self._node("And", first, alone), self._node("And", second, alone), both]

    def _is_among(self, equal: str, side: str, across: str, down: str) -> str:
        found = self._node("And", equal, self._node("Unsqueeze", side, across))
        counts = self._node("ReduceSum", self._node("Cast", found, to=TensorProto.FLOAT), down, keepdims=0)
        return self._node("Greater", counts, self._constant(np.float32(0)))

    def _weighed(self, pooled: Sequence[str], bags: Sequence[str]) -> list[str]:
        """Weigh each bag by its share of the pair's n-grams."""
        counts = [self._count(bag) for bag in bags]
        total = self._node("Max", self._node("Sum", *counts), self._constant(np.float32(1)))
        return [
            self._node("Mul", vector, self._node("Div", count, total))
            for vector, count in zip(pooled, counts, strict=True)
        ]

    def _aligned(self, pooled: Sequence[str], rows: str, bags: Sequence[str], ids: str) -> list[str]:
        """Put comparisons of words in the place of the last columns of the first two bags."""
        assert self._alignment is not None
        width, size = int(self._config["embedding_size"]), self._alignment.size
        across, down = (self._constant(np.array([axis], np.int64)) for axis in (1, 2))
        zero, lowest = self._constant(np.float32(0)), self._constant(np.float32(np.finfo(np.float32).min))
        is_word = self._node("Cast", self._gather([self._alignment.is_word], ids), to=TensorProto.BOOL)
        own = self._columns(rows, width - size, width, axis=2)
        scores = self._node("MatMul", own, self._node("Transpose", own, perm=[0, 2, 1]))
        scores = self._node("Mul", scores, self._constant(SHARPNESS))
        words = [self._node("And", bag, is_word) for bag in bags[:2]]
        result = []
        for side in range(2):
            others = self._node("Unsqueeze", words[1 - side], across)
            weights = self._node("Softmax", self._node("Where", others, scores, lowest), axis=2)
            # Zero where there are no others, which all have the same weight then.
            found = self._node("MatMul", self._node("Where", others, weights, zero), own)
            product = self._node("Mul", own, found)
            distance = self._node("Abs", self._node("Sub", own, found))
            features = self._node("Concat", own, found, product, distance, axis=2)
            compared = self._node("MatMul", features, self._constant(np.ascontiguousarray(self._alignment.weight.T)))
            compared = self._node("Relu", self._node("Add", compared, self._constant(self._alignment.bias)))
            chosen = self._node("Where", self._node("Unsqueeze", words[side], down), compared, zero)
            best = self._node("ReduceMax", chosen, across, keepdims=0)
            kept = self._columns(pooled[side], 0, width - size, axis=1)
            result.append(self._node("Concat", kept, best, axis=1))
        return [*result, pooled[2]]

    def _columns(self, values: str, first: int, stop: int, *, axis: int) -> str:
        edges = [self._constant(np.array([number], np.int64)) for number in (first, stop, axis)]
        return self._node("Slice", values, *edges)

    def _pair_features(self, pooled: Sequence[str]) -> str:
        first, second, *more = pooled
        product = self._node("Mul", first, second)
        distance = self._node("Abs", self._node("Sub", first, second))
        return self._node("Concat", first, second, product, distance, *more, axis=1)

    def _finish(self, pooled: str) -> str:
        """Add what is left of a layer that is folded into the table."""
        if self._head.pooled_bias is None:
            return pooled
        biased = self._node("Add", pooled, self._constant(self._head.pooled_bias))
        return self._activate(biased) if self._head.pooled_is_hidden else biased

    def _linear(self, vector: str, weight: npt.NDArray[Any], bias: npt.NDArray[Any]) -> str:
        return self._node("Gemm", vector, self._constant(weight), self._constant(bias), transB=1)

    def _activate(self, vector: str) -> str:
        return self._node("Relu" if self._head.activation == "relu" else "Tanh", vector)

    def _outputs(self, logits: str) -> list[Any]:
        shape: list[str | int | None] = ["batch", self._head.num_labels]
        self._nodes.append(helper.make_node("Identity", [logits], ["logits"]))
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)]
        problem_type = self._config.get("problem_type")
        if problem_type != "regression":
            several = problem_type == "multi_label_classification"
            options: dict[str, Any] = {} if several else {"axis": 1}
            node = helper.make_node("Sigmoid" if several else "Softmax", [logits], ["probabilities"], **options)
            self._nodes.append(node)
            outputs.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape))
        return outputs

    def _gather(self, blocks: Sequence[npt.NDArray[Any]], ids: str, read: Reader = np.asarray) -> str:
        return self._node("Gather", self._initializers.add_rows(blocks, read), ids, axis=0)

    def _constant(self, value: Any) -> str:
        return self._initializers.add(value)

    def _node(self, kind: str, *inputs: str, **options: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **options))
        return name

    def _model(self, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(self._nodes, "sparse_ngram", inputs, outputs)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="hf-sparse",
        )


def _tail_reader(start: int, dtype: str, column: int) -> Reader:
    """Return what reads a number behind the columns of packed rows: 0 is the scale, 1 the offset."""

    def read(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        numbers = np.ascontiguousarray(rows[:, start:]).view(dtype)
        return numbers[:, column : column + 1].astype(np.float32)

    return read
