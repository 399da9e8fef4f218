"""gpt-oss in one file, with Python's standard library only.

    python oss_lab/one_file.py "What is 347 * 62?"

It reads the checkpoint of gpt-oss-nano, renders the question as a chat, and generates the reply one
token at a time, all in plain loops. Read it from top to bottom: the file, four-bit weights, the
tokenizer, the chat format, the model (norm, positions, attention, experts), sampling, and the loop
that generates.
"""

import argparse
import base64
import json
import math
import random
import re
import struct
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

NANO = Path(__file__).with_name("assets") / "nano"
Vector = Sequence[float]
Matrix = Sequence[Vector]  # one row per output


# The file: eight bytes of header length, a JSON header, then the bytes of all tensors.


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Vectors as lists, matrices as lists of rows, and the four-bit matrices of experts."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = memoryview(data)[8 + length :]
    weights: dict[str, Any] = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw, width = tensors[begin:end], entry["shape"][-1]
        if entry["dtype"] == "BF16":
            flat = widen_bfloat16(raw)
            rows = [flat[n : n + width] for n in range(0, len(flat), width)]
            weights[name] = rows if len(entry["shape"]) == 2 else flat
        else:
            weights[name] = raw, entry["shape"]
    return weights


def widen_bfloat16(raw: memoryview) -> list[float]:
    """A bfloat16 is the upper half of a float32; the lower half is zero."""
    wide = bytearray(2 * len(raw))
    wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
    return array("f", bytes(wide)).tolist()


# Four-bit weights: 32 neighbors of a row share a scale, a power of two.

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
PAIRS = [(E2M1[byte & 15], E2M1[byte >> 4]) for byte in range(256)]  # the even weight is low


