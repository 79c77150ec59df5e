"""The provider's wire contract, run locally: an independent implementation to check everything else by.

May import nothing of ours outside this package. It prices, signs and keeps books with its own code, so that
when its books and the ledger agree, two implementations agree and not one with itself.

A request enters by `http/server` and passes `http/gate`, where its key is checked and `http/rate_limits`
counts it. Async tasks are accepted by `engine/emulator`, run by `engine/scheduler`, priced by
`engine/charging`, debited by `billing/account`, and reported by `engine/webhooks`, which signs, sends and
retries. Sync calls are in `http/sync_calls`. `checks` refuses requests, `answers` makes results,
`engine/faults` and `http/request_faults` misbehave, `billing/books` lists what was done, and `data` holds
editions, engines and places.
"""
