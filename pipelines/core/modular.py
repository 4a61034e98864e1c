"""Conditions in modular pipelines: blocks that take `conditions` beside the inputs of the blocks within.

    blocks = ConditionedBlocks(FluxAutoBlocks())
    pipe = blocks.init_pipeline("my-flux")
    attach(pipe, style=StyleAdapter.from_pretrained(folder))
    image = pipe("a cat", conditions={"style": Style("ink")}, output="images")[0]

`ConditionedBlocks().save_pretrained(folder)` writes custom blocks, which
`ModularPipelineBlocks.from_pretrained(folder, trust_remote_code=True, blocks=FluxAutoBlocks())` opens.
"""

from pathlib import Path
from typing import Any

from diffusers.modular_pipelines import ModularPipelineBlocks
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.attach import conditions


class ConditionedBlocks(ModularPipelineBlocks):
    """Blocks of a whole modular pipeline, or of its denoising, in which conditions act.

    Args:
        blocks: the blocks within; they include those that set timesteps.
    """

    def __init__(self, blocks: Any = None) -> None:
        super().__init__()
        if blocks is not None:
            self.sub_blocks["blocks"] = blocks

    @property
    def _within(self) -> Any:
        if "blocks" not in self.sub_blocks:
            raise UserError(
                "blocks: got none, expected those of a pipeline; pass blocks=FluxAutoBlocks() (or others) to "
                "from_pretrained(…) or to the class"
            )
        return self.sub_blocks["blocks"]

    @property
    def model_name(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._within.model_name

    @property
    def description(self) -> str:
        return "Lets conditions act in the blocks within: by name of an adapter, see weftwork.pipelines.conditions."

    @property
    def expected_components(self) -> list[Any]:
        return self._within.expected_components

    @property
    def expected_configs(self) -> list[Any]:
        return self._within.expected_configs

    @property
    def inputs(self) -> list[InputParam]:
        return [*self._within.inputs, InputParam("conditions", description="Conditions by name of an adapter.")]

    @property
    def intermediate_outputs(self) -> list[Any]:
        return self._within.intermediate_outputs

    @property
    def outputs(self) -> list[Any]:
        return self._within.outputs

    def __call__(self, components: Any, state: Any) -> tuple[Any, Any]:
        """Runs the blocks within; without conditions, unchanged."""
        given = state.get("conditions")
        if not given:
            return self._within(components, state)
        with conditions(components, given):
            return self._within(components, state)

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes the configuration that `save_pretrained` saves, and a module that imports this class."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        module = (
            f'"""Conditions of weftwork in a modular pipeline."""\n\nfrom {__name__} import {type(self).__name__}\n'
        )
        with atomic_path(Path(save_directory) / f"{__name__.rpartition('.')[2]}.py") as stage:
            stage.write_text(module, encoding="utf-8")
        super().save_config(save_directory, push_to_hub, **kwargs)
