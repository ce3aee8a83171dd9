"""What holds for all tests: nobody's environment leaks in, and hypothesis judges no times on a busy machine."""

import os

from hypothesis import settings

settings.register_profile("kvstore", deadline=None, print_blob=True)
settings.load_profile("kvstore")

for _name in [name for name in os.environ if name.startswith("KVSTORE_")]:
    del os.environ[_name]
