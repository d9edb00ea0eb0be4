"""``headwise info``: what a bug report has to say."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .options import examples

EXAMPLES = examples("headwise info", "headwise info --no-peak", "headwise info --json")


def info(
    peak: Annotated[
        bool, typer.Option("--peak/--no-peak", help="Measure the peaks: a second.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON object.")] = False,
) -> None:
    """Show versions, CPU, instruction set, threads and why that many, and the machine's peaks.

    Paste it into a bug report.
    """
    from ..machine import report

    found = report(0.2 if peak else None)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    isa, threads = found["isa"], found["threads"]
    packages = [f"{name} {version or 'none'}" for name, version in found["packages"].items()]
    rows = {
        "headwise": found["headwise"],
        "Python": found["python"],
        "NumPy": found["numpy"],
        "packages": ", ".join(packages),
        "system": found["system"],
        "CPU": found["cpu"],
        "features": " ".join(found["features"]) or "unknown",
        "ISA": f"{isa['active']} of {', '.join(isa['available'])}",
        "": f"HEADWISE_ISA {_set(isa['HEADWISE_ISA'])}",
        "threads": f"{threads['count']}: {threads['why']}",
        " ": f"{threads['cpus']} CPUs, cgroup quota {threads['cgroup_quota'] or 'none'}, "
        + ", ".join(
            f"{name} {_set(threads[name])}" for name in ("HEADWISE_NUM_THREADS", "OMP_NUM_THREADS")
        ),
    }
    if "peak" in found:
        *rates, (_, read) = found["peak"].items()
        rows["peak"] = ", ".join(f"{name} {rate:.0f}" for name, rate in rates)
        rows["peak"] += f" GFLOP/s; read {read:.1f} GB/s"
    return [f"{name:<10}{value}" for name, value in rows.items()]


def _set(value: str | None) -> str:
    return "not set" if value is None else f"= {value!r}"
