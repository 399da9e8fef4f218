"""Answers under a JSON schema: every sample is valid, and valid texts are not refused.

The schemas are random and bounded. Two kinds of samples: random tokens of the mask, without a
model, and nano's at temperatures where it writes no JSON by itself.
"""

import json
import math
from random import Random

import jsonschema
import pytest

from oss_lab.errors import LabError
from oss_lab.grammar import build_constraint
from oss_lab.harmony import Conversation, Message, SystemContent
from oss_lab.harmony.specials import RETURN, find_special_tokens
from oss_lab.tokenizer import load_vocabulary

PROMPT = Conversation.of(
    Message.of("system", SystemContent()), Message.of("user", "What is 347 * 62?")
)
HEADER = "<|channel|>final<|message|>"
PATTERNS = ["^[a-z]{1,5}$", "^[0-9]{2}-[0-9]{2}$", "^(yes|no)$", "^[A-Z][a-z]{0,6}( [a-z]{1,4})?$"]
FORMATS = ["date", "time", "ipv4", "uuid"]
SAMPLES = 50  # per schema, of nano


def draw_schema(draw, depth=2):
    """A random JSON schema whose texts are short."""
    nested = [draw_array, draw_object, draw_choice] if depth else []
    return draw.choice([draw_text, draw_number, draw_constant, *nested])(draw, depth)


def draw_text(draw, depth):
    kind = draw.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": draw.choice(PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": draw.choice(FORMATS)}
    least = draw.randrange(4)
    return {"type": "string", "minLength": least, "maxLength": least + draw.randrange(8)}


def draw_number(draw, depth):
    kind, low = draw.choice(["integer", "number"]), draw.randint(-2000, 2000)
    schema = {"type": kind, "minimum": low, "maximum": low + draw.randint(1, 5000)}
    if kind == "integer" and draw.random() < 0.5:
        schema["multipleOf"] = draw.randint(1, 4)
        schema["maximum"] = low + 10
    if kind == "number" and draw.random() < 0.5:
        schema["exclusiveMinimum"] = schema.pop("minimum")
    return schema


def draw_constant(draw, depth):
    values = [True, False, None, 0, -1, 2.5, "", "a", 'say "ä"\n', [1, "b"], {"k": None}]
    return draw.choice(
        [
            {"type": "boolean"},
            {"type": "null"},
            {"enum": draw.sample(values, 3)},
            {"const": draw.choice(values)},
        ]
    )


def draw_array(draw, depth):
    least, item = draw.randrange(3), draw_schema(draw, depth - 1)
    if draw.random() < 0.3:
        first = [draw_schema(draw, depth - 1) for _ in range(2)]
        return {"type": "array", "prefixItems": first, "items": False, "minItems": 2}
    return {"type": "array", "items": item, "minItems": least, "maxItems": least + 2}


def draw_object(draw, depth):
    names = draw.sample(["a", "b", "size", "name of it", "ß", 'q"'], draw.randrange(5))
    return {
        "type": "object",
        "properties": {name: draw_schema(draw, depth - 1) for name in names},
        "required": draw.sample(names, draw.randint(0, len(names))),
        "additionalProperties": False,
    }


