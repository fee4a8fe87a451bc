"""`python -m lookonce`: the command line."""

if __name__ == "__main__":
    from lookonce.cli import main

    main()
elif __name__ == "__mp_main__":
    # A process of vLLM's, which would go on holding the model without the worker that started it.
    from lookonce.tether import end_with_parent

    end_with_parent()
