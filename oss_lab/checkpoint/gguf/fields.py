"""The metadata of a GGUF file: the model's shape, RoPE, its vocabulary and its chat template."""

from pathlib import Path
from typing import TYPE_CHECKING

import tiktoken

from oss_lab.checkpoint.huggingface_tokenizer import (
    PAD,
    RETURN,
    START,
    TEMPLATE,
    build_chat_template,
    derive_merges,
    to_text,
)
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.harmony.specials import find_special_tokens

if TYPE_CHECKING:
    from gguf import GGUFWriter

PRE_TOKENIZER = "gpt-4o"  # llama.cpp's name of the regular expression of o200k and of nano


def add_fields(writer: "GGUFWriter", checkpoint: Checkpoint, encoding: tiktoken.Encoding) -> None:
    """Add all metadata but the general kind, which the writer adds itself."""
    add_shape(writer, checkpoint)
    add_vocabulary(writer, encoding, checkpoint.config.vocab_size)
    own = checkpoint.folder / TEMPLATE
    template = own.read_text("utf-8") if own.is_file() else build_chat_template(encoding)
    writer.add_chat_template(template)


def add_shape(writer: "GGUFWriter", checkpoint: Checkpoint) -> None:
    """Add the values of config.json."""
    import gguf

    config = checkpoint.config
    is_packed = checkpoint.experts == "mxfp4"
    kind = gguf.LlamaFileType.MOSTLY_MXFP4_MOE if is_packed else gguf.LlamaFileType.MOSTLY_BF16
    writer.add_name(_name(checkpoint.folder))
    writer.add_file_type(kind)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_expert_feed_forward_length(config.intermediate_size)
    writer.add_expert_count(config.num_experts)
    writer.add_expert_used_count(config.experts_per_token)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_sliding_window(config.sliding_window)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(config.rope_scaling_factor)
    writer.add_rope_scaling_orig_ctx_len(config.initial_context_length)


def add_vocabulary(writer: "GGUFWriter", encoding: tiktoken.Encoding, size: int) -> None:
    """Add `size` tokens. Special tokens are control tokens; an id without a token is unused."""
    import gguf

    ranks = {token: encoding.encode_single_token(token) for token in encoding.token_byte_values()}
    specials = find_special_tokens(encoding)
    tokens = [f"[PAD{id}]" for id in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, id in ranks.items():
        tokens[id], types[id] = to_text(token), gguf.TokenType.NORMAL
    for id, name in specials.names.items():
        if id < size:
            tokens[id], types[id] = name, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{to_text(a)} {to_text(b)}" for a, b in derive_merges(ranks)])
    writer.add_bos_token_id(specials.ids[START])
    writer.add_eos_token_id(specials.ids[RETURN])
    writer.add_pad_token_id(specials.ids[PAD])
    writer.add_add_bos_token(False)


def _name(folder: Path) -> str:
    return f"gpt-oss-{folder.name}" if folder.name == "nano" else folder.resolve().name
