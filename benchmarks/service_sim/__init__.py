"""A Tinker-protocol server that computes nothing: charrun's wire layer, with answers of given lengths at given times.

It is an instrument for benchmarks and tests, and not an engine: its log-probs are all the same, and what it trains
does not learn. It bills as Tinker documents, line by line into `bill.jsonl`.
"""
