"""The caller's own array as a source of views."""

import pytest

MAKE = """([texts, array]) => {
  const { ArraySource } = modules["source/array.js"];
  const { runs, shown, config, can, array: kept } = new ArraySource(texts, array);
  return [shown.tokens.map(({ text }) => text), config, kept, can.size, runs.length];
}"""


@pytest.mark.parametrize(
    ("shape", "axes", "config"),
    [
        ([2], "seq", {}),
        ([3, 2, 4], "layer seq slot", {"num_hidden_layers": 3, "experts_per_token": 4}),
        ([5, 2, 2], "head seq seq", {"num_attention_heads": 5}),
    ],
)
def test_an_array_of_the_caller(joined_page, shape, axes, config) -> None:
    size = 1
    for n in shape:
        size *= n
    array = {"values": list(range(size)), "shape": shape, "name": "surprise", "unit": "nats"}
    texts, found, kept, abilities, runs = joined_page.evaluate(MAKE, [["<b>", " 猫"], array])
    assert (texts, abilities, runs) == (["<b>", " 猫"], 0, 1)
    assert found == {**config, "layer_types": []}
    assert kept == {**array, "axes": axes}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ({"values": [1], "shape": [2], "name": "x"}, "x has 1 numbers, but the shape .2. needs 2"),
        ({"values": [1, 2, 3], "shape": [3], "name": "x"}, "x has the shape .3.; 2 tokens need"),
        ({"values": [1, 2], "shape": [2]}, "the array needs a name"),
        ({"values": [1, 2], "shape": [1, 2], "name": "x"}, "x has the shape"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(joined_page, array, message) -> None:
    with pytest.raises(Exception, match=message):
        joined_page.evaluate(MAKE, [["a", "b"], array])
