"""`python -m kernels.native`: compiles what can be compiled here. Without a compiler that is nothing, and no fault."""

from kernels.native.library import build, library


def main() -> None:
    """Builds, and tells what came of it."""
    built = build()
    if built is None:
        print("no compiled attention: no C compiler here that can; torch's own operators are used")
    elif library() is None:
        print(f"{built}: not for this processor or this torch, whose own operators are used")
    else:
        print(f"{built}: built")


if __name__ == "__main__":
    main()
