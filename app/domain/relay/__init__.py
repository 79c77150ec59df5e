"""Results pushed to whoever asked for them: what is posted, how it is signed, when it is tried again."""
