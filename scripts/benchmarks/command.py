"""Benchmark speed and memory: medians over interleaved rounds, as ratios within one run; prints a table, writes JSON.

weftwork benchmark generate     the whole command, the generation alone, peak memory
weftwork benchmark step         a step with four pairs over the plain step, U-Net of Stable Diffusion 1.5's size
weftwork benchmark encoding     encoding of 1 to 16 pairs
weftwork benchmark style        a step with references over diffusers' IP-Adapter; parameters of a style card
weftwork benchmark instillation two passes with shared attention over two without; memory held in between
weftwork benchmark training     training steps that read cached features over steps that encode
weftwork benchmark growth       cost of training by pairs, image size, data and processes
weftwork benchmark linear       linear attention over softmax attention, by numbers of queries and keys
weftwork benchmark audio        a step with boxes, depth, prompt and ControlNet over the plain ones; longer audio
weftwork benchmark backbones    wrapped processors and four pairs over the stock step; memory of references; masks
                                beside diffusers' own; with --check: properties of all methods on all families
"""

import argparse
import statistics
from importlib import import_module
from pathlib import Path

from weftwork.datasets.readers.errors import UserError, check_counts
from weftwork.scripts.benchmarks.timing import interleaved, ratios, timed_command
from weftwork.scripts.outputs import naming_replaced

SIZED = ("style", "instillation", "training", "growth", "linear", "audio", "backbones")
"""Benchmarks with a module of their own, whose `measure` takes a size."""
NAMES = ("generate", "step", "encoding", *SIZED)
USERS = {"design": ("generate",), "size": SIZED}
"""Benchmarks by the option that no other reads."""
DEFAULTS = {"design": Path("examples/scene/scene.json"), "size": "full"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork benchmark`."""
    parser.add_argument("name", choices=NAMES, help="benchmark to run")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/benchmark"),
        help="folder of the report; of --check, of a file of outcomes that runs add to",
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--design", type=Path, default=DEFAULTS["design"], help="design of `generate`")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help=f"of {', '.join(USERS['size'])}")
    parser.add_argument("--check", action="store_true", help="of `backbones`: check instead of timing")
    only = "with --check, methods, families and properties; none = all"
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help=only)
    table = "with --check, the page that gets the table of all cells checked so far: docs/backbones.md"
    parser.add_argument("--write", type=Path, metavar="PAGE", help=table)


def run(arguments: argparse.Namespace) -> int | None:
    """Prints the table and writes the report; returns 1 if a check fails."""
    checks = arguments.check and arguments.name == "backbones"
    if not checks and (arguments.check or arguments.only or arguments.write):
        raise UserError("check, only, write: have no effect without `backbones --check`; leave them out")
    for name, users in USERS.items():
        if getattr(arguments, name) != DEFAULTS[name] and (checks or arguments.name not in users):
            raise UserError(f"{name}: has no effect with this benchmark, but with {', '.join(users)}; leave it out")
    if checks:
        from weftwork.scripts.benchmarks.backbones.table import check

        return check(arguments.only, arguments.output, arguments.write)
    from weftwork.evaluation.core.report import Report, Row

    check_counts(rounds=arguments.rounds)
    if arguments.name not in SIZED:
        measured = {"generate": _generate, "step": _step, "encoding": _encoding}[arguments.name](arguments)
    else:
        name = "blocks" if arguments.name == "backbones" else arguments.name
        module = import_module(f"weftwork.scripts.benchmarks.{name}")
        measured = module.measure(arguments.size, arguments.rounds)
    rows = [Row(name, scores) for name, scores in measured.items()]
    report = Report("benchmark", f"benchmark-{arguments.name}", rows, count=arguments.rounds)
    with naming_replaced([arguments.output / f"{report.name}.json"]):
        report.write(arguments.output)
    print(report.table())
    return None


def _generate(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        row = timed_command(["generate", str(arguments.design), "--output", f"{folder}/out.png"], arguments.rounds)
    return {"command": row, "generation": {"seconds": statistics.median(_generation_alone(arguments))}}


def _generation_alone(arguments: argparse.Namespace) -> list[float]:
    from weftwork.pipelines.designs.reader import read_design
    from weftwork.pipelines.designs.run import open_pipeline
    from weftwork.pretrained import DEFAULT_MODEL

    design = read_design(arguments.design)
    pipe = open_pipeline(design.model or DEFAULT_MODEL, {}, design)
    return interleaved(
        arguments.rounds,
        generation=lambda: pipe(
            design.prompt,
            conditions=design.conditions,
            num_inference_steps=design.num_inference_steps,
            guidance_scale=design.guidance_scale,
            guidance_rescale=design.guidance_rescale,
        ),
    )["generation"]


def _step(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    import torch
    from diffusers import UNet2DConditionModel

    from weftwork.scripts.benchmarks.blocks import step_tasks

    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64).eval().requires_grad_(False)  # SD 1.5's layout
    inputs = {"sample": torch.randn(1, 4, 64, 64), "timestep": torch.tensor(500)}
    tasks = step_tasks(unet, {**inputs, "encoder_hidden_states": torch.randn(1, 77, 768)})
    rounds = interleaved(arguments.rounds, plain=tasks["stock"], four_pairs=tasks["pairs"])
    return ratios(rounds, "plain")


def _encoding(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    import torch

    from weftwork.attention_processors.paired.conditions import SketchTextPair
    from weftwork.datasets.synthetic.outfits import sample
    from weftwork.pipelines.designs.design import Design
    from weftwork.pipelines.designs.run import open_pipeline
    from weftwork.pretrained import DEFAULT_MODEL

    pipe, drawn = open_pipeline(DEFAULT_MODEL, {}, Design("", conditions={"paired": ()})), sample("test", 0, count=1)
    pair = SketchTextPair(drawn.sketches[0], drawn.texts[0], region="sketch")

    def encode(number: int) -> None:
        with torch.inference_mode():
            pipe.encode_conditions({"paired": [pair] * number})

    tasks = {f"pairs_{n}": (lambda n=n: encode(n)) for n in (1, 2, 4, 8, 16)}
    return ratios(interleaved(arguments.rounds, **tasks), "pairs_1")
