"""`python -m recsys_kd` is `recsys-kd`."""

from recsys_kd.cli import main

if __name__ == "__main__":
    main()
