"""The workbench in one object: a model, its vocabulary, and what a person does with them.

    lab = oss_lab.load("nano")
    reply = lab.chat("What is 347 * 62?", effort="high")
    reply.analysis, reply.final
    lab.trace(reply, points=["moe.expert_ids"])["moe.expert_ids"]      # layer seq slot

Conversations are rendered with the `model` layout and the `spec` policy.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import tiktoken
from oss_kernels.backends import Asked

from oss_lab.checkpoint.fetch import find_checkpoint
from oss_lab.checkpoint.plan import EXPERT_CACHE_BYTES, Dtype, memory_plan
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import GREEDY, Force, Sampling, Token, generate, no_force, usable_ids
from oss_lab.engine.loading import DTYPES, chosen_device, chosen_kernels, load_model
from oss_lab.errors import LabError
from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    SystemContent,
    ToolDescription,
    function_tools,
    render,
    stop_tokens,
)
from oss_lab.harmony.messages import EFFORTS, Effort, with_effort
from oss_lab.harmony.specials import ENDOFTEXT, specials
from oss_lab.hooks.inside import Inside
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.changes import Both
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import while_written
from oss_lab.hooks.tracing import assembled
from oss_lab.model import Taps, Transformer
from oss_lab.record.reply import Reply, ReplyBuilder, Stream
from oss_lab.record.trace import Trace
from oss_lab.tokenizer import VOCABULARIES, VocabularyName, load_vocabulary

MAX_TOKENS = 2048
SMALL = 2**30  # bytes in float32
EFFORT: dict[VocabularyName, Effort] = {"nano": "high", "o200k_harmony": "medium"}
"""The effort where none is given: Harmony's, but for nano, which is seldom right below high."""


