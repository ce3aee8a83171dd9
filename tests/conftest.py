"""Settings for all tests: a clean environment, a working Ctrl-C, and no deadlines of hypothesis on a busy machine."""

import os
import signal

from hypothesis import settings

settings.register_profile("kvstore", deadline=None, print_blob=True)
settings.load_profile("kvstore")

for _name in [name for name in os.environ if name.startswith("KVSTORE_")]:
    del os.environ[_name]

# A shell script starts background jobs with SIGINT ignored, and their children inherit that. A test that sends SIGINT
# to a child would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
