"""A Python process for code that a model writes, confined by the operating system.

- `PythonSandbox` (`python_tool`): the tool: `run(code)` gives a `Result`; `sandbox` says what
  confines the code
- `Limits` (`limits`): time, memory, disk, threads and output
- `Result` (`result`): what one call printed, as data and as text for the model
- `choose`: the first of these that works: `sandlock`, `bubblewrap`; `bare` only on request
- `worker`, `frames`, `call_text`, `process`, `watch`: the parent's side of the process
- `view`, `data_folder`: the files it sees, and /mnt/data
- `inside`: the program in the sandbox, and what it gives up before it runs any code
"""

from oss_lab.agents.sandbox.limits import Limits
from oss_lab.agents.sandbox.python_tool import PythonSandbox
from oss_lab.agents.sandbox.result import Result

__all__ = ["Limits", "PythonSandbox", "Result"]
