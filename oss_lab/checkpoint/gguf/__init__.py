"""A checkpoint as one GGUF file, which llama.cpp, Ollama and LM Studio read.

    write      write_gguf(checkpoint, file)
    tensors    every tensor: its name, its storage and its bytes
    blocks     MXFP4 in GGUF's order of bytes
    fields     the metadata: shape, RoPE, vocabulary, chat template
    limits     what llama.cpp computes differently, and what it cannot run

Needs the package gguf (extra `gguf`). Source: llama.cpp's converter for gpt-oss and gguf 0.19.0.
"""
