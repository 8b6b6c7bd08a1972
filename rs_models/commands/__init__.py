"""Commands of `rs-models` that are nothing else: each module has `parser()` and `main(argv)`."""
