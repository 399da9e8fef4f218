"""The bytes that a decode step must read: the weights that one token uses, keys and values."""

from oss_kernels.backends import Backend

from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.checkpoint.plan import DTYPE_BYTES, PACKED, Dtype, kv_cache_bytes
from oss_lab.config import ModelConfig


def count_step_bytes(config: ModelConfig, dtype: Dtype, kernels: Backend, context: int) -> int:
    """Bytes read to decode one token after `context` others, at batch size 1.

    The kernels read the experts packed; the reference model reads them dequantized.
    """
    total, size = 0, DTYPE_BYTES[dtype]
    for spec in tensor_table(config):
        is_packed = spec.role in PACKED and kernels.name != "reference"
        whole = spec.nbytes if is_packed else spec.parameters * size
        if spec.role == "embedding":
            total += config.hidden_size * size  # one row
        elif spec.role.startswith("expert"):
            total += whole // config.num_experts * config.experts_per_token
        else:
            total += whole
    return total + kv_cache_bytes(config, context, dtype=dtype, history="window")
