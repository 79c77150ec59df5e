"""Markup that is written where it is made."""

from htpy import BaseElement, Fragment
from markupsafe import Markup


def drawn(node: BaseElement | Fragment) -> Markup:
    """A node as markup, now: else htpy hands each piece of it through every element around it, which was half
    of what a page of rows cost. What is drawn can be kept, too."""
    return node.__html__()
