"""What Griffe has to be told about our docstrings: an ``Example`` is a section of code, as ``Examples`` is."""

import griffe


class Examples(griffe.Extension):
    """Reads the heading in the singular, too."""

    def on_object(self, *, obj, **_):
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