class Lab(Inside):
    """A loaded model and its vocabulary, asked and answering.

    Attributes:
        sampling, effort: used where a call gives none. nano, which is seldom right below high
            effort, is loaded with that; the published models have Harmony's default, medium.
        stops: ids that end a turn.
        usable: ids that may be generated [vocab]; see `usable_ids`.
    """

    def __init__(
        self,
        model: Transformer,
        encoding: tiktoken.Encoding,
        sampling: Sampling,
        effort: Effort = "medium",
        checkpoint: Checkpoint | None = None,
    ) -> None:
        super().__init__(model, encoding, checkpoint)
        self.sampling = sampling
        self.effort: Effort = effort
        self.stops = stop_tokens(encoding, for_sampling=True) | {specials(encoding).ids[ENDOFTEXT]}
        self.usable = usable_ids(encoding, self.config.vocab_size)

    def conversation(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
    ) -> Conversation:
        """System message, developer message if there is something in it, and the question.

        A Conversation stays as it is, but for its effort where one is given; it has its own
        instructions and tools. A question without one gets `self.effort`.
        """
        if effort not in (None, *EFFORTS):
            raise LabError(f"effort is {effort!r}; use one of {', '.join(EFFORTS)}")
        if isinstance(question, Conversation):
            if instructions is not None or tools:
                raise LabError(
                    "a conversation has a developer message of its own: put instructions and tools"
                    " there"
                )
            return question if effort is None else with_effort(question, effort)
        messages = [Message.of("system", SystemContent(reasoning_effort=effort or self.effort))]
        if instructions is not None or tools:
            declared = function_tools(tools) if tools else None
            messages.append(Message.of("developer", DeveloperContent(instructions, declared)))
        return Conversation.of(*messages, Message.of("user", question))

    def stream(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
        points: Sequence[str] = (),
    ) -> Stream:
        """Begin a reply to a question or a conversation; iterate over its Harmony events.

        Args:
            instructions, tools: go into a developer message.
            analysis_budget: tokens of analysis after which `final` is begun in the model's stead.
            alternatives: how many of the likeliest tokens to keep for each place.
            points: what to record while the reply is written; it is then in `reply.trace`.
        """
        prompt = self.conversation(question, effort=effort, instructions=instructions, tools=tools)
        settings = (sampling, max_tokens, analysis_budget, alternatives)
        if not points:
            builders, tokens = self._begin([prompt], *settings, self.taps())
            return Stream(builders[0], tokens)
        changes, recording = self.taps(), Recording(self.model, while_written(points))
        taps = Both(changes, recording)
        builders, tokens = self._begin([prompt], *settings, taps)
        seed = (sampling or self.sampling).seed

        def recorded(read: Sequence[int]) -> Trace:
            kernels = self.model.computed_by(taps)
            return assembled(
                self.model, self.encoding, read, recording, self.digest, changes,
                kernels=kernels, seed=seed,
            )  # fmt: skip

        return Stream(builders[0], tokens, recorded)

    def chat(
        self,
        question: str | Conversation,
        *,
        effort: Effort | None = None,
        instructions: str | None = None,
        tools: Sequence[ToolDescription] = (),
        sampling: Sampling | None = None,
        seed: int | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
        points: Sequence[str] = (),
        interventions: Sequence[Intervention] = (),
    ) -> Reply:
        """The whole reply; arguments as in `stream`, `seed` replaces the sampling's.

        Args:
            interventions: in force for this reply, behind those of `intervene`.
        """
        sampling = sampling or self.sampling
        with self.intervene(*interventions):
            stream = self.stream(
                question,
                effort=effort,
                instructions=instructions,
                tools=tools,
                sampling=sampling if seed is None else replace(sampling, seed=seed),
                max_tokens=max_tokens,
                analysis_budget=analysis_budget,
                alternatives=alternatives,
                points=points,
            )
            for _ in stream:
                pass
        return stream.reply

    def replies(
        self,
        prompts: Sequence[Conversation],
        *,
        sampling: Sampling | None = None,
        max_tokens: int = MAX_TOKENS,
        analysis_budget: int | None = None,
        alternatives: int = 0,
    ) -> list[Reply]:
        """One reply a conversation, generated as one batch."""
        settings = (sampling, max_tokens, analysis_budget, alternatives)
        builders, tokens = self._begin(prompts, *settings, self.taps())
        for row, token in tokens:
            builders[row].add(token)
        return [builder.finish()[1] for builder in builders]

    def continuation(
        self,
        text: str,
        *,
        max_tokens: int = 64,
        sampling: Sampling | None = None,
        alternatives: int = 0,
    ) -> Iterator[Token]:
        """Tokens that go on from plain text, without Harmony, up to `<|endoftext|>` (yielded)."""
        tokens = generate(
            self.model,
            [self.encoding.encode_ordinary(text)],
            stop={specials(self.encoding).ids[ENDOFTEXT]},
            max_tokens=max_tokens,
            sampling=sampling or self.sampling,
            usable=self.usable,
            alternatives=alternatives,
            taps=self.taps(),
        )
        return (token for _, token in tokens)

    def complete(self, text: str, *, max_tokens: int = 64, sampling: Sampling | None = None) -> str:
        """The text of `continuation`."""
        ids = [t.id for t in self.continuation(text, max_tokens=max_tokens, sampling=sampling)]
        if ids and ids[-1] == specials(self.encoding).ids[ENDOFTEXT]:
            ids.pop()
        return self.encoding.decode(ids)

    def write_turns(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling = GREEDY,
        alternatives: int = 0,
        force: Force = no_force,
        cache: KVCache | None = None,
        taps: Taps | None = None,
    ) -> Iterator[tuple[int, Token]]:
        """(row, token) of what the model writes after these ids, each row to the end of its turn.

        Args:
            cache: of one row, with the first tokens of the only sequence; see `generate`.
            taps: by default those of the interventions in force.
        """
        begin = 0 if cache is None else cache.length
        return generate(
            self.model,
            sequences,
            stop=self.stops,
            max_tokens=max_tokens,
            sampling=sampling,
            usable=self.usable,
            alternatives=alternatives,
            force=force,
            cache=cache,
            taps=self.taps(begin) if taps is None else taps,
        )

    def _begin(
        self,
        prompts: Sequence[Conversation],
        sampling: Sampling | None,
        max_tokens: int,
        analysis_budget: int | None,
        alternatives: int,
        taps: Taps,
    ) -> tuple[list[ReplyBuilder], Iterator[tuple[int, Token]]]:
        rendered = [tuple(render(prompt, self.encoding).tokens) for prompt in prompts]
        builders = [
            ReplyBuilder(self.encoding, prompt, tokens, analysis_budget)
            for prompt, tokens in zip(prompts, rendered, strict=True)
        ]
        tokens = self.write_turns(
            rendered,
            max_tokens=max_tokens,
            sampling=sampling or self.sampling,
            alternatives=alternatives,
            force=lambda row: builders[row].next_forced(),
            taps=taps,
        )
        return builders, tokens


