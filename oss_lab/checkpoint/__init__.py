"""Checkpoints on disk: their contents, their defects and their size.

    layouts    the table of all tensors, in both published layouts
    dialects   the two formats of config.json, read field by field (`fields`)
    examine    find every defect of a folder (`defects`, `shards`, `header`) before reading weights
    read       open_checkpoint(folder) -> Checkpoint, with memory-mapped tensors
    load       load_model(checkpoint) -> the reference model on a device
    write      write_checkpoint(folder, config, tensors), in either layout
    fetch      open a checkpoint by name; downloads a published one only on request
    atomic     write files atomically
    plan       parameters, bytes on disk and in memory, from a configuration alone

torch is imported only where tensors are read or written.
"""
