"""Messages → tokens, rotary positions and the places where a prompt may be cut into shared segments.

No torch: everything here is decided from text and grids. What a user typed never becomes a special token.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint import VideoLayout
from lm_server.showing import ImageRef, ImageSpan, Positions, VideoFacts, blocks, rotary_positions, shown, told
from rpc.errors import InvalidArgument

# A shorter run of text is not worth a segment of its own.
MIN_SEGMENT_TOKENS = 32
# The same for what stands in front of the first image, which prompts about many images have in common.
MIN_FRONT_TOKENS = 8
# Tokens of a longer text take long enough to hold others up.
LONG_CHARS = 10_000
ROLES = ("system", "user", "assistant")
# A hidden text's place: whose nonce, and which of its texts.
_HIDDEN = re.compile("\ue000([0-9a-f]{16}):(\\d+)\ue001")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: a role and its parts in order, text or image."""

    role: str
    parts: tuple[str | ImageRef, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt ready for the engine.

    Attributes:
        tokens: [S] token ids, every image expanded to its placeholders.
        positions: [3, S] rotary positions along time, height and width.
        next_position: The position of the first generated token, on all three axes.
        images: The images' and videos' places, in order.
        cuts: Ascending token counts at which a shared segment may end; all below S.
    """

    tokens: tuple[int, ...]
    positions: Positions
    next_position: int
    images: tuple[ImageSpan, ...]
    cuts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a prompt's layout depends on in a checkpoint."""

    image_token_id: int
    # Ends an image.
    vision_end_token_id: int
    # Ends a message.
    message_end_token_id: int
    spatial_merge_size: int
    video: VideoFacts


class PromptBuilder:
    """Renders messages through the checkpoint's own chat template and tokenises them.

    `tokenizer` is transformers' fast tokenizer; it is changed so that special tokens in text stay text.
    """

    def __init__(self, tokenizer: Any, facts: TokenFacts) -> None:
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.encode_special_tokens = True
        self._facts = facts
        added = tokenizer.added_tokens_decoder.items()
        self._special_ids = {token.content: number for number, token in added if token.special}
        self._names = {number: name for name, number in self._special_ids.items()}
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)))
        beginnings = {token[:length] for token in longest_first for length in range(1, len(token))}
        self._begun = re.compile(f"(?:{'|'.join(map(re.escape, sorted(beginnings, key=len, reverse=True)))})\\Z")
        self._longest = len(longest_first[0]) if longest_first else 0

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of plain text; nothing in it is special."""
        if len(text) > LONG_CHARS:
            # By itself a call holds the interpreter; one for several texts lets others have it meanwhile.
            [encoded] = self._backend.encode_batch([text], add_special_tokens=False)
        else:
            encoded = self._backend.encode(text, add_special_tokens=False)
        return tuple(encoded.ids)

    def build(self, messages: Sequence[Message]) -> Prompt:
        """The prompt of a conversation.

        Raises:
            InvalidArgument: no messages, an unknown role, or a conversation that the chat template refuses.
        """
        images = [part for message in messages for part in message.parts if isinstance(part, ImageRef)]
        check_messages(messages)
        tokens, spans = self._expand(self._tokenize(messages, images), images)
        facts = self._facts
        positions, next_position = rotary_positions(len(tokens), spans, facts.spatial_merge_size, facts.video)
        return Prompt(tuple(tokens), positions, next_position, tuple(spans), self._cuts(tokens, spans))

    def _tokenize(self, messages: Sequence[Message], images: Sequence[ImageRef]) -> list[int]:
        """Token ids with one placeholder an image or video, or of a TOLD video one a temporal patch."""
        mask = _Mask(self._special, self._begun, self._longest)
        rendered = self._tell(self._render(messages, mask), images)
        tokens: list[int] = []
        position = 0
        for match in self._special.finditer(rendered):
            tokens += self.encode_text(mask.unmask(rendered[position : match.start()]))
            tokens.append(self._special_ids[match.group()])
            position = match.end()
        return tokens + list(self.encode_text(mask.unmask(rendered[position:])))

    def _render(self, messages: Sequence[Message], mask: "_Mask") -> str:
        conversation = [{"role": message.role, "content": _content(message, mask)} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        except Exception as exc:
            # Templates raise what they like; none of their words are ours to pass on.
            raise InvalidArgument("the model's chat template refuses these messages: check roles and order") from exc
        return str(text)

    def _tell(self, rendered: str, images: Sequence[ImageRef]) -> str:
        """The rendered prompt with every TOLD video's times and marks in its place."""
        videos = [image.video for image in images if image.video is not None]
        if self._facts.video.layout is not VideoLayout.TOLD or not videos:
            return rendered
        placeholder = self._names[self._facts.video.token_id]
        marks = self._names[self._facts.video.start_token_id], self._names[self._facts.vision_end_token_id]
        first, *rest = rendered.split(placeholder)
        _check_places(len(rest), len(videos), "videos")
        return first + "".join(
            told(placeholder, *marks, times) + text for times, text in zip(videos, rest, strict=True)
        )

    def _expand(self, tokens: Sequence[int], images: Sequence[ImageRef]) -> tuple[list[int], list[ImageSpan]]:
        facts = self._facts
        stills = [run for image in images if image.video is None for run in self._runs(image)]
        moving = [run for image in images if image.video is not None for run in self._runs(image)]
        _check_places(tokens.count(facts.image_token_id), len(stills), "images")
        _check_places(tokens.count(facts.video.token_id), len(moving), "videos")
        waiting = {facts.image_token_id: iter(stills), facts.video.token_id: iter(moving)}
        spans: list[ImageSpan] = []
        expanded: list[int] = []
        for token in tokens:
            count = 1
            if token in waiting:
                image, offset, count = next(waiting[token])
                spans.append(ImageSpan(image, len(expanded), count, offset))
            expanded += [token] * count
        return expanded, spans

    def _runs(self, image: ImageRef) -> list[tuple[ImageRef, int, int]]:
        """An image's runs of tokens: which of its embedding's rows each begins with, and how many it has."""
        counts = blocks(image, self._facts.video.layout, self._facts.spatial_merge_size)
        return [(image, place * count, count) for place, count in enumerate(counts)]

    def _cuts(self, tokens: Sequence[int], spans: Sequence[ImageSpan]) -> tuple[int, ...]:
        """Behind every image; behind every message but the last, and before the first image, where that pays."""
        ends = [end for _, end in shown(spans) if end < len(tokens)]
        # How many tokens the segment that ends there has at least.
        least = {index + 1: MIN_SEGMENT_TOKENS for index in self._message_ends(tokens)[:-1]}
        least |= {span.start: MIN_FRONT_TOKENS for span in spans[:1]}
        least |= {end + (tokens[end] == self._facts.vision_end_token_id): 0 for end in ends}
        kept: list[int] = []
        for cut in sorted(least):
            if cut < len(tokens) and cut - (kept[-1] if kept else 0) >= least[cut]:
                kept.append(cut)
        return tuple(kept)

    def _message_ends(self, tokens: Sequence[int]) -> list[int]:
        return [index for index, token in enumerate(tokens) if token == self._facts.message_end_token_id]


