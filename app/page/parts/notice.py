"""What a reader should know first; and what stands where there is nothing yet."""

from htpy import Element, Node, div, p


def notice(content: Node, *, tone: str = "plain") -> Element:
    """A box across the page. `tone`: plain, good, warn or loud; a loud one is read out at once."""
    return div(class_=f"notice {tone}", role="alert" if tone == "loud" else "note")[content]


def empty(what: str, then: Node = None) -> Element:
    """In the place of a list: what there is none of, and how it comes about."""
    return div(".empty")[p[what], p(".dim")[then] if then else None]
