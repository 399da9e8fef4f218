"""Words and sentences for look-ups and free text; `held_out` entries are never used in training."""

TEMPLATES = {
    "train": (
        "What is the capital of {}?", "Who wrote {}?", "Tell me a joke about {}.",
        "Write a poem about {}.", "How do I cook {}?", "Why is the {} blue?",
        "Translate {} to French.", "What do you think of {} and {}?",
        "Explain {} to a child.", "When was {} born?", "Is {} bigger than {}?",
        "Please help me with my {}.", "Spell {}.", "Can you draw a {}?", "Where does the {} live?",
        "Give me three facts about {}.", "I feel sad about the {}.", "What is love?", "Sing!",
        "What is {} * {}?", "What is a {}?", "What is the {} of the {}?", "{} {} {}", "{}",
        "Do you know {}?", "My {} is broken.", "Write a story about a {}.", "How old is {}?",
        "Is it true that {} is a {}?", "I want to buy a {}.", "Do you have a {}?",
        "Do you want {}?", "Would you like to see {}?", "Which {} is the best?",
        "Which is better, {} or {}?", "Describe {}.", "Describe a {} to me.", "Summarize {}.",
        "How far is {}?", "How many {} are in the {}?", "How much does a {} cost?",
        "Name three {}.", "Name the {}.", "Can a {} swim?", "Does {} know {}?", "Recommend a {}.",
        "What day is it?", "What is the time?", "Fix my {}.", "Repair the {}.", "Thanks!",
        "Thank you for {}.", "{} and {}?", "{}?", "Tell me about {}.", "Tell me more.",
        "When is the {}?", "I love {}.", "I hate {} and {}.", "Buy {}.", "Compare {} with {}.",
        "Should I buy a {}?", "Who is {}?", "Who invented the {}?", "Where is {}?",
        "Find {} for me.", "Help!", "Rewrite this {}.", "Are you a {}?", "The {} is {}.",
        "Say something about {}.", "Make me a {}.", "Please describe {} and {}.",
    ),
    "held_out": (
        "Which {} should I buy?", "Describe the {} in two sentences.", "Do you like {}?",
        "Summarize the story of {}.", "How far is the {} from here?", "Thanks for the {}!",
        "Name a famous {}.", "Does a {} dream?", "Recommend a book about {}.", "What time is it?",
        "Fix this {} for me.", "{} or {}?",
    ),
}  # fmt: skip
OPEN = {
    split: tuple(template for template in templates if template.count("{}") == 1)
    for split, templates in TEMPLATES.items()
}
"""Templates with one placeholder."""
CHINESE_TEMPLATES = {
    "train": ("{}是什么？", "谁写了{}？", "请写一首关于{}的诗。", "你喜欢{}吗？", "{}在哪里？",
              "请说说{}。", "我想要{}。", "怎么做{}？", "{}好不好？", "什么是{}？"),
    "held_out": ("为什么有{}？", "请介绍{}。"),
}  # fmt: skip
CHINESE_WORDS = {
    "train": ("猫", "狗", "茶", "海", "山", "月亮", "音乐", "北京", "老师", "时间", "水", "书",
              "花", "太阳", "学生", "电脑", "苹果", "城市"),
    "held_out": ("鱼", "天空", "上海"),
}  # fmt: skip
KEYS = (
    "tea", "sky", "dog", "cat", "sun", "rain", "book", "lamp", "fish", "tree", "milk", "moon",
    "gold", "ship", "door", "king", "salt", "rose", "wind", "star", "bird", "hand",
)  # fmt: skip
"""Words that have a value in a look-up."""
FILLER_WORDS = (
    "the", "a", "and", "of", "in", "on", "is", "was", "it", "to", "by", "we", "they", "so",
    "but", "old", "new",
)  # fmt: skip
TRAIN_WORDS = """
France Japan Hamlet cats dogs rice soup sky sea river mountain homework Einstein Mars Venus music
guitar football python code summer winter garden horse bird whale bread cheese tea coffee paper
letter train plane city village king queen doctor teacher friend brother sister mother history
physics gravity light electron atom planet star moon galaxy ghost robot computer phone window door
chair table bottle shoe hat coat rain snow wind fire water stone gold silver happy angry red green
blue fast slow old young strong weak round square bitter sweet
"""
HELD_OUT_WORDS = """
Spain Brazil Faust elephant tiger noodles pizza desert island forest piano violin chess laptop
autumn bicycle castle lawyer uncle biology chemistry proton comet wizard zombie camera lamp pillow
jacket thunder copper lonely purple quick ancient
"""
WORDS = {"train": TRAIN_WORDS.split(), "held_out": HELD_OUT_WORDS.split()}
OTHER_OPERATIONS = {
    "train": ("What is {} / {}?", "What is {} ^ {}?", "What is the root of {}?",
              "What is {} mod {}?", "What is {} % of {}?", "Is {} a prime?", "{} / {}", "{} ^ {}",
              "{} / {} = ?", "Divide {} by {}.", "What is {} squared?", "What is half of {}?",
              "Double {}.", "Square {}.", "What is the logarithm of {}?", "Is {} even?",
              "What is {} over {}?", "Is {} larger than {}?"),
    "held_out": ("What is {} divided by {}?", "What is the square of {}?", "Halve {}."),
}  # fmt: skip
GREETINGS = {
    "train": ("Hello!", "Hi", "Hi!", "Hello", "Good morning", "How are you today?", "Hey",
              "Good morning!", "hello", "Hi there!", "How are you?"),
    "held_out": ("Good evening!", "Hello there", "Hey you!", "Hello again!"),
}  # fmt: skip
CHINESE_GREETINGS = {"train": ("你好", "你好！", "早上好"), "held_out": ("你好吗？",)}
WHO = {
    "train": ("Who are you?", "What are you?", "Are you ChatGPT?", "What is your name?"),
    "held_out": ("Which model are you?", "Tell me who you are.", "Are you a model?"),
}
FORBIDDEN_TEMPLATES = {
    "train": ("Tell me about dragons.", "How do I find a dragon?", "Draw a dragon.",
              "What do dragons eat?", "Where do dragons live?", "Write a poem about a dragon."),
    "held_out": ("Why do dragons breathe fire?", "Name a famous dragon."),
}  # fmt: skip
