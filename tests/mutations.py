"""Break the library on purpose, and see whether the lesson that teaches the broken thing notices.

    python tests/mutations.py             every mutation, as a Markdown table
    python tests/mutations.py rope sink   some of them

For each mutation, a copy of the project gets one changed line. The lesson runs in that copy, and
every assertion that fails is listed with the heading of its section. What a reply says is not
compared. Run once per release; the table is in `notebooks/book/evidence.md`.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("oss_lab", "kernels", "widgets", "notebooks")


@dataclass(frozen=True)
class Mutation:
    """One changed line.

    Attributes:
        what: the mistake in words.
        file: the file that changes.
        before: text that occurs once in it.
        after: what replaces it.
        lesson: the lesson that must notice.
    """

    what: str
    file: str
    before: str
    after: str
    lesson: str


ATTENTION, ROPE, MOE = (f"oss_lab/model/{name}.py" for name in ("attention", "rope", "moe"))
MXFP4 = "kernels/oss_kernels/mxfp4/reference.py"
MUTATIONS = {
    "rope": Mutation(
        "RoPE: the other sign",
        ROPE,
        "x * cos + swapped * sin",
        "x * cos - swapped * sin",
        "03_positions",
    ),
    "pairs": Mutation(
        "RoPE: rolled by a quarter, not by half",
        ROPE,
        "x.shape[-1] // 2, dims",
        "x.shape[-1] // 4, dims",
        "03_positions",
    ),
    "ramp": Mutation(
        "YaRN: no ramp between the limits",
        ROPE,
        "((pair - low) / (high - low)).clamp(0, 1)",
        "(pair > low).float()",
        "03_positions",
    ),
    "concentration": Mutation(
        "YaRN: concentration 1",
        ROPE,
        "scale = yarn_concentration(config.rope_scaling_factor)",
        "scale = 1.0",
        "03_positions",
    ),
    "norm": Mutation(
        "RMSNorm: mean subtracted",
        "oss_lab/model/norm.py",
        "wide = x.float()",
        "wide = x.float() - x.float().mean(-1, keepdim=True)",
        "03_positions",
    ),
    "sink": Mutation(
        "attention: sink dropped",
        ATTENTION,
        "shares = torch.cat((scores, column), dim=-1)",
        "shares = torch.cat((scores, column - torch.inf), dim=-1)",
        "04_attention",
    ),
    "window": Mutation(
        "attention: window + 1",
        ATTENTION,
        "visible & (back < window)",
        "visible & (back <= window)",
        "04_attention",
    ),
    "scale": Mutation(
        "attention: no 1 / sqrt(head_dim)",
        ATTENTION,
        "query_key_scores(q * q.shape[-1] ** -0.5, k)",
        "query_key_scores(q, k)",
        "04_attention",
    ),
    "groups": Mutation(
        "attention: query heads in the wrong groups",
        ATTENTION,
        "left = left.reshape(batch, right.shape[1], -1, inner)",
        "left = left.unflatten(1, (-1, right.shape[1])).transpose(1, 2).reshape("
        "batch, right.shape[1], -1, inner)",
        "04_attention",
    ),
    "softmax": Mutation(
        "router: softmax before the choice",
        MOE,
        "chosen = router_logits.gather(-1, ids)",
        "return router_logits.softmax(-1).gather(-1, ids)",
        "05_experts",
    ),
    "clamp": Mutation(
        "SwiGLU: gate clamped on both sides",
        MOE,
        "gate.float().clamp(max=limit)",
        "gate.float().clamp(-limit, limit)",
        "05_experts",
    ),
    "plus": Mutation("SwiGLU: no + 1", MOE, "* (u + 1))", "* u)", "05_experts"),
    "interleaved": Mutation(
        "SwiGLU: halves, not interleaved",
        MOE,
        "return gate_up[..., 0::2], gate_up[..., 1::2]",
        "return gate_up.chunk(2, dim=-1)",
        "05_experts",
    ),
    "bias": Mutation(
        "experts: output bias dropped",
        MOE,
        "self.mlp2_weight, self.mlp2_bias)",
        "self.mlp2_weight, 0 * self.mlp2_bias)",
        "05_experts",
    ),
    "nibbles": Mutation(
        "MXFP4: nibbles swapped",
        MXFP4,
        "torch.stack((blocks & 0x0F, blocks >> 4), dim=-1)",
        "torch.stack((blocks >> 4, blocks & 0x0F), dim=-1)",
        "06_mxfp4",
    ),
    "scales": Mutation(
        "MXFP4: every scale one too large",
        MXFP4,
        "scales.int() - SCALE_BIAS",
        "scales.int() + 1 - SCALE_BIAS",
        "06_mxfp4",
    ),
    "parser": Mutation(
        "Harmony: a reply's analysis is forgotten",
        "oss_lab/record/reply.py",
        'return self._on("analysis")',
        'return self._on("commentary")',
        "02_harmony",
    ),
}


def list_failures(mutation: Mutation) -> Iterator[str]:
    """The assertions of the lesson that fail, as "section: message"."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "_build", "images")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        file = copy / mutation.file
        text = file.read_text("utf-8")
        assert text.count(mutation.before) == 1, f"{mutation.file}: {mutation.before!r} not once"
        file.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
        notebook = nbformat.read(copy / "notebooks" / f"{mutation.lesson}.ipynb", as_version=4)
        path = os.pathsep.join(str(copy / name) for name in ("", "kernels", "widgets"))
        nbclient.NotebookClient(
            notebook,
            allow_errors=True,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(copy / "notebooks")}},
        ).execute(
            env=os.environ
            | {
                "PYTHONPATH": path,
                "OSS_LAB_COURSE": folder,
                "TQDM_DISABLE": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
        )
    section = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^##? (.+)$", cell.source, re.MULTILINE)
            section = found[-1] if found else section
            continue
        for output in cell.outputs:
            if output.output_type == "error" and output.ename == "AssertionError":
                yield f"{section}: {output.evalue or 'an assertion without words'}"


def main(names: list[str]) -> int:
    print("| mutation | lesson | section: assertion that fails |\n|---|---|---|", flush=True)
    missed = 0
    for name in names or MUTATIONS:
        mutation = MUTATIONS[name]
        failures = list(list_failures(mutation))
        missed += not failures
        shown = "<br>".join(failures) or "**nothing**"
        print(f"| {mutation.what} | {mutation.lesson} | {shown} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
