"""How gpt-oss-nano is made: its vocabulary, its tasks, its training and its evaluation."""
