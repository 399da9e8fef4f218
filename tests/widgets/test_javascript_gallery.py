"""The gallery, answered in the page: prompt, forward, reply and tool outputs together."""

import pytest
from oss_widgets.page.gallery_data import build_gallery_data

from oss_lab.nano.gallery import GALLERY, ask

ANSWER = """async ([vocabulary, example]) => {
  const tokenizer = new modules["tokenizer.js"].Tokenizer(vocabulary);
  const { generate } = modules["engine/generate.js"];
  const { buildExamplePrompt, findOutputs } = modules["nano/gallery.js"];
  const { ReplyReader, appendOutputs } = modules["record/reply.js"];
  const { render } = modules["harmony/render.js"];
  const options = {
    stop: modules["harmony/specials.js"].samplingStops(tokenizer),
    isUsable: (id) => tokenizer.isUsable(id),
    maxTokens: 400,
  };
  const replies = [];
  let prompt = buildExamplePrompt(example);
  while (prompt && replies.length < 8) {
    const reader = new ReplyReader(tokenizer, prompt);
    const { ids } = render(prompt, tokenizer);
    for await (const { id } of generate(nano, newCache(), ids, options)) reader.add(id);
    const [, reply] = reader.finish();
    replies.push(reply.ids);
    const outputs = findOutputs(example, reply);
    prompt = outputs?.length ? appendOutputs(reply, outputs) : null;
  }
  return replies;
}"""


@pytest.mark.parametrize(
    "name", ["product, high effort", "sum of three look-ups", "calculator", "product in Chinese"]
)
def test_replies_are_those_of_the_lab(nano_page, vocabulary, lab, name) -> None:
    (n,) = (n for n, example in enumerate(GALLERY) if example.name == name)
    found = nano_page.evaluate(ANSWER, [vocabulary, build_gallery_data()["examples"][n]])
    replies = ask(lab, GALLERY[n], max_tokens=400)
    assert found == [list(reply.ids) for reply in replies]
    assert replies[-1].final == GALLERY[n].answer
