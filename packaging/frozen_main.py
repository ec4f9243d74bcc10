"""What the self-contained tree starts: the `otus` command, with plugins from its own folder.

Third-party plugins go, with `pip install --target`, into `plugins` beside the
executable, which joins the folders that OTUS_PLUGIN_PATH names.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    own = str(Path(sys.executable).resolve().parent / "plugins")
    named = os.environ.get("OTUS_PLUGIN_PATH", "")
    # The daemon starts itself anew for --background, and must not add it again.
    if own not in named.split(os.pathsep):
        os.environ["OTUS_PLUGIN_PATH"] = os.pathsep.join(filter(None, (own, named)))
    from otus_agent.cli import main

    main()
