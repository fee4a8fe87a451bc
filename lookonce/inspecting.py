"""`lookonce inspect`: the two halves of a checkpoint, and everything that is wrong with it."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from checkpoint import HalfInspection, Inspection, inspect
from lookonce.amounts import bytes_text, count_text, counted


def inspect_directory(model_dir: Path, console: Console, *, as_json: bool) -> bool:
    """Looks at a checkpoint and shows what it found; whether it is without fault."""
    inspection = inspect(model_dir)
    if as_json:
        console.out(json.dumps(inspection.to_json(), indent=2, ensure_ascii=False), highlight=False)
    else:
        _show(inspection, console)
    return not inspection.faults


def _show(inspection: Inspection, console: Console) -> None:
    console.print(Text(f"{inspection.name}: {inspection.family or 'unknown family'}", "bold"), soft_wrap=True)
    if inspection.halves:
        console.print(_table(inspection.halves))
    for repair in inspection.repaired:
        console.print(Text(f"repaired: {repair}", "yellow"), soft_wrap=True)
    for fault in inspection.faults:
        half = f" [{fault.half}]" if fault.half else ""
        console.print(Text(f"fault{half}: {fault}", "red"), soft_wrap=True)
    console.print(Text(_verdict(inspection), "bold red" if inspection.faults else "bold green"))


def _verdict(inspection: Inspection) -> str:
    if inspection.faults:
        return counted(len(inspection.faults), "fault")
    elsewhere = [half.half for half in inspection.halves if half.bytes_here < half.bytes]
    if not elsewhere:
        return "no faults: both halves can be served"
    return f"no faults in what is here; not downloaded: the weights of the {' and the '.join(elsewhere)} half"


def _table(halves: tuple[HalfInspection, ...]) -> Table:
    table = Table()
    for heading in ("half", "tensors", "parameters", "bytes", "here", "stored as", "shards", "starts"):
        right = heading in ("tensors", "parameters", "bytes", "here")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for half in halves:
        table.add_row(
            half.half.value,
            f"{half.tensors:,}",
            count_text(half.parameters),
            bytes_text(half.bytes),
            "all" if half.bytes_here == half.bytes else bytes_text(half.bytes_here),
            ", ".join(half.dtypes),
            _shards(half.shards),
            Text("yes", "green") if half.loads else Text("no", "red"),
        )
    return table


def _shards(names: tuple[str, ...]) -> str:
    """The files, or how many where the list would be long."""
    return "\n".join(names) if len(names) <= 4 else f"{names[0]} … {names[-1]} ({len(names)})"
