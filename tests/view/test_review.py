"""The server of `nemo review`: what it answers, what it refuses, and that every mark is in the file."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from nemo_pipeline.errors import DataError
from nemo_pipeline.marks import Mark, add_mark, read_marks
from nemo_pipeline.phases import amplitude
from nemo_pipeline.store import FaceDataset
from nemo_pipeline.view.review import REASONS, Review, ReviewServer
from tests.support.commands import invoke
from tests.support.processes import PATIENCE
from tests.support.smiling import HOSTILE, smiling_file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return smiling_file(tmp_path_factory.mktemp("review"))


class Client:
    """Asks a server as a browser does, or otherwise."""

    def __init__(self, review):
        self.server = ReviewServer(review)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def ask(self, path="", body=None, method=None, token=None, **headers):
        """Status, headers and body of an answer; `body` is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=PATIENCE)
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **headers}
        path = f"/{self.server.token if token is None else token}/{path}"
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def json(self, *args, **kwargs):
        return json.loads(self.ask(*args, **kwargs)[2])

    def raw(self, text):
        """What the server says to bytes that are not request of a browser."""
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=PATIENCE) as line:
            line.sendall(text)
            parts = []
            while part := line.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@pytest.fixture
def client(data, tmp_path):
    client = Client(Review(FaceDataset(data), tmp_path / "m.csv", "kim"))
    yield client
    client.close()


def test_it_listens_on_this_machine_alone_under_a_new_address(client, data):
    assert client.server.server_address[0] == "127.0.0.1"
    assert re.fullmatch(
        rf"http://127\.0\.0\.1:{client.server.server_port}/[\w-]{{32}}/", client.server.address
    )
    other = ReviewServer(Review(FaceDataset(data)))
    other.server_close()
    assert other.token != client.server.token


def test_the_page_runs_nothing_but_itself_and_asks_no_network(client):
    status, headers, body = client.ask()
    text = body.decode()
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; connect-src 'self'" in policy and "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    assert "http://www.w3.org/2000/svg" in text and not re.search(r"(src|href)=\"?(https?:)?//", text)
    assert client.server.token not in text
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])
    assert [clip["id"] for clip in facts["videos"]][: len(HOSTILE)] == list(HOSTILE)
    assert "nobody" not in [clip["id"] for clip in facts["videos"]] and facts["reasons"] == list(REASONS)
    assert text.count("<script") == 2 and "<img" not in text


def test_a_clip_is_shown_as_the_file_has_it(client, data):
    faces = FaceDataset(data)
    row = faces["gaps"].row
    found = client.json(f"video?row={row}")
    video = faces[row]
    assert (
        found["frame"] == video.frame_index.tolist()
        and found["tracked"] == video.tracked.astype(int).tolist()
    )
    np.testing.assert_allclose(found["time"], video.timestamps - video.timestamps[0], atol=1e-3)
    np.testing.assert_allclose(np.transpose(found["pose"]), video.pose, atol=0.05)
    np.testing.assert_allclose(found["raw"], amplitude(video.landmarks_raw), atol=1e-4)
    assert [name for name, _, _ in found["phases"]] == ["onset", "apex", "offset"] and len(found["why"]) == 1
    points = np.frombuffer(client.ask(f"points?row={row}")[2], "<f4").reshape(-1, 68, 2)
    np.testing.assert_array_equal(points, video.landmarks)
    frames = np.frombuffer(client.ask(f"frames?row={row}&start=7&stop=19")[2], "u1").reshape(-1, 48, 48)
    np.testing.assert_array_equal(frames, video.frames[7:19])
    assert "smooth" not in client.json(f"video?row={faces['without landmarks'].row}")


