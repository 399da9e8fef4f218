"""What the model keeps for the backward pass, counted in bytes.

The counts follow the operations of one layer in `oss_lab/model/` and `adapted.py`; a test compares
them with the tensors that autograd really saves. Left out: rotations, masks, and vectors of a few
numbers per token.
"""

from oss_lab.checkpoint.plan import DTYPE_BYTES
from oss_lab.config import ModelConfig
from oss_lab.finetune.loss import PIECE
from oss_lab.finetune.recipe import Recipe
from oss_lab.finetune.targets import GROUPS, TARGETS

FLOAT = 4  # bytes of float32


def layer_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """What one layer keeps of one forward pass: `rows` rows of `length` tokens."""
    hidden, width, slots = config.hidden_size, config.intermediate_size, config.experts_per_token
    queries = config.num_attention_heads * config.head_dim
    numbers = 2 * hidden  # the inputs of both norms
    # Gate and up, limited and not; the sigmoid; the two factors of the last product.
    numbers += slots * 6 * width
    # A low-rank part keeps its input, in float32, and what `down` makes of it.
    inputs = {
        "o_proj": queries,
        "router": hidden,
        "gate_up_proj": slots * hidden,
        "down_proj": slots * width,
    }
    numbers += sum(inputs.get(name, 0) for name in recipe.targets)
    if {*recipe.targets} & {*GROUPS["attention"]} - {"o_proj"}:
        numbers += hidden  # q, k and v share it
    inner = sum(slots if TARGETS[name].is_stacked else 1 for name in recipe.targets)
    numbers += recipe.rank * inner
    # The outputs of both expert matrices before they are put in order, and those of the second.
    items = slots * (2 * width + 2 * hidden)
    ours = count_tokens(recipe) * (FLOAT * numbers + DTYPE_BYTES[recipe.dtype] * items)
    return ours + attention_bytes(config, recipe)


def attention_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """What the scores and shares of one layer keep; kernels keep none of these."""
    heads, item = config.num_attention_heads, DTYPE_BYTES[recipe.dtype]
    queries, keys = heads * config.head_dim, config.num_key_value_heads * config.head_dim
    if recipe.kernels == "reference":
        # Scaled queries, keys and values; the shares, with the sink's.
        size = FLOAT * (queries + 2 * keys + heads * (recipe.length + 1))
    else:
        # Queries, keys and values; both rotated; the result, and a number for each query.
        size = item * (3 * queries + 3 * keys) + FLOAT * heads
        if item == FLOAT and "o_proj" in recipe.targets:
            size -= item * queries  # the result is the input of o_proj's low-rank part
    return count_tokens(recipe) * size


def kept_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """What is kept until the backward pass: layers or their inputs, and the last norm's input."""
    stream = count_tokens(recipe) * config.hidden_size
    again = stream * DTYPE_BYTES[recipe.dtype]
    layer = again if recipe.recompute else layer_bytes(config, recipe)
    return config.num_hidden_layers * layer + stream * FLOAT


def working_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """The most that is needed besides, in the backward pass of attention, of the experts or of the
    loss: gradients, and what is computed again."""
    tokens, item = count_tokens(recipe), DTYPE_BYTES[recipe.dtype]
    hidden, slots = config.hidden_size, config.experts_per_token
    queries = config.num_attention_heads * config.head_dim
    is_stored = recipe.kernels == "reference"
    scores = tokens * config.num_attention_heads * recipe.length * FLOAT * is_stored
    # The shares, their gradient and two copies; the residual stream, and queries with gradients.
    attention = (4 if recipe.recompute else 3) * scores
    attention += tokens * FLOAT * (2 * hidden + 3 * queries)
    # The frozen product and the change that is added to it, of all slots.
    experts = layer_bytes(config, recipe) if recipe.recompute else 0
    experts += tokens * slots * hidden * (FLOAT + item)
    # Logits, their log-softmax and its gradient.
    loss = 3 * FLOAT * min(PIECE, tokens * config.vocab_size)
    return max(attention, experts, loss)


def count_tokens(recipe: Recipe) -> int:
    """The tokens of one forward pass."""
    return recipe.rows * recipe.length
