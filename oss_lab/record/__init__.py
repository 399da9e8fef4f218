"""The results of a run as plain data, saved and read without a model.

token.py          one generated token with its log-probability
reply.py          one assistant turn, by channel, with its tokens
builder.py        a reply while it is generated: its events, its budget, its stop strings
calls.py          tool calls of a reply and their outputs as messages
token_labels.py   which message, role, channel and recipient each token belongs to
trace.py          tensors by point and layer over the tokens of one sequence
trace_file.py     a trace as one safetensors file
diff.py           where two traces differ
evidence/         a folder with a model's replies to fixed prompts, and the traces of these replies
"""
