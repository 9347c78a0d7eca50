"""Print the catalogue as markdown."""

from .listing import markdown

print(markdown())
