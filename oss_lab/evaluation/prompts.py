"""A dozen short, general questions for a recording; no model has a reason to refuse one."""

from oss_lab.record.evidence.bundle import Asked

GENERAL = (
    Asked("product", "What is 347 * 62?"),
    Asked("sum of digits", "What is the sum of the digits of 2 to the power of 15?"),
    Asked(
        "logic",
        "Anna, Ben and Clara each have one pet: a cat, a dog or a fish. Anna is allergic to fur."
        " Ben's pet does not bark. Who has which pet?",
    ),
    Asked("translation", "Translate into French: The library opens at nine on Sundays."),
    Asked("Chinese", "用一句话解释为什么天空是蓝色的。"),
    Asked("code", "Write a Python function that returns the n-th Fibonacci number."),
    Asked("debugging", "What does `[lambda: i for i in range(3)][0]()` return in Python, and why?"),
    Asked("fact", "Which planet of the solar system has the most mass?"),
    Asked("poem", "Write one line of a poem about rain on a tin roof."),
    Asked("order", "Sort these by length, shortest first: hour, week, second, year, minute."),
    Asked("JSON", "Give the three primary colors of light as a JSON list of strings."),
    Asked("instructions", "Describe a lighthouse in two sentences.", "Write in capitals only."),
)
