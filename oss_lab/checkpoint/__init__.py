"""Checkpoints on disk: what is in them, whether they can be trusted, what they weigh.

    layouts    the table of all tensors, in both published layouts
    dialects   the two spellings of config.json, read field by field (`fields`)
    examine    every defect of a folder (`defects`, `shards`, `header`), before a weight is used
    read       open_checkpoint(folder) -> Checkpoint, with memory-mapped tensors
    load       load_model(checkpoint) -> the readable model on a device
    write      write_checkpoint(folder, config, tensors), in either layout
    fetch      from a name to a checkpoint; downloads a published one only on request
    atomic     files that appear complete or not at all
    plan       parameters, bytes on disk and in memory, from a configuration alone

torch is imported only where tensors are handed out or written.
"""
