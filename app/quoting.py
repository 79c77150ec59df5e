"""A stranger's word as an error shows it. Knows nothing of what the word is; imports nothing of ours."""


def in_quotes(word: object, chars_max: int = 40) -> str:
    """In quotes, without control characters, and not long."""
    text = str(word)
    clean = "".join(char if char.isprintable() else "?" for char in text[:chars_max])
    return f"{clean!r}" if len(text) <= chars_max else f"{clean + '…'!r}"
