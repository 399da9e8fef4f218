"""`oss-lab inspect`: show the size and memory of a model, and check a checkpoint folder.

For a published model (20b, openai/gpt-oss-20b, 120b, nano) the weights are not needed. Any other
name or folder is checked completely. If it has defects, the first one is printed on stderr and the
exit status is 1; --json also prints all of them on stdout. No tensor is loaded; --deep reads all of
them, to find NaN and infinity.
"""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from oss_lab.checkpoint import plan
from oss_lab.checkpoint.fake import read_fake_mark
from oss_lab.checkpoint.layouts import (
    LAYOUTS,
    TITLES,
    ExpertStorage,
    StoredTensor,
    stored_table,
    tensor_table,
)
from oss_lab.cli._options import AsJson
from oss_lab.config import MODELS, ModelConfig
from oss_lab.errors import CheckpointError

if TYPE_CHECKING:
    from oss_lab.checkpoint.read import Checkpoint

PACKED_ROWS = {
    "packed experts, mapped from the file": "packed_experts",
    "dequantized experts, at most": "expert_cache",
}
DENSE_ROWS = {"dense experts": "dense_experts"}


def run(
    model: Annotated[
        str, Argument(metavar="MODEL", help=f"{', '.join(MODELS)}, a Hub id or a folder")
    ],
    as_json: AsJson = False,
    deep: Annotated[
        bool, Option("--deep", help="read every weight of a folder: find NaN and infinity")
    ] = False,
) -> int:
    """Show a model's configuration, size and memory; check a checkpoint."""
    from oss_lab.checkpoint.deep import find_non_finite
    from oss_lab.checkpoint.examine import examine
    from oss_lab.checkpoint.names import find_config_name
    from oss_lab.checkpoint.read import find_folder, to_checkpoint

    checkpoint, name = None, find_config_name(model)
    if deep and name is not None and model != "nano":
        raise CheckpointError(f"--deep reads weights: expected a checkpoint folder, got {model}")
    if deep or name is None:
        found = examine(find_folder(model))
        if deep:
            find_non_finite(found)
        if found.defects and as_json:
            defects = [asdict(defect) for defect in found.defects]
            print(json.dumps({"folder": str(found.folder), "defects": defects}, indent=2))
        checkpoint = to_checkpoint(found, see="--json")
        name = model if model in MODELS else str(checkpoint.folder)
    config = checkpoint.config if checkpoint else MODELS[name]
    if as_json:
        print(json.dumps(_as_json(name, config, checkpoint), indent=2))
    else:
        _print_tables(name, config, checkpoint)
    return 0


def _as_json(name: str, config: ModelConfig, checkpoint: "Checkpoint | None") -> dict[str, Any]:
    layout = checkpoint.layout if checkpoint else "original"
    experts = checkpoint.experts if checkpoint else "mxfp4"
    tensors = []
    for stored in stored_table(config, layout, experts):
        tensor = {"name": stored.name, "shape": list(stored.shape), "dtype": stored.dtype}
        if checkpoint:
            tensor["file"] = checkpoint.located[stored.name].file.name
        tensors.append(tensor)
    context = config.max_context_length
    return {
        "name": name,
        "layout": checkpoint.layout if checkpoint else None,
        "experts": experts,
        "fake": read_fake_mark(checkpoint) if checkpoint else None,
        "config": asdict(config),
        "parameters": asdict(plan.count_parameters(config)),
        "checkpoint_bytes": plan.checkpoint_bytes(config, experts),
        "bytes_per_layer": plan.bytes_per_layer(config, experts),
        "bytes_read_per_token": plan.bytes_per_token(config, experts),
        "max_context_length": context,
        "kv_cache_bytes": {
            "per_token": plan.kv_cache_bytes(config, 1),
            "max_context_full": plan.kv_cache_bytes(config, context),
            "max_context_window": plan.kv_cache_bytes(config, context, history="window"),
        },
        "memory": [
            asdict(memory) | {"total": memory.total} for memory in _plan_each_dtype(config, experts)
        ],
        "tensor_count": {kind: len(list(stored_table(config, kind, experts))) for kind in LAYOUTS},
        "tensors": tensors,
        "defects": [],
    }


