"""EAGLE-3: the drafts of a head in the published format are those of a plain reference, whatever the engine does."""

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import LLM, SamplingParams
from minillm.errors import CheckpointError
from minillm.speculative.eagle_checkpoint import layer_ids_to_taps
from tests.engine import tiny
from tests.engine.test_drafts import PARAMS, WAYS, assert_equal, params_of, undrafted
from tests.engine.tiny import PROMPTS
from tests.speculative import eagle_heads
from tests.speculative.eagle_heads import DRAFT_VOCAB, Reference

LAYERS = 8


@cache
def deep():
    """A random Llama of eight layers, whose hidden states differ from layer to layer."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=tiny.VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The deep model, and a head for the tiny model, whose config.json names its layers."""
    folder = tmp_path_factory.mktemp("eagle")
    deep().save_pretrained(folder / "deep")
    eagle_heads.for_tiny(folder / "head")
    return folder


def head_for_deep(folder: Path, ids=None, own_embedding=False, spelling="midlayer", **changes):
    """A head for the deep model; its folder, its weights and its config.json."""
    if ids is not None:
        changes["eagle_config"] = {"eagle_aux_hidden_state_layer_ids": ids}
    config = eagle_heads.config_for(deep().config.to_dict(), DRAFT_VOCAB, **changes)
    weights = eagle_heads.tensors(config, DRAFT_VOCAB, tiny.VOCAB_SIZE)
    if own_embedding:
        generator = torch.Generator().manual_seed(9)
        weights["embed_tokens.weight"] = torch.randn(tiny.VOCAB_SIZE, 32, generator=generator)
    named = {name.replace("midlayer", spelling): tensor for name, tensor in weights.items()}
    return eagle_heads.write(folder, config, named), weights, config


def eagle(folder: Path, most: int = 4) -> dict[str, object]:
    return {"method": "eagle3", "model": str(folder), "num_speculative_tokens": most}


def watch(llm):
    """Return a dict that fills with the drafts of each request after each text: (request, tokens) -> drafts."""
    proposer, seen = llm.engine.proposer, {}
    inner = proposer.propose

    def propose(computed):
        found = inner(computed)
        for part, drafts in zip(computed.parts, found, strict=True):
            if part.limit:
                seen[part.request.request_id, tuple(part.request.token_ids)] = drafts.token_ids
        return found

    proposer.propose = propose
    return seen


def texts_of(seen):
    return {tokens: drafts for (_, tokens), drafts in seen.items()}


@pytest.mark.parametrize(
    ("ids", "reads", "head"),
    [
        (None, (2, 4, 5), {}),
        ([1, 3, 7], (1, 3, 7), {}),
        ([7, 1, 3], (7, 1, 3), {"spelling": "layers.0"}),
        (None, (2, 4, 5), {"norm_before_residual": True}),
        (None, (2, 4, 5), {"own_embedding": True}),
    ],
    ids=["published layers", "named layers", "another spelling and order", "norm before residual", "own embedding"],
)  # fmt: skip
def test_drafts_are_those_of_a_plain_reference(folders, tmp_path, ids, reads, head):
    """`hidden_states[i]` of `transformers` is the input of layer i, as the ids of a head are."""
    folder, weights, config = head_for_deep(tmp_path / "head", ids, **head)
    reference = Reference(deep(), weights, config, list(reads))
    with LLM(folders / "deep", speculative_config=eagle(folder)) as llm:
        seen = watch(llm)
        llm.generate(
            [list(PROMPTS[3]), list(PROMPTS[0])], SamplingParams(max_tokens=8, seed=1, ignore_eos=True)
        )
        assert len(seen) >= 8
        for (_, tokens), drafts in seen.items():
            assert drafts == reference.drafts(list(tokens), len(drafts))
    assert max(map(len, seen.values())) == 4


@pytest.mark.parametrize(
    ("ids", "num_layers", "taps"),
    [(None, 32, (1, 15, 28)), (None, 6, (1, 2, 2)), ([1, 3, 5], 6, (0, 2, 4)), ([5, 1, 5], 6, (4, 0, 4))],
)
def test_an_id_names_the_input_of_a_layer(ids, num_layers, taps):
    assert layer_ids_to_taps(ids, num_layers, "config.json") == taps


# --- the engine ----------------------------------------------------------------------------------------


def speculating(folders, **changes):
    return tiny.llm(speculative_config=eagle(folders / "head"), **changes)


DRAFTABLE = {name: way for name, way in WAYS.items() if way.get("kv_cache") not in ("none", "virtual")}


