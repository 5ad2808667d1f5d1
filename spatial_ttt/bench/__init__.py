"""Speed and memory, measured beside the stock model in one run: `spatial-ttt bench`.

BenchPlan -> run -> one JSON line per measure as soon as it is known -> table, plots
"""
