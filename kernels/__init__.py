"""The Triton kernels, one per file. Import them as `minillm.kernels`, never as `kernels`.

The folder is at the top of the repository so that readers find the kernels there. The package reaches it
through the link `minillm/kernels -> ../kernels`. A wheel, an editable install and an uninstalled source tree
therefore all use the same files under the one name `minillm.kernels`.

The name has one trap. Hugging Face publishes another package called `kernels`, and `transformers` imports it
if it is installed. When the repository's root is on `sys.path` (`python -m pytest`, `python -m minillm.cli`, a
notebook started there), `import kernels` finds *this* folder first. Two things in this file keep
`transformers` working:

- If their package is installed, this module loads it when it is imported as plain `kernels`. It puts their
  module into `sys.modules` under that name, so the importer gets theirs and never sees ours.
- If their package is not installed, `transformers` asks this module for its version. `__version__` below is
  too old for any requirement, so `transformers` continues as if there were no `kernels` at all.

None of this runs when the module is imported as `minillm.kernels`.
"""

__version__ = "0.0.0"


def _hand_over() -> None:
    """Replace this module in `sys.modules` with the next package called `kernels` on `sys.path`, if there is one."""
    import sys
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec
    from pathlib import Path

    here = Path(__file__).resolve()
    others = [entry for entry in sys.path if Path(entry, "kernels", "__init__.py").resolve() != here]
    spec = PathFinder.find_spec("kernels", others)
    if spec is None or spec.loader is None:  # no loader: a folder without __init__.py, not the package
        return
    module = module_from_spec(spec)
    sys.modules["kernels"] = module  # what `import kernels` returns is read from here once this file ends
    spec.loader.exec_module(module)


if __name__ == "kernels":
    _hand_over()
