"""Checkpoints on disk: their contents, their defects and their size.

    layouts    the table of all tensors, in both published layouts
    dialects   the two formats of config.json, read field by field (`fields`, `rope_fields`)
    examine    find every defect of a folder (`defects`, `shards`, `header`) before reading weights
    storage    whether a folder's experts are packed as MXFP4 or dense
    deep       find NaN and infinity in the weights
    vocabulary compare a folder's vocabulary files with the named vocabulary
    read       open_checkpoint(folder) -> Checkpoint, with memory-mapped tensors
    load       load_model(checkpoint) -> the reference model on a device (`memory`: does it fit?)
    values     read_values(checkpoint): a stream of float tensors, one expert at a time
    rewrite    write_values: such a stream, as MXFP4 or BF16, with its errors (`rounding`)
    write      write_checkpoint(folder, config, tensors), in either layout (`tensor_files`)
    gguf       write_gguf(checkpoint, file), for llama.cpp
    digest     identify a checkpoint by a SHA-256
    companions the tokenizer files of the Hugging Face layout (`huggingface_tokenizer`)
    adapter    read a LoRA adapter (`adapter_config`); `merge` adds it to the weights
    fetch      open a checkpoint by name; downloads one only on request
    names      names, Hub ids and the Hub's cache
    recognize  what else a path is: GGUF, an adapter, another model (`signatures`, `folders`)
    fake       write_fake("20b", folder): random weights in true shapes (`random_weights`: small
               ones for tests and benchmarks)
    atomic     write files atomically
    plan       parameters, bytes on disk and in memory, from a configuration alone

torch is imported only where tensors are read or written.
"""
