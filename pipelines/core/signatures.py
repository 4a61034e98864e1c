"""Signatures of pipelines: stock parameters in front of those that a mixin adds, and checks of keyword arguments."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, Final

from weftwork.datasets.readers.errors import nearest

LEGACY: Final = ("callback", "callback_steps")
"""Deprecated arguments that diffusers still reads from its `**kwargs`."""


def with_stock_parameters(method: FunctionType, stock: Callable[..., Any]) -> FunctionType:
    """Returns a copy of a mixin's method that shows the stock method's parameters before its own keyword ones.

    The copy runs the same code. diffusers reads the components of a pipeline off the signature and the annotations of
    `__init__` (`_get_signature_keys`, `_get_signature_types`, `extract_init_dict`, `from_pipe`), and `*args, **kwargs`
    would hide them; of `__call__`, `help` shows all arguments.
    """
    copy = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    copy.__kwdefaults__ = method.__kwdefaults__
    added = [p for p in inspect.signature(method).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    named = [p for p in inspect.signature(stock).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    vars(copy)["__signature__"] = inspect.Signature([*named, *added])
    copy.__annotations__ = {**stock.__annotations__, **{p.name: p.annotation for p in added}}
    docs = (inspect.getdoc(method) or "", inspect.getdoc(stock) or "")
    copy.__doc__ = "\n\n".join(filter(None, docs))
    copy.__qualname__, copy.__module__ = method.__qualname__, method.__module__
    return copy


def bound_arguments(
    call: Callable[..., Any], args: Iterable[Any], kwargs: Mapping[str, Any], added: Iterable[str]
) -> inspect.BoundArguments:
    """Returns the arguments of a stock call by name.

    Args:
        added: names that a mixin takes beside, for the nearest match.

    Raises:
        TypeError: an unknown name, which stock calls ignore, or arguments that do not fit.
    """
    signature = inspect.signature(call)
    known = [p.name for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in kwargs:
        if name not in known and name not in LEGACY:
            hint = nearest(name, [*known, *added], "see help(pipe.__call__)")
            raise TypeError(f"{name}: unknown argument of the pipeline's call; {hint}")
    return signature.bind(*args, **kwargs)