CASES = [
    (kind, way) for kind in PARAMS for way in DRAFTABLE if kind == "sampled" or way.startswith("few blocks")
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "way"), CASES)
def test_outputs_are_those_without_speculation(folders, kind, way):
    changes = DRAFTABLE[way]
    llm = speculating(folders, **changes)
    outputs, steps = [], 0
    while len(outputs) < len(PROMPTS) or llm.engine.has_unfinished:
        if len(outputs) < len(PROMPTS):
            i = len(outputs)
            outputs.append(llm.engine.add_request(PROMPTS[i], params_of(kind, i)))
        llm.engine.step()
        if changes.get("kv_cache", "paged") == "paged":
            tiny.assert_blocks_add_up(llm)
        steps += 1
        assert steps < 2000
    assert_equal(outputs, undrafted(kind)[0])
    assert sum(output.metrics.num_draft_tokens for output in outputs) > 0
    tiny.assert_idle(llm)


@cache
def plain_drafts(folder, kind):
    """Drafts after every text that occurs, with nothing shared: no prefix cache, no chunks, one request at a time."""
    llm = tiny.llm(speculative_config=eagle(folder), enable_prefix_caching=False, max_num_seqs=1)
    seen = watch(llm)
    llm.generate([list(prompt) for prompt in PROMPTS], params_of(kind))
    return texts_of(seen)


@pytest.mark.slow
@pytest.mark.parametrize("changes", DRAFTABLE.values(), ids=DRAFTABLE.keys())
@pytest.mark.parametrize("kind", ["sampled", "forks"])
def test_drafts_do_not_depend_on_chunks_company_forks_or_preemption(folders, kind, changes):
    llm = speculating(folders, **changes)
    seen = watch(llm)
    llm.generate([list(prompt) for prompt in PROMPTS], params_of(kind))
    known = plain_drafts(folders / "head", kind)
    common = {tokens: drafts for tokens, drafts in texts_of(seen).items() if tokens in known}
    assert len(common) >= 20
    for tokens, drafts in common.items():
        wanted = known[tokens]
        assert drafts[: len(wanted)] == wanted[: len(drafts)], tokens


@pytest.mark.parametrize("size", [1, 4, 8])
def test_forks_at_a_block_end_have_their_own_drafts(folders, size):
    """Position P - 1 of a prompt is computed with each sample's own token P, in a block that all would share."""
    prompt = list(PROMPTS[3][:16])
    params = SamplingParams(n=4, temperature=2.0, seed=2, max_tokens=12, ignore_eos=True)
    llm = speculating(folders, block_size=size)
    seen = watch(llm)
    [output] = llm.generate([prompt], params)
    assert len({sample.token_ids[0] for sample in output.outputs}) > 1
    alone = speculating(folders, enable_prefix_caching=False, block_size=size)
    known = watch(alone)
    for sample in output.outputs:
        own = SamplingParams(temperature=2.0, seed=2 + sample.index, max_tokens=12, ignore_eos=True)
        assert alone.generate([prompt], own)[0].outputs[0].token_ids == sample.token_ids
    wanted = texts_of(known)
    assert texts_of(seen) == wanted
    tiny.assert_idle(llm)


def test_a_fork_computes_only_its_own_block_again(folders):
    """Three samples of a prompt of 40 tokens: all of it once, and then the last block of four twice."""
    llm = speculating(folders, block_size=4)
    proposer, computed = llm.engine.proposer, []
    run = proposer._run
    proposer._run = lambda chunks, features: (
        computed.append([len(chunk.token_ids) for chunk in chunks]) or run(chunks, features)
    )
    llm.generate([list(PROMPTS[3])], SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True))
    assert computed[0] == [40, 4, 4]


def test_drafts_after_a_prefix_hit_are_those_without_the_cache(folders):
    """Two texts share two blocks, and go on differently: the head's last position of block two differs."""
    start = list(PROMPTS[3][:16])
    first, second, third = [*start, 7, 8, 9], [*start, 10, 11, 12], [*start, 7, 8, 9, *PROMPTS[2][:9]]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    caching, plain = (
        speculating(folders, block_size=8, enable_prefix_caching=caching) for caching in (True, False)
    )
    seen, known = watch(caching), watch(plain)
    hits = []
    for prompt in (first, second, third, [*second, 5], first):
        hits.append(caching.generate([prompt], params)[0].num_cached_tokens)
        plain.generate([prompt], params)
    assert hits == [0, 8, 16, 16, 16]
    assert texts_of(seen) == texts_of(known)


def test_the_blocks_divide_the_memory_of_both_caches(folders):
    llm, plain = speculating(folders), tiny.llm()
    head = llm.engine.runner.draft_cache
    assert head is not None and len(head.layers) == 1
    assert head.num_blocks == llm.engine.runner.cache.num_blocks
    assert [kv.k.shape for kv in head.layers] == [plain.engine.runner.cache.layers[0].k.shape]


# --- folders that are no head for the model ------------------------------------------------------------


