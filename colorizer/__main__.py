"""Entry point of `python -m colorizer` and the console script; it prepares signals and streams before large imports."""

import os
import signal
import sys


def main() -> int:
    """Run the command line on `sys.argv` and return the exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)  # Inside an import, KeyboardInterrupt could be lost.
        _open_closed_streams()
        from colorizer.app import cli

        if signal.getsignal(signal.SIGINT) is _stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return cli.main()
    except KeyboardInterrupt:
        _stop()


def _stop(*_: object) -> None:
    """End the process at once, which is safe as long as no command has begun."""
    if "--json" in sys.argv:
        os.write(1, b'{"error": "stopped"}\n')
    os.write(2, b"stopped\n")
    os._exit(1)


def _open_closed_streams() -> None:
    """Open the null device in place of closed streams, so that no other file takes their descriptors."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # This opens the lowest free descriptor.
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open to the end


if __name__ == "__main__":
    sys.exit(main())
