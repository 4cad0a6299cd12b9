"""Chapter 2: where time and memory go, counted and measured. Time and memory are measured nowhere else.

Counted, from numbers alone (no torch):
    costs         FLOPs and bytes of one step of a model
    machine       what a machine can do; known_gpus and known_models are tables of real ones
    roofline      cost + machine -> the least time a step can take, and what bounds it
    trace         the records of a run, from which every live picture is drawn
Measured:
    timing        how long something takes, and against what it may be compared
    memory        how much memory something needs
    probe         the figures of the machine we run on; local remembers them

Import from the modules: this file imports nothing, so that `minillm.measure.trace` stays free of torch.
"""
