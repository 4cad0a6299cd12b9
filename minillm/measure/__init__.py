"""Chapter 2: count and measure time and memory. No other part of the package measures them.

Counted, from numbers alone (no torch):
    costs         FLOPs and bytes of one step of a model
    machine       what a machine can do; known_gpus and known_models are tables of real ones
    roofline      cost + machine -> the least time a step can take, and the limit behind it
    trace         the records of a run, from which every live picture is drawn
Measured:
    timing        the time that something takes, and fair comparisons of times
    memory        the memory that something needs
    probe         the figures of this machine; local stores them

Import from the modules: this file imports nothing, so that `minillm.measure.trace` stays free of torch.
"""
