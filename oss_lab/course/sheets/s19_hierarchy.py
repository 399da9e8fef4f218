"""Exercises of 19_hierarchy: which rule wins, and role tokens that change places."""

from collections.abc import Iterator

from oss_lab.course.exercise import Exercise, Sheet

SYSTEM, DEVELOPER, USER = 1, 2, 3
START, MESSAGE, END = 90, 91, 92


def my_winning_rule(messages):
    """The rule to follow, when messages contradict each other.

    messages: pairs (role, rule) in the order of the conversation. A role is "system", "developer",
        "user", "assistant" or "tool". A rule is a text, or None for a message without a rule.

    A system message is above a developer message, which is above a user message. If several
    messages of the same role have a rule, the last of them counts. A rule in a message of the
    assistant or of a tool is only quoted and never counts.
    Returns the rule, or None if there is none to follow.
    """
    for role in ("system", "developer", "user"):
        rules = [rule for author, rule in messages if author == role and rule is not None]
        if rules:
            return rules[-1]
    return None


def last_message_wins(messages):
    """You take the last rule of all. A user's rule comes after the developer's, but is below it:
    compare the roles first.
    """
    rules = [rule for role, rule in messages if role in ("system", "developer", "user") and rule]
    return rules[-1] if rules else None


def first_rule_of_the_role(messages):
    """You take the first rule of the highest role. A later message of the same role may change an
    earlier one.
    """
    for role in ("system", "developer", "user"):
        for author, rule in messages:
            if author == role and rule is not None:
                return rule
    return None


def tool_counts(messages):
    """You follow a rule in a tool's output if there is no other one. Then whoever writes the web
    page that a tool reads can give orders: this is prompt injection.
    """
    quoted = [rule for role, rule in messages if role == "tool" and rule is not None]
    return my_winning_rule(messages) or (quoted[-1] if quoted else None)


def assistant_counts(messages):
    """You follow a rule that only the assistant has written. What the model said before does not
    bind it: somebody can have put the words into its mouth.
    """
    quoted = [rule for role, rule in messages if role == "assistant" and rule is not None]
    return my_winning_rule(messages) or (quoted[-1] if quoted else None)


def user_above_developer(messages):
    """You rank the user above the developer. The developer's rules are there to hold even if a
    user wants something else.
    """
    for role in ("system", "user", "developer"):
        rules = [rule for author, rule in messages if author == role and rule is not None]
        if rules:
            return rules[-1]
    return None


def silent_message_resets(messages):
    """You look only at the last message of a role. A message without a rule changes nothing: the
    rule of an earlier message of that role still holds.
    """
    for role in ("system", "developer", "user"):
        rules = [rule for author, rule in messages if author == role]
        if rules and rules[-1] is not None:
            return rules[-1]
    return None


def rule_cases() -> Iterator[tuple]:
    """Every pair of roles, quoted rules alone, and several messages of one role."""
    dialogues = [
        [("system", "a"), ("developer", "b"), ("user", "c")],
        [("system", None), ("developer", "b"), ("user", "c")],
        [("system", None), ("developer", None), ("user", "c"), ("tool", "d")],
        [("system", None), ("user", "c"), ("assistant", "d")],
        [("system", "a"), ("user", None), ("tool", "d")],
        [("system", None), ("user", None), ("tool", "d")],
        [("system", None), ("user", None), ("assistant", "d"), ("user", None)],
        [("system", None), ("user", "c"), ("assistant", None), ("user", "e")],
        [("system", None), ("user", "c"), ("assistant", "d"), ("user", None)],
        [("system", None), ("developer", "b"), ("user", "c"), ("assistant", "d"), ("tool", "e")],
        [("system", None), ("user", "c"), ("developer", "b")],
        [("system", None), ("user", None)],
    ]
    yield from ((list(messages),) for messages in dialogues)


def my_swap_roles(ids, start, first, second):
    """The same prompt with two roles exchanged: what `first` wrote is now by `second`.

    ids: the token ids of a prompt, a list of numbers.
    start: the id of <|start|>, which begins a message. The next token is the role.
    first, second: the ids of two roles, such as those of "developer" and "user".
    Returns a new list. The same words can be in a text, too: leave them there as they are.
    """
    swapped = {first: second, second: first}
    return [
        swapped.get(token, token) if place and ids[place - 1] == start else token
        for place, token in enumerate(ids)
    ]


