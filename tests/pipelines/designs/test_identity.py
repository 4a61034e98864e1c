"""Identity of an image: a digest of each of its inputs, by the bytes of their files."""

from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from weftwork.datasets.readers.inline_images import located
from weftwork.pipelines.designs.identity import identity
from weftwork.pipelines.designs.reader import as_design

DESIGN = {
    "prompt": "a",
    "loras": [{"lora": "lora.safetensors"}],
    "controlnets": [{"controlnet": "net", "image": "image.png"}],
}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("lora.safetensors", "lora 1"),
        ("net/weights.safetensors", "controlnet 1"),
        ("image.png", "image of controlnet 1"),
        ("model/weights.safetensors", "model"),
    ],
)
def test_other_bytes_at_the_same_path_are_another_identity(file: str, name: str, tmp_path: Path) -> None:
    for folder in ("net", "model"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "lora.safetensors").write_bytes(b"lora")
    Image.new("L", (8, 8)).save(tmp_path / "image.png")

    def digests() -> dict[str, str]:
        return identity(as_design(DESIGN, partial(located, folder=tmp_path)), tmp_path / "model", {})

    before = digests()
    assert digests() == before
    if file == "image.png":
        Image.new("L", (8, 8), 1).save(tmp_path / file)
    else:
        (tmp_path / file).write_bytes(b"others!" if "weights" in file else b"more")
    after = digests()
    assert {one for one in before if before[one] != after[one]} == {name}
