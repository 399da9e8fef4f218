"""The matrices of a layer that can get a low-rank part, under PEFT's names."""

from dataclasses import dataclass

from oss_lab.config import ModelConfig


@dataclass(frozen=True)
class Target:
    """One kind of matrix.

    Attributes:
        module: the module in Hugging Face's layer that has it.
        parameter: the parameter's name if PEFT adapts a parameter (`target_parameters`); None if
            it adapts a linear layer (`target_modules`).
        is_stacked: whether there is one matrix per expert.
    """

    module: str
    parameter: str | None = None
    is_stacked: bool = False


TARGETS = {
    "q_proj": Target("self_attn.q_proj"),
    "k_proj": Target("self_attn.k_proj"),
    "v_proj": Target("self_attn.v_proj"),
    "o_proj": Target("self_attn.o_proj"),
    "router": Target("mlp.router", "weight"),
    "gate_up_proj": Target("mlp.experts", "gate_up_proj", is_stacked=True),
    "down_proj": Target("mlp.experts", "down_proj", is_stacked=True),
}
GROUPS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "experts": ("gate_up_proj", "down_proj"),
    "all": tuple(TARGETS),
}
"""Short names for several targets."""


def matrix_size(config: ModelConfig, target: str) -> tuple[int, int]:
    """(rows, columns) of one such matrix: outputs and inputs."""
    hidden, width = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "router": (config.num_experts, hidden),
        "gate_up_proj": (2 * width, hidden),
        "down_proj": (hidden, width),
    }[target]


def expand_groups(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The targets that these names mean, each once and in the order of TARGETS.

    Unknown names are kept, at the end.
    """
    given = {each for name in names for each in GROUPS.get(name, (name,))}
    return (*(name for name in TARGETS if name in given), *sorted(given - TARGETS.keys()))