def refused(folders, tmp_path, change=None, **config):
    """Load a head for the deep model after a change of its tensors or its config.json, and return the error's text."""
    folder, weights, own = head_for_deep(tmp_path / "head")
    if change is not None:
        change(weights)
    eagle_heads.write(folder, own | config, weights)
    with pytest.raises(CheckpointError) as error:
        LLM(folders / "deep", speculative_config=eagle(folder))
    return str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 64}, "for a model with hidden size 64 (hidden_size), and this model has 32: choose a head"),
        ({"target_hidden_size": 48}, "hidden size 48 (target_hidden_size), and this model has 32: choose a head"),
        ({"vocab_size": 301}, "a vocabulary of 301 tokens, and this model has 300: choose a head"),
        ({"draft_vocab_size": 301}, "draft_vocab_size=301 exceeds vocab_size=300"),
        ({"num_hidden_layers": 2}, "num_hidden_layers=2 is not implemented (an EAGLE-3 head has 1"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 2, 8]}}, "[1, 2, 8] is not implemented (the model"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 2, 4]}}, "use 1 to 7)"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 2]}}, "'fc.weight' is [32, 96]"),
        ({"eagle_config": {"use_aux_hidden_state": False}}, "use_aux_hidden_state=False is not implemented"),
        ({"eagle_config": {"use_mtp_layernorm": True}}, "use_mtp_layernorm=True is not implemented"),
        ({"model_type": "qwen3"}, "model_type='qwen3' is not implemented (an EAGLE-3 head has a Llama layer"),
        ({"norm_before_residual": "yes"}, "norm_before_residual='yes' is not of type bool"),
    ],
)  # fmt: skip
def test_a_head_for_another_model_is_refused_by_name(folders, tmp_path, config, message):
    assert message in refused(folders, tmp_path, **config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("midlayer.self_attn.v_proj.weight"), "no tensor 'midlayer.self_attn.v_proj.weight'"),
        (lambda w: w.pop("fc.weight"), "is not an EAGLE-3 head, because it has no tensor 'fc.weight'"),
        (lambda w: w.pop("d2t"), "no tensor 'd2t'"),
        (lambda w: w.update({"norm.weight": torch.ones(31)}), "'norm.weight' is [31], config.json implies [32]"),
        (lambda w: w.update({"fc.bias": torch.ones(32)}), "1 tensors that its config.json does not account for"),
        (lambda w: w.update({"embed_tokens.weight": torch.ones(299, 32)}), "'embed_tokens.weight' is [299, 32]"),
        (lambda w: w["d2t"].__setitem__(0, 300), "d2t names token 300, and the vocabulary has 300 tokens"),
        (lambda w: w["d2t"].__setitem__(5, -6), "d2t names token -1"),
        (lambda w: w.update({"d2t": w["d2t"].float()}), "'d2t' is stored as torch.float32"),
    ],
)  # fmt: skip
def test_a_damaged_head_is_refused_by_name(folders, tmp_path, change, message):
    assert message in refused(folders, tmp_path, change)


def test_a_head_that_names_no_layers_for_a_shallow_model_is_refused(tmp_path):
    folder, _, _ = head_for_deep(tmp_path / "head")
    with pytest.raises(
        CheckpointError, match="names no eagle_aux_hidden_state_layer_ids, and the usual ones"
    ):
        tiny.llm(speculative_config=eagle(folder))


def test_a_head_with_too_few_positions_is_refused(folders, tmp_path):
    folder, _, _ = head_for_deep(tmp_path / "head", max_position_embeddings=64)
    with pytest.raises(ValueError, match="has 64 positions and max_model_len is 96: set max_model_len=64"):
        LLM(folders / "deep", speculative_config=eagle(folder))


def test_a_head_is_no_model_and_a_model_is_no_head(folders):
    with pytest.raises(CheckpointError, match="this is an EAGLE-3 head and not a model"):
        LLM(folders / "head")
    with pytest.raises(CheckpointError, match="this is an EAGLE-3 head and not a model"):
        speculating(folders).variant(speculative_config=eagle(folders / "head") | {"method": "draft_model"})
    with pytest.raises(CheckpointError, match="an EAGLE-3 head has 1"):
        tiny.llm(speculative_config=eagle(tiny.folder()))


def test_a_head_with_the_whole_vocabulary_needs_no_map(folders, tmp_path):
    """Without d2t, entry i of the logits is token i."""
    config = eagle_heads.config_for(deep().config.to_dict(), None)
    weights = eagle_heads.tensors(config, tiny.VOCAB_SIZE, tiny.VOCAB_SIZE)
    del weights["d2t"], weights["t2d"]
    folder = eagle_heads.write(tmp_path / "head", config, weights)
    reference = Reference(deep(), weights | {"d2t": torch.zeros(300, dtype=torch.int64)}, config, [2, 4, 5])
    with LLM(folders / "deep", speculative_config=eagle(folder)) as llm:
        seen = watch(llm)
        llm.generate([list(PROMPTS[0])], SamplingParams(max_tokens=6, temperature=0, ignore_eos=True))
    for tokens, drafts in texts_of(seen).items():
        assert drafts == reference.drafts(list(tokens), len(drafts))
