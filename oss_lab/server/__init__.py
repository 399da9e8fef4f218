"""`oss-lab serve`: the model as an HTTP API that any OpenAI client can use. API.md describes it.

app.py         builds the application from a Lab: endpoints and errors
openapi.py     what the OpenAPI document says about bodies and errors
listen.py      opens the port
context.py     what every endpoint needs
scheduler.py   one thread that runs the batch; rows join and leave between steps
delivery.py    brings the events of replies to the event loop, several tokens at a time
job.py         one reply that is generated for a client
steering.py    forces the beginning of a call on a reply
pieces.py      Harmony events as the items of a reply: reasoning, text, calls
settings.py    what the command line sets: names, limits, what is hidden
gate.py        checks every request first: host, origin, token
body.py        reads a JSON body within its limits and checks it
errors.py      the API's error object
request.py     the fields that both APIs have: effort, sampling, what is ignored or refused
tool_choice.py the tools that the model sees, and which of them it must call
formats.py     response formats
images.py      images, which no gpt-oss can see
notes.py       what the server ignored or replaced, in a response header
sse.py         server-sent events, and clients that vanish
logprobs.py    log-probabilities of tokens, as the API writes them
status.py      /health, /metrics and /v1/models
store.py       stored responses, in SQLite
chat/          /v1/chat/completions
responses/     /v1/responses
remote/        the other side: `connect`, a client of this API and of other engines
"""
