"""Exercises of A_press: active parameters, a verdict, and a speed against its limit."""

from collections.abc import Iterator

from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.checkpoint.plan import bytes_per_token
from oss_lab.config import MODELS, ModelConfig
from oss_lab.course.exercise import Exercise, Sheet


def my_active_parameters(layers, hidden, width, experts, slots, heads, kv_heads, head_dim, vocab):
    """How many parameters of a gpt-oss model one token uses.

    They are those of the unembedding, the norms, attention, the routers, and of `slots` of the
    `experts` in each layer. The embedding does not count: a token reads one row of it.
    Every matrix has a bias: that of query, key and value, that of attention's output, the router,
    and the two of an expert, with `2 * width` and `hidden` rows. Each head has one sink. A layer
    has two norms, the model a last one, and a norm has `hidden` numbers. Returns an int.
    """
    query_key_value = (heads + 2 * kv_heads) * head_dim * (hidden + 1)
    output = hidden * (heads * head_dim + 1)
    router = experts * (hidden + 1)
    expert = 2 * width * (hidden + 1) + hidden * (width + 1)
    layer = 2 * hidden + query_key_value + output + heads + router + slots * expert
    return layers * layer + hidden + vocab * hidden


def all_experts_counted(layers, hidden, width, experts, slots, *others):
    """You count all experts. A token uses `slots` of them in each layer; all of them together are
    in the total.
    """
    return my_active_parameters(layers, hidden, width, experts, experts, *others)


def embedding_counted(layers, hidden, width, experts, slots, heads, kv_heads, head_dim, vocab):
    """You count the embedding. A token reads one of its rows, so the model card leaves it out, and
    counts the unembedding, which is multiplied as a whole.
    """
    sizes = (layers, hidden, width, experts, slots, heads, kv_heads, head_dim)
    return my_active_parameters(*sizes, 2 * vocab)


def unembedding_forgotten(layers, hidden, width, experts, slots, heads, kv_heads, head_dim, vocab):
    """You left out the unembedding. It gives every token of the vocabulary its logit, so all its
    rows are used.
    """
    sizes = (layers, hidden, width, experts, slots, heads, kv_heads, head_dim)
    return my_active_parameters(*sizes, 0)


def router_of_the_chosen_only(layers, hidden, width, experts, slots, *others):
    """You count only the router's rows of the chosen experts. The router must compute the logits of
    all experts, because otherwise it could not choose.
    """
    missing = layers * (experts - slots) * (hidden + 1)
    return my_active_parameters(layers, hidden, width, experts, slots, *others) - missing


