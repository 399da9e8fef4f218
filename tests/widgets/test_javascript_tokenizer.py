"""nano's tokenizer in JavaScript gives the ids of tiktoken, and the text of `decode_tokens`."""

import json
import random
import unicodedata
from collections import Counter
from itertools import pairwise

from oss_lab.config import GPT_OSS_NANO
from oss_lab.record.token_labels import decode_tokens
from oss_lab.tokenizer import HARMONY_SPECIALS, build_nano_encoding, dump_ranks, mask_usable_ids

PIECES = (
    "the", "The", "THE", "it's", "IT'S", "'ſthe", "'\u212a", "x'LL", "123456", "३४", "½", "Ⅷ", "²",
    " ", "  ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u1680", "\u2003",
    "\u2028", "\u202f", "\u3000", "\ufeff", "\u200b", "\x00", "é", "e\u0301", "ñ", "ß", "ǅ",
    "Привет", "мир", "你好", "世界", "日本語", "テキスト", "한국어", "नमस्ते", "สวัสดี", "שלום",
    "مرحبا", "ελληνικά", "🙂", "👩\u200d👩\u200d👧", "🏽", "𝔘𝔫𝔦", "\U000e0001", "\U0010ffff",
    "\ufffd", "—", "…", "«»", "<|start|>", "<|end|>", "347 * 62", "= 21514", "a=b;", "!!", "//",
    "/\r\n", "'", "''s", '{"expression":"6*7"}',
)  # fmt: skip
SCRIPTS = (
    (0x20, 0x7F), (0xA0, 0x24F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF),
    (0x1000, 0x13FF), (0x1E00, 0x206F), (0x2100, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xFE00, 0xFFEF), (0x10000, 0x105FF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF),
)  # fmt: skip
STRINGS = 4_000
ENCODE = """([vocabulary, texts]) => {
  const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
  return JSON.stringify(texts.map((text) => {
    const ids = tokenizer.encode(text);
    return [ids, tokenizer.decode(ids)];
  }));
}"""


def draw_strings() -> list[str]:
    """Pieces in any order, and runs of characters of one script."""
    rng = random.Random(0)
    joined = ["".join(rng.choices(PIECES, k=rng.randrange(12))) for _ in range(STRINGS // 2)]
    runs = [
        "".join(draw_character(rng, scripts) for _ in range(rng.randrange(1, 30)))
        for scripts in (rng.sample(SCRIPTS, 2) for _ in range(STRINGS // 2))
    ]
    return joined + runs


def draw_character(rng: random.Random, scripts: list[tuple[int, int]]) -> str:
    """An assigned character. tiktoken and the browser may know different versions of Unicode."""
    while unicodedata.category(found := chr(rng.randint(*rng.choice(scripts)))) == "Cn":
        pass
    return found


def test_ids_equal_those_of_tiktoken(joined_page, vocabulary, encoding) -> None:
    texts = draw_strings()
    assert len(set(texts)) > 0.9 * STRINGS
    found = json.loads(joined_page.evaluate(ENCODE, [vocabulary, texts]))
    differing = [
        text
        for text, (ids, decoded) in zip(texts, found, strict=True)
        if ids != encoding.encode_ordinary(text) or decoded != text
    ]
    assert differing == []


def test_pieces_end_where_those_of_tiktoken_end(joined_page) -> None:
    """Few of nano's tokens could cross the border of a piece. This vocabulary has the most frequent
    pairs of bytes, so ids depend on each border."""
    texts = draw_strings()
    pairs = Counter(pair for text in texts for pair in pairwise(text.encode()))
    pairs[0xBF, ord("t")] = pairs.total()  # the border of "'ſ" and "t": rare, so first of all
    ranks = {bytes([byte]): byte for byte in range(256)}
    for pair, _ in pairs.most_common(GPT_OSS_NANO.vocab_size - len(HARMONY_SPECIALS) - 256):
        ranks[bytes(pair)] = len(ranks)
    crossing = build_nano_encoding(ranks)
    contents = dump_ranks(ranks).decode()
    found = json.loads(joined_page.evaluate(ENCODE, [contents, texts]))
    assert [ids for ids, _ in found] == [crossing.encode_ordinary(text) for text in texts]


def test_every_character_belongs_to_the_same_class(joined_page, vocabulary, encoding) -> None:
    """Each code point between letters, before white space and after an apostrophe."""
    points = [*range(0x3000), *range(0x3000, 0xD800, 7), *range(0xE000, 0x33480, 7)]
    blocks = [
        "".join(f"a{chr(each)}b {chr(each)}\n'{chr(each)}" for each in points[n : n + 64])
        for n in range(0, len(points), 64)
    ]
    found = json.loads(joined_page.evaluate(ENCODE, [vocabulary, blocks]))
    assert [ids for ids, _ in found] == [encoding.encode_ordinary(text) for text in blocks]


def test_any_ids_are_decoded_as_in_python(joined_page, vocabulary, encoding) -> None:
    rng = random.Random(1)
    ids = list(range(-1, 642))
    lists = [[id] for id in ids] + [rng.choices(ids, k=rng.randrange(9)) for _ in range(2_000)]
    decode = """([vocabulary, lists]) => {
      const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
      return lists.map((ids) => tokenizer.decode(ids));
    }"""
    found = joined_page.evaluate(decode, [vocabulary, lists])
    assert found == [decode_tokens(encoding, each) for each in lists]


def test_any_bytes_are_decoded_as_in_python(joined_page) -> None:
    rng = random.Random(2)
    edges = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED]
    edges += [0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF]
    pairs = [bytes([a, b]) for a in edges for b in edges]
    longer = [bytes(rng.choices(edges, k=rng.randrange(3, 8))) for _ in range(4_000)]
    cut = [text.encode()[:n] for text in PIECES for n in range(len(text.encode()))]
    given = [*pairs, *longer, *cut]
    decode = "(all) => all.map((bytes) => modules['utf8.js'].decodeAll(bytes))"
    found = joined_page.evaluate(decode, [list(each) for each in given])
    assert found == [each.decode(errors="replace") for each in given]


def test_special_tokens_are_those_of_the_lab(joined_page, vocabulary, encoding, lab) -> None:
    find = """(vocabulary) => {
      const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
      const { samplingStops } = modules["harmony/specials.js"];
      const usable = Array.from({ length: 642 }, (_, id) => tokenizer.isUsable(id));
      const names = [...tokenizer.specialNames];
      return [names, [...tokenizer.specialIds], samplingStops(tokenizer), usable];
    }"""
    names, ids, stops, usable = joined_page.evaluate(find, vocabulary)
    wanted = {name: encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    assert dict(map(tuple, ids)) == wanted
    assert dict(map(tuple, names)) == {id: name for name, id in wanted.items()}
    assert set(stops) == lab.stops
    assert usable == mask_usable_ids(encoding, 642).tolist()
