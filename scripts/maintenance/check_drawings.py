"""Measure reconstructions of drawings, and of outfits, that an autoencoder was never trained on.

    python -m weftwork.scripts.maintenance.check_drawings pretrained/tiny-drawings/vae

Prints the mean PSNR in dB of single drawings on white (held-out subjects, colour sets), of scenes of held-out subjects,
and of outfits of the validation split.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ModelMixin
from jaxtyping import UInt8

from weftwork.attention_processors.encoders.latents import to_unit
from weftwork.datasets.drawings.rendered import RenderedDrawings, open_rendered
from weftwork.datasets.drawings.scenes import SIZE, Ground, Place, compose
from weftwork.datasets.drawings.sets import SETS, TARBALLS
from weftwork.training.data.drawings import SceneImages
from weftwork.training.data.image_cache import OutfitImages

Images = UInt8[np.ndarray, "image height width 3"]
OUTFITS = 48


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae", type=Path, help="folder of the autoencoder")
    parser.add_argument("--drawings", type=Path, default=TARBALLS, help="folder of npm tarballs")
    parser.add_argument("--cache_dir", type=Path, default=Path(".cache/pictures"), help="drawn images")
    parser.add_argument("--count", type=int, default=256, help="single drawings; half as many scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of single drawings, and of the noise")
    parser.add_argument(
        "--noise", type=float, default=0.0, help="of latents, as denoisers leave it: in deviations of each channel"
    )
    arguments = parser.parse_args(argv)
    vae = AutoencoderKL.from_pretrained(arguments.vae, use_safetensors=True).float().eval()
    cache, count = arguments.cache_dir, arguments.count
    drawings = open_rendered(arguments.drawings, cache)
    rows = {
        "drawings": single(drawings, count, arguments.seed),
        "scenes": SceneImages(cache, drawings, "subjects", count // 2).images,
        "outfits": OutfitImages(cache, "validation", OUTFITS).images,
    }
    for name, images in rows.items():
        found = psnr(vae, images, arguments.noise, torch.Generator().manual_seed(arguments.seed))
        print(f"{name}: {found:.2f} dB on {len(images)} images")


def single(drawings: RenderedDrawings, count: int, seed: int) -> Images:
    """Returns drawings of held-out subjects, each alone on white."""
    held_out = [i for i, cell in enumerate(drawings.cells) if cell.split == "subjects" and SETS[cell.key].has_color]
    chosen = np.random.default_rng(seed).permutation(len(held_out))[:count]
    white = Ground("white", (255, 255, 255), (255, 255, 255))
    return np.stack([compose([drawings.images[held_out[i]]], [Place(0, 0, SIZE)], white) for i in chosen])


@torch.no_grad()
def psnr(vae: ModelMixin, images: Images, noise: float, generator: torch.Generator) -> float:
    """Returns the mean peak signal-to-noise ratio of reconstructions from the noisy posterior mean, in dB."""
    found = []
    for first in range(0, len(images), 16):
        given = to_unit(torch.from_numpy(np.array(images[first : first + 16])))
        latents = vae.encode(given).latent_dist.mode()
        latents += noise * latents.std((0, 2, 3), keepdim=True) * torch.randn(latents.shape, generator=generator)
        restored = vae.decode(latents).sample.clamp(-1, 1)
        found.append(10 * torch.log10(4 / (restored - given).square().mean((1, 2, 3))))
    return float(torch.cat(found).mean())


if __name__ == "__main__":
    main()
