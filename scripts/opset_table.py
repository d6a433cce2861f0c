#!/usr/bin/env python3
"""Writes crates/coreml/src/opset/definitions.tsv: every MIL op's definitions, opset by opset.

Read from the registry of coremltools 9.0, as facts about the format: which inputs an op has, of
which element types, which of them must be constant, which may be left out and what is then taken.
A line is a definition; an op has one for the opset that brings it and one for each opset that
redefines it. Columns, separated by tabs:

    op         the operation's type
    opset      the first opset with this definition
    inputs     the inputs, in order, separated by blanks (see below); `-` for none
    methods    the methods whose code differs from the definition before: what to read by hand

An input is `name` + flags + `:` + domain, and `=` + default where there is one:

    ?  may be left out            !  must be a compile-time constant
    T(fp16,fp32)   element types, the same one for every input with the letter T
    (int32)        element types of this input alone
    tuple, list…   not a tensor
    =0             the value if left out, as JSON; `=~` where it depends on the other inputs

Run it with a Python that has coremltools 9.0 (`--check` compares instead of writing):

    python scripts/opset_table.py [--check]
"""

import inspect
import json
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "crates/coreml/src/opset/definitions.tsv"
VERSION = "9.0"
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")


def registry():
    """The op classes by op type and target, as the peer's builder would pick them."""
    import coremltools as ct
    from coremltools.converters.mil.mil import ops  # noqa: F401  (fills the registry)
    from coremltools.converters.mil.mil.ops.helper import _get_version_of_op
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    if ct.__version__ != VERSION:
        raise SystemExit(f"the table is made from coremltools {VERSION}, this is {ct.__version__}")
    classes = {}
    for op, variants in sorted(SSAOpRegistry.core_ops.items()):
        classes[op] = {}
        for target in TARGETS:
            try:
                classes[op][target] = _get_version_of_op(variants, ct.target[target])
            except ValueError:  # not there yet
                pass
    return classes


def domain(spec, cls):
    """The element types of an input, with the letter that ties it to others."""
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.input_type import TensorInputType

    if not isinstance(spec, TensorInputType):
        return type(spec).__name__.removesuffix("InputType").lower()
    letter = spec._type_domain_id or ""
    dtypes = cls.type_domains.get(letter, ()) if letter else spec.type_domain
    dtypes = dtypes if isinstance(dtypes, (tuple, list)) else (dtypes,)
    return f"{letter}({','.join(sorted(types.builtin_to_string(t) for t in dtypes))})"


def defaults(cls):
    """The defaults as JSON; None where they depend on the use."""
    probe = object.__new__(cls)
    for name in cls.input_spec.input_types:
        probe.__dict__[name] = None
    try:
        items = cls.default_inputs(probe).items()
    except Exception:  # it looks at the other inputs
        return None
    return {name: json.dumps(value, default=str, separators=(",", ":")) for name, value in items}


def inputs(cls):
    values = defaults(cls)
    for name, spec in cls.input_spec.input_types.items():
        text = name + "?" * spec.optional + "!" * spec.const + ":" + domain(spec, cls)
        if values is None:
            text += "=~" * spec.optional
        elif values.get(name, "null") != "null":
            text += "=" + values[name].replace(" ", "")
        yield text


def methods(cls):
    """The sources of a class's methods, those of the common base left out."""
    from coremltools.converters.mil.mil.operation import Operation

    found = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Operation) and base is not Operation:
            for name, value in vars(base).items():
                value = getattr(value, "__func__", value)
                if inspect.isfunction(value) and value.__module__ == base.__module__:
                    found[name] = inspect.getsource(value)
    return found


def changed(new, old):
    """The methods of which the new class has other code, calls of the parent's aside."""
    return sorted(
        name
        for name in new.keys() | old.keys()
        if name != "add_op" and new.get(name) != old.get(name) and not delegates(new.get(name))
    )


def delegates(source):
    return source is not None and source.splitlines()[1:] == ["        return super().type_inference()"]


def table():
    lines = ["# Made by scripts/opset_table.py from coremltools 9.0: do not edit."]
    lines.append("op\topset\tinputs\tmethods")
    for op, by_target in registry().items():
        last = None
        for target in TARGETS:
            cls = by_target.get(target)
            if cls is None or cls is last:
                continue
            code = changed(methods(cls), methods(last)) if last else []
            lines.append("\t".join((op, target, " ".join(inputs(cls)) or "-", ",".join(code) or "-")))
            last = cls
    return "\n".join(lines) + "\n"


def main():
    text = table()
    if "--check" in sys.argv[1:]:
        if TABLE.read_text() != text:
            raise SystemExit(f"{TABLE} is not what scripts/opset_table.py makes: run it again")
    else:
        TABLE.write_text(text)
        print(f"{TABLE}: {len(text.splitlines()) - 2} definitions")


if __name__ == "__main__":
    main()
