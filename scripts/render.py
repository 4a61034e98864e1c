"""Render posed views of OpenArena's maps with exact depth, as a folder for `weftwork train aligned-views`.

    weftwork render outputs/places --split train
    weftwork train aligned-views --pretrained_model_name_or_path my-model --train_data_dir outputs/places

Each clip has four frames; maps are divided between the splits. Needs the maps (Debian: openarena-081-maps,
openarena-081-textures, openarena-data, openarena-085-data) and pip install ".[places]".
"""

import argparse
from pathlib import Path

from tqdm.auto import tqdm

from weftwork.datasets.openarena.archives import FOLDER, Archives
from weftwork.datasets.openarena.clips import SPLITS, maps_of, write_clips
from weftwork.datasets.readers.atomic import check_new_folder
from weftwork.datasets.readers.errors import UserError, check_counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `weftwork render`."""
    parser.add_argument("output", type=Path, help="folder to write; must be empty or not exist")
    parser.add_argument("--maps_dir", type=Path, default=FOLDER, help="folder of .pk3 files (default: %(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="which maps (default: %(default)s)")
    parser.add_argument("--maps", nargs="+", help="only these maps of the split")
    parser.add_argument("--clips_per_map", type=int, default=40)
    parser.add_argument("--resolution", type=int, default=128, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    """Writes the clips.

    Raises:
        ValueError: numbers below 1, a folder that is not empty or without maps, or an unknown map.
    """
    check_counts(clips_per_map=arguments.clips_per_map, resolution=arguments.resolution)
    output = arguments.output
    check_new_folder(output)
    archives = Archives(arguments.maps_dir)
    names = maps_of(archives, arguments.split)
    unknown = [name for name in arguments.maps or () if name not in names]
    if unknown:
        raise UserError(
            f"maps: got {unknown[0]!r}, expected some of the split {arguments.split!r}: {', '.join(names)}; correct it"
        )
    total = 0
    for name in tqdm(arguments.maps or names, desc="maps"):
        count, size = arguments.clips_per_map, arguments.resolution
        total += write_clips(archives, name, output, count=count, size=size, seed=arguments.seed)
    print(f"{total} clips written to {output}")