def draw_choice(draw, depth):
    text, number = draw_text(draw, depth), draw_number(draw, depth)
    return draw.choice(
        [
            {"anyOf": [draw_schema(draw, depth - 1), number]},
            {"oneOf": [text, number]},
            {"allOf": [number, {"maximum": number["maximum"] - 0.5}]},
            {"type": ["string", "null"], "maxLength": 3},
            {"$defs": {"t": text}, "type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 2}
            if depth == 2
            else text,
        ]
    )


def start_answer(encoding, schema):
    """The constraint of an answer before its first token."""
    constraint = build_constraint(encoding, PROMPT, schema)
    for id in encoding.encode(HEADER, allowed_special="all"):
        constraint.accept(id)
    return constraint


def read_answer(encoding, ids):
    """The text of a walk without its end."""
    assert ids[-1] == find_special_tokens(encoding).ids[RETURN]
    assert not set(ids[:-1]) & find_special_tokens(encoding).names.keys()
    return encoding.decode_bytes(ids[:-1]).decode()


def check_random_schemas(encoding, walk, seeds, walks):
    """Every walk under every schema is valid; the same value in three spellings is accepted."""
    specials = find_special_tokens(encoding)
    for seed in seeds:
        draw = Random(seed)
        schema = draw_schema(draw)
        start = start_answer(encoding, schema)
        for _ in range(walks):
            text = read_answer(encoding, walk(start.copy(), draw, specials))
            value = json.loads(text)
            jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
            for spelled in spell(value):
                constraint = start.copy()
                for id in encoding.encode_ordinary(spelled):
                    constraint.accept(id)
                assert constraint.allowed()[specials.ids[RETURN]], (schema, spelled)


def spell(value):
    """A JSON value with the usual kinds of white space."""
    yield json.dumps(value, ensure_ascii=False)
    yield json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    yield json.dumps(value, ensure_ascii=False, indent=4)


def test_random_texts_of_random_schemas_are_valid(walk):
    check_random_schemas(load_vocabulary("nano"), walk, range(150), 4)


def test_random_texts_are_valid_over_200000_tokens(o200k, walk):
    check_random_schemas(o200k, walk, range(1000, 1012), 2)


@pytest.mark.slow
def test_nano_writes_valid_json_under_ten_schemas(nano):
    """A cut at max_tokens would count as invalid. Without the schema, nano writes no JSON."""
    free = 0
    for seed in range(10):
        schema = draw_object(Random(3000 + seed), 2)
        valid = jsonschema.Draft202012Validator(schema).is_valid
        options = {"temperature": 1 + seed % 3 / 2, "seed": seed, "analysis_budget": 16}
        replies = nano.chat_batch(
            [PROMPT] * (SAMPLES // 10), response_format=schema, max_tokens=1024, **options
        )
        for reply in replies:
            assert reply.stop == "return"
            assert valid(json.loads(reply.final)), (schema, reply.final)
            assert reply.diagnostics == ()
        (reply,) = nano.chat_batch([PROMPT], max_tokens=64, **options)
        free += is_json(reply.final)
    assert free == 0


def is_json(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


@pytest.mark.parametrize(
    "bounds",
    [
        {"exclusiveMinimum": 0, "maximum": 0.5},
        {"exclusiveMinimum": 1, "exclusiveMaximum": 1.25},
        {"minimum": -1.5, "exclusiveMaximum": -1},
        {"allOf": [{"exclusiveMinimum": -2.0}, {"maximum": -1.5}]},
        {"minimum": 1, "exclusiveMinimum": 1, "maximum": 1.5},
    ],
)
def test_an_exclusive_bound_is_not_allowed_itself(walk, accept_text, bounds):
    """llguidance 1.9.1 allows it if the other bound is less than 1 away."""
    encoding, draw = load_vocabulary("nano"), Random(1)
    schema = {"type": "number", **bounds}
    start = start_answer(encoding, schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    for _ in range(60):
        text = read_answer(encoding, walk(start.copy(), draw, find_special_tokens(encoding)))
        assert valid(json.loads(text)), text
    for bound in (0, 1, -1, -2):
        if not valid(bound):
            with pytest.raises(LabError):
                accept_text(start.copy(), encoding, f"{bound}<|return|>")


NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
    "required": ["value", "next"],
}


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "string", "minLength": 5, "maxLength": 2}, "no text fits it"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "no text fits it"),
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"]'),
        ({"not": {"type": "string"}}, 'Unimplemented keys: ["not"]'),
        ({"type": "string", "format": "poem"}, "Unknown format: poem"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"$ref": "#"}, "only an infinite value fits the schema, since # requires itself"),
        ({"$defs": {"node": NODE}, "$ref": "#/$defs/node"}, "#/$defs/node requires itself"),
        ({"type": "integer", "multipleOf": 999_983}, "multipleOf have the common multiple 999,983"),
        ({"type": "number", "multipleOf": 1.00003}, "the common multiple 100,003"),
        ({"allOf": [{"multipleOf": 7919}, {"multipleOf": 7907}]}, "common multiple 62,615,533"),
        ({"const": math.nan}, "the schema is not JSON"),
        ({"const": {1, 2}}, "the schema is not JSON"),
        ({"enum": ["x" * 200_000]}, "the limit is 200,000"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_in_one_sentence(schema, complaint):
    with pytest.raises(LabError) as error:
        build_constraint(load_vocabulary("nano"), PROMPT, schema)
    sentence = str(error.value)
    assert complaint in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400


def test_a_schema_that_is_nested_too_deeply_is_refused():
    schema = {"type": "integer"}
    for _ in range(20_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(LabError, match="nested too deeply"):
        build_constraint(load_vocabulary("nano"), PROMPT, schema)


@pytest.mark.parametrize(
    "change",
    [
        {"required": ["value"]},
        {"properties": NODE["properties"] | {"next": {"anyOf": [{"type": "null"}, NODE]}}},
        {"properties": {"value": {}, "next": {"type": "array", "items": {"$ref": "#/$defs/node"}}}},
    ],
)
def test_a_schema_may_refer_to_itself_if_it_can_end(walk, change):
    encoding = load_vocabulary("nano")
    schema = {"$defs": {"node": NODE | change}, "$ref": "#/$defs/node"}
    if "anyOf" in str(change):
        schema["$defs"]["node"]["properties"]["next"]["anyOf"][1] = {"$ref": "#/$defs/node"}
    constraint = start_answer(encoding, schema)
    assert constraint.allowed().any()
    jsonschema.Draft202012Validator.check_schema(schema)


def test_only_usual_white_space_is_allowed():
    encoding = load_vocabulary("nano")
    schema = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]}
    start = start_answer(encoding, schema)
    for text, fits in [
        ('{"a": null}', True),
        ('{\n    "a": null\n}', True),
        ('{  "a": null}', False),
        ('{\n\n"a": null}', False),
        (' {"a": null}', False),
    ]:
        constraint = start.copy()
        try:
            for id in encoding.encode_ordinary(text):
                constraint.accept(id)
        except LabError:
            assert not fits, text
        else:
            assert fits, text
