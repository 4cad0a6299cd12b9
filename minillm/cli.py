"""The command line: `minillm generate`, `minillm tour`, and the course's `start`, `check`, `progress`, `reset`.

A user's mistake is answered with one line on stderr and exit status 2, never with a traceback.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from minillm.course.commands import add_commands
from minillm.errors import MinillmError, RequestError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 2 a mistake in what was asked, 130 interrupted."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal in cp1252 shows ? where it has no sign
    try:
        args.run(args)
    except (MinillmError, ValueError, TypeError) as error:
        print(f"minillm {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this the interpreter complains when it flushes on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minillm", description="A small, complete engine for LLM inference."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="continue a text", description="Continue a text.")
    generate.set_defaults(run=_generate)
    generate.add_argument("prompt", nargs="?", help="the text; or use --file")
    generate.add_argument("--file", type=Path, help="read the prompt from this UTF-8 file")
    generate.add_argument("--chat", action="store_true", help="send the prompt as a user's message")
    generate.add_argument("--stream", action="store_true", help="print the text as it comes")
    generate.add_argument(
        "--model", default=None, help="bundled name, folder, GGUF file or hub id (default: tinytales)"
    )
    generate.add_argument("--device", default="auto", help="auto, cpu or cuda")
    generate.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    for name, kind, default in (
        ("max-tokens", int, 128),
        ("temperature", float, 0.8),
        ("top-p", float, 1.0),
        ("top-k", int, 0),
        ("n", int, 1),
        ("seed", int, None),
    ):
        generate.add_argument(
            f"--{name}", type=kind, default=default, help=f"SamplingParams.{name.replace('-', '_')}"
        )
    generate.add_argument(
        "--stop", action="append", help="end before this string; may be given several times"
    )

    tour = commands.add_parser(
        "tour",
        help="climb the ladder of optimisations, measured here",
        description="Measure every optimisation.",
    )
    tour.set_defaults(run=_tour)
    tour.add_argument(
        "--model", default=None, help="bundled name, folder, GGUF file or hub id (default: tinytales)"
    )
    tour.add_argument("--out", type=Path, default=Path(), help="folder for tour.json and tour.png")
    add_commands(commands)
    return parser


def _model(args: argparse.Namespace) -> str:
    return args.model or os.environ.get("MINILLM_MODEL") or "tinytales"


def _prompt(args: argparse.Namespace) -> str:
    if (args.prompt is None) == (args.file is None):
        raise RequestError("give a prompt or --file, one of them")
    if args.file is None:
        return str(args.prompt)
    try:
        return str(args.file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{args.file} is not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start}): "
            "convert it, for example with iconv -t UTF-8"
        ) from error
    except OSError as error:
        raise RequestError(f"cannot read the prompt from {args.file}: {error.strerror}") from error


def _generate(args: argparse.Namespace) -> None:
    from minillm.llm import LLM
    from minillm.sampling import SamplingParams

    prompt = _prompt(args)
    params = SamplingParams(
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        n=args.n,
        seed=args.seed,
        stop=args.stop,
    )
    if args.stream and args.n > 1:
        raise RequestError(f"--stream shows one text as it comes, and --n is {args.n}: leave one of them out")
    with LLM(_model(args), device=args.device, dtype=args.dtype) as llm:
        messages = [{"role": "user", "content": prompt}]
        if args.stream:
            source = llm.apply_chat_template(messages) if args.chat else prompt
            print("" if args.chat else prompt, end="", flush=True)
            for piece in llm.stream(source, params):
                print(piece.text, end="", flush=True)
            print()
            return
        [output] = llm.chat(messages, params) if args.chat else llm.generate(prompt, params)
        for completion in output.outputs:
            print(("" if args.chat else prompt) + completion.text)


def _tour(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from minillm.tour import save, tour

    console = Console()
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        report = tour(args.model, lambda done, what: progress.update(task, completed=done, description=what))
    _print_report(report, console)
    files = save(report, args.out)
    console.print("Written: " + ", ".join(map(str, files)), style="dim", soft_wrap=True)
    if len(files) == 1:
        console.print("For the picture too: pip install 'minillm\\[course]'", style="dim")


def _print_report(report: dict, console) -> None:  # type: ignore[no-untyped-def, type-arg]
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    machine, roofline, work = report["machine"], report["roofline"], report["workload"]
    console.print(f"\n[bold]{machine['machine']}[/]")
    console.print(
        f"reads {roofline['read_bandwidth'] / 1e9:.0f} GB/s; multiplies "
        + ", ".join(
            f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in roofline["matmul_rate"].items()
        )
    )
    console.print(
        f"so a token of {report['model']} in {report['dtype']} takes at least "
        f"{roofline['decode_seconds_at_batch_1'] * 1e3:.2f} ms here ({roofline['bound']} bound)\n"
    )
    console.print(f"[bold]{report['story']['prompt']}[/]{report['story']['text']}\n", highlight=False)
    table = Table(
        title=f"{work['num_prompts']} prompts at once, up to {work['max_tokens']} tokens each, "
        f"KV memory for {work['cache_tokens']:,};\nmedians of {work['rounds']} rounds",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("rung", no_wrap=True)
    for name in ("tokens/s", "factor", "first token", "per token", "memory", "same text"):
        table.add_column(name, justify="right")
    for rung in report["rungs"]:
        if rung["skipped"] is not None:
            table.add_row(rung["name"], "[dim]not run[/]")
            continue
        table.add_row(
            rung["name"],
            f"{rung['tokens_per_second']:,.0f}",
            "" if rung["factor"] is None else f"×{rung['factor']:.1f}",
            f"{rung['ttft_s'] * 1e3:,.0f} ms",
            f"{rung['seconds_per_token'] * 1e3:.2f} ms",
            "not measured" if rung["peak_bytes"] is None else f"{rung['peak_bytes'] / 2**20:,.0f} MiB",
            "yes" if rung["same_text"] else "no",
        )
    console.print(table)
    for rung in report["rungs"]:
        if rung["skipped"] is not None:
            console.print(f"{rung['name']} was not run: {rung['skipped']}", style="dim")


if __name__ == "__main__":
    sys.exit(main())
