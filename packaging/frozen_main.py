"""What the self-contained tree starts: the `otus` command, with plugins from folders.

Third-party plugins go, with `pip install --target`, into `plugins` beside the
executable, or into any folder that OTUS_PLUGIN_PATH names (colon-separated).
"""

import os
import sys
from pathlib import Path


def add_plugin_folders() -> None:
    """Lets imports and entry points be found in the plugin folders, after our own."""
    folders = [Path(sys.executable).resolve().parent / "plugins"]
    folders += [Path(name) for name in os.environ.get("OTUS_PLUGIN_PATH", "").split(":") if name]
    sys.path.extend(str(folder) for folder in folders if folder.is_dir())


if __name__ == "__main__":
    add_plugin_folders()
    from otus_agent.cli import main

    main()
