"""The provider's wire contract, run locally: an independent witness for everything else in the project.

May import nothing of ours outside this package. It prices, signs and keeps books with its own code, so
that when its books and the ledger agree, two implementations agree and not one with itself.
"""
