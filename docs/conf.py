"""Sphinx settings; what is generated at build time is made in pages.py."""

import logging
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pages
from docutils import nodes

import cifarzoo

project = "cifarzoo"
project_copyright = "the cifarzoo developers"
version = release = cifarzoo.__version__

extensions = [
    "myst_nb",  # myst_parser, and pages whose code cells are run
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.doctest",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**/generated/_*"]
default_role = "any"  # docstrings name things in single backticks

html_theme = "furo"
html_title = f"cifarzoo {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_js_files = ["sort.js"]
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["deflist", "tasklist"]
myst_heading_anchors = 3

# the tutorials and the gallery are notebooks: run when they are read, each in a folder of its own
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True  # with -T, sphinx-build shows the traceback
nb_execution_timeout = 300  # seconds, for one cell
nb_merge_streams = True

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
typehints_defaults = None
always_use_bars_union = True

logging.getLogger("traitlets").setLevel(logging.WARNING)  # nbclient tells of every notebook

# their kernels have an IPython profile of their own, so that nobody's settings change the pages; it
# shows errors alone, for each kernel warns that it talks over TCP
profile = Path(__file__).parent / "_build/ipython/profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text(f"c.IPKernelApp.log_level = {logging.ERROR}\n")
os.environ["IPYTHONDIR"] = str(profile.parent)

# sphinx-autodoc-typehints still calls what Sphinx 10 will remove; nothing of ours
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")

# examples read and write in a folder of their own; each page starts anew
doctest_global_setup = """
import os, tempfile
import torch
import cifarzoo
_home, _folder = os.getcwd(), tempfile.TemporaryDirectory()
os.chdir(_folder.name)
"""
doctest_global_cleanup = """
os.chdir(_home)
_folder.cleanup()
"""

nitpick_ignore_regex = [
    # the documentation is built without a network, so nothing outside it can be linked
    (
        r"py:.*",
        r"(torch|torchinfo|matplotlib|pandas|rich|huggingface_hub|os|pathlib|typing|collections\.abc)\..*",
    ),
    (r"py:data", r"Ellipsis"),  # of tuple[int, ...]
]


def mark_long_columns(app, doctree):
    """Name the columns of tables that hold sentences: wide.css keeps them from being squeezed."""
    for group in doctree.findall(nodes.tgroup):
        for column in zip(*(row.children for row in group.findall(nodes.row)), strict=False):
            length = max(len(cell.astext()) for cell in column)
            for cell in column:
                cell["classes"] += ["long"] * (length > 20) + ["longer"] * (length > 90)


def setup(app):
    app.connect("builder-inited", lambda app: pages.bring_up_to_date(Path(app.srcdir)))
    app.connect("env-get-outdated", run_again)
    app.connect("env-before-read-docs", spread_notebooks)
    app.connect("doctree-read", mark_long_columns)


def run_again(app, env, added, changed, removed):
    """The notebooks, if the library has changed since they were run."""
    before, now = getattr(env, "notebooks_made_from", ""), pages.made_from(Path(app.srcdir))
    env.notebooks_made_from = now
    if before == now:
        return []
    return [name for name in env.found_docs if is_notebook(name)]


def is_notebook(name):
    return name == "gallery" or name.startswith("tutorials/")


def spread_notebooks(app, env, names):
    """Put them far from each other, for processes take runs of pages, and these take longest."""
    notebooks = [name for name in names if is_notebook(name)]
    names[:] = [name for name in names if not is_notebook(name)]
    for number, name in enumerate(notebooks):
        names.insert(number * (len(names) // len(notebooks)), name)
