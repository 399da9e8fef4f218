"""Tokens, Experts and Attention: of a run, or of the caller's own array over tokens."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import describe
from oss_lab.lab import Lab
from oss_lab.plots import Passage
from oss_lab.record.reply import Reply
from oss_lab.record.trace import Trace
from oss_lab.server.remote import Connection
from oss_widgets.sources.kernel import Work
from oss_widgets.sources.stored import TextSource
from oss_widgets.views.still import show_table
from oss_widgets.views.view import View

ARRAY_SIZES = {
    "layer": "num_hidden_layers",
    "slot": "experts_per_token",
    "head": "num_attention_heads",
}
"""The fields of config.json that the axes of an array show."""


class ArrayView(View):
    """A view of runs, or of the caller's own array with one number or row per token.

    Args:
        of: as in `View`, or an array; its shape is in AXES.
        tokens: with an array: the text of each token.
        name, unit: with an array: what the numbers are.
    """

    AXES: tuple[str, ...] = ()

    def __init__(
        self,
        of: Any,
        *,
        lab: Lab | None = None,
        tokens: Sequence[str] | None = None,
        name: str | None = None,
        unit: str | None = None,
    ) -> None:
        given = (tokens, name, unit)
        if isinstance(of, View | Lab | Reply | Trace | Connection):
            if any(each is not None for each in given):
                raise LabError("tokens, name and unit belong to an array; leave them out")
            self.array: np.ndarray | None = None
            super().__init__(of, lab=lab)
            return
        if lab is not None:
            raise LabError("lab has an effect only with a Reply; leave it out")
        self.array = values = self._read_array(of)
        count = values.shape[self.AXES.index("seq")]
        if tokens is not None and not isinstance(tokens, Iterable):
            raise LabError(f"tokens must be {count} texts, one per token, got {describe(tokens)}")
        texts = [str(n) for n in range(count)] if tokens is None else list(tokens)
        if len(texts) != count or not all(isinstance(each, str) for each in texts):
            raise LabError(f"tokens must be {count} texts, one per token, got {describe(tokens)}")
        self.array_name, self.unit = name or "value", unit or ""
        sizes = dict(zip(self.AXES, values.shape, strict=True))
        config = {ARRAY_SIZES[axis]: n for axis, n in sizes.items() if axis in ARRAY_SIZES}
        self._connect(TextSource(texts, config))
        self.options = {
            "array": {
                "values": values.tobytes(),
                "shape": list(values.shape),
                "name": self.array_name,
                "unit": self.unit,
                "axes": " ".join(self.AXES),
            }
        }

    @classmethod
    def _read_array(cls, of: Any) -> np.ndarray:
        """The caller's numbers as float32; an xarray's axes are put in the order of AXES.

        Raises:
            LabError: they are not an array of this shape.
        """
        shape = f"[{' '.join(cls.AXES)}]"
        try:
            plain: Any = of
            if isinstance(of, torch.Tensor):
                plain = of.detach().cpu().float().numpy()
            if set(getattr(plain, "dims", ())) == set(cls.AXES):
                plain = plain.transpose(*cls.AXES)
            values = np.asarray(plain)
            if values.dtype.kind not in "biufO":
                raise TypeError(values.dtype)
            values = np.asarray(values, np.float32, order="C")
        except (TypeError, ValueError, NotImplementedError):  # the last one: it holds no data
            raise LabError(
                f"expected a Lab, a Reply with its lab, a Trace, another view or an array {shape},"
                f" got {describe(of)}"
            ) from None
        lengths = {n for axis, n in zip(cls.AXES, values.shape, strict=False) if axis == "seq"}
        if values.ndim != len(cls.AXES) or not values.size or len(lengths) > 1:
            raise LabError(f"{cls.__name__} shows an array {shape}, got {describe(of)}")
        return values

    def _compute(self, run: Any) -> Work:
        if self.array is None:
            return (yield from self._compute_run(run))
        yield
        texts = [label.text for label in run.labels]
        return {
            "tokens": texts,
            "name": self.array_name,
            "unit": self.unit,
            "values": self.array.tolist(),
        }

    def _compute_run(self, run: Any) -> Work:
        raise NotImplementedError

    def _still(self) -> Passage:
        run = self.source.shown
        if self.array is None:
            return self._still_of(run)
        shape = " x ".join(map(str, self.array.shape))
        unit = f" in {self.unit}" if self.unit else ""
        axis = self.AXES.index("seq")
        means = np.moveaxis(self.array, axis, 0).reshape(len(run.labels), -1).mean(1)
        rows = [[label.text, float(mean)] for label, mean in zip(run.labels, means, strict=True)]
        what = "value" if self.array.ndim == 1 else "mean"
        caption = f"{self.array_name}{unit}, {shape}."
        return show_table(caption, ["token", what], rows)

    def _still_of(self, run: Any) -> Passage:
        raise NotImplementedError

    def _read_layers(self, run: Any, name: str) -> list[Any]:
        """A point of every layer, over all tokens, as lists."""
        layers = self.source.points.get(name) or []
        if not layers:
            raise LabError(f"{name} is not known for these tokens")
        end = len(run.ids)
        return [self.source.read_point(run, name, n, 0, end).tolist() for n in layers]


class Tokens(ArrayView):
    """Every token with its id, channel, probability and alternatives; or an array [seq]."""

    NAME, TITLE, AXES = "tokens", "Tokens", ("seq",)

    def _compute_run(self, run: Any) -> Work:
        yield
        logprobs = [None if token is None else token.logprob for token in run.generated]
        return {
            "ids": list(run.ids),
            "tokens": [label.text for label in run.labels],
            "channels": [label.channel for label in run.labels],
            "logprobs": logprobs,
            "promptLength": run.prompt_length,
        }

    def _still_of(self, run: Any) -> Passage:
        rows = []
        for n, (label, token) in enumerate(zip(run.labels, run.generated, strict=True)):
            probability = None if token is None else float(np.exp(token.logprob))
            rows.append([n, label.text, label.section, probability])
        caption = f"{len(rows)} tokens, of which {run.prompt_length} are the prompt."
        return show_table(caption, ["position", "token", "message", "probability"], rows)


class Experts(ArrayView):
    """Which experts each token chose, layer by layer; or an array [layer, seq, slot]."""

    NAME, TITLE, AXES = "experts", "Experts", ("layer", "seq", "slot")

    def _compute_run(self, run: Any) -> Work:
        yield
        names = {"moe.expert_ids": "expertIds", "moe.expert_weights": "weights"}
        names |= {"moe.margin": "margin", "moe.entropy": "entropy"}
        return {
            "tokens": [label.text for label in run.labels],
            **{
                key: self._read_layers(run, name)
                for name, key in names.items()
                if self.source.points.get(name)
            },
        }

    def _still_of(self, run: Any) -> Passage:
        chosen = self._read_layers(run, "moe.expert_ids")
        rows = [
            [n, label.text, *(str(layer[n][0]) for layer in chosen)]
            for n, label in enumerate(run.labels)
        ]
        layers = self.source.points["moe.expert_ids"] or []
        caption = f"The first expert of {len(rows)} tokens in {len(chosen)} layers."
        return show_table(caption, ["position", "token", *(f"layer {n}" for n in layers)], rows)


class Attention(ArrayView):
    """Where each head looks, and its share on the sink; or an array [head, seq, seq]."""

    NAME, TITLE, AXES = "attention", "Attention", ("head", "seq", "seq")

    def _compute_run(self, run: Any) -> Work:
        yield
        found: dict[str, Any] = {"tokens": [label.text for label in run.labels]}
        if self.source.points.get("attn.sink_mass"):
            found["sinkMass"] = self._read_layers(run, "attn.sink_mass")
        token, layer = self.selection["token"], self.selection["layer"]
        layers = self.source.points.get("attn.pattern") or []
        if token is not None and layer in layers and token < len(run.ids):
            row = self.source.read_point(run, "attn.pattern", layer, token, token + 1)
            found |= {"token": token, "layer": layer, "pattern": row[0].tolist()}
        return found

    def _still_of(self, run: Any) -> Passage:
        masses = np.array(self._read_layers(run, "attn.sink_mass")).mean(1)
        heads = [f"head {n}" for n in range(masses.shape[1])]
        layers = self.source.points["attn.sink_mass"] or []
        rows = [[f"layer {n}", *map(float, row)] for n, row in zip(layers, masses, strict=True)]
        return show_table("Mean share of attention on the sink.", ["layer", *heads], rows)
