"""The table of a plan: for each layer, where its weights and buffers are, and all sizes.

A table is int64 [layer + 1, COLUMNS]; functions here receive one row, `t`. A buffer that layers
share has the same address in every row. The last row is for the two phases after the layers.

"Own" numbers have the model's dtype: float32, or bfloat16 stored as uint16. "Arranged" numbers are
in the order that a matrix product expects; see `places`.
"""

LAYER_WEIGHTS = (
    "attn_norm", "qkv", "qkv_bias", "sinks", "out", "out_bias",
    "moe_norm", "router", "router_bias",
    "gate_up_blocks", "gate_up_scales", "gate_up_bias",
    "down_blocks", "down_scales", "down_bias",
)  # fmt: skip
OUTER_WEIGHTS = ("embedding", "norm", "unembedding")

(
    # Addresses of the weights, in the order of the names above.
    ATTN_NORM, QKV, QKV_BIAS, SINKS, OUT, OUT_BIAS,
    MOE_NORM, ROUTER, ROUTER_BIAS,
    GATE_UP_BLOCKS, GATE_UP_SCALES, GATE_UP_BIAS,
    DOWN_BLOCKS, DOWN_SCALES, DOWN_BIAS,
    EMBEDDING, NORM, UNEMBEDDING,
    # Addresses of the buffers of one token.
    STREAM,  # the residual stream, own [hidden]
    DENSE_INPUT,  # the normed stream for a dense matrix, arranged float32 [hidden]
    EXPERT_INPUT,  # the normed stream for the experts, arranged in the type of their path
    HEADS,  # queries, keys and values before RoPE, own [q, k and v heads, head_dim]
    QUERIES,  # rotated and scaled, float32 [head head_dim]
    SCORES,  # of one block of keys, float32 [kv_head BLOCK lanes]
    Z,  # float32 [head head_dim]
    SUMS,  # of the experts, float32 [hidden]
    OUT_INPUT,  # z for the out matrix, arranged float32
    ACTIVATIONS,  # of each chosen expert, arranged [slot, bytes]
    # Addresses of the results besides the logits, one row per layer.
    ROUTER_LOGITS,  # float32 [expert]
    EXPERT_IDS,  # int64 [slot]
    EXPERT_WEIGHTS,  # float32 [slot]
    MARGIN,  # float32 [1]
    SINK_MASSES,  # float32 [head]
    # Other addresses.
    COS, SIN,  # own [position head_dim]
    HIDDEN_PLACES, OUT_PLACES,  # of the elements of DENSE_INPUT and OUT_INPUT, int64
    EXPERT_PLACES, WIDTH_PLACES,  # of EXPERT_INPUT and a row of ACTIVATIONS, int64
    CONSTANTS,  # epsilon of the norms, alpha and limit of SwiGLU, float32 [3]
    TAIL,  # the layer's cache, own [2 kv_head capacity head_dim]: keys, then values
    # Sizes.
    CAPACITY,
    WINDOW,  # 0 means that the layer sees all keys
    HIDDEN, WIDTH, VOCAB, HEAD_COUNT, KV_HEADS, HEAD_DIM, EXPERTS, SLOTS,
    DENSE_SIZE, EXPERT_SIZE, OUT_SIZE, ACTIVATION_SIZE,  # elements of the arranged buffers
    COUNTERS,  # address of the counters of the row's first phase, then of the next, ...
) = range(56)  # fmt: skip
PHASES = 9  # of a layer; the last row has two
COLUMNS = COUNTERS + PHASES
