"""Conditions in one call of a pipeline: laid out when the denoiser is first called, which shows the size of latents."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import nn

from weftwork.attention_processors.core.attention_maps import MapRecorder, refuse_compiled
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import layer_levels
from weftwork.attention_processors.core.processor import conditioned, is_compiled
from weftwork.attention_processors.core.strength import GUIDED, Layout

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class ConditionedCall:
    """Conditions that act in the calls of a denoiser while a pipeline runs.

    Args:
        encoded: encoded conditions by adapter name, or a conditioning for a known size.
        repeat: images per prompt.
        guidance: whether the batch is [unconditional | conditional].
    """

    def __init__(
        self,
        denoiser: nn.Module,
        encoded: Mapping[str, Encoded] | Conditioning,
        *,
        repeat: int = 1,
        guidance: bool = False,
        recorder: MapRecorder | None = None,
    ) -> None:
        self.denoiser, self.recorder = denoiser, recorder
        self.encoded, self.repeat, self.guidance = encoded, repeat, guidance
        self.conditioning: Conditioning | None = None
        if recorder is not None:
            refuse_compiled(is_compiled(denoiser))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Lets the conditions act in the denoiser's calls within the block."""
        with ExitStack() as stack:

            def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                if self.conditioning is None:
                    sample = args[0] if args else kwargs["sample"]
                    self.conditioning = self._laid_out(sample.shape[-2], sample.shape[-1])
                    stack.enter_context(conditioned(self.denoiser, self.conditioning))

            stack.callback(self.denoiser.register_forward_pre_hook(begin, with_kwargs=True).remove)
            yield

    def _laid_out(self, height: int, width: int) -> Conditioning:
        made = self.encoded
        if not isinstance(made, Conditioning):
            layout = Layout(layer_levels(self.denoiser), (height, width), self.repeat, GUIDED[not self.guidance :])
            made = Conditioning.of(made, layout)
        if self.recorder is not None:
            assert made.layout is not None
            self.recorder.begin(made.layout)
            made = replace(made, recorder=self.recorder)
        made.set_step(0, 1)
        return made

    def follow(self, arguments: dict[str, Any]) -> None:
        """Puts a callback into the arguments of a call that moves schedules on, after the caller's own."""
        theirs: Callback | None = arguments.get("callback_on_step_end")
        if isinstance(theirs, PipelineCallback | MultiPipelineCallbacks):
            arguments["callback_on_step_end_tensor_inputs"] = theirs.tensor_inputs

        def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            values = values if theirs is None else theirs(pipe, step, timestep, values)
            return values if self.conditioning is None else self.conditioning.callback(pipe, step, timestep, values)

        arguments["callback_on_step_end"] = callback
