"""Stable Audio's transformer with conditions: attention branches, and residuals of a ControlNet.

`StableAudioDiTModel` has no argument for either, so its `forward` is reimplemented here. Both are passed as arguments
of the checkpointed blocks: other state may be gone when the backward pass recomputes a block.
"""

import json
from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import StableAudioDiTModel
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.processor import Rotary
from weftwork.datasets.readers.errors import UserError


def rotary_embedding_for(transformer: Any, latents: int) -> Any:
    """Returns the rotary embedding that the stock pipeline passes to the transformer for this number of latents."""
    dim = transformer.config.attention_head_dim // 2
    return get_1d_rotary_pos_embed(dim, latents + 1, use_real=True, repeat_interleave_real=False)


def run_block(
    block: Any,
    hidden_states: Float[Tensor, "row 1+place dim"],
    context: Float[Tensor, "row token context_dim"],
    mask: Bool[Tensor, "row 1+place"] | None,
    context_mask: Bool[Tensor, "row token"] | None,
    rotary: Rotary | None,
    conditioning: Conditioning | None = None,
    control: Float[Tensor, "row 1+place dim"] | None = None,
) -> Float[Tensor, "row 1+place dim"]:
    """Runs one `StableAudioDiTBlock`, with `control` added to its input and `conditioning` in its attention layers."""
    extra = {} if conditioning is None else {"conditioning": conditioning}
    if control is not None:
        hidden_states = hidden_states + control
    normed = block.norm1(hidden_states)
    hidden_states = block.attn1(normed, attention_mask=mask, rotary_emb=rotary, **extra) + hidden_states
    normed = block.norm2(hidden_states)
    read = block.attn2(normed, encoder_hidden_states=context, attention_mask=context_mask, **extra)
    hidden_states = read + hidden_states
    return block.ff(block.norm3(hidden_states)) + hidden_states


class ConditionedStableAudioDiTModel(PeftAdapterMixin, StableAudioDiTModel):
    """`StableAudioDiTModel` that passes `conditioning` on and adds `control`; without both, bit-equal to it in float32.

    Folders are those of the stock class. In half precision the timestep is embedded in float32, where the stock model
    rounds it first: of 100 steps, bfloat16 distinguishes 64.
    """

    _keep_in_fp32_modules = ("time_proj",)
    family = StableAudioDiTModel.__name__
    """Class name of the base model in configs of adapters and in its own saved config."""

    @classmethod
    def from_transformer(cls, transformer: StableAudioDiTModel) -> Self:
        """Returns a model of this class that shares the transformer's weights."""
        if isinstance(transformer, cls):
            return transformer
        with torch.device("meta"):
            model: Any = cls.from_config(dict(transformer.config))
        model.load_state_dict(transformer.state_dict(), assign=True)
        for own, theirs in zip(model.parameters(), transformer.parameters(), strict=True):
            own.requires_grad_(theirs.requires_grad)
        return model.train(transformer.training)

    def forward(  # noqa: PLR0913  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Float[Tensor, "row channel place"],
        timestep: Float[Tensor, " row"],
        encoder_hidden_states: Float[Tensor, "row token input_dim"],
        global_hidden_states: Float[Tensor, "row 1 input_dim"],
        rotary_embedding: Rotary | None = None,
        return_dict: bool = True,
        attention_mask: Bool[Tensor, "row place"] | None = None,
        encoder_attention_mask: Bool[Tensor, "row token"] | None = None,
        conditioning: Conditioning | None = None,
        control: Sequence[Float[Tensor, "row 1+place dim"]] = (),
    ) -> Any:
        """Runs the transformer as the stock call does.

        Args:
            conditioning: branches for the attention layers; needs `install` of `processor`.
            control: residuals that are added to the inputs of the first blocks, one tensor per block.
        """
        tokens, context, mask = self.embedded(
            hidden_states, timestep, encoder_hidden_states, global_hidden_states, attention_mask
        )
        for block, added in self.controlled(control):
            tokens = self.run(
                block, tokens, context, mask, encoder_attention_mask, rotary_embedding, conditioning, added
            )
        sample = self.proj_out(tokens).transpose(1, 2)[:, :, 1:]
        sample = self.postprocess_conv(sample) + sample
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def embedded(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        context: Tensor,
        global_states: Tensor,
        mask: Tensor | None,
        control: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns the input of the blocks: tokens with the global one in front, context, and the mask of the tokens.

        Args:
            control: added beside the input convolution.
        """
        context = self.cross_attention_proj(context)
        weight: Any = self.time_proj.weight
        angles = 2 * torch.pi * timestep.float()[:, None] @ weight.float()[None]
        time = torch.cat([angles.cos(), angles.sin()], -1).to(context.dtype)
        first = self.global_proj(global_states) + self.timestep_proj(time).unsqueeze(1)
        convolved = self.preprocess_conv(hidden_states) + hidden_states
        convolved = convolved if control is None else convolved + control
        tokens = torch.cat([first, self.proj_in(convolved.transpose(1, 2))], 1)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(mask), 1, dtype=torch.bool), mask], -1)
        return tokens, context, mask

    def run(self, *arguments: Any) -> Tensor:
        """Runs `run_block`, with gradient checkpointing where it is enabled."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(run_block, *arguments)  # pyright: ignore[reportOptionalCall]
        return run_block(*arguments)

    def controlled(self, control: Sequence[Tensor]) -> list[tuple[nn.Module, Tensor | None]]:
        """Pairs blocks with the residuals that are added to their inputs.

        Raises:
            ValueError: more residuals than blocks.
        """
        blocks = list(self.transformer_blocks)
        if len(control) > len(blocks):
            raise UserError(
                f"control: got {len(control)} residuals for {len(blocks)} blocks; use a ControlNet that was made "
                "from this transformer"
            )
        return list(zip(blocks, [*control, *[None] * (len(blocks) - len(control))], strict=True))

    def to_json_string(self) -> str:
        """Returns the config of a stock model, so that stock diffusers opens the folder."""
        return named_as(self.family, super().to_json_string())


def named_as(name: str, config: str, without: Sequence[str] = ()) -> str:
    """Returns a config in JSON with the name of another class, and without some of its options."""
    kept = {key: value for key, value in json.loads(config).items() if key not in without}
    return json.dumps({**kept, "_class_name": name}, indent=2, sort_keys=True) + "\n"
