"""The size of a model from its configuration: parameters, bytes on disk, bytes in memory.

The counts are sums over the rows of `layouts.tensor_table`. Their names and values are those of
Table 1 of the model card (arXiv 2508.10925). Left out: file headers (a few kilobytes), and the
memory of Python and its packages (0.3 GB with the CPU kernels).
"""

from dataclasses import dataclass
from typing import Literal

from oss_lab.checkpoint.layouts import ExpertStorage, Role, TensorSpec, tensor_table
from oss_lab.config import History, ModelConfig

Dtype = Literal["bfloat16", "float32"]
DTYPE_BYTES: dict[Dtype, int] = {"bfloat16": 2, "float32": 4}
EXPERT_CACHE_BYTES = 4 * 2**30
SMALL = 2**30  # bytes in float32
PACKED: tuple[Role, ...] = ("expert blocks", "expert scales")


@dataclass(frozen=True)
class Parameters:
    """Parameter counts; total = mlp + attention + norm + embedding.

    Attributes:
        mlp: expert weights, expert biases and routers.
        attention: projections, their biases and sinks.
        norm: every RMSNorm scale.
        embedding: embedding and unembedding.
        active: those used for one token: all but the embedding and the experts not selected.
    """

    mlp: int
    attention: int
    norm: int
    embedding: int
    active: int
    total: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes in use while a model runs.

    Attributes:
        weights: everything but the experts' matrices, in the compute dtype.
        packed_experts: MXFP4 blocks and scales; mapped from the file, so the operating system
            may drop pages that are not in use.
        expert_cache: dequantized expert matrices: the budget, or all of them if that is less.
        kv_cache: keys and values of one sequence of `context` tokens.
        dense_experts: experts that are stored dense, in the compute dtype; then nothing is packed
            and nothing is dequantized.
        scratch: temporary memory of a prefill; see `prefill_bytes`.
    """

    dtype: Dtype
    context: int
    weights: int
    packed_experts: int
    expert_cache: int
    kv_cache: int
    dense_experts: int = 0
    scratch: int = 0

    @property
    def total(self) -> int:
        experts = self.packed_experts + self.expert_cache + self.dense_experts
        return self.weights + experts + self.kv_cache + self.scratch

    @property
    def sentence(self) -> str:
        """The plan in one line."""
        experts = {
            "packed experts": self.packed_experts,
            "dequantized experts at most": self.expert_cache,
        }
        if self.dense_experts:
            experts = {"dense experts": self.dense_experts}
        mib = {
            "weights": self.weights,
            **experts,
            f"cache for {self.context:,} tokens": self.kv_cache,
        }
        if self.scratch:
            mib["prefill at most"] = self.scratch
        parts = ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in mib.items())
        return f"{self.dtype}, {self.total / 2**20:,.0f} MiB: {parts}"


def count_parameters(config: ModelConfig) -> Parameters:
    """Count the parameters of every role.

    >>> from oss_lab.config import GPT_OSS_20B
    >>> count_parameters(GPT_OSS_20B).total
    20914757184
    """
    counts: dict[str, int] = {}
    active = 0
    for spec in tensor_table(config):
        counts[spec.role] = counts.get(spec.role, 0) + spec.parameters
        active += _count_active(spec, config)
    return Parameters(
        mlp=counts["expert blocks"] + counts["expert bias"] + counts["router"],
        attention=counts["attention"],
        norm=counts["norm"],
        embedding=counts["embedding"] + counts["unembedding"],
        active=active,
        total=sum(counts.values()),
    )


def checkpoint_bytes(config: ModelConfig, experts: ExpertStorage = "mxfp4") -> int:
    """Bytes of all tensors, the same in both layouts (Hugging Face's `metadata.total_size`)."""
    return sum(spec.nbytes for spec in tensor_table(config, experts))


def bytes_per_layer(config: ModelConfig, experts: ExpertStorage = "mxfp4") -> int:
    """Bytes of one layer's tensors; all layers have the same size."""
    table = tensor_table(config, experts)
    return sum(spec.nbytes for spec in table if spec.name.startswith("block.0."))


def bytes_per_token(config: ModelConfig, experts: ExpertStorage = "mxfp4") -> int:
    """Bytes of weights read to decode one token at batch size 1."""
    total = 0
    for spec in tensor_table(config, experts):
        if spec.role == "embedding":
            total += config.hidden_size * 2  # one row
        elif spec.role.startswith("expert"):
            total += spec.nbytes // config.num_experts * config.experts_per_token
        else:
            total += spec.nbytes
    return total


def kv_cache_bytes(
    config: ModelConfig,
    tokens: int,
    *,
    dtype: Dtype = "bfloat16",
    history: History = "full",
) -> int:
    """Bytes of the keys and values of one sequence.

    Args:
        history: "full" keeps every position in every layer; "window" keeps the last
            `sliding_window` positions in sliding layers, which is all that they attend to.
    """
    position = 2 * config.num_key_value_heads * config.head_dim * DTYPE_BYTES[dtype]
    windows = (config.window(layer) for layer in range(config.num_hidden_layers))
    kept = (
        tokens if window is None or history == "full" else min(tokens, window) for window in windows
    )
    return position * sum(kept)


def prefill_bytes(config: ModelConfig, chunk: int, context: int, *, is_reference: bool) -> int:
    """An upper bound of the temporary memory while a prompt is read, in chunks.

    Counts one layer's activations and the logits of one token in float32. The reference model also
    has the scores of all heads at once, and copies of them for the softmax.
    """
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    residual = 4 * config.hidden_size  # before and after the norm, the output, the sum
    attention = 2 * (query + 2 * key) + 2 * query  # before and after the rotation; q and z
    expert = 3 * config.intermediate_size + 2 * config.hidden_size  # gate, up, their product; out
    numbers = chunk * (residual + attention + config.experts_per_token * expert)
    numbers += 2 * context * key + 12 * config.vocab_size  # keys and values; the sampler's copies
    if is_reference:
        numbers += 3 * config.num_attention_heads * chunk * context
    return 4 * numbers


def plan_memory(
    config: ModelConfig,
    *,
    dtype: Dtype = "bfloat16",
    context: int | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
    storage: ExpertStorage = "mxfp4",
    processes: int = 1,
    history: History = "full",
    scratch: int = 0,
) -> MemoryPlan:
    """Plan the memory needed to run `config`.

    Args:
        context: tokens of one sequence; by default the initial context length.
        expert_cache_bytes: maximum memory for dequantized experts.
        storage: how the checkpoint stores its experts.
        processes: how many hold the model together. The plan is that of one of them, without its
            copies of norms, routers and biases, which are below 1% of a published model.
        history: which keys and values are kept, as for `kv_cache_bytes`.
        scratch: temporary memory, such as `prefill_bytes`.
    """
    context = config.initial_context_length if context is None else context
    specs, is_dense = list(tensor_table(config)), storage == "bf16"
    experts = sum(s.parameters for s in specs if s.role == "expert blocks") * DTYPE_BYTES[dtype]
    others = sum(s.parameters for s in specs if s.role not in PACKED)
    packed = sum(s.nbytes for s in specs if s.role in PACKED)
    return MemoryPlan(
        dtype=dtype,
        context=context,
        weights=others * DTYPE_BYTES[dtype] // processes,
        packed_experts=0 if is_dense else packed // processes,
        expert_cache=0 if is_dense else min(expert_cache_bytes, experts // processes),
        kv_cache=kv_cache_bytes(config, context, dtype=dtype, history=history) // processes,
        dense_experts=experts // processes if is_dense else 0,
        scratch=scratch,
    )


def is_small(config: ModelConfig) -> bool:
    """Whether a model needs less than 1 GiB of memory in float32."""
    return plan_memory(config, dtype="float32").total < SMALL


def _count_active(spec: TensorSpec, config: ModelConfig) -> int:
    if spec.role == "embedding":
        return 0
    if spec.role.startswith("expert"):
        return spec.parameters // config.num_experts * config.experts_per_token
    return spec.parameters
