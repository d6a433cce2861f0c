"""Every public name of the package."""

import inspect
import pkgutil
from importlib import import_module

import palettizer

from outputs.calls.case import case


def public_names(given, folder):
    """Every public name of every public module, with the names and defaults of what it takes."""
    lines = []
    for found in sorted({"palettizer", *(each.name for each in pkgutil.walk_packages(palettizer.__path__, "palettizer."))}):
        if any(part.startswith("_") for part in found.split(".")):
            continue
        module = import_module(found)
        for name in sorted(getattr(module, "__all__", ())):
            thing = getattr(module, name)
            lines.append(f"{found}.{name}{taken(thing)}")
            if inspect.isclass(thing):
                lines += [f"  {member}{taken(getattr(thing, member, None))}" for member in dir(thing) if not member.startswith("_")]
    (folder / "names.txt").write_text("\n".join(lines))


def taken(thing):
    """Parameters without their annotations, which may be written in several ways."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return ""
    return f"({', '.join(str(each.replace(annotation=inspect.Parameter.empty)) for each in parameters)})"


case("Python, names", "public", public_names)
