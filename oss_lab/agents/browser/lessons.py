"""The default corpus: this project's lessons and their exercise sheets."""

from functools import cache

from oss_lab.agents.browser.corpus import Corpus, read_file
from oss_lab.course.notebook_files import list_files


@cache
def load_lessons() -> Corpus:
    """The lessons as a corpus, indexed once per process.

    Raises:
        LabError: this installation has no notebooks.
    """
    files = ((name.as_posix(), file) for name, file in list_files())
    pages = (read_file(file, f"notebooks/{name}") for name, file in files)
    return Corpus((page for page in pages if page is not None), "lessons")
