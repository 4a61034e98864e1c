"""The text encoders of a pipeline as frozen encoders of short descriptions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import scale_lora_layers, unscale_lora_layers
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weftwork.datasets.readers.errors import UserError


class TextEncoders:
    """The text encoders of a pipeline as encoders of short descriptions: CLIP's, else its language model.

    Vectors and token states of several encoders are concatenated along the last dimension, as SDXL does it. A language
    model's vector is the final state of the last token.
    """

    def __init__(
        self,
        tokenizers: Sequence[PreTrainedTokenizerBase],
        models: Sequence[PreTrainedModel],
        device: torch.device | str = "cpu",
        expand: Callable[[str, PreTrainedTokenizerBase], str] | None = None,
        encode_prompt: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        self.tokenizers, self.models, self.device = list(tokenizers), list(models), device
        self.expand = expand
        """Replaces the tokens of textual inversion by all of their vectors, for a tokenizer."""
        self.encode_prompt = encode_prompt
        """`encode_prompt` of the pipeline."""

    @classmethod
    def of(cls, pipe: DiffusionPipeline) -> "TextEncoders":
        """Returns the text encoders of a diffusers pipeline."""
        suffixes = [s for s in ("", "_2", "_3") if getattr(pipe, f"text_encoder{s}", None) is not None]
        suffixes = [s for s in suffixes if _is_clip(getattr(pipe, f"text_encoder{s}"))] or suffixes[:1]
        return cls(
            [getattr(pipe, f"tokenizer{s}") for s in suffixes],
            [getattr(pipe, f"text_encoder{s}") for s in suffixes],
            pipe._execution_device,
            getattr(pipe, "maybe_convert_prompt", None),
            getattr(pipe, "encode_prompt", None),
        )

    @contextmanager
    def scaled(self, lora_scale: float | None) -> Iterator[None]:
        """Scales LoRAs of the encoders within the block, as the prompt's encoding does."""
        if lora_scale is None:
            yield
            return
        for model in self.models:
            scale_lora_layers(model, lora_scale)
        try:
            yield
        finally:
            for model in self.models:
                unscale_lora_layers(model, lora_scale)

    @torch.no_grad()
    def pooled(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """One vector per text: the final state at the end token, projected where the encoder does (as LOTS's code)."""
        vectors = []
        for tokenizer, model in zip(self.tokenizers, self.models, strict=True):
            ids, mask = self._ids(tokenizer, texts)
            if _is_clip(model):
                output = model(ids)
                projected = getattr(output, "text_embeds", None)
                vectors.append(output.pooler_output if projected is None else projected)
            else:
                vectors.append(_states(model, ids, mask)[torch.arange(len(ids)), mask.sum(1) - 1])
        return torch.cat(vectors, -1)

    @torch.no_grad()
    def tokens(
        self, texts: Sequence[str], length: int
    ) -> tuple[Float[Tensor, "text token dim"], Bool[Tensor, "text token"]]:
        """Final states of the first `length` tokens, and which belong to the text; `ValueError` for a text of more."""
        read = [(m, *self._ids(t, texts, length)) for t, m in zip(self.tokenizers, self.models, strict=True)]
        return torch.cat([_states(*one) for one in read], -1), read[0][2]

    @torch.no_grad()
    def prompts(self, texts: Sequence[str]) -> tuple[Float[Tensor, "text token dim"], Bool[Tensor, "text token"]]:
        """Prompt embeddings as the pipeline makes them of its prompt, and which of the tokens belong to the text.

        Raises:
            ValueError: a text that has more tokens than a prompt, or a pipeline without `encode_prompt`.
        """
        if self.encode_prompt is None:
            raise UserError("prompt: got a text for a pipeline without encode_prompt; encode it and pass tokens")
        keep = self._ids(self.tokenizers[0], texts)[1]
        for tokenizer in self.tokenizers[1:]:
            self._ids(tokenizer, texts)
        options = {"device": self.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        return self.encode_prompt(list(texts), **options)[0], keep

    def width(self, length: int) -> int:
        """Width of the states of `tokens`, or of the vectors of `pooled` for a `length` of 0."""
        return (self.tokens([""], 2)[0] if length else self.pooled([""])).shape[-1]

    @property
    def longest(self) -> int:
        """Maximum number of tokens of a prompt, including begin and end."""
        return min(tokenizer.model_max_length for tokenizer in self.tokenizers)

    def count(self, text: str) -> int:
        """Number of tokens of a text, including begin and end; the maximum over all encoders."""
        return max(len(tokenizer(text).input_ids) for tokenizer in self.tokenizers)

    def shortened(self, text: str, length: int | None = None) -> str:
        """The text without words at its end beyond `length` tokens (by default `longest`), begin and end included."""
        words, most = text.split(" "), length or self.longest
        while len(words) > 1 and self.count(" ".join(words)) > most:
            words.pop()
        return " ".join(words)

    def _ids(
        self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns token ids, and which of them belong to the text."""
        length = int(length or tokenizer.model_max_length)
        if self.expand is not None:
            texts = [self.expand(text, tokenizer) for text in texts]
        for text, ids in zip(texts, tokenizer(list(texts)).input_ids, strict=True):
            if len(ids) > length:
                raise UserError(
                    f"text: {text[:60]!r} has {len(ids) - 2} tokens, expected at most {length - 2}; shorten it"
                )
        padded = tokenizer(list(texts), padding="max_length", max_length=length, return_tensors="pt")
        return padded.input_ids.to(self.device), padded.attention_mask.bool().to(self.device)


def _is_clip(model: PreTrainedModel) -> bool:
    return type(model).__name__.startswith("CLIPText")


def _states(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Float[Tensor, "text token dim"]:
    """Returns the final states of tokens; CLIP reads padding."""
    if _is_clip(model):
        return model(ids).last_hidden_state
    return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
