"""One table of every tensor in a gpt-oss checkpoint, used to read, write and count them.

Each row has the tensor's original name, its shape and stored dtype, and how the Hugging Face layout
stores the same bytes. That layout uses other names and splits the fused query-key-value projection
into three consecutive groups of rows. Experts are packed as MXFP4, or dense in BF16 as fine-tunes
have them; the Hugging Face layout stores a dense expert transposed, as inputs x outputs. Left out:
the layout of Metal's model.bin. Source: openai/gpt-oss v0.0.9, transformers 5.23.0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from oss_lab.config import MXFP4_BLOCK, ModelConfig

Layout = Literal["original", "huggingface"]
LAYOUTS: tuple[Layout, ...] = ("original", "huggingface")
TITLES: dict[Layout, str] = {"original": "original", "huggingface": "Hugging Face"}

ExpertStorage = Literal["mxfp4", "bf16"]

StoredDtype = Literal["BF16", "U8"]
Role = Literal[
    "embedding",
    "unembedding",
    "norm",
    "attention",
    "router",
    "expert blocks",
    "expert scales",
    "expert weight",
    "expert bias",
]
ITEM_BYTES: dict[StoredDtype, int] = {"BF16": 2, "U8": 1}
BLOCK_BYTES = MXFP4_BLOCK // 2


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as stored in a file."""

    name: str
    shape: tuple[int, ...]
    dtype: StoredDtype

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorSpec(StoredTensor):
    """One tensor of the original layout and its Hugging Face counterparts.

    Attributes:
        role: what it is for; parameter counts are sums over roles.
        huggingface: the tensors whose rows, concatenated, are this tensor's rows.
    """

    role: Role
    huggingface: tuple[StoredTensor, ...]

    def stored(self, layout: Layout) -> tuple[StoredTensor, ...]:
        """The tensors that store it in `layout`: one, or three for Hugging Face's q, k and v."""
        return (self,) if layout == "original" else self.huggingface

    def is_transposed(self, layout: Layout) -> bool:
        """Whether `layout` stores each expert's matrix as inputs x outputs."""
        return self.role == "expert weight" and layout == "huggingface"

    @property
    def parameters(self) -> int:
        """Number of parameters: two per byte of blocks, none in a scale."""
        per_item = {"expert blocks": 2, "expert scales": 0}.get(self.role, 1)
        return math.prod(self.shape) * per_item


def tensor_table(config: ModelConfig, experts: ExpertStorage = "mxfp4") -> Iterator[TensorSpec]:
    """Yield the tensors layer by layer, after embedding, norm and unembedding.

    L layers have 15 L + 3 tensors, or 13 L + 3 with dense experts.
    The table is a generator, so a configuration with an absurd number of layers costs nothing.
    """
    hidden, vocab = config.hidden_size, config.vocab_size
    yield _make_spec("embedding", "embedding.weight", "model.embed_tokens.weight", (vocab, hidden))
    yield _make_spec("unembedding", "unembedding.weight", "lm_head.weight", (vocab, hidden))
    yield _make_spec("norm", "norm.scale", "model.norm.weight", (hidden,))
    for n in range(config.num_hidden_layers):
        yield from _attention_specs(config, f"block.{n}.attn", f"model.layers.{n}")
        yield from _expert_specs(config, f"block.{n}.mlp", f"model.layers.{n}", experts)


def stored_table(
    config: ModelConfig, layout: Layout, experts: ExpertStorage = "mxfp4"
) -> Iterator[StoredTensor]:
    """Yield every tensor of `layout`: 15 L + 3 original, 19 L + 3 Hugging Face; dense, 2 L less."""
    for spec in tensor_table(config, experts):
        yield from spec.stored(layout)


def _make_spec(role: Role, name: str, huggingface: str, shape: tuple[int, ...]) -> TensorSpec:
    dtype: StoredDtype = "U8" if role in ("expert blocks", "expert scales") else "BF16"
    return TensorSpec(name, shape, dtype, role, (StoredTensor(huggingface, shape, dtype),))


def _attention_specs(config: ModelConfig, block: str, layer: str) -> Iterator[TensorSpec]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    q_rows = heads * config.head_dim
    kv_rows = config.num_key_value_heads * config.head_dim
    theirs = f"{layer}.self_attn"

    yield _make_spec("norm", f"{block}.norm.scale", f"{layer}.input_layernorm.weight", (hidden,))
    yield _make_spec("attention", f"{block}.sinks", f"{theirs}.sinks", (heads,))
    for kind, columns in (("weight", (hidden,)), ("bias", ())):
        thirds = tuple(
            StoredTensor(f"{theirs}.{name}_proj.{kind}", (rows, *columns), "BF16")
            for name, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows))
        )
        shape = (q_rows + 2 * kv_rows, *columns)
        yield TensorSpec(f"{block}.qkv.{kind}", shape, "BF16", "attention", thirds)
    out, o_proj = f"{block}.out", f"{theirs}.o_proj"
    yield _make_spec("attention", f"{out}.weight", f"{o_proj}.weight", (hidden, q_rows))
    yield _make_spec("attention", f"{out}.bias", f"{o_proj}.bias", (hidden,))


def _expert_specs(
    config: ModelConfig, block: str, layer: str, storage: ExpertStorage
) -> Iterator[TensorSpec]:
    experts, hidden, width = config.num_experts, config.hidden_size, config.intermediate_size
    theirs = f"{layer}.mlp"

    norm = f"{layer}.post_attention_layernorm.weight"
    yield _make_spec("norm", f"{block}.norm.scale", norm, (hidden,))
    yield _make_spec("router", f"{block}.gate.weight", f"{theirs}.router.weight", (experts, hidden))
    yield _make_spec("router", f"{block}.gate.bias", f"{theirs}.router.bias", (experts,))
    for ours, name, rows, columns in (
        ("mlp1", "gate_up_proj", 2 * width, hidden),
        ("mlp2", "down_proj", hidden, width),
    ):
        weight, projection = f"{block}.{ours}_weight", f"{theirs}.experts.{name}"
        if storage == "mxfp4":
            groups = (experts, rows, columns // MXFP4_BLOCK)
            blocks = (*groups, BLOCK_BYTES)
            yield _make_spec("expert blocks", f"{weight}.blocks", f"{projection}_blocks", blocks)
            yield _make_spec("expert scales", f"{weight}.scales", f"{projection}_scales", groups)
        else:
            transposed = (StoredTensor(projection, (experts, columns, rows), "BF16"),)
            shape = (experts, rows, columns)
            yield TensorSpec(weight, shape, "BF16", "expert weight", transposed)
        yield _make_spec(
            "expert bias", f"{block}.{ours}_bias", f"{projection}_bias", (experts, rows)
        )
