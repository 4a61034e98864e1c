"""The demo's endpoints, called by a client over loopback: results, and refused requests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from PIL import Image
from tiny import drawn_sketch, tiny_studio

from weftwork.datasets.readers.images import read_image
from weftwork.datasets.readers.inline_images import as_text
from weftwork.pipelines.designs.reader import read_design
from weftwork.pipelines.designs.run import draw
from weftwork.scripts.demo.studio import ImageStudio

gradio = pytest.importorskip("gradio")
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from weftwork.scripts.demo.canvas import ASSETS  # noqa: E402
from weftwork.scripts.demo.command import demo  # noqa: E402
from weftwork.scripts.demo.pages import Context, open_pages  # noqa: E402

ADDRESS = "http://127.0.0.1:9/card.safetensors"
DESIGN: dict[str, Any] = {
    "prompt": "a b",
    "seed": 5,
    "num_inference_steps": 2,
    "conditions": {"paired": [{"sketch": as_text(drawn_sketch()), "text": "a thing", "region": "sketch"}]},
}
STYLE: dict[str, Any] = {"prompt": "a b", "seed": 5, "steps": 1}


@pytest.fixture(scope="module")
def studio() -> ImageStudio:
    return tiny_studio()


@pytest.fixture(scope="module")
def blocks(studio: ImageStudio) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weftwork.scripts.demo.pages.available", list)
        return demo(studio, open_pages(Context(studio)))


@pytest.fixture(scope="module")
def address(blocks: Any) -> Iterator[str]:
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False, show_error=True)
    yield url
    blocks.close()


@pytest.fixture(scope="module")
def client(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
    yield client
    client.close()


def test_actions_keep_their_names(client: Client) -> None:
    named: Any = client.view_api(return_format="dict", print_info=False)
    assert set(named["named_endpoints"]) == {"/generate", "/draw", "/style", "/bake"}


def test_a_design_gives_the_image_of_weftwork_generate(client: Client, studio: ImageStudio, tmp_path: Path) -> None:
    picture, used = client.predict(DESIGN, api_name="/generate")
    assert used == DESIGN
    (tmp_path / "design.json").write_text(json.dumps(DESIGN))
    (image,) = draw(studio.pipe, read_design(tmp_path / "design.json"), 1, None)
    assert read_image(picture).tobytes() == image.tobytes()


def test_the_draw_page_takes_a_design(client: Client, studio: ImageStudio) -> None:
    (image,) = draw(studio.pipe, studio.design(DESIGN), 1, None)
    shown, state, seed, png, _, maps, images, mapped = client.predict(design=DESIGN, maps=True, api_name="/draw")
    assert state == "Done." and seed == "5" and len(maps["value"]) == len(images) == 1
    assert mapped == [{"adapter": "paired", "place": 0, "text": DESIGN["conditions"]["paired"][0]["text"]}]
    assert read_image(png["value"]).tobytes() == read_image(shown).tobytes() == image.tobytes()


def test_scripts_of_the_canvas_come_from_the_demo(address: str) -> None:
    for name in ("canvas.js", "konva.min.js"):
        with urlopen(f"{address}gradio_api/file={(ASSETS / name).as_posix()}", timeout=30) as answer:
            assert answer.headers.get_content_subtype() == "javascript"  # as modules must be
            assert answer.read() == (ASSETS / name).read_bytes()


def test_several_images_of_a_call_have_designs_of_their_own(client: Client, studio: ImageStudio) -> None:
    *_, images, _ = client.predict(design=DESIGN, count=2, api_name="/draw")
    for one, seed in zip(images, (5, 6), strict=True):
        (alone,) = draw(studio.pipe, studio.design({**DESIGN, "seed": seed}), 1, None)
        assert read_image(one["image"]).tobytes() == alone.tobytes()


def test_inputs_have_names(client: Client, studio: ImageStudio) -> None:
    named: Any = client.view_api(return_format="dict", print_info=False)
    names = {
        name: [one["parameter_name"] for one in endpoint["parameters"]]
        for name, endpoint in named["named_endpoints"].items()
    }
    assert names["/draw"] == ["design", "maps", "count"]
    strength, settings = ["weight", "start", "end"], ["seed", "steps", "guidance", "maps"]
    shares = [f"share_{name}" for name in studio.pipe.adapters["style"].config["styles"]]
    assert names["/style"] == ["prompt", "card", *shares, *strength, *settings]


def test_a_baked_card_can_be_uploaded(client: Client) -> None:
    with pytest.raises(AppError, match="Card: got no style, expected one with a share; move a slider"):
        client.predict(share_ink=0, api_name="/bake")
    baked: Any = client.predict(share_ink=1, api_name="/bake")
    card = baked["value"] if isinstance(baked, dict) else baked
    shown, *_ = client.predict(card=handle_file(card), **STYLE, api_name="/style")
    assert read_image(shown).size[0] >= 64


def test_no_card_is_fetched_from_an_address(client: Client) -> None:
    with pytest.raises(AppError, match="got an address, expected a file"):
        client.predict(card=handle_file(ADDRESS), **STYLE, api_name="/style")


def test_no_path_of_the_server_is_read(client: Client, address: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"{address}gradio_api/file={secret}", timeout=30)
    named = {**DESIGN, "conditions": {"paired": [{"sketch": str(secret), "text": "a thing"}]}}
    with pytest.raises(AppError, match="got a path, which a demo does not read"):
        client.predict(named, api_name="/generate")
    given = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        client.predict(card=given, **STYLE, api_name="/style")


def test_a_password_is_required(studio: ImageStudio) -> None:
    blocks = demo(studio, [])
    _, url, _ = blocks.launch(auth=("me", "secret"), prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{url}config", timeout=30)
        assert Client(url, auth=("me", "secret"), verbose=False).predict(DESIGN, api_name="/generate")[1] == DESIGN
    finally:
        blocks.close()
