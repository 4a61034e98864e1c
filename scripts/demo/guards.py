"""Limits on what users of the demo send, and errors as users see them."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.data_classes import APIInfo
from gradio.exceptions import ComponentProcessingError
from gradio.state_holder import SessionState
from gradio_client.utils import is_http_url_like
from PIL import Image

from weftwork.datasets.readers.images import FORMATS
from weftwork.scripts.demo.jobs import Cancelled

logger = logging.getLogger(__name__)

UPLOAD_PIXELS: Final = 16_000_000


def error_shown(message: object) -> gr.Error:
    """Returns an error that the page shows until it is closed, without a traceback in the terminal."""
    return gr.Error(str(message), duration=None, print_exception=False)


@contextmanager
def errors_shown() -> Iterator[None]:
    """Turns errors into one line on the page.

    Raises:
        gr.Error: instead of any other error but `Cancelled`.
    """
    try:
        yield
    except (gr.Error, Cancelled):
        raise
    except (ValueError, FloatingPointError) as error:
        raise error_shown(error) from None
    except Exception as error:
        logger.exception("demo: a call failed")
        raise error_shown(f"This did not work ({type(error).__name__}); the terminal shows more") from None


class GuardedBlocks(gr.Blocks):
    """Blocks that fetch no addresses, report unreadable images in one line, and let programs leave out all inputs."""

    def get_api_info(self, all_endpoints: bool = False, page: str | None = None) -> APIInfo:
        info = super().get_api_info(all_endpoints, page)
        for endpoint in info["named_endpoints"].values():
            for one in endpoint["parameters"]:
                one["parameter_has_default"] = True  # gradio requires those that are empty on the page
        return info

    async def preprocess_data(
        self,
        block_fn: BlockFunction,
        inputs: list[object],
        state: SessionState | None,
        explicit_call: bool = False,
    ) -> list[object]:
        # callers may name addresses as files, and gradio has no option not to download them
        if _has_address(inputs):
            raise error_shown("Upload: got an address, expected a file; save it, and upload the file")
        try:
            return await super().preprocess_data(block_fn, inputs, state, explicit_call)
        except ComponentProcessingError:
            images = [
                str(block.label)
                for block, value in zip(block_fn.inputs, inputs, strict=False)
                if value and isinstance(block, gr.Image | gr.ImageEditor)
            ]
            if not images:
                raise
            logger.warning("demo: an upload cannot be read", exc_info=True)
            raise error_shown(
                f"{', '.join(images)}: got a file that is not an image or is too large; use PNG, JPEG or WebP"
            ) from None


def _has_address(value: object) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and is_http_url_like(path)) or any(map(_has_address, value.values()))
    return isinstance(value, Sequence) and not isinstance(value, str | bytes) and any(map(_has_address, value))


def restrict_image_formats() -> None:
    """Lets this process decode only the image formats that weftwork reads, up to `UPLOAD_PIXELS`."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in FORMATS]  # gradio calls Image.open without `formats`
    Image.MAX_IMAGE_PIXELS = UPLOAD_PIXELS // 2  # twice as many are an error, this many a warning
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
