"""Repositories of the model hub: a revision is a commit before anything is fetched."""

import os
import re
from typing import Any

from ban_jax.remote import address, errors, source, web

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def repository(place: address.Address) -> source.Source:
    """The files of a repository at one commit.

    Where the hub is (`HF_ENDPOINT`), what identifies the user there and whether it may be
    asked at all (`HF_HUB_OFFLINE`) is huggingface_hub's business.

    Raises:
      FetchError: without huggingface_hub, and whatever the hub answers.
    """
    try:
        import huggingface_hub
        from huggingface_hub import utils
    except ImportError as error:
        raise errors.FetchError(
            f"{place.shown}: huggingface_hub cannot be imported ({error}): "
            "install this package with its extra `hub`"
        ) from error
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    try:
        told: Any = huggingface_hub.HfApi(endpoint=endpoint).model_info(
            place.name,
            revision=place.revision or None,
            timeout=web.SECONDS,
            files_metadata=True,
        )
    except Exception as error:  # of several HTTP clients, by its version
        raise errors.FetchError(
            f"{place.shown}: the hub does not list it: {_first_line(error)}"
        ) from None
    commit = str(told.sha or "")
    if not _COMMIT.fullmatch(commit):
        raise errors.FetchError(f"{place.shown}: the hub names no commit of it")
    headers = {str(k): str(v) for k, v in utils.build_hf_headers().items()}

    def file(sibling: Any) -> source.File:
        # Half characters, which JSON can name, become a backslash and are refused as such.
        name = str(sibling.rfilename).encode("utf-8", "backslashreplace").decode()
        url = huggingface_hub.hf_hub_url(
            place.name, name, revision=commit, endpoint=endpoint
        )
        promised = (sibling.lfs or {}).get("sha256")
        return source.File(
            name, sibling.size, commit, promised, lambda: web.opened(url, headers)
        )

    shown = place._replace(revision=commit).shown
    siblings = list(told.siblings or ())[: source.MOST_FILES + 1]
    return source.Source(shown, shown, [file(one) for one in siblings])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    )