class _Mask:
    """Hides special tokens that a user typed from the search for those that the template wrote.

    A text's last characters are hidden too where they begin a special token, which the next text could complete.
    """

    def __init__(self, special: re.Pattern[str], begun: re.Pattern[str], longest: int) -> None:
        self._special = special
        self._begun = begun
        self._longest = longest
        # Nobody outside can guess it, so nobody can type it.
        self._nonce = secrets.token_hex(8)
        self._typed: list[str] = []

    def mask(self, text: str) -> str:
        hidden = self._special.sub(self._hide, text)
        begun = self._begun.search(hidden, max(len(hidden) - self._longest, 0))
        return hidden[: begun.start()] + self._hide(begun) if begun else hidden

    def unmask(self, text: str) -> str:
        return _HIDDEN.sub(self._show, text)

    def _show(self, match: re.Match[str]) -> str:
        nonce, number = match.groups()
        return self._typed[int(number)] if nonce == self._nonce else match.group()

    def _hide(self, match: re.Match[str]) -> str:
        self._typed.append(match.group())
        return f"\ue000{self._nonce}:{len(self._typed) - 1}\ue001"


def check_messages(messages: Sequence[Message]) -> None:
    """Raises `InvalidArgument` unless there are messages, each of a known role and with something in it."""
    if not messages:
        raise InvalidArgument("messages must not be empty")
    for message in messages:
        if message.role not in ROLES:
            raise InvalidArgument(f"role must be one of {', '.join(ROLES)}")
        if not message.parts:
            raise InvalidArgument(f"a {message.role} message has no content")
        if message.role != "user" and any(isinstance(part, ImageRef) for part in message.parts):
            raise InvalidArgument(f"a {message.role} message cannot hold an image")


def _content(message: Message, mask: _Mask) -> str | list[dict[str, str]]:
    parts = [mask.mask(part) if isinstance(part, str) else part for part in message.parts]
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image" if part.video is None else "video"}
        for part in parts
    ]


def _check_places(places: int, count: int, what: str) -> None:
    if places != count:
        raise InvalidArgument(f"the prompt has {places} places for {count} {what}")


def segment_keys(prompt: Prompt, tenant: str, fingerprint: str, adapter: str = "") -> tuple[bytes, ...]:
    """A key for the segment that ends at each cut: a digest of everything before it, images by their ids.

    Prompts have equal keys exactly when their tokens, images, tenant, vision fingerprint and adapter's identity are
    equal up to the cut.
    """
    digest = hashlib.blake2b(f"{tenant}\0{fingerprint}\0{adapter}\0".encode(), digest_size=16)
    tokens = np.asarray(prompt.tokens, dtype=np.int64)
    keys: list[bytes] = []
    start = 0
    for cut in prompt.cuts:
        digest.update(tokens[start:cut].tobytes())
        for span in prompt.images:
            if start <= span.start < cut:
                digest.update(f"\0{span.image.image_id}\0{span.start}\0{span.image.grid}\0".encode())
        keys.append(digest.digest())
        start = cut
    return tuple(keys)


def text_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """A key for the segment of these tokens on the one of key `parent`; never equal to one that ends at another cut."""
    digest = hashlib.blake2b(parent + b"\0", digest_size=16, person=b"text")
    digest.update(np.asarray(tokens, dtype=np.int64).tobytes())
    return digest.digest()
