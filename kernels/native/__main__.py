"""`python -m kernels.native`: compiles what can be compiled here. Without a compiler that is nothing, and no fault."""

from kernels.native.library import build, library


def main() -> None:
    """Builds, and tells what came of it."""
    built = build()
    if not built:
        print("nothing compiled: no C compiler here that can; torch's own operators are used")
    elif library() is None:
        print("what is compiled is not for this processor or this torch, whose own operators are used")
    for path in built:
        print(f"{path}: built")


if __name__ == "__main__":
    main()
