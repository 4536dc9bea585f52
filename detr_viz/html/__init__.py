"""Results become one offline HTML page, in which a reader points at what they ask about.

text = html.page(explanation)                       # or several; a whole document
"""

from detr_viz.common.lazy import public

__getattr__, __all__ = public(
    __name__,
    {"Entry": "entry", "measure": "entry", "page": "assembly", "document": "assembly"},
)
