"""What goes wrong with models that lie elsewhere."""


class FetchError(ValueError):
    """A place that cannot be listed, or a file that cannot be fetched; says why.

    Its text holds no credentials and no query of an address.
    """