def decode_expert(weights: dict[str, Any], name: str, expert: int) -> Matrix:
    """The matrix of one expert; it is kept, because many tokens choose the same experts."""
    key = f"{name}, expert {expert}"
    if key not in weights:
        (blocks, (_, rows, groups, _)), (scales, _) = (
            weights[name + ".blocks"], weights[name + ".scales"]
        )  # fmt: skip
        matrix = [list[float]() for _ in range(rows)]
        for n in range(rows * groups):
            group = expert * rows * groups + n
            scale = math.ldexp(1, scales[group] - 127)
            for byte in blocks[16 * group : 16 * group + 16]:
                low, high = PAIRS[byte]
                matrix[n // groups] += (low * scale, high * scale)
        weights[key] = matrix
    return weights[key]


# The tokenizer: text is cut into pieces, and neighboring bytes of a piece are joined by rank.

WORDS = "startoftext endoftext return constrain channel start end message call"
SPECIALS = [f"<|{word}|>" for word in WORDS.split(" ")]
CONTRACTION = re.compile("'(?:[sS\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])")
# On the kinds of the characters: a letter, 0 number, n newline, s other space, . anything else.
PIECE = re.compile(r"[^n0a]?a+|0|s?[^sn0a]+n*|[sn]*n+|[sn]+(?![^sn])|[sn]+")


class Tokenizer:
    """nano's vocabulary: a file of lines "base64(token) rank"; special tokens follow."""

    def __init__(self, path: Path) -> None:
        lines = [line.split() for line in path.read_text("ascii").splitlines()]
        self.ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        self.tokens = {rank: token for token, rank in self.ranks.items()}
        self.specials = {name: len(self.ranks) + n for n, name in enumerate(SPECIALS)}

    def encode(self, text: str) -> list[int]:
        ids, kinds, at = list[int](), "".join(map(kind_of, text)), 0
        while at < len(text):
            match = CONTRACTION.match(text, at) or PIECE.match(kinds, at)
            assert match is not None
            ids += self.encode_piece(text[at : match.end()].encode())
            at = match.end()
        return ids

    def encode_piece(self, piece: bytes) -> list[int]:
        parts = [piece[n : n + 1] for n in range(len(piece))]
        while True:
            joins = [a + b for a, b in pairwise(parts)]
            known = [(self.ranks[join], n) for n, join in enumerate(joins) if join in self.ranks]
            if not known:
                return [self.ranks[part] for part in parts]
            _, place = min(known)
            parts[place : place + 2] = [joins[place]]


def kind_of(character: str) -> str:
    if character in "\r\n":
        return "n"
    category = unicodedata.category(character)[0]
    category = "Z" if character in "\t\x0b\x0c\x85" else category
    return {"Z": "s", "L": "a", "N": "0"}.get(category, ".")


# The chat format, Harmony: <|start|>role<|message|>text<|end|>, and channels in the reply.

SYSTEM = """You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06

Reasoning: {effort}

# Valid channels: analysis, commentary, final. Channel must be included for every message."""


def render(tokenizer: Tokenizer, question: str, effort: str) -> list[int]:
    """The ids of the prompt, up to where the assistant's message begins."""
    ids, special = list[int](), tokenizer.specials
    for role, text in (("system", SYSTEM.format(effort=effort)), ("user", question)):
        ids += [special["<|start|>"], *tokenizer.encode(role), special["<|message|>"]]
        ids += [*tokenizer.encode(text), special["<|end|>"]]
    return [*ids, special["<|start|>"], *tokenizer.encode("assistant")]


# The model reads one token at a time; `caches` has the keys and values of earlier tokens.


class Model:
    def __init__(self, folder: Path) -> None:
        self.weights = read_checkpoint(folder / "model.safetensors")
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.frequencies = yarn_frequencies(self.config)
        self.concentration = 0.1 * math.log(self.config["rope_scaling_factor"]) + 1
        layers = range(self.config["num_hidden_layers"])
        self.caches = [list[tuple[Matrix, Matrix]]() for _ in layers]

    def read(self, token: int) -> list[float]:
        """The logits of the next token."""
        x = self.weights["embedding.weight"][token]
        for layer in range(len(self.caches)):
            x = add(x, self.attention(layer, x))
            x = add(x, self.mixture(layer, x))
        normed = rms_norm(x, self.weights["norm.scale"])
        return [dot(row, normed) for row in self.weights["unembedding.weight"]]

    def linear(self, name: str, x: Vector) -> list[float]:
        rows, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return add([dot(row, x) for row in rows], bias)

    def attention(self, layer: int, x: Vector) -> list[float]:
        """What earlier tokens, and the token itself, add to `x`."""
        name, config, cache = f"block.{layer}.attn.", self.config, self.caches[layer]
        names = ("head_dim", "num_attention_heads", "num_key_value_heads")
        size, heads, kv_heads = (config[each] for each in names)
        qkv = self.linear(name + "qkv", rms_norm(x, self.weights[name + "norm.scale"]))
        parts = [qkv[n : n + size] for n in range(0, len(qkv), size)]
        rotated = [self.rotate(part, len(cache)) for part in parts[: heads + kv_heads]]
        cache.append((rotated[heads:], parts[heads + kv_heads :]))
        visible = cache[-config["sliding_window"] :] if layer % 2 == 0 else cache
        z = list[float]()
        for head, query in enumerate(rotated[:heads]):
            shared = head // (heads // kv_heads)  # several heads share keys and values
            scores = [dot(query, keys[shared]) / math.sqrt(size) for keys, _ in visible]
            sink = self.weights[name + "sinks"][head]  # it takes a share, and adds nothing
            pattern = softmax([*scores, sink])[:-1]
            columns = zip(*(values[shared] for _, values in visible), strict=True)
            z += [dot(pattern, column) for column in columns]
        return self.linear(name + "out", z)

    def rotate(self, x: Vector, position: int) -> list[float]:
        """RoPE: turn each pair (x[n], x[n + half]) by the position times the pair's frequency."""
        half, turned = len(x) // 2, list(x)
        for n, frequency in enumerate(self.frequencies):
            cos = math.cos(position * frequency) * self.concentration
            sin = math.sin(position * frequency) * self.concentration
            turned[n] = x[n] * cos - x[n + half] * sin
            turned[n + half] = x[n + half] * cos + x[n] * sin
        return turned

    def mixture(self, layer: int, x: Vector) -> list[float]:
        """What the chosen experts add to `x`."""
        name, weights = f"block.{layer}.mlp.", self.weights
        normed = rms_norm(x, weights[name + "norm.scale"])
        logits = self.linear(name + "gate", normed)
        ranked = sorted(range(len(logits)), key=lambda expert: -logits[expert])
        chosen = ranked[: self.config["experts_per_token"]]
        out = [0.0] * len(x)
        for expert, weight in zip(chosen, softmax([logits[n] for n in chosen]), strict=True):
            first = decode_expert(weights, name + "mlp1_weight", expert)
            hidden = add([dot(row, normed) for row in first], weights[name + "mlp1_bias"][expert])
            active = list(map(self.swiglu, hidden[0::2], hidden[1::2]))  # gate, up, gate, up, ...
            second = decode_expert(weights, name + "mlp2_weight", expert)
            result = add([dot(row, active) for row in second], weights[name + "mlp2_bias"][expert])
            out = [a + weight * b for a, b in zip(out, result, strict=True)]
        return out

    def swiglu(self, gate: float, up: float) -> float:
        """The gate is limited from above only; one is added to the other half."""
        limit = self.config["swiglu_limit"]
        gate, up = min(gate, limit), max(-limit, min(up, limit))
        return gate / (1 + math.exp(-1.702 * gate)) * (up + 1)


def dot(a: Vector, b: Vector) -> float:
    return sum(map(mul, a, b))


def add(a: Vector, b: Vector) -> list[float]:
    return [x + y for x, y in zip(a, b, strict=True)]


def rms_norm(x: Vector, scale: Vector) -> list[float]:
    size = math.sqrt(dot(x, x) / len(x) + 1e-5)
    return [value / size * factor for value, factor in zip(x, scale, strict=True)]


def softmax(scores: Vector) -> list[float]:
    largest = max(scores)
    masses = [math.exp(score - largest) for score in scores]
    total = sum(masses)
    return [mass / total for mass in masses]


def yarn_frequencies(config: dict[str, Any]) -> list[float]:
    """Radians per position of each pair: fast pairs keep RoPE's frequency, slow ones are slowed."""
    half, theta, frequencies = config["head_dim"] // 2, config["rope_theta"], list[float]()
    low, high = (
        half * math.log(config["initial_context_length"] / (turns * 2 * math.pi), theta)
        for turns in (config["rope_ntk_beta"], config["rope_ntk_alpha"])
    )
    low, high = max(low, 0), min(high, 2 * half - 1)
    for pair in range(half):
        ramp = min(max((pair - low) / (high - low), 0), 1)
        plain = theta ** (-pair / half)
        frequencies.append(plain * (1 - ramp) + plain / config["rope_scaling_factor"] * ramp)
    return frequencies


# Generation: sample a token, read it, and so on, until a token that ends the turn.


def generate(
    model: Model, tokenizer: Tokenizer, prompt: list[int], temperature: float
) -> Iterator[int]:
    """At temperature 0 the likeliest token; above it, a random one by probability."""
    usable = [*tokenizer.tokens, *tokenizer.specials.values()]
    stops = {tokenizer.specials[name] for name in ("<|return|>", "<|call|>", "<|endoftext|>")}
    logits, token = [model.read(id) for id in prompt][-1], None
    while token not in stops:
        if temperature == 0:
            token = max(usable, key=logits.__getitem__)
        else:
            (token,) = random.choices(usable, softmax([logits[id] / temperature for id in usable]))
        yield token
        logits = model.read(token)


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask gpt-oss-nano, with plain Python.")
    parser.add_argument("question")
    parser.add_argument("--effort", choices=("low", "medium", "high"), default="high")
    parser.add_argument("--temperature", type=float, default=0.0)
    arguments = parser.parse_args()
    tokenizer, model = Tokenizer(NANO / "nano.tiktoken"), Model(NANO)
    names = {id: name.encode() for name, id in tokenizer.specials.items()}
    prompt = render(tokenizer, arguments.question, arguments.effort)
    for token in generate(model, tokenizer, prompt, arguments.temperature):
        piece = names.get(token) or tokenizer.tokens[token]
        print(piece.decode("utf-8", "replace"), end="", flush=True)
    print()


if __name__ == "__main__":
    main()