def swaps_texts_too(ids, start, first, second):
    """You exchange the tokens everywhere. A text may contain the word user, and then the prompt
    differs in more than its roles: change only the token after <|start|>.
    """
    swapped = {first: second, second: first}
    return [swapped.get(token, token) for token in ids]


def one_direction(ids, start, first, second):
    """You turn `first` into `second`, but not `second` into `first`. Now both messages have
    the same role.
    """
    return [
        second if place and ids[place - 1] == start and token == first else token
        for place, token in enumerate(ids)
    ]


def one_after_the_other(ids, start, first, second):
    """You replace `first` by `second`, and then every `second` by `first`, also the new ones: now
    both messages have the role `first`. Decide for each token from the old list.
    """
    return [
        first if place and ids[place - 1] == start and token in (first, second) else token
        for place, token in enumerate(ids)
    ]


def first_message_only(ids, start, first, second):
    """You change the first message of each role only. A conversation can have many messages of the
    user.
    """
    swapped, left, found = {first: second, second: first}, {first, second}, list(ids)
    for place in range(1, len(ids)):
        if ids[place - 1] == start and ids[place] in left:
            left.remove(ids[place])
            found[place] = swapped[ids[place]]
    return found


def write_prompt(*messages: tuple[int, ...]) -> list[int]:
    """Messages, each of a role and its text, with the tokens around them."""
    return [token for role, *text in messages for token in (START, role, MESSAGE, *text, END)]


def swap_cases() -> Iterator[tuple]:
    """Roles in headers and in texts, several messages of a role, and none."""
    system = (SYSTEM, 7)
    prompts = [
        write_prompt(system, (DEVELOPER, 8), (USER, 9, 4)),
        write_prompt(system, (DEVELOPER, 8, USER), (USER, DEVELOPER, 4, USER)),
        write_prompt(system, (USER, 5), (USER, 6, USER)),
        write_prompt((USER, 5), (DEVELOPER, 6), (USER, 7), (DEVELOPER, 8)),
        [DEVELOPER, *write_prompt((USER, 5))],
        write_prompt(system),
        [],
    ]
    yield from ((ids, START, DEVELOPER, USER) for ids in prompts)


SHEET = Sheet(
    lesson="19_hierarchy",
    title="Exercises: the instruction hierarchy",
    text="Read [19_hierarchy](../19_hierarchy.ipynb) first.",
    exercises=(
        Exercise(
            title="Which rule wins?",
            text=(
                "Judge a conversation as the training data of the lesson does: find the one rule"
                " that the reply should follow, or none."
            ),
            solution=my_winning_rule,
            cases=rule_cases,
            misconceptions=(
                last_message_wins,
                first_rule_of_the_role,
                tool_counts,
                assistant_counts,
                user_above_developer,
                silent_message_resets,
            ),
            hints=(
                "Do not go through the messages in order: go through the roles, from the highest"
                " to the lowest. Which roles are in that list?",
                "For one role, collect its rules that are not None. Is the list empty?",
                "for role in (system, developer, user): rules = those of its messages that are not"
                " None; if there are any, return the last. After the loop return None.",
            ),
            minutes=12,
            difficulty=1,
        ),
        Exercise(
            title="Swap two roles",
            text=(
                "To find out whether the role token or something else decides, exchange the role"
                " tokens of a prompt and nothing else."
            ),
            solution=my_swap_roles,
            cases=swap_cases,
            misconceptions=(
                swaps_texts_too,
                one_direction,
                one_after_the_other,
                first_message_only,
            ),
            hints=(
                "Which tokens are roles? Only those right after <|start|>.",
                "Build a new list from the old one: every token depends on itself and on the token"
                " before it, in the old list.",
                "swapped = {first: second, second: first}. For each place: if the token before is"
                " `start`, take swapped.get(token, token), otherwise the token.",
            ),
            minutes=13,
            difficulty=1,
        ),
    ),
)
