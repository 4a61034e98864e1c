"""Options of dataclasses on the command line."""

import argparse

import pytest

from weftwork.training.core.config import add_arguments, from_arguments
from weftwork.training.tasks.views import ViewsConfig


def test_none_on_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, ViewsConfig)
    assert from_arguments(ViewsConfig, parser.parse_args([])).snr_gamma == 5
    assert from_arguments(ViewsConfig, parser.parse_args(["--snr_gamma", "none"])).snr_gamma is None
    with pytest.raises(ValueError, match="distillation_kind: got 'cosine', expected one of kl, mse, logits"):
        ViewsConfig(distillation_kind="cosine")
