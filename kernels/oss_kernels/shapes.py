"""The sizes of the published models. Kernels are compiled and timed for these."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shapes:
    """Source: config.json of the checkpoints. Only layers and experts differ between the two."""

    name: str
    layers: int
    experts: int
    slots: int = 4  # experts per token
    hidden: int = 2880
    width: int = 2880  # of an expert
    heads: int = 64
    kv_heads: int = 8
    head_dim: int = 64
    window: int = 128
    vocab: int = 201_088

    @property
    def qkv_rows(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


GPT_OSS_20B = Shapes("20b", layers=24, experts=32)
GPT_OSS_120B = Shapes("120b", layers=36, experts=128)
MODELS = (GPT_OSS_20B, GPT_OSS_120B)
