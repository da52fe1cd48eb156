"""How much is annotated: `python -m tests.support.annotations [ROOT]`."""

import ast
import pathlib
import sys

PACKAGES = ("slotcon_tf", "slotcon_client", "trainers", "export")


def functions(path):
    """Public functions and methods of a file, as (name, whether fully annotated).

    Public is what no underscore leads to; of dunders, `__init__` and `__call__`.
    Nested functions are nobody's.
    """

    def walk(body, within):
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from walk(node.body, f"{within}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = node.name in ("__init__", "__call__")
                if own or not node.name.startswith("_"):
                    yield f"{within}{node.name}", _annotated(node, bool(within))

    yield from walk(ast.parse(path.read_text()).body, "")


def _annotated(node, method):
    """Every argument and the result; self and cls need none."""
    arguments = node.args
    static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    named = [*arguments.posonlyargs, *arguments.args]
    named = named[1:] if method and not static else named
    named += [*arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return node.returns is not None and all(a.annotation for a in named if a)


def missing(root):
    """Full names that lack an annotation, and the number of all."""
    found, count = [], 0
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for name, annotated in functions(path):
                count += 1
                if not annotated:
                    found.append(f"{path.relative_to(root)}:{name}")
    return found, count


if __name__ == "__main__":
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    bare, total = missing(root)
    print(*bare, sep="\n")
    share = (total - len(bare)) / total
    print(f"{total - len(bare)} of {total} annotated ({share:.0%})")
