"""Conditions in the calls of a pipeline's denoiser, laid out at its first call for each half of guidance."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.guiders import BaseGuidance
from torch import nn

from weftwork.attention_processors.core.attention_maps import MapRecorder, refuse_compiled
from weftwork.attention_processors.core.caches import reset_caches
from weftwork.attention_processors.core.conditioning import Conditioning, Encoded
from weftwork.attention_processors.core.families import Given, call_arguments, call_layout, family_of, sample_of
from weftwork.attention_processors.core.processor import conditioned, is_compiled, unwrapped
from weftwork.attention_processors.core.strength import GUIDED, Arguments, Half
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.joined_texts import JoinedTexts
from weftwork.pipelines.core.sampling import sampling_of


def denoisers(pipe: DiffusionPipeline) -> list[nn.Module]:
    """Returns the denoisers of a pipeline: its U-Net, or its transformers.

    Raises:
        ValueError: a pipeline without either, or one of perturbed-attention guidance.
    """
    if hasattr(type(pipe), "do_perturbed_attention_guidance"):  # raises before the first call
        raise UserError(
            f"pipe: got {type(pipe).__name__}, whose perturbed-attention guidance adds rows that conditions do not "
            "know; use the pipeline without it"
        )
    found = [getattr(pipe, name, None) for name in ("unet", "transformer", "transformer_2")]
    found = [one for one in found if isinstance(one, nn.Module)]
    if not found:
        raise UserError(f"pipe: got {type(pipe).__name__}, which has no unet and no transformer; pass another pipeline")
    return found


CONDITIONAL_PASSES = ("cond", "uncond_stg", "uncond_modality")
"""Passes of the conditional half that pipelines name: LTX-2 repeats it with blocks or streams perturbed."""


class _Watched:
    """A method of one object that reports its calls or results; copies of the object have the method as it was.

    Args:
        report: gets the arguments and returns others for the method, or None; with `after` gets the result.
    """

    def __init__(self, owner: object, name: str, report: Callable[..., Any], after: bool) -> None:
        functools.update_wrapper(self, getattr(owner, name))
        self.owner, self.name, self.report, self.after = owner, name, report, after
        self.method: Callable[..., object] = getattr(owner, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.after:
            result = self.method(*args, **kwargs)
            self.report(result)
            return result
        args, kwargs = self.report(*args, **kwargs) or (args, kwargs)
        return self.method(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        other = memo[id(self.owner)]
        return getattr(type(other), self.name).__get__(other)


@contextmanager
def _watched(owner: object, name: str, report: Callable[..., Any], after: bool = False) -> Iterator[None]:
    before = vars(owner).get(name)
    vars(owner)[name] = _Watched(owner, name, report, after)
    try:
        yield
    finally:
        if before is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = before


class ConditionedCall:
    """Conditions that act in the calls of a pipeline's denoisers.

    Where both halves of guidance come in one batch, it has twice the rows of the latents that the pipeline prepared.
    Where they come apart, the pipeline names the half (`cache_context`, or the guider of a modular pipeline), or else
    the calls of a step are counted, of which the scheduler's `step` is the end. The family says which of these holds.

    Args:
        encoded: encoded conditions by adapter name, or a conditioning for a known size.
        designs: number of prompts that the conditions are for; 1 fits any number.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        encoded: Mapping[str, Encoded] | Conditioning,
        designs: int = 1,
        recorder: MapRecorder | None = None,
    ) -> None:
        self.pipe, self.denoisers = pipe, denoisers(pipe)
        self.guidance = family_of(self.denoisers[0]).guidance
        self.encoded, self.designs, self.recorder = encoded, designs, recorder
        self.edits = "image_guidance_scale" in inspect.signature(type(pipe).__call__).parameters
        self.shape: tuple[int, ...] | None = None
        """Shape of the latents that the pipeline prepared."""
        self.prompts: tuple[str, ...] = ()
        self.knows_prompts = False
        self.joined = JoinedTexts(pipe, self.denoisers[0], {} if isinstance(encoded, Conditioning) else encoded)
        if recorder is not None:
            refuse_compiled(any(map(is_compiled, self.denoisers)))
            recorder.check(encoded.encoded if isinstance(encoded, Conditioning) else encoded)
        self._restart()

    @property
    def changes_outputs(self) -> bool:
        made = self.encoded
        if isinstance(made, Conditioning):
            return made.changes_outputs
        return any(one.changes_outputs for one in made.values())

    def _restart(self, *_: object, **__: object) -> None:
        self.step, self.calls, self.images, self.steps = 0, 0, 0, 0
        self.pass_name: str | None = None
        self.laid_out: dict[tuple[int, tuple[Half, ...]], Conditioning] = {}
        self.acting: Conditioning | None = None
        """Conditioning of the call that is running."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """Lets the conditions act in the denoisers' calls within the block."""
        components = getattr(self.pipe, "components", {})
        guiders = [one for one in components.values() if isinstance(one, BaseGuidance)]
        with ExitStack() as stack:
            for denoiser in self.denoisers:
                let = stack.enter_context(conditioned(denoiser))
                hook = denoiser.register_forward_pre_hook(partial(self._begin, let), with_kwargs=True)
                stack.callback(hook.remove)
                if self.changes_outputs:  # compiled code would stop at a hook
                    stack.callback(denoiser.register_forward_hook(self._end, with_kwargs=True).remove)
                if hasattr(denoiser, "cache_context"):
                    stack.enter_context(_watched(unwrapped(denoiser), "cache_context", self._named))
            stack.enter_context(_watched(self.pipe.scheduler, "set_timesteps", self._restart))
            stack.enter_context(_watched(self.pipe.scheduler, "step", self._begin_step))
            stack.enter_context(_watched(self.pipe.scheduler, "step", self._end_step, after=True))
            if hasattr(self.pipe, "encode_prompt"):
                stack.enter_context(_watched(self.pipe, "encode_prompt", self._prompted))
            if hasattr(self.pipe, "prepare_latents"):
                stack.enter_context(_watched(self.pipe, "prepare_latents", self._latents, after=True))
            for guider in guiders:
                stack.enter_context(_watched(guider, "prepare_models", partial(self._prepared, guider), after=True))
            yield

    def _named(self, name: str, **_: object) -> None:
        self.pass_name = name

    def _latents(self, made: Any) -> None:
        self.shape = tuple((made[0] if isinstance(made, tuple) else made).shape)

    def _prompted(self, *args: Any, **kwargs: Any) -> Arguments | None:
        """Keeps the prompts of a run, and joins texts to them; pipelines encode them before the negative ones."""
        given = inspect.signature(self.pipe.encode_prompt).bind(*args, **kwargs).arguments
        if self.knows_prompts and not given.get("text_encoder_index"):
            return None
        prompt = given.get("prompt")
        self.prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt or ())
        self.knows_prompts = True
        return ((), self.joined.arguments(given)) if self.joined.texts else None

    def _prepared(self, guider: Any, *_: object) -> None:
        self.pass_name = str(guider._input_predictions[guider._count_prepared - 1]).removeprefix("pred_")

    def _begin(
        self, let: Callable[[Conditioning], None], denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        """Sets the conditions of a call of the denoiser: those of the half of guidance that it computes.

        Returns the arguments that they change; None if they change none.
        """
        if self.steps and self.step >= self.steps:  # a scheduler without set_timesteps runs once more
            self._restart()
        given = call_arguments(denoiser, args, kwargs)
        halves = self._halves(denoiser, given)
        made = self._conditioning(denoiser, given, halves)
        let(made)
        self.acting = made
        self.calls += 1
        self.knows_prompts = False  # what is encoded from now on is for the next run
        if not made.reads_calls:
            return None
        made.set_sampling(sampling_of(self.pipe.scheduler, given, self.shape))
        return made.on_call(denoiser, args, kwargs)

    def _end(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Returns the output of a call of the denoiser, with what the conditions change in it."""
        return output if self.acting is None else self.acting.on_output(denoiser, args, kwargs, output)

    def _halves(self, denoiser: nn.Module, given: Given) -> tuple[Half, ...]:
        """Returns the halves of guidance that a call computes, in the order of its rows; `ValueError` if unforeseen."""
        guidance, rows = self.guidance, len(sample_of(given))
        name, self.pass_name = self.pass_name, None  # guiders name more passes of the conditional half, as cond_skip
        perturbed = (name or "").startswith("cond_") and name != "cond_uncond"
        if perturbed or name in ("uncond", *CONDITIONAL_PASSES):
            self.images = self._images(rows)
            return GUIDED[:1] if name == "uncond" else GUIDED[1:]
        if guidance == "two calls" and name is None:
            if self.calls > 1:
                raise UserError(
                    f"conditions: got {self.calls + 1} calls of {type(unwrapped(denoiser)).__name__} in one step, "
                    "expected the two halves of guidance; turn off what adds others"
                )
            self.images = self._images(rows)
            return (GUIDED[1 - self.calls],)
        if name not in (None, "cond_uncond"):
            raise UserError(f"conditions: got a pass named {name!r}, which they do not know; turn off what adds it")
        is_guided = getattr(self.pipe, "do_classifier_free_guidance", None)
        if not self.images:
            prepared = 0 if self.shape is None else self.shape[0]
            self.images = self._images(prepared or rows, 1 if prepared else 1 + self._is_guided(is_guided))
        parts, rest = divmod(rows, self.designs * self.images)
        if self.edits and parts == 3 and not rest and self.recorder is None:
            return GUIDED[1], GUIDED[0], GUIDED[0]  # InstructPix2Pix: the last part is without the image too
        if rest or parts not in (1, 2):
            raise self._wrong(rows)
        if parts == 1 or is_guided is False:  # without guidance, a second part perturbs the conditional half
            return GUIDED[1:] * parts
        if guidance == "unknown":
            raise UserError(
                f"guidance: got {type(unwrapped(denoiser)).__name__}, whose order of halves is not known; turn "
                "guidance off, or add a record of it to weftwork.attention_processors.core.families.FAMILIES"
            )
        return family_of(denoiser).halves

    def _images(self, rows: int, halves: int = 1) -> int:
        """Returns the number of images per design."""
        images, rest = divmod(rows, self.designs * halves)
        if rest:
            raise self._wrong(rows)
        return images

    def _wrong(self, rows: int) -> UserError:
        return UserError(
            f"conditions: got a batch of {rows} rows for conditions of {self.designs} prompts; pass one list per "
            "prompt (a batch with a third part is not supported, except that of InstructPix2Pix without a recorder)"
        )

    def _is_guided(self, is_guided: bool | None) -> bool:
        if is_guided is None:
            raise UserError(
                f"guidance: got {type(self.pipe).__name__}, which neither prepares latents nor says whether it is "
                "guided; add the property do_classifier_free_guidance to its class"
            )
        return is_guided

    def _conditioning(self, denoiser: nn.Module, given: Given, halves: tuple[Half, ...]) -> Conditioning:
        if isinstance(self.encoded, Conditioning) and halves == GUIDED[:1]:
            raise UserError("conditioning: got one of both halves, but the pipeline runs them apart; pass conditions=")
        key = id(denoiser), halves
        if key not in self.laid_out:
            made = self.encoded
            if not isinstance(made, Conditioning):
                layout = call_layout(denoiser, given, self.images, halves)
                placed = {name: self.joined.placed(name, one) for name, one in made.items()}
                made = Conditioning.of(placed, replace(layout, prompts=self.prompts))
            self.steps = self.steps or self._num_steps()
            if self.recorder is not None and "conditional" in halves:
                assert made.layout is not None
                if not any("conditional" in other for _, other in self.laid_out):
                    self.recorder.begin(made.layout, self.steps)
                made = replace(made, recorder=self.recorder)
            made.set_step(self.step, self.steps)
            self.laid_out[key] = made
        return self.laid_out[key]

    def _num_steps(self) -> int:
        known = getattr(self.pipe, "_num_timesteps", None)
        scheduler = self.pipe.scheduler
        return known or max(1, len(scheduler.timesteps) - (getattr(scheduler, "begin_index", None) or 0))

    def _begin_step(self, *args: Any, **kwargs: Any) -> Arguments | None:
        """Returns the arguments of the scheduler's step with the latents that the conditions have changed."""
        if not any(made.reads_calls for made in self.laid_out.values()):
            return None
        given = inspect.signature(self.pipe.scheduler.step).bind(*args, **kwargs)
        for made in self.laid_out.values():
            given.arguments["sample"] = made.on_latents(given.arguments["sample"])
        return given.args, given.kwargs

    def _end_step(self, *_: object, **__: object) -> None:
        """Moves schedules on; caches of diffusers hold what was computed under the strengths before."""
        moved = [made.on_step_end(self.step, self.steps) for made in self.laid_out.values()]
        if any(moved):
            for denoiser in self.denoisers:
                reset_caches(denoiser)
        self.step, self.calls = self.step + 1, 0
