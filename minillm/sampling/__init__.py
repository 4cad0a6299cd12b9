"""Chapter 1: sampling parameters, random numbers, and the way from logits to tokens."""

from minillm.sampling.logprobs import Logprob, gather_logprobs
from minillm.sampling.params import LogitsProcessor, SamplingParams, check_vocabulary
from minillm.sampling.random import Stream, derive_seed, sample_seed, uniform
from minillm.sampling.sample import NO_TOKEN, Sampled, draw, probabilities, sample
from minillm.sampling.transforms import (
    Forbidden,
    LogitsError,
    NonFiniteLogitsError,
    NoTokenLeftError,
    ProcessorError,
    SamplingRow,
    process_logits,
)
from minillm.sampling.verify import Drafts, verify

__all__ = [
    "NO_TOKEN",
    "Drafts",
    "Forbidden",
    "LogitsError",
    "LogitsProcessor",
    "Logprob",
    "NoTokenLeftError",
    "NonFiniteLogitsError",
    "ProcessorError",
    "Sampled",
    "SamplingParams",
    "SamplingRow",
    "Stream",
    "check_vocabulary",
    "derive_seed",
    "draw",
    "gather_logprobs",
    "probabilities",
    "process_logits",
    "sample",
    "sample_seed",
    "uniform",
    "verify",
]
