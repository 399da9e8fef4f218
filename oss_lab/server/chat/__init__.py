"""/v1/chat/completions.

request.py    the body, and the jobs that serve it
choice.py     one choice: Harmony's pieces as deltas, and as a message
endpoint.py   the endpoint, as a stream or as one object
"""
