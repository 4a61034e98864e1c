"""Measure a method on unseen cases, beside its ceilings and baselines: a table, a JSON file and a contact sheet."""

import argparse
from pathlib import Path

METHODS = ("paired",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=METHODS, help="what to measure")
    parser.add_argument("--output", type=Path, default=Path("outputs/evaluation"), help="folder of the report")
    parser.add_argument("--limit", type=int, default=200, help="cases per row")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="of cases and noise; several give a spread")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="validation is for choosing")
    parser.add_argument("--model", default=None, help="Stable Diffusion folder (default: the shipped tiny-diffusion)")
    parser.add_argument("--adapter", default=None, help="adapter folder (default: the shipped one)")
    parser.add_argument("--baseline", default=None, help="adapter folder of the global-sketch baseline")
    parser.add_argument("--num_inference_steps", type=int, default=20)
    parser.add_argument("--guidance_scale", type=float, default=3.0)
    parser.add_argument("--rows", nargs="*", default=(), help="only these rows")


def run(arguments: argparse.Namespace) -> None:
    """Print the table and write the report."""
    from weft.attention_processors.paired import PairedAdapter
    from weft.evaluation.oracle import pretrained_oracle
    from weft.evaluation.paired import PairedEvaluation
    from weft.pipelines.conditioned import ConditionedStableDiffusionPipeline
    from weft.pretrained import available, shipped

    if arguments.limit < 1:
        raise ValueError(f"limit: got {arguments.limit}, expected at least 1")
    pipe = ConditionedStableDiffusionPipeline.from_pretrained(arguments.model or str(shipped("tiny-diffusion")))
    pipe.attach(paired=PairedAdapter.from_pretrained(arguments.adapter or shipped("paired")))
    baseline = arguments.baseline
    if baseline is None and arguments.adapter is None and "paired-global-sketch" in available():
        baseline = shipped("paired-global-sketch")
    if baseline is not None:
        pipe.attach(global_sketch=PairedAdapter.from_pretrained(baseline))
    evaluation = PairedEvaluation(
        pipe,
        pretrained_oracle(),
        arguments.split,
        count=arguments.limit,
        num_inference_steps=arguments.num_inference_steps,
        guidance_scale=arguments.guidance_scale,
    )
    report = evaluation.run(arguments.output, arguments.rows, arguments.seed)
    print(report.table())
    print(f"written to {arguments.output}")
