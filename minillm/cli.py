"""The command line: `minillm generate`, `serve`, `tour`, `quantize`, `train-eagle`, and `lab` and others of the course.

A user's mistake gets one line on stderr and exit status 2, never a traceback. torch is imported only by the commands
that run a model, so that the others answer at once.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minillm.course.commands import add_commands
from minillm.errors import MinillmError, RequestError
from minillm.serving.command import add_serve

if TYPE_CHECKING:
    from rich.console import Console

    from minillm.measure.trace import Trace


_MODEL_HELP = (
    "a bundled name, a folder, a GGUF file or a Hugging Face id (default: $MINILLM_MODEL, or tinytales)"
)
THREE_THINGS = """\
minillm is a small, complete engine for LLM inference, and a course on it. Three things to do:

  minillm generate "Once upon a time"   continue a text with the small model that comes with the package
  minillm tour                          measure each optimisation on this machine, in about three minutes
  minillm lab                           open the course in JupyterLab (in the folder that you cloned)

`minillm --help` lists all commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit status.

    0 means done, 1 means that a check did not get all points, 2 means a mistake in the command, and 130 means that
    Ctrl-C ended it.
    """
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal in cp1252 shows ? for a character that it lacks
    if args.command is None:
        print(THREE_THINGS)
        return 0
    try:
        args.run(args)
    except (MinillmError, ValueError, TypeError) as error:
        print(f"minillm {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader (`| head`) is gone. Without this line the interpreter complains when it flushes at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minillm", description="A small, complete engine for LLM inference, and a course on it."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    generate = commands.add_parser("generate", help="continue a text", description="Continue a text.")
    generate.set_defaults(run=_generate)
    generate.add_argument("prompt", nargs="?", help="the text to continue (or use --file)")
    generate.add_argument("--file", type=Path, help="read the prompt from this UTF-8 file")
    generate.add_argument("--chat", action="store_true", help="send the prompt as a user's message")
    generate.add_argument(
        "--stream", action="store_true", help="print each piece of text as soon as it is generated"
    )
    generate.add_argument("--model", default=None, help=_MODEL_HELP)
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
        "--stop", action="append", help="end the text before this string; may be given several times"
    )
    generate.add_argument(
        "--speculate",
        metavar="METHOD[:MODEL]",
        help="verify several drafts in each step: ngram, suffix, draft_model:MODEL or eagle3:MODEL, for example "
        "draft_model:tinytales-draft. The text keeps its distribution; a line on stderr tells how many were accepted",
    )
    generate.add_argument(
        "--num-speculative-tokens",
        type=int,
        metavar="K",
        help="with --speculate: drafts per step (default: 4)",
    )

    tour = commands.add_parser(
        "tour",
        help="measure each optimisation on this machine",
        description="Run the same prompts with one optimisation after another, and measure each on this machine.",
    )
    tour.set_defaults(run=_tour)
    tour.add_argument("--model", default=None, help=_MODEL_HELP)
    tour.add_argument(
        "--out",
        type=Path,
        default=Path(),
        help="folder for tour.json and tour.png (default: the current one)",
    )
    _add_quantize(commands)
    _add_train_eagle(commands)
    add_serve(commands)
    _add_bench(commands)
    add_commands(commands)
    return parser


def _add_quantize(commands: "argparse._SubParsersAction[Any]") -> None:
    quantize = commands.add_parser(
        "quantize",
        help="write a model with weights of 4 or 8 bits",
        description="Quantise a model, layer by layer, into a folder that minillm, transformers and vLLM load. A run "
        "that was stopped continues when the same command is given again.",
        epilog="Methods: rtn rounds to nearest; gptq and awq read a calibration text and lose less. These three have 4 "
        "or 8 bits with one scale per group of weights. int8 has 8-bit weights, one scale per row; w8a8 and fp8 have "
        "8-bit activations too, and smoothquant is w8a8 with the outliers of activations moved into the weights.",
    )
    quantize.set_defaults(run=_quantize)
    quantize.add_argument("model", help="a bundled name, a folder, a GGUF file or a Hugging Face id")
    quantize.add_argument(
        "--method", required=True, help="rtn, gptq, awq, int8, w8a8, smoothquant or fp8 (see below)"
    )
    quantize.add_argument(
        "--bits", type=int, help="4 or 8 (default: 4 for rtn, gptq and awq, 8 for the others)"
    )
    quantize.add_argument(
        "--group-size",
        type=int,
        help="weights that share a scale, or -1 for a whole row (default: with 4 bits the largest of 128, 64 and 32 "
        "that fits the model, with 8 bits -1)",
    )
    quantize.add_argument(
        "--act-order", action="store_true", help="gptq: round the columns with the largest activations first"
    )
    quantize.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="a text in UTF-8 like those that the model will read; 128 windows of 256 tokens are used (default: one "
        "that comes with the package)",
    )
    quantize.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="the folder to write; it must be new"
    )


def _add_train_eagle(commands: "argparse._SubParsersAction[Any]") -> None:
    train = commands.add_parser(
        "train-eagle",
        help="train an EAGLE-3 head, which drafts tokens for a model",
        description="Train an EAGLE-3 head on texts that the model writes, and write it as a folder. Use it with "
        'LLM(MODEL, speculative_config={"method": "eagle3", "model": FOLDER}).',
    )
    train.set_defaults(run=_train_eagle)
    train.add_argument("model", help="a bundled name, a folder, a GGUF file or a Hugging Face id")
    train.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="the folder to write; it must be new"
    )
    train.add_argument("--steps", type=int, default=2000, help="training steps (default: %(default)s)")
    train.add_argument(
        "--texts", type=int, default=512, help="texts that the model writes first (default: %(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, help="seed of texts, weights and order (default: 0)")


def _add_bench(commands: "argparse._SubParsersAction[Any]") -> None:
    bench = commands.add_parser(
        "bench",
        help="measure a running OpenAI server",
        description="Send completion requests to a running OpenAI server, and report latency and throughput. Requests "
        "arrive at random times (--rate), or a number of clients send them one after another (--concurrency).",
        epilog="TTFT is the time to the first text, ITL the time between two pieces of text, and TPOT the time per "
        "output token after the first. Goodput counts the requests per second with TTFT and TPOT within the --slo "
        "limits. Answers are greedy; `ignore_eos` makes them --output-len tokens long.",
    )
    bench.set_defaults(run=_bench)
    bench.add_argument("--url", default="http://127.0.0.1:8000", help="(default: %(default)s)")
    bench.add_argument("--model", required=True, help="the name under which the server serves it")
    bench.add_argument("--rate", type=float, help="arrivals per second; inf sends all requests at once")
    bench.add_argument("--concurrency", type=int, metavar="N", help="clients")
    bench.add_argument("--requests", type=int, default=100, metavar="N", help="(default: %(default)s)")
    bench.add_argument(
        "--input-len",
        type=int,
        default=128,
        metavar="TOKENS",
        help="of random prompts (default: %(default)s)",
    )
    bench.add_argument(
        "--output-len", type=int, default=64, metavar="TOKENS", help="of each answer (default: %(default)s)"
    )
    bench.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a prompt per line, instead of random ones"
    )
    bench.add_argument("--slo-ttft", type=float, metavar="MS", help="the largest TTFT of a good request")
    bench.add_argument("--slo-itl", type=float, metavar="MS", help="the largest TPOT of a good request")
    bench.add_argument("--seed", type=int, default=0, help="seed of arrivals and prompts (default: 0)")
    bench.add_argument("--api-key", default=None, help="(default: $MINILLM_API_KEY)")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    bench.add_argument("--plot", type=Path, metavar="FILE", help="draw TTFT and ITL into this picture")


def _model(args: argparse.Namespace) -> str:
    return args.model or os.environ.get("MINILLM_MODEL") or "tinytales"


def _prompt(args: argparse.Namespace) -> str:
    if args.prompt is None and args.file is None:
        raise RequestError('give a prompt or --file, for example: minillm generate "Once upon a time"')
    if args.prompt is not None and args.file is not None:
        raise RequestError("give a prompt or --file, and not both")
    return str(args.prompt) if args.file is None else _read(args.file, "the prompt")


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{file} is not UTF-8 (byte {error.object[error.start]:#04x} at offset {error.start}): "
            "convert it, for example with iconv -t UTF-8"
        ) from error
    except OSError as error:
        raise RequestError(f"cannot read {what} from {file}: {error.strerror}") from error


def _speculation(args: argparse.Namespace) -> dict[str, Any] | None:
    """Return the argument `speculative_config` of `LLM` for --speculate and --num-speculative-tokens."""
    num_drafts = args.num_speculative_tokens
    if args.speculate is None:
        if num_drafts is not None:
            raise RequestError(
                f"--num-speculative-tokens {num_drafts} needs --speculate: add --speculate ngram, for example"
            )
        return None
    method, _, model = args.speculate.partition(":")
    if method in ("draft_model", "eagle3") and not model:
        example = "tinytales-draft" if method == "draft_model" else "MODEL"
        raise RequestError(
            f"--speculate {args.speculate} names no model: write --speculate {method}:{example}"
        )
    given = {"method": method, "model": model or None, "num_speculative_tokens": num_drafts}
    return {name: value for name, value in given.items() if value is not None}


def _drafts_in_words(trace: "Trace") -> str:
    """Return how many drafts a run verified and accepted, and the tokens per step of a request."""
    from minillm.measure.trace import StepRecord, TokenRecord

    tokens = trace.of(TokenRecord)
    drafts = sum(part.num_drafts for step in trace.of(StepRecord) for part in step.scheduled)
    accepted = sum(token.origin == "accepted" for token in tokens)
    steps = len({(token.request_id, token.time) for token in tokens})  # tokens of one step carry one time
    share = f" ({accepted / drafts:.0%})" if drafts else ""
    return (
        f"{drafts:,} drafts, {accepted:,} accepted{share}, {len(tokens) / max(1, steps):.2f} tokens per step"
    )


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
    speculation = _speculation(args)
    engine = {"speculative_config": speculation, "trace": speculation is not None}
    with LLM(_model(args), device=args.device, dtype=args.dtype, **engine) as llm:
        messages = [{"role": "user", "content": prompt}]
        if args.stream:
            source = llm.apply_chat_template(messages) if args.chat else prompt
            print("" if args.chat else prompt, end="", flush=True)
            for piece in llm.stream(source, params):
                print(piece.text, end="", flush=True)
            print()
        else:
            [output] = llm.chat(messages, params) if args.chat else llm.generate(prompt, params)
            for completion in output.outputs:
                print(("" if args.chat else prompt) + completion.text)
        if speculation is not None:
            sys.stdout.flush()
            print(_drafts_in_words(llm.trace), file=sys.stderr)


def _bench(args: argparse.Namespace) -> None:
    import asyncio
    from itertools import cycle, islice

    from minillm.serving import bench

    if args.prompts is None:
        prompts: Sequence[Any] = bench.random_prompts(args.requests, args.input_len, args.seed)
    else:
        lines = _read(args.prompts, "the prompts").splitlines()
        prompts = list(islice(cycle(line for line in lines if line.strip()), max(0, args.requests)))
    load = bench.Load(
        url=args.url.rstrip("/").removesuffix("/v1"),
        model=args.model,
        prompts=prompts,
        output_len=args.output_len,
        rate=args.rate,
        concurrency=args.concurrency,
        api_key=args.api_key or os.environ.get("MINILLM_API_KEY"),
        seed=args.seed,
    )
    limits = {"ttft": args.slo_ttft, "tpot": args.slo_itl}
    given = {name: limit / 1e3 for name, limit in limits.items() if limit is not None}
    slo = bench.Slo(**given) if given else None
    answers, seconds = asyncio.run(bench.measure(load))
    report = bench.Report.of(answers, seconds, slo)
    print(report.table())
    if args.json is not None:
        bench.save(report, load, args.json)
    if args.plot is not None:
        bench.plot(answers, args.plot, slo)


def _quantize(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from minillm.llm import model_folder
    from minillm.model.stored import open_model
    from minillm.quantization.quantise import CALIBRATION, quantise

    console = Console(soft_wrap=True, highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("layer by layer")
        quantise(
            open_model(model_folder(args.model)),
            args.out,
            args.method,
            args.bits,
            args.group_size,
            calibration=args.calibration or CALIBRATION,
            act_order=args.act_order,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    size = sum(file.stat().st_size for file in args.out.glob("*.safetensors"))
    console.print(f"{args.out}: {size / 1e6:,.1f} MB of weights", markup=False)


def _train_eagle(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from minillm.llm import LLM
    from minillm.speculative.train_eagle import Training, train_eagle

    console = Console(soft_wrap=True, highlight=False)
    with LLM(args.model, enable_prefix_caching=False, seed=args.seed) as llm:
        training = Training.of(
            llm.engine.max_model_len, num_steps=args.steps, num_texts=args.texts, seed=args.seed
        )
        console.print(f"{args.model} writes {training.num_texts} texts of {training.text_length} tokens")
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("training", total=training.num_steps, visible=False)
            found = train_eagle(
                llm.model,
                lambda prompts, params: [one.outputs[0].token_ids for one in llm.generate(prompts, params)],
                args.out,
                training,
                lambda step, loss: progress.update(
                    task, completed=step, description=f"loss {loss:.3f}", visible=True
                ),
            )
    for kind, shares in found.items():
        drafts = " ".join(f"{share:.2f}" for share in shares)
        console.print(
            f"held-out {kind} text: drafts accepted {drafts}, {1 + sum(shares):.2f} tokens per step",
            markup=False,
        )


def _tour(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from minillm.measure.timing import factor_text
    from minillm.tour import save, tour

    console = Console(soft_wrap=True, highlight=False)
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        report = tour(
            args.model,
            lambda done, what: progress.update(task, completed=done, description=what),
            begun=lambda report: _print_heading(report, console),
            measured=lambda rung: _print_rung(rung, console),
        )
    for rung in report["rungs"]:
        if rung["caveat"] is not None:
            console.print(f"\n{rung['name']}, {factor_text(rung['factor'])}: {rung['caveat']}")
    files = save(report, args.out)
    console.print("\nWritten: " + ", ".join(map(str, files)), style="dim")
    if len(files) == 1:
        console.print("For the picture too: pip install 'minillm\\[course]'", style="dim")


def _print_heading(report: dict[str, Any], console: "Console") -> None:
    """Print everything that is known before the first rung is measured, and the heads of the columns."""
    machine, roofline, work = report["machine"], report["roofline"], report["workload"]
    rates = [f"{rate / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, rate in roofline["matmul_rate"].items()]
    console.print(f"[bold]{machine['machine']}[/]")
    console.print(
        f"This machine reads {roofline['read_bandwidth'] / 1e9:.0f} GB/s and multiplies {', '.join(rates)}.\n"
        f"So one token of {report['model']} in {report['dtype']} takes at least "
        f"{roofline['decode_seconds_at_batch_1'] * 1e3:.2f} ms here ({roofline['bound']} bound).\n"
    )
    if roofline["doubtful"]:
        console.print(
            f"These figures scatter by more than a factor of 1.5 and are doubtful: {', '.join(roofline['doubtful'])}. "
            "Something else was using the machine.\n"
        )
    story = report["story"]
    console.print(story["prompt"], style="bold", markup=False, end="")
    console.print(story["text"] + "\n", markup=False)
    console.print(
        f"{work['num_prompts']} prompts at once, up to {work['max_tokens']} tokens each, with KV cache memory for "
        f"{work['cache_tokens']:,} tokens. Medians of {work['rounds']} rounds.\n"
    )
    console.print(
        _row("rung", "tokens/s", "factor", "first token", "per token", "memory", "same text"), style="bold"
    )


def _print_rung(rung: dict[str, Any], console: "Console") -> None:
    from minillm.measure.timing import factor_text

    if rung["skipped"] is not None:
        console.print(f"{rung['name']:14} not run: {rung['skipped']}", style="dim")
        return
    console.print(
        _row(
            rung["name"],
            f"{rung['tokens_per_second']:,.0f}",
            factor_text(rung["factor"]),
            f"{rung['ttft_s'] * 1e3:,.0f} ms",
            f"{rung['seconds_per_token'] * 1e3:.2f} ms",
            "not measured" if rung["peak_bytes"] is None else f"{rung['peak_bytes'] / 2**20:,.0f} MiB",
            "yes" if rung["same_text"] else "no",
        )
    )


def _row(*cells: str) -> str:
    widths = (9, 7, 12, 10, 13, 10)
    return f"{cells[0]:14}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells[1:], widths, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
