"""`leasehold` and `python -m leasehold`."""

from leasehold.process.signal_mask import hold_ends


def main() -> None:
    hold_ends()  # before the imports, which take long
    from leasehold.cli.app import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
