"""The answer of a server to a request for a file: the file, a reason to try again, or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import requests

from datamodules.core.errors import DownloadError

_CONNECT_S = 20.0
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_PAGE = (b"<!doctype html", b"<html")


class DroppedError(Exception):
    """The connection ended early or the server is busy; another attempt may succeed."""

    def __init__(self, reason: object, wait: float = 0.0) -> None:
        super().__init__(str(reason))
        self.wait = wait


class ChangedError(DroppedError):
    """The partial file belongs to another version of the file; start again from byte 0."""


@contextmanager
def response_to(url: str, headers: dict[str, str], timeout: float) -> Iterator[requests.Response]:
    """Send a request; yield the response if it carries the file."""
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=(_CONNECT_S, timeout))
    except requests.exceptions.SSLError as error:
        raise DownloadError(f"{url}: the server's certificate is not trusted ({error})") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        # The cause without the layers that libraries wrap around it.
        cause = getattr(error.args[0], "reason", error) if error.args else error
        raise DroppedError(f"no connection ({str(cause).rsplit(': ', 1)[-1]})") from error
    except requests.RequestException as error:
        raise DownloadError(f"{url}: the request failed ({error})") from error
    with response:
        status = response.status_code
        if status in _RETRIED:
            wait = response.headers.get("Retry-After", "")
            raise DroppedError(f"the server answers {status}", int(wait) if wait.isdigit() else 0)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise ChangedError("the file on the server is shorter than the partial file")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise DownloadError(f"{url}: the server answers {status}{_meaning(response)}")
        refuse_page(url, response.headers.get("Content-Type", "").startswith("text/html"))
        yield response


def _meaning(response: requests.Response) -> str:
    """What a refusal means and what to do about it."""
    if response.headers.get("X-Error-Code") == "GatedRepo":
        page = response.url.partition("/resolve/")[0]
        return f": accept the terms on {page}, then run `hf auth login`"
    if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return f" {response.reason}; the file was moved or removed"
    return f" {response.reason}; the data need a login, or the address is outdated"


def is_page(content: bytes) -> bool:
    """Whether a file begins as a web page does."""
    return content.lstrip()[:15].lower().startswith(_PAGE)


def refuse_page(url: str, page: bool) -> None:
    """Raise a DownloadError for a web page that was not asked for."""
    if page and not urlsplit(url).path.endswith((".html", ".htm")):
        raise DownloadError(
            f"{url}: the server sends a web page in the place of the file; open the address in a "
            "browser: it is outdated, or asks for a login or a form"
        )
