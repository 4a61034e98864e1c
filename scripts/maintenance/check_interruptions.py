"""Kill and resume a training run at random times, and compare its result with an uninterrupted run.

    python -m weftwork.scripts.maintenance.check_interruptions --kills 20 --output outputs/interruptions

Both runs train a style adapter on a few rendered images and the shipped backbone. Exits with 1 if the weights or the
losses differ in any bit.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file
from tqdm.auto import tqdm

WEIGHTS = "final/diffusion_pytorch_model.safetensors"
STEPS, EVERY = 420, 4
"""Steps of a run, and steps between its checkpoints."""
LONGEST = 14.0
"""Latest time of a kill in seconds: about the time to start and reach a few checkpoints."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="number of kills")
    parser.add_argument("--output", type=Path, default=Path("outputs/interruptions"), help="folder of both runs")
    parser.add_argument("--model", help="Stable Diffusion folder (default: the shipped tiny-drawings)")
    parser.add_argument("--max_train_steps", type=int, default=STEPS)
    parser.add_argument("--longest", type=float, default=LONGEST, help="maximum seconds until a kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of kills")
    arguments = parser.parse_args(argv)
    _write_data(arguments.output / "data")
    command = _command(arguments)
    subprocess.run([*command, "--output_dir", str(arguments.output / "straight")], check=True)
    killed = arguments.output / "killed"
    kills, moments = 0, random.Random(arguments.seed)
    again = [*command, "--output_dir", str(killed), "--resume_from_checkpoint", "latest"]
    progress = tqdm(total=arguments.kills, desc="kills")
    while kills < arguments.kills and not (killed / WEIGHTS).is_file():
        process = subprocess.Popen(again)
        time.sleep(moments.uniform(0.2, 1.0) * arguments.longest)
        if process.poll() is None:
            process.kill()
            kills += 1
            progress.update()
        process.wait()
    progress.close()
    subprocess.run(again, check=True)
    return _compare(arguments.output / "straight", killed, kills)


def _write_data(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(16):
        Image.new("RGB", (128, 128), (16 * index, 255 - 16 * index, 90)).save(folder / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": "a thing", "style": "plain"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def _command(arguments: argparse.Namespace) -> list[str]:
    model = ["--pretrained_model_name_or_path", arguments.model] if arguments.model else []
    return [
        sys.executable, "-m", "weftwork.scripts.cli", "train", "style", *model,
        "--train_data_dir", str(arguments.output / "data"), "--cache_dir", str(arguments.output / "cache"),
        "--max_train_steps", str(arguments.max_train_steps), "--train_batch_size", "4",
        "--checkpointing_steps", str(EVERY), "--validation_steps", "0", "--lr_warmup_steps", "5",
    ]  # fmt: skip


def _compare(straight: Path, killed: Path, kills: int) -> int:
    one, other = load_file(straight / WEIGHTS), load_file(killed / WEIGHTS)
    same = one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)
    losses = [
        [(row["step"], row["loss"]) for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]
        for folder in (straight, killed)
    ]
    print(f"killed {kills} times: weights {'equal' if same else 'DIFFER'}, losses ", end="")
    print("equal" if losses[0] == losses[1] else "DIFFER")
    return 0 if same and losses[0] == losses[1] else 1


if __name__ == "__main__":
    sys.exit(main())
