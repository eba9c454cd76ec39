"""`nemo review`: a page in the browser in which a person looks at clips and marks what is to be left out.

The page is served on this machine alone. A page on the disk could not write the marks next to the data: it could only
offer them as a download, which is forgotten or overwritten. Served, every mark is in its file before the next is made.

What is served is faces, so nobody else may ask: the server listens on 127.0.0.1, every path begins with a random token,
the Host header must name this machine (a name of somebody else's that resolves to it is refused), and a mark must come
from the page itself. No path leads to a file: there is a fixed list of answers, and numbers in them.
"""

from __future__ import annotations

import datetime
import functools
import hmac
import http.server
import json
import re
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from markupsafe import Markup

from nemo_pipeline import __version__
from nemo_pipeline.errors import NemoError
from nemo_pipeline.marks import Mark, add_mark, marks_beside, read_marks, remove_mark
from nemo_pipeline.store.reader import FaceDataset
from nemo_pipeline.store.text import escape_controls
from nemo_pipeline.view.page_tools import json_for_html, page_environment, page_hash, page_text
from nemo_pipeline.view.report_data import measures_of
from nemo_pipeline.view.review_data import frames_bytes, points_bytes, video_curves, video_lines

#: What a person may choose by a digit; anything else can be typed.
REASONS = (
    "wrong person",
    "face covered",
    "other expression",
    "talking",
    "blurred or dark",
    "points are off",
    "cut or jump",
    "duplicate",
)
#: Names by which a browser on this machine calls it; the port may be another one (`ssh -L`).
_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")
#: A mark is some hundred bytes.
_LONGEST_BODY = 16 << 10
_LONGEST_TEXT = 500
#: Frames in an answer, at most; seconds that a request may take to arrive.
_MOST_FRAMES, _PATIENCE = 256, 10.0
Attention = Callable[[int], dict[str, Any]]


