"""Rewrites the source of attention processors, so that branches see what happens inside of their calls.

A processor of diffusers projects tokens to queries, keys and values, normalises and rotates these, calls an attention
function, and projects the result. Branches need that one call; some also need what stands before it, or add an output.
So the method is compiled again from its source, with three changes:

    query = attn.norm_q(query)
    query = self.normed(_kept, "query", attn.norm_q, query)

    hidden_states = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    hidden_states = self.attend_heads(_kept, attn, 0, F.scaled_dot_product_attention, query, key, value, attn_mask=mask)

    return hidden_states, encoder_hidden_states
    return self.ended(_kept, (hidden_states, encoder_hidden_states))

`_kept` is a dictionary that lives as long as the call, made by a first statement `_kept = self.begin(hidden_states)`.
So no model's code is repeated here, and all that a processor does around its attention stays (norms, rotary embeddings,
joint streams, fused projections). The function is passed as the original code finds it when it is called. The source is
rewritten, rather than a name in the globals of a copied function, because a method finds its branches through `self`:
threads cannot mix them up, and `torch.compile` sees one code object for all layers of a class.
"""

import __future__

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, Final

from weftwork.datasets.readers.errors import UserError

METHODS: Final[Mapping[str, str]] = {
    "dispatch_attention_fn": "attend_tokens",
    "scaled_dot_product_attention": "attend_heads",
    "memory_efficient_attention": "attend_folded",
    "linear_attention": "attend_linear",
    "row_attention": "attend_tokens",
}
"""Attention functions by name, and the methods that replace their calls, by the order of axes."""
NORMS: Final[Mapping[str, str]] = {"norm_q": "query", "norm_k": "key"}
"""Norms of a layer, and the names under which both sides of them are kept."""
KEPT: Final = "_kept"
"""Name of the dictionary in rewritten methods."""


class Rewriter(ast.NodeTransformer):
    """Rewrites a method of a processor, and those of its base classes that it calls by `super()`."""

    def __init__(self) -> None:
        self.scope: tuple[str, str, str, Sequence[type]] = ("", "", "", ())
        """Of the method that is rewritten: names of its first two arguments, its own, and the base classes."""
        self.calls = 0
        """Number of calls of attention functions in the rewritten methods."""
        self.inherited: dict[str, Callable[..., Any]] = {}
        """Rewritten methods of base classes, by the names under which they are called."""

    def rewritten(self, kinds: Sequence[type], name: str) -> FunctionType:
        """Returns the method `name` of the first class that has it, rewritten."""
        position = next(i for i, kind in enumerate(kinds) if name in vars(kinds[i]))
        function: Any = inspect.unwrap(vars(kinds[position])[name])
        try:
            lines, first = inspect.getsourcelines(function)
        except (OSError, TypeError) as error:
            raise UserError(f"{kinds[0].__name__}: got no source code of its {name}, expected a Python file") from error
        tree = ast.parse(textwrap.dedent("".join(lines)))
        method: Any = tree.body[0]
        method.decorator_list = []
        me, layer, hidden_states = (one.arg for one in method.args.args[:3])
        # Methods of base classes replace these while theirs are rewritten.
        before, self.scope = self.scope, (me, layer, name, kinds[position + 1 :])
        first_of_all = f"{KEPT} = " + (f"{me}.begin({hidden_states})" if not before[0] else "{}")
        method.body = [*ast.parse(first_of_all).body, *(self.visit(statement) for statement in method.body)]
        self.scope = before
        return _compiled(tree, function, first)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        me, layer, method, above = self.scope
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        if name in METHODS:
            self._call(node, METHODS[name], ast.Name(layer, ast.Load()), ast.Constant(self.calls), called)
            self.calls += 1
        elif name in NORMS and ast.unparse(called) == f"{layer}.{name}":
            self._call(node, "normed", ast.Constant(NORMS[name]), called)
        elif ast.unparse(called) == f"super().{method}":
            alias = f"_inherited_{len(self.inherited)}"
            self.inherited[alias] = self.rewritten(above, method)
            node.func = ast.Attribute(ast.Name(me, ast.Load()), alias, ast.Load())
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if node.value is not None:
            node.value = self._call(ast.Call(node.value, [node.value], []), "ended")
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node  # what a function inside of the method returns is not the method's

    def _call(self, node: ast.Call, method: str, *more: ast.expr) -> ast.Call:
        """Makes a call one of a method of the wrapped processor, with what is kept and more arguments in front."""
        node.args = [ast.Name(KEPT, ast.Load()), *more, *node.args]
        node.func = ast.Attribute(ast.Name(self.scope[0], ast.Load()), method, ast.Load())
        return node


def _compiled(tree: ast.Module, function: FunctionType, first: int) -> FunctionType:
    """Compiles the only definition of `tree` in the place of `function`, whose source begins at line `first`."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    ast.increment_lineno(tree, first - 1)
    outer: Any = ast.parse(f"def outer({', '.join(cells)}): pass").body[0]
    outer.body = tree.body
    module = ast.fix_missing_locations(ast.Module([outer], []))
    lazy = __future__.annotations.compiler_flag  # the types that they name may be imported for type checkers only
    compiled = compile(module, function.__code__.co_filename, "exec", lazy, dont_inherit=True)
    name = function.__code__.co_name
    (body,) = (one for one in compiled.co_consts if isinstance(one, CodeType))
    code = next(one for one in body.co_consts if isinstance(one, CodeType) and one.co_name == name)
    closure = tuple(cells[free] for free in code.co_freevars)
    made = FunctionType(code, function.__globals__, name, function.__defaults__, closure)
    made.__kwdefaults__, made.__qualname__ = function.__kwdefaults__, function.__qualname__
    return made
