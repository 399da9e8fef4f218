"""Twelve short, general questions for a recording. None gives a model a reason to refuse."""

from oss_lab.record.evidence.bundle import RecordedPrompt

GENERAL = (
    RecordedPrompt("product", "What is 347 * 62?"),
    RecordedPrompt("sum of digits", "What is the sum of the digits of 2 to the power of 15?"),
    RecordedPrompt(
        "logic",
        "Anna, Ben and Clara each have one pet: a cat, a dog or a fish. Anna is allergic to fur."
        " Ben's pet does not bark. Who has which pet?",
    ),
    RecordedPrompt("translation", "Translate into French: The library opens at nine on Sundays."),
    RecordedPrompt("Chinese", "用一句话解释为什么天空是蓝色的。"),
    RecordedPrompt("code", "Write a Python function that returns the n-th Fibonacci number."),
    RecordedPrompt(
        "debugging", "What does `[lambda: i for i in range(3)][0]()` return in Python, and why?"
    ),
    RecordedPrompt("fact", "Which planet of the solar system has the most mass?"),
    RecordedPrompt("poem", "Write one line of a poem about rain on a tin roof."),
    RecordedPrompt(
        "order", "Sort these by length, shortest first: hour, week, second, year, minute."
    ),
    RecordedPrompt("JSON", "Give the three primary colours of light as a JSON list of strings."),
    RecordedPrompt(
        "instructions", "Describe a lighthouse in two sentences.", "Write in capitals only."
    ),
)