class Refused(Exception):
    """A request that is not answered, with its status."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Review:
    """What the page shows and does.

    Args:
        data: the prepared file, with everything that marks leave out.
        marks: the file of marks, made at the first one.
        who: who marks.
        attention: row -> what a model saw (`siam_model.review`); None: no model.
        about_model: a line on that model.

    Raises:
        DataError: the file of marks cannot be read.
    """

    def __init__(
        self,
        data: FaceDataset,
        marks: Path | None = None,
        who: str = "",
        attention: Attention | None = None,
        about_model: str = "",
    ) -> None:
        self.data, self.who = data, who
        self.marks = marks or marks_beside(data.path)
        self._attention, self._about_model = attention, about_model
        self._reading, self._thinking = threading.Lock(), threading.Lock()
        self.read_marks()

    @functools.cached_property
    def _measures(self) -> tuple[float, float]:
        return measures_of(self.data)

    def read_marks(self) -> list[dict[str, Any]]:
        """All marks of the file, as the page has them."""
        found = read_marks(self.marks) if self.marks.exists() else []
        return [self._shown(mark) for mark in found]

    @staticmethod
    def _shown(mark: Mark) -> dict[str, Any]:
        return {**mark.cells(), "start": mark.start, "stop": mark.stop}

    def page(self) -> tuple[bytes, str]:
        """The page and its content security policy."""
        style, script = page_text("review.css"), page_text("plot.js") + page_text("review.js")
        policy = (
            f"default-src 'none'; connect-src 'self'; style-src '{page_hash(style)}'; "
            f"script-src '{page_hash(script)}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        facts = {
            "videos": video_lines(self.data),
            "size": self.data.size,
            "shape": self.data.landmarks_in_crop.round(2).tolist(),
            "reasons": REASONS,
            "who": self.who,
            "marks": self.read_marks(),
            "model": self._about_model if self._attention else "",
            "yaw": self.data.config.max_yaw_degrees,
        }
        html = page_environment().get_template("review.html").render(
            style=Markup(style), script=Markup(script), facts=json_for_html(facts),
            title=escape_controls(self.data.path.name), version=__version__, synthetic=self.data.synthetic,
            file=escape_controls(self.marks.name), who=escape_controls(self.who),
        )  # fmt: skip
        return html.encode("utf-8", "replace"), policy

    def answer(self, name: str, query: dict[str, list[str]]) -> tuple[bytes, str]:
        """What is read: its bytes and their type. Raises Refused."""
        if name == "marks":
            return _json(self.read_marks())
        if name not in ("video", "points", "frames", "attention") or (
            name == "attention" and self._attention is None
        ):
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        row = _number(query, "row", len(self.data.rows) - 1)
        if int(self.data.videos["length"][row]) < 1:
            raise Refused(HTTPStatus.NOT_FOUND, "This video has no frames.")
        if name == "attention" and self._attention is not None:
            with self._thinking, self._reading:
                return _json(self._attention(row))
        with self._reading:  # HDF5 is read by one thread at a time
            if name == "video":
                return _json(video_curves(self.data, row, self._measures))
            if name == "points":
                return points_bytes(self.data, row), "application/octet-stream"
            length = int(self.data.videos["length"][row])
            start = _number(query, "start", length)
            stop = min(_number(query, "stop", length), start + _MOST_FRAMES)
            return frames_bytes(self.data, row, start, stop), "application/octet-stream"

    def change(self, name: str, values: dict[str, Any]) -> tuple[bytes, str]:
        """Add or remove a mark; answers all of them. Raises Refused."""
        if name not in ("mark", "unmark"):
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        mark = self._mark(values)
        if name == "mark":
            add_mark(self.marks, mark)
        elif not remove_mark(self.marks, mark):
            raise Refused(HTTPStatus.CONFLICT, "This mark is not in the file any more.")
        return _json({"mark": self._shown(mark), "marks": self.read_marks()})

    def _mark(self, values: dict[str, Any]) -> Mark:
        """A mark as the page sends it; one that comes without a time is made now. Raises Refused."""
        texts = {name: values.get(name, "") for name in ("video", "reason", "who", "when")}
        ends = {name: values.get(name) for name in ("start", "stop")}
        good = all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts.values())
        good = good and all(
            end is None or (isinstance(end, int) and not isinstance(end, bool) and 0 <= end < 10**9)
            for end in ends.values()
        )
        start, stop = ends["start"], ends["stop"]
        if good and start is not None and stop is not None:
            good = start <= stop
        known = set(map(str, self.data.videos["id"])) | {mark["video"] for mark in self.read_marks()}
        if not good or texts["video"] not in known:
            raise Refused(HTTPStatus.BAD_REQUEST, "This is not a mark of a video of this file.")
        if not texts["when"]:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            texts |= {"who": self.who, "when": now.replace("+00:00", "Z")}
            texts["reason"] = " ".join(texts["reason"].split())
        return Mark(texts["video"], start, stop, texts["reason"], texts["who"], texts["when"])


def _json(value: Any) -> tuple[bytes, str]:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii"), "application/json"


def _number(query: dict[str, list[str]], name: str, most: int) -> int:
    """A number from 0 to `most`. Raises Refused."""
    text = query.get(name, [""])[0]
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > most:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is not a number from 0 to {most}.")
    return int(text)


class ReviewServer(http.server.ThreadingHTTPServer):
    """Serves a `Review` on 127.0.0.1 under a random address.

    Args:
        review: what is served.
        port: 0 takes a free one.

    Attributes:
        address: of the page.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no fault."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE

    def version_string(self) -> str:
        return "nemo"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: paths hold the token."""

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _respond(self, get: Callable[[], tuple[bytes, str, str]]) -> None:
        status, policy = HTTPStatus.OK, "default-src 'none'; frame-ancestors 'none'"
        try:
            body, kind, own = get()
            policy = own or policy
        except Refused as refused:
            status, (body, kind) = refused.status, _json({"error": str(refused)})
        except NemoError as error:
            status, (body, kind) = HTTPStatus.CONFLICT, _json({"error": escape_controls(str(error))})
        except OSError as error:
            status, (body, kind) = (
                HTTPStatus.INTERNAL_SERVER_ERROR,
                _json({"error": str(error.strerror or error)}),
            )
        if status != HTTPStatus.OK:
            self.close_connection = True  # what is left of the request is not read
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            **({"Connection": "close"} if self.close_connection else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _name(self) -> tuple[str, dict[str, list[str]]]:
        """What is asked for, below the token. Raises Refused."""
        host = self.headers.get_all("Host") or []
        if len(host) != 1 or not _HOST.fullmatch(host[0]):
            raise Refused(HTTPStatus.FORBIDDEN, "This address is not of this machine.")
        parts = urlsplit(self.path)
        found = re.fullmatch("/([^/]*)/([a-z]*)", parts.path)
        if found is None or not hmac.compare_digest(
            found[1].encode("utf-8", "replace"), self.server.token.encode()
        ):
            raise Refused(
                HTTPStatus.FORBIDDEN, "The address is another one: it is in the terminal of nemo review."
            )
        return found[2], parse_qs(parts.query, max_num_fields=8)

    def _get(self) -> tuple[bytes, str, str]:
        name, query = self._name()
        if not name:
            page, policy = self.server.review.page()
            return page, "text/html; charset=utf-8", policy
        return (*self.server.review.answer(name, query), "")

    def _post(self) -> tuple[bytes, str, str]:
        name, _ = self._name()
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            raise Refused(HTTPStatus.FORBIDDEN, "Marks come from the page alone.")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A mark is JSON.")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "Say how long it is.")
        if int(length) > _LONGEST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This is too long for a mark.")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "This is not a mark.")
        return (*self.server.review.change(name, values), "")