def heads_share_the_hidden_size(layers, hidden, width, experts, slots, heads, kv_heads, *others):
    """You take `hidden // heads` as the size of a head. In gpt-oss, `head_dim` is a value that does
    not follow from the other two.
    """
    sizes = (layers, hidden, width, experts, slots, heads, kv_heads)
    return my_active_parameters(*sizes, hidden // heads, others[1])


def keys_for_every_head(layers, hidden, width, experts, slots, heads, kv_heads, *others):
    """You give each query head its own key and value. In grouped-query attention there are
    `kv_heads` of them.
    """
    return my_active_parameters(layers, hidden, width, experts, slots, heads, heads, *others)


def biases_forgotten(layers, hidden, width, experts, slots, heads, kv_heads, head_dim, vocab):
    """You left out the biases. Each matrix of attention, of the router and of the experts has one
    bias per row.
    """
    biases = (heads + 2 * kv_heads) * head_dim + hidden + experts + slots * (2 * width + hidden)
    sizes = (layers, hidden, width, experts, slots, heads, kv_heads, head_dim, vocab)
    return my_active_parameters(*sizes) - layers * biases


def sinks_forgotten(layers, hidden, width, experts, slots, heads, *others):
    """You left out the sinks. Each head of each layer has one number for its sink."""
    count = my_active_parameters(layers, hidden, width, experts, slots, heads, *others)
    return count - layers * heads


def norms_forgotten(layers, hidden, *others):
    """You left out the norms, or some of them: two in each layer and one at the end, each with
    `hidden` numbers.
    """
    return my_active_parameters(layers, hidden, *others) - (2 * layers + 1) * hidden


def list_sizes(config: ModelConfig) -> tuple[int, ...]:
    """The arguments of `my_active_parameters` for one of the models."""
    return (
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_experts,
        config.experts_per_token,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.vocab_size,
    )


def size_cases() -> Iterator[tuple]:
    """The three models, and one whose sizes all differ."""
    yield from map(list_sizes, MODELS.values())
    yield 3, 64, 96, 7, 2, 8, 4, 10, 50


def my_verdict(claimed, values):
    """What to say of a claimed number.

    claimed: the number as text, such as "60.8"; a value fits if it rounds to this text.
    values: what you computed, by unit; the first unit is the one that the claim states.
    Returns "holds" if the first value fits, else "depends on the unit" if another value fits, else
    "wrong by a power of ten" if the first value fits after you multiply or divide it by 10, 100 or
    1000, else "wrong".
    """

    def fits(value):
        decimals = len(claimed.partition(".")[2])
        return f"{value:.{decimals}f}" == claimed

    first, *others = values.values()
    if fits(first):
        return "holds"
    if any(map(fits, others)):
        return "depends on the unit"
    powers = (-3, -2, -1, 1, 2, 3)
    return "wrong by a power of ten" if any(fits(first * 10**n) for n in powers) else "wrong"


def must_be_equal(claimed, values):
    """You compare the numbers themselves. A claim has few digits, so round the computed value to as
    many decimals before you compare.
    """
    is_equal = float(claimed) == next(iter(values.values()))
    return my_verdict(claimed, values) if is_equal else "wrong"


def digits_cut_off(claimed, values):
    """You cut the digits off instead of rounding. 60.77 rounds to 60.8."""
    half = 0.5 * 10.0 ** -len(claimed.partition(".")[2])
    return my_verdict(claimed, {unit: value - half for unit, value in values.items()})


def near_is_enough(claimed, values):
    """You accept every value within a tenth of the claim. Then 60.8 holds in both units. What the
    claim promises is its last digit.
    """
    near = abs(float(claimed) / next(iter(values.values())) - 1) < 0.1
    return "holds" if near else my_verdict(claimed, values)


def any_unit_holds(claimed, values):
    """You accept a value in any unit. The claim states one, and a reader who trusts it plans with
    too little memory.
    """
    verdict = my_verdict(claimed, values)
    return "holds" if verdict == "depends on the unit" else verdict


def units_ignored(claimed, values):
    """You look at the first value only. The number may be right in another unit, which explains
    where it comes from.
    """
    return my_verdict(claimed, dict(list(values.items())[:1]))


def only_too_small(claimed, values):
    """You look for powers of ten in one direction only. A claim can be ten times too large or ten
    times too small.
    """
    verdict, value = my_verdict(claimed, values), next(iter(values.values()))
    is_large = verdict == "wrong by a power of ten" and float(claimed) > value
    return "wrong" if is_large else verdict


def only_one_ten(claimed, values):
    """You look for a factor of 10 only. Units with a prefix are also mixed up by 1000, and percent
    and shares by 100.
    """
    verdict, value = my_verdict(claimed, values), next(iter(values.values()))
    ratio = max(value / float(claimed), float(claimed) / value)
    return "wrong" if verdict == "wrong by a power of ten" and ratio > 50 else verdict


def claim_cases() -> Iterator[tuple]:
    yield "5.13", {"billion": 5.132849472}
    yield "60.8", {"GB": 65.248815744, "GiB": 60.76769506931305}
    yield "65.2", {"GB": 65.248815744, "GiB": 60.76769506931305}
    yield "4.25", {"bits": 4.25}
    yield "0.51", {"billion": 5.132849472}
    yield "51", {"billion": 5.132849472}
    yield "0.64", {"TB/s": 637.2}
    yield "240", {"GB": 233.658313344, "GiB": 217.6}
    yield "52", {"%": 0.517}
    yield "6.4", {"TB": 0.64, "TiB": 6.4}  # both verdicts fit, and the unit comes first
    yield "6.4", {"TB": 5.0, "TiB": 64.0}  # a power of ten from another unit than the claim's


def my_share_of_limit(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """The share of a machine's memory bandwidth that one reply at this speed needs.

    bandwidth: bytes per second. common: bytes that every token reads. experts_bytes: bytes of all
    experts together, of which a token reads `slots` out of `experts`. Returns a float; 1 is the
    limit.
    """
    per_token = common + experts_bytes * slots / experts
    return tokens_per_second * per_token / bandwidth


def all_experts_read(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """Your token reads all experts. Only the chosen ones are read, and this is why a mixture of
    experts is fast.
    """
    return my_share_of_limit(tokens_per_second, bandwidth, common, experts_bytes, 1, 1)


def only_experts_read(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """You left out what every token reads: attention, routers and the unembedding."""
    return my_share_of_limit(tokens_per_second, bandwidth, 0, experts_bytes, experts, slots)


def share_upside_down(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """Your share is upside down: you divided the limit by the speed. A faster reply needs a larger
    share.
    """
    sizes = (common, experts_bytes, experts, slots)
    return 1 / my_share_of_limit(tokens_per_second, bandwidth, *sizes)


def the_limit_itself(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """You returned the largest possible number of tokens per second. The share is the claimed speed
    divided by it.
    """
    return 1 / my_share_of_limit(1, bandwidth, common, experts_bytes, experts, slots)


def bits_for_bytes(tokens_per_second, bandwidth, common, experts_bytes, experts, slots):
    """You multiplied by eight. Bandwidth and sizes are both in bytes here."""
    return 8 * my_share_of_limit(
        tokens_per_second, bandwidth, common, experts_bytes, experts, slots
    )


def speed_cases() -> Iterator[tuple]:
    """20b and 120b on two machines."""
    for config in (MODELS["20b"], MODELS["120b"]):
        parts = [each for each in tensor_table(config) if each.role.startswith("expert")]
        experts_bytes = sum(each.nbytes for each in parts)
        slots, experts = config.experts_per_token, config.num_experts
        common = bytes_per_token(config) - experts_bytes * slots // experts
        for speed, bandwidth in ((250, 1792e9), (20, 90e9)):
            yield speed, bandwidth, common, experts_bytes, experts, slots
    yield 10, 1e9, 10**6, 8 * 10**6, 8, 2


SHEET = Sheet(
    lesson="A_press",
    title="Exercises: what the press says",
    text="Read [A_press](../A_press.ipynb) first.",
    exercises=(
        Exercise(
            title="Active parameters",
            text=(
                "Count the parameters that one token uses, from the sizes of a model alone. Two"
                " articles got this number wrong by a factor of ten."
            ),
            solution=my_active_parameters,
            cases=size_cases,
            misconceptions=(
                all_experts_counted,
                embedding_counted,
                unembedding_forgotten,
                router_of_the_chosen_only,
                heads_share_the_hidden_size,
                keys_for_every_head,
                biases_forgotten,
                sinks_forgotten,
                norms_forgotten,
            ),
            hints=(
                "Go through one layer in the order of the map: norm, attention, norm, router,"
                " experts. Multiply by the layers, then add what exists once.",
                "A matrix with r rows and c columns, and a bias, has r * (c + 1) numbers. Query,"
                " key and value have (heads + 2 * kv_heads) * head_dim rows of `hidden` columns.",
                "An expert: 2 * width * (hidden + 1) + hidden * (width + 1). A layer: two norms,"
                " attention with its sinks, the whole router, and `slots` experts. Once: the last"
                " norm, hidden, and the unembedding, vocab * hidden.",
            ),
            minutes=12,
            difficulty=2,
        ),
        Exercise(
            title="A verdict",
            text=(
                "The lesson's `judge` knows three verdicts. Write one that also finds a power of"
                " ten, the mistake of two articles."
            ),
            solution=my_verdict,
            cases=claim_cases,
            misconceptions=(
                must_be_equal,
                digits_cut_off,
                near_is_enough,
                any_unit_holds,
                units_ignored,
                only_too_small,
                only_one_ten,
            ),
            hints=(
                "Decide in the order of the four verdicts. The question is the same each time: does"
                " this value round to the claimed text?",
                "`claimed.partition('.')[2]` is the text after the point; its length is the number"
                " of decimals. `list(values.values())` has the values, the claim's unit first.",
                'Write fits(value): f"{value:.{decimals}f}" == claimed. Try it on the first value,'
                " on the others, then on first * 10**n for n in -3, -2, -1, 1, 2, 3.",
            ),
            minutes=10,
            difficulty=2,
        ),
        Exercise(
            title="A speed and its limit",
            text=(
                "A token cannot be faster than its weights can be read. Compute which share of the"
                " memory bandwidth a claimed speed needs."
            ),
            solution=my_share_of_limit,
            cases=speed_cases,
            misconceptions=(
                all_experts_read,
                only_experts_read,
                share_upside_down,
                the_limit_itself,
                bits_for_bytes,
            ),
            hints=(
                "First count the bytes of one token. Then a second needs that many for each token.",
                "All arguments are plain numbers. bytes per token * tokens per second gives bytes"
                " per second, as `bandwidth` has them.",
                "per token: common + experts_bytes * slots / experts; then times the speed, divided"
                " by the bandwidth.",
            ),
            minutes=5,
            difficulty=1,
        ),
    ),
)
