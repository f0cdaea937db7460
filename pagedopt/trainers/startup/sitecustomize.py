"""What every Python under `pagedopt run` does when it starts: install, and then what `sitecustomize` does otherwise."""

import importlib.util
import sys
from pathlib import Path

_here = str(Path(__file__).parent)

try:
    from pagedopt.trainers.install import install
except ImportError:
    print(f"pagedopt run: {sys.executable} has no pagedopt; its optimizers are as they were", file=sys.stderr)
else:
    install()

# The sitecustomize that this one hides is run too: it is found with this folder out of the way.
_path, _own = sys.path[:], sys.modules.pop("sitecustomize")
sys.path[:] = [folder for folder in _path if folder != _here]
try:
    _spec = importlib.util.find_spec("sitecustomize")
    if _spec is not None and _spec.loader is not None:
        _module = importlib.util.module_from_spec(_spec)
        sys.modules["sitecustomize"] = _module
        _spec.loader.exec_module(_module)
finally:
    sys.path[:] = [*(folder for folder in _path if folder == _here), *sys.path]
    sys.modules.setdefault("sitecustomize", _own)
