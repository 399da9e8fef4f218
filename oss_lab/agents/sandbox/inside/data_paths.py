"""/mnt/data as a name for the data folder, in a sandbox that cannot mount it there.

Python's own functions are wrapped: paths below /mnt/data become paths below the folder, and
`os.getcwd` and errors show the name again. This is a convenience, not a boundary: what may be read
is the sandbox's decision. Libraries that open files in C need a path relative to the working
directory, which is the folder.
"""

import builtins
import functools
import io
import os
from collections.abc import Callable
from typing import Any

NAME = "/mnt/data"
# How many of the first arguments are paths.
FUNCTIONS = {
    **dict.fromkeys(("open", "stat", "lstat", "listdir", "scandir", "mkdir", "rmdir", "unlink"), 1),
    **dict.fromkeys(("remove", "readlink", "chdir", "access", "truncate", "utime", "chmod"), 1),
    **dict.fromkeys(("listxattr", "getxattr", "setxattr", "removexattr", "statvfs", "mkfifo"), 1),
    **dict.fromkeys(("rename", "replace", "link", "symlink"), 2),
}
ABILITIES = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks", "supports_effective_ids")


def name_data_folder(folder: str) -> None:
    """Make paths below /mnt/data mean paths below `folder`, for this process."""

    def real(path: Any) -> Any:
        return exchange(path, NAME, folder)

    def shown(path: Any) -> Any:
        return exchange(path, folder, NAME)

    for name, paths in FUNCTIONS.items():
        if hasattr(os, name):
            replace_function(os, name, paths, real, shown)
    replace_function(io, "open", 1, real, shown)
    builtins.open = io.open
    where = os.getcwd
    os.getcwd = lambda: shown(where())


def replace_function(
    module: Any, name: str, paths: int, real: Callable[[Any], Any], shown: Callable[[Any], Any]
) -> None:
    original = getattr(module, name)

    @functools.wraps(original)
    def wrapper(*arguments: Any, **keywords: Any) -> Any:
        first = [real(argument) for argument in arguments[:paths]]
        keywords = {key: real(value) for key, value in keywords.items()}
        try:
            return original(*first, *arguments[paths:], **keywords)
        except OSError as error:
            error.filename = shown(error.filename)
            if error.filename2 is not None:
                error.filename2 = shown(error.filename2)
            raise

    for ability in ABILITIES if module is os else ():
        functions = getattr(os, ability)
        if original in functions:
            functions.add(wrapper)
    setattr(module, name, wrapper)


def exchange(path: Any, old: str, new: str) -> Any:
    """The path with the folder `new` in place of `old`, or the argument itself.

    >>> exchange("/mnt/data/a.csv", "/mnt/data", "/own"), exchange(3, "/mnt/data", "/own")
    ('/own/a.csv', 3)
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if isinstance(text, bytes):
        return os.fsencode(exchange(os.fsdecode(text), old, new))
    if isinstance(text, str) and (text == old or text.startswith(old + "/")):
        return new + text[len(old) :]
    return path
