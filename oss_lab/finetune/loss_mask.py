"""Which tokens of an example count in the loss.

The assistant's tokens are those of Harmony's own mask (`render`): its headers, content and end
tokens, without what the prompt contains and without turns whose reasoning was left out. Here you
choose among its channels. Other roles can be learned too; of their messages, everything after
`<|start|>` and the role counts.
"""

from collections.abc import Collection

from oss_lab.harmony import Conversation, Rendered


def choose_learned(
    rendered: Rendered,
    conversation: Conversation,
    roles: Collection[str],
    channels: Collection[str],
) -> list[bool]:
    """One value per token: whether the model learns to produce it.

    Args:
        roles: whose messages are learned.
        channels: the assistant's channels that are learned, with headers and end tokens. A message
            without a channel counts as `final`.
    """
    chosen = []
    for note, produced in zip(rendered.annotations, rendered.loss_mask, strict=True):
        message = conversation.messages[note.message]
        if message.role not in roles:
            chosen.append(False)
        elif message.role == "assistant":
            chosen.append(produced and (message.channel or "final") in channels)
        else:
            chosen.append(note.field not in ("start", "role"))
    return chosen