def _print_tables(name: str, config: ModelConfig, checkpoint: "Checkpoint | None") -> None:
    from oss_lab.cli._pipe import make_console

    console = make_console()
    experts = checkpoint.experts if checkpoint else "mxfp4"
    where = "from its configuration, without weights"
    if checkpoint:
        files = len({located.file for located in checkpoint.located.values()})
        where = f"{TITLES[checkpoint.layout]} layout, {files} file{'s' * (files > 1)}, no defects"
        where += ", experts dense in BF16" if experts == "bf16" else ""
        if mark := read_fake_mark(checkpoint):
            where += f"; fake: {mark}"
    console.print(f"{name}: {where}", style="bold", markup=False, highlight=False, soft_wrap=True)
    for table in (
        _config_table(config),
        _tensor_table(config, checkpoint),
        _parameter_table(config, experts),
        _memory_table(config, experts),
    ):
        console.print()
        console.print(table)


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _config_table(config: ModelConfig) -> Any:
    table = _table("Configuration", "field", "value")
    for field, value in asdict(config).items():
        table.add_row(field, _layers(value) if field == "layer_types" else f"{value:,}")
    table.add_row("max_context_length", f"{config.max_context_length:,}")
    return table


def _layers(types: tuple[str, ...]) -> str:
    """One letter per layer, in groups of eight: s for sliding, f for full attention."""
    letters = "".join(kind[0] for kind in types)
    return " ".join(letters[n : n + 8] for n in range(0, len(letters), 8)) + "  (sliding, full)"


def _tensor_table(config: ModelConfig, checkpoint: "Checkpoint | None") -> Any:
    layout = checkpoint.layout if checkpoint else "original"
    experts = checkpoint.experts if checkpoint else "mxfp4"
    count = len(list(stored_table(config, layout, experts)))
    table = _table(f"Tensors: {count}", f"name in the {TITLES[layout]} layout", "shape", "dtype")
    for spec in tensor_table(config, experts):
        if not spec.name.startswith("block.") or spec.name.startswith("block.0."):
            for stored in spec.stored(layout):
                table.add_row(_generic_name(stored), str(list(stored.shape)), stored.dtype)
    return table


def _generic_name(stored: StoredTensor) -> str:
    """The name with n as the layer number: all layers have the same tensors."""
    return stored.name.replace("block.0.", "block.n.").replace("layers.0.", "layers.n.")


def _parameter_table(config: ModelConfig, experts: ExpertStorage) -> Any:
    table = _table("Parameters", "part", "count", "billions")
    for part, count in asdict(plan.count_parameters(config)).items():
        table.add_row(part, f"{count:,}", f"{count / 1e9:.2f}")
    table.add_row("checkpoint bytes", f"{plan.checkpoint_bytes(config, experts):,}", "")
    table.add_row("bytes read per decoded token", f"{plan.bytes_per_token(config, experts):,}", "")
    return table


def _plan_each_dtype(config: ModelConfig, experts: ExpertStorage) -> list[plan.MemoryPlan]:
    return [plan.plan_memory(config, dtype=dtype, storage=experts) for dtype in plan.DTYPE_BYTES]


def _memory_table(config: ModelConfig, experts: ExpertStorage) -> Any:
    plans = _plan_each_dtype(config, experts)
    table = _table("Memory", "part", *(memory.dtype for memory in plans))
    rows = {
        "weights without experts": "weights",
        **(DENSE_ROWS if experts == "bf16" else PACKED_ROWS),
        f"keys and values of {plans[0].context:,} tokens": "kv_cache",
        "total": "total",
    }
    for title, name in rows.items():
        table.add_row(title, *(_size(getattr(memory, name)) for memory in plans))
    context = config.max_context_length
    for history in ("full", "window"):
        sizes = (
            plan.kv_cache_bytes(config, context, dtype=memory.dtype, history=history)
            for memory in plans
        )
        table.add_row(f"keys and values of {context:,} tokens, {history}", *map(_size, sizes))
    return table


def _size(count: int) -> str:
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= bytes_:
            return f"{count / bytes_:,.2f} {unit}"
    return f"{count / 2**10:,.2f} KiB"
