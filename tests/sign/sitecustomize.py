"""What Python runs before a program: a file says that it answers to Ctrl-C (batch_tools.sign)."""

import os
import signal

if "TEST_SIGN" in os.environ:
    set_handler = signal.signal

    def signed(number, handler):
        before = set_handler(number, handler)
        if number == signal.SIGINT:
            signal.signal = set_handler
            with open(os.environ["TEST_SIGN"], "w"):
                pass
        return before

    signal.signal = signed
