"""The command line: ``captum-lipschitz ara``, ``audit``, ``demo`` and ``plugins``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_lipschitz import __version__
from captum_lipschitz._reading import one_line
from captum_lipschitz.cli_ara import add_ara
from captum_lipschitz.cli_audit import add_audit
from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.plugin import PluginRecord, plugins


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 on success, 1 on an error of ours or of the disk, 2 on wrong usage."""
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except BrokenPipeError:  # whoever read the output, as `head` does, has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at exit
        return 1
    except (CaptumLipschitzError, OSError) as error:
        _say(f"captum-lipschitz: {one_line(error)}", error=True)
        return 1
    except MemoryError as error:
        _say(f"captum-lipschitz: not enough memory ({one_line(error)})", error=True)
        return 1
    except KeyboardInterrupt:
        _say("captum-lipschitz: interrupted", error=True)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="captum-lipschitz", description="Robust training, adversarial explanations, Accuracy-Robustness Area."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_ara(commands)
    add_audit(commands)
    _add_demo(commands)
    _add_plugins(commands)
    return parser


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser("demo", help="train, measure and explain two small networks on real digits")
    demo.add_argument(
        "--output", type=Path, default=Path("captum-lipschitz-demo"), help="folder (default: %(default)s)"
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of weights, order and draws (default: %(default)s)")
    demo.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    demo.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of the CPU (default: %(default)s; networks this small gain little from more)",
    )
    demo.add_argument("--quick", action="store_true", help="seconds instead of minutes; the figures then mean nothing")
    demo.set_defaults(run=_demo)


def _add_plugins(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    listing = commands.add_parser("plugins", help="list every plugin found, with its status and components")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_plugins)


def _demo(parsed: argparse.Namespace) -> int:
    import torch

    from captum_lipschitz.demo import DemoSettings, run_demo

    torch.set_num_threads(max(1, parsed.threads))
    settings = DemoSettings.quick(parsed.seed) if parsed.quick else DemoSettings(seed=parsed.seed)
    run_demo(parsed.output, settings=settings, device=parsed.device, say=_say)
    return 0


def _plugins(parsed: argparse.Namespace) -> int:
    records = plugins()
    if parsed.json:
        _say(json.dumps([_as_json(record) for record in records], indent=2))
    else:
        for record in records:
            _say(_described(record))
    return 0


def _described(record: PluginRecord) -> str:
    lines = [f"{record.name} ({record.distribution} {record.version}): {record.status}"]
    if record.error:
        lines.append(f"    {record.error}")
    for c in record.components:
        host = f" (attaches to {c.attaches_to})" if c.attaches_to else ""
        lines.append(f"    {c.kind:<14} {c.name:<24} {c.summary}{host}")
    return "\n".join(lines)


def _seed(text: str) -> int:
    """A seed that torch takes: argparse turns the error into one of usage."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise ValueError(text)
    return value


def _as_json(record: PluginRecord) -> dict[str, Any]:
    fields = ("name", "kind", "summary", "reference", "api_version", "attaches_to")
    components = [{name: getattr(component, name) for name in fields} for component in record.components]
    plain = {name: getattr(record, name) for name in ("name", "distribution", "version", "status", "error")}
    return {**plain, "components": components}


def _say(text: str, *, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()
