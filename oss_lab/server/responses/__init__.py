"""/v1/responses, as Open Responses and OpenAI define it.

request.py    the body, and the job that serves it
items.py      items of the input and of earlier responses, as chat messages
resource.py   the response object
output.py     Harmony's pieces as output items and their events
endpoint.py   create, as a stream or as one object
stored.py     read, delete and cancel
"""
