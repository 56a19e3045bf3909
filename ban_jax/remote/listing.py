"""What lies at an address."""

from ban_jax.remote import address, buckets, errors, hub, source, web

_PLACES = {
    "hf": hub.repository,
    "gs": buckets.folder,
    "s3": buckets.folder,
    "https": web.file_of,
    "http": web.file_of,
}


def listed(text: str) -> source.Source:
    """The files of a place; nothing of them is fetched.

    Raises:
      FetchError: for an address that is not understood, or cannot be listed.
    """
    place = address.parse(text)
    found = _PLACES[place.scheme](place)
    if len(found.files) > source.MOST_FILES:
        raise errors.FetchError(
            f"{found.shown}: more than {source.MOST_FILES:,} files; name a part of it"
        )
    return found
