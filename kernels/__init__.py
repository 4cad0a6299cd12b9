"""The Triton kernels, one per file. Import them as `minillm.kernels`, never as `kernels`.

The folder stands at the top of the repository because a reader should meet the kernels there; the package
reaches it through the link `minillm/kernels -> ../kernels`, so that a wheel, an editable install and an
uninstalled source tree all find the same files under the one name `minillm.kernels`.

That leaves one trap. Hugging Face publishes a package that is also called `kernels`, and `transformers`
imports it by that name where it is installed. Whatever puts the repository's root on `sys.path`
(`python -m pytest`, `python -m minillm.cli`, a notebook started there) makes *this* folder the first
`kernels` that Python finds. Two things in this file keep `transformers` working then:

- Theirs is installed: imported as plain `kernels`, this module finds the one further along `sys.path`,
  loads it, and leaves it in `sys.modules` under the name. The importer gets theirs and never sees ours.
- Theirs is not installed: `transformers` asks the `kernels` it found for a version. `__version__` below
  answers with one that is too old for any requirement, so it goes on as if there were none.

Imported as `minillm.kernels`, none of this runs.
"""

__version__ = "0.0.0"


def _hand_over() -> None:
    """Put the next package called `kernels` on `sys.path`, if there is one, in the place of this one."""
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
