"""How good a backbone's features are, with its weights frozen.

`features` turns images into vectors with any encoder, `knn`, `linear` and `fewshot` classify the
vectors, `protocols` runs them by name and `results` keeps what came out. Nothing here knows how an
encoder was trained.
"""
