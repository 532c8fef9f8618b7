"""Look at the commit; print what was found as one line of JSON. Writes nothing."""

import json
import sys

sys.stdout.write(json.dumps(commit_facts()) + "\n")
