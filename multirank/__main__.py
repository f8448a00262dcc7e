"""`python -m multirank`."""

from multirank.main import main

if __name__ == "__main__":
    main()
