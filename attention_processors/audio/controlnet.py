"""ControlNet for Stable Audio's transformer: a trained copy of its first blocks, added to the frozen blocks' inputs.

After the ControlNet of Stable-V2A (arXiv 2412.15023), whose code takes a fifth of the blocks; StereoSync only mentions
one, on the envelope of the audio.
"""

from typing import Self

import torch
from diffusers import StableAudioDiTModel
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.stable_audio import Rotary
from weftwork.attention_processors.core.processor import install
from weftwork.datasets.readers.errors import UserError


class StableAudioControlNetModel(StableAudioDiTModel):
    """ControlNet that returns residuals for the first blocks of a `StableAudioDiTModel`; zero-initialised.

    They go into `Conditioning.inputs`, by the names in `blocks`.

    Args:
        num_layers: blocks of the copy.
        control_channels: channels of the control: the latents' for an envelope, and more for signals that are aligned
            in time by construction, such as box coordinates.
        (others): as in the transformer.
    """

    @register_to_config
    def __init__(  # noqa: PLR0913  (each is a key of the config)
        self,
        sample_size: int = 1024,
        in_channels: int = 64,
        num_layers: int = 4,
        attention_head_dim: int = 64,
        num_attention_heads: int = 24,
        num_key_value_attention_heads: int = 12,
        out_channels: int = 64,
        cross_attention_dim: int = 768,
        time_proj_dim: int = 256,
        global_states_input_dim: int = 1536,
        cross_attention_input_dim: int = 768,
        control_channels: int = 64,
        training: dict[str, object] | None = None,
    ) -> None:
        super().__init__(
            sample_size,
            in_channels,
            num_layers,
            attention_head_dim,
            num_attention_heads,
            num_key_value_attention_heads,
            out_channels,
            cross_attention_dim,
            time_proj_dim,
            global_states_input_dim,
            cross_attention_input_dim,
        )
        del self.proj_out, self.postprocess_conv
        self.control_in = nn.Conv1d(control_channels, in_channels, 1)
        self.control_out = nn.ModuleList(
            nn.Linear(self.inner_dim, self.inner_dim, bias=False) for _ in range(num_layers)
        )
        for module in (self.control_in, *self.control_out):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
        install(self)

    @property
    def blocks(self) -> list[str]:
        """Blocks of the transformer to whose inputs the residuals are added."""
        return [f"transformer_blocks.{index}" for index in range(len(self.transformer_blocks))]

    @property
    def reads_boxes(self) -> bool:
        """Whether the control has channels beside the latents'."""
        return self.config["control_channels"] > self.config["in_channels"]

    @classmethod
    def from_transformer(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, transformer: StableAudioDiTModel, num_layers: int | None = None, control_channels: int | None = None
    ) -> Self:
        """Copies a transformer's input layers and first blocks.

        Args:
            num_layers: of the copy; a fifth of the transformer's (rounded down, at least 1) when left out.
            control_channels: the latents' when left out.

        Raises:
            ValueError: more layers than the transformer has, or fewer than 1.
        """
        config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
        have = config["num_layers"]
        layers = max(1, have // 5) if num_layers is None else num_layers
        if not 1 <= layers <= have:
            raise UserError(f"num_layers: got {layers}, expected 1 to {have}, as many as the transformer has")
        config |= {"num_layers": layers, "control_channels": control_channels or config["in_channels"]}
        model = cls(**config)
        own = model.state_dict()
        model.load_state_dict({**own, **{n: t for n, t in transformer.state_dict().items() if n in own}})
        nn.Module.to(model, transformer.dtype)
        return model

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Float[Tensor, "row channel place"],
        timestep: Float[Tensor, " row"],
        encoder_hidden_states: Float[Tensor, "row token input_dim"],
        global_hidden_states: Float[Tensor, "row 1 input_dim"],
        control: Float[Tensor, "row control_channel place"],
        rotary_embedding: Rotary | None = None,
        conditioning_scale: float | Float[Tensor, "row 1 1"] = 1.0,
        encoder_attention_mask: Bool[Tensor, "row token"] | None = None,
    ) -> list[Float[Tensor, "row 1+place dim"]]:
        """Returns one residual per block; the other arguments are the transformer's.

        Args:
            control: control signal at the latents' rate.
            conditioning_scale: factor on the residuals; exactly 0 at 0.
        """
        context = self.cross_attention_proj(encoder_hidden_states)
        time = self.timestep_proj(self.time_proj(timestep.to(self.dtype)))
        first = self.global_proj(global_hidden_states) + time.unsqueeze(1)
        convolved = self.preprocess_conv(hidden_states) + hidden_states + self.control_in(control)
        tokens = torch.cat([first, self.proj_in(convolved.transpose(1, 2))], 1)
        residuals: list[Tensor] = []
        for block, out in zip(self.transformer_blocks, self.control_out, strict=True):
            given = tokens, None, context, encoder_attention_mask, rotary_embedding
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, *given)  # pyright: ignore[reportOptionalCall]
            else:
                tokens = block(*given)
            residuals.append(out(tokens) * conditioning_scale)
        return residuals