def test_every_mark_is_in_the_file_before_it_is_answered(client):
    path = client.server.review.marks
    for name in HOSTILE:
        body = {"video": name, "start": 3, "stop": 9, "reason": "  a\n reason "}
        answer = client.json("mark", body)
        assert read_marks(path)[-1] == Mark(name, 3, 9, "a reason", "kim", answer["mark"]["when"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", answer["mark"]["when"])
    answer = client.json("mark", {"video": "gaps", "start": None, "stop": None, "reason": ""})
    assert answer["marks"] == client.json("marks") and len(answer["marks"]) == len(HOSTILE) + 1
    assert path.stat().st_mode & 0o777 == 0o600
    add_mark(path, Mark("small", 1, 2, "theirs", "lee"))  # somebody else, meanwhile
    assert client.ask("unmark", answer["mark"])[0] == 200
    assert read_marks(path)[-1].who == "lee" and not any(mark.whole for mark in read_marks(path))
    assert client.ask("unmark", answer["mark"])[0] == 409
    client.json("mark", answer["mark"])  # undone once more: as it was
    assert read_marks(path)[-1] == Mark("gaps", who="kim", when=answer["mark"]["when"])


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (403, {"token": "x" * 32}),
        (403, {"token": ""}),
        (403, {"token": "../../etc/passwd"}),
        (403, {"path": "../../etc/passwd"}),
        (403, {"path": "%2e%2e/%2e%2e/etc/passwd"}),
        (404, {"path": "passwd"}),
        (404, {"path": "attention?row=0"}),  # no model was given
        (400, {"path": "video"}),
        (400, {"path": "video?row=-1"}),
        (400, {"path": "video?row=99"}),
        (400, {"path": "frames?row=0&start=0&stop=9999999999"}),
        (404, {"path": "video?row=12"}),  # no frames
        (403, {"Host": "evil.example"}),
        (403, {"Host": "127.0.0.1.evil.example"}),
        (403, {"path": "mark", "body": {"video": "gaps"}, "Origin": "http://evil.example"}),
        (403, {"path": "mark", "body": {"video": "gaps"}, "Origin": "null"}),
        (415, {"path": "mark", "body": {"video": "gaps"}, "Content-Type": "text/plain"}),
        (413, {"path": "mark", "body": b"[" * 20000}),
        (400, {"path": "mark", "body": b"[" * 16000}),
        (400, {"path": "mark", "body": b"\xff"}),
        (400, {"path": "mark", "body": []}),
        (400, {"path": "mark", "body": {}}),
        (400, {"path": "mark", "body": {"video": "elsewhere"}}),
        (400, {"path": "mark", "body": {"video": "gaps", "start": 9, "stop": 3}}),
        (400, {"path": "mark", "body": {"video": "gaps", "start": True}}),
        (400, {"path": "mark", "body": {"video": "gaps", "start": 1.5}}),
        (400, {"path": "mark", "body": {"video": "gaps", "start": "1"}}),
        (400, {"path": "mark", "body": {"video": "gaps", "reason": "x" * 501}}),
        (404, {"path": "remove", "body": {"video": "gaps"}}),
        (501, {"path": "mark", "method": "PUT", "body": {"video": "gaps"}}),
    ],
)  # fmt: skip
def test_what_is_hostile_is_refused_and_marks_nothing(client, status, request_):
    found, _, body = client.ask(**request_)
    assert found == status and b"Traceback" not in body and client.server.token.encode() not in body
    assert not client.server.review.marks.exists()


def test_requests_that_no_browser_sends(client):
    kind = "Content-Type: application/json"
    start = f"POST /{client.server.token}/mark HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n".encode()
    assert client.raw(start + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").startswith(b"HTTP/1.1 411")
    assert client.raw(start + b"Content-Length: -1\r\n\r\n").startswith(b"HTTP/1.1 411")
    assert client.raw(start.replace(b"Host", b"Host: 127.0.0.1\r\nHost") + b"\r\n").startswith(
        b"HTTP/1.1 403"
    )
    assert b" 403 " in client.raw(f"GET /{client.server.token}/ HTTP/1.0\r\n\r\n".encode())  # no Host
    assert b" 431 " in client.raw(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
    assert client.ask("marks")[0] == 200


def test_a_file_of_marks_that_was_spoilt_meanwhile_is_said_and_kept(client):
    path = client.server.review.marks
    path.write_text("video,start,stop\ngaps,x,\n")
    status, _, body = client.ask("mark", {"video": "gaps", "reason": "x"})
    assert status == 409 and "line 2: start is 'x'" in json.loads(body)["error"]
    assert path.read_text() == "video,start,stop\ngaps,x,\n"
    with pytest.raises(DataError, match="line 2"):
        Review(client.server.review.data, path)


def test_the_command_says_where_it_is_and_what_was_marked(tmp_path):
    data = smiling_file(tmp_path)
    command = [sys.executable, "-m", "nemo_cli.main", "review", str(data), "--json", "--who", "kim"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
        said = json.loads("".join(lines))
        host = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.*/)", said["address"])
        connection = http.client.HTTPConnection("127.0.0.1", int(host[1]), timeout=PATIENCE)
        body = json.dumps({"video": "gaps", "reason": "talking"})
        connection.request("POST", host[2] + "mark", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
        connection.close()
        os.kill(process.pid, signal.SIGINT)
        error = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0 and "Traceback" not in error
    assert said["marks"] == str(tmp_path / "smiles.marks.csv") and "has 1 marks (+1)" in error.replace(
        "\n", " "
    )
    assert read_marks(tmp_path / "smiles.marks.csv")[0].who == "kim"


def test_what_cannot_be_reviewed_is_a_sentence(tmp_path, data):
    bad = tmp_path / "m.csv"
    bad.write_text("video,start,stop\na,9,3\n")
    assert "line 2: stop (3) is before start (9)" in invoke("review", data, "--marks", bad, code=1).stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"Port {port} cannot be used" in invoke("review", data, "--port", port, code=1).stderr