def load(
    name: str | Path = "nano",
    *,
    dtype: Dtype | None = None,
    device: str | None = None,
    kernels: Asked | None = None,
    expert_cache_bytes: int = EXPERT_CACHE_BYTES,
    download: bool = False,
    verbose: bool = True,
) -> Lab:
    """The workbench on "nano", "20b", "120b" or a checkpoint folder.

    Args:
        dtype: what is computed in; float32 for models up to a gigabyte, else bfloat16.
        device: a torch device; by default OSS_LAB_DEVICE, else a CUDA GPU if there is one.
        kernels: "reference" is the reference model, "triton" and "cpu" compute it faster on a GPU
            and on a CPU, "auto" takes what is made for the device. By default OSS_LAB_KERNELS, else
            the reference for models up to a gigabyte and "auto" for larger ones. A trace is always
            computed by the reference model.
        expert_cache_bytes: the most bytes that dequantized experts may take.
        download: fetch a published model that is not on this machine.
        verbose: print the memory plan on stderr before anything is loaded.

    Raises:
        LabError: what was named cannot be used; one sentence says why.
    """
    checkpoint = find_checkpoint(name, download=download)
    config = checkpoint.config
    vocabulary = vocabulary_name(checkpoint)
    small = memory_plan(config, dtype="float32").total < SMALL
    dtype = dtype or ("float32" if small else "bfloat16")
    if dtype not in DTYPES:
        raise LabError(f"dtype is {dtype!r}; use one of {', '.join(DTYPES)}")
    place = chosen_device(device)
    backend = chosen_kernels(kernels, place, default="reference" if small else "auto")
    kept = expert_cache_bytes if backend.name == "reference" else 0
    plan = memory_plan(config, dtype=dtype, expert_cache_bytes=kept)
    if verbose:
        print(f"{name} on {place}, {backend.name} kernels: {plan.sentence}", file=sys.stderr)
    encoding = load_vocabulary(vocabulary, checkpoint=checkpoint.folder)
    model = load_model(
        checkpoint,
        dtype=DTYPES[dtype],
        device=place,
        kernels=backend,
        expert_cache_bytes=expert_cache_bytes,
    )
    sampling = GREEDY if vocabulary == "nano" else Sampling()
    return Lab(model, encoding, sampling, EFFORT[vocabulary], checkpoint)


def vocabulary_name(checkpoint: Checkpoint) -> VocabularyName:
    """The vocabulary that a model of this size was trained with.

    Raises:
        LabError: there is none of this size.
    """
    size = checkpoint.config.vocab_size
    if size not in VOCABULARIES:
        known = " or ".join(f"{size} ({which})" for size, which in VOCABULARIES.items())
        raise LabError(
            f"{checkpoint.folder} has a vocab_size of {size}; there are vocabularies for {known}"
            " only, and `oss-lab logits` and `oss-lab trace --tokens` need none"
        )
    return VOCABULARIES[size]
