"""The demo: what it answers, what it refuses, many requests at once, and the page in a browser."""

import asyncio
import math
import shlex
import shutil
import socket
import threading
import time
from contextlib import ExitStack, nullcontext

import httpx
import pytest
import torch
import uvicorn
from conftest import TINY

from seq2seq.api import Predictor, load_model
from seq2seq.commands.demo import PICTURE_DPI, answered, demo, describe, introduction, listen, make_answer
from seq2seq.commands.train import train
from seq2seq.data import Tokenizers
from seq2seq.data.sources import build_source
from seq2seq.data.tokenizer import build_tokenizer
from seq2seq.decoding import Beam
from seq2seq.demo.app import make_app
from seq2seq.demo.server import serving
from seq2seq.errors import UserError
from seq2seq.handoff.picture import COMPACT

FACTS = {"about": "a model", "expects": "letters", "columns": 1, "example": None}
LIMITS = {"facts": FACTS, "max_characters": 20, "seconds": 5.0, "max_waiting": 100, "hosts": ["*"]}


def talk(app, conversation):
    """Run ``conversation(client)`` with the app, without a network."""

    async def run():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await conversation(client)

    return asyncio.run(run())


def ask(app, **request):
    return talk(app, lambda client: client.post("/predict", **request))


@pytest.fixture(scope="module")
def module(tiny_checkpoint):
    return load_model(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def answer(module):
    return make_answer(module, Predictor([module], search=Beam(module.max_length, beam_size=3, n_best=3)))


def test_an_answer_holds_predictions_attention_and_the_handoff(answer):
    found = answer("a b c")

    probabilities = [one["probability"] for one in found["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1
    assert found["attention"]["source"] == ["a", "b", "c"]
    torch.testing.assert_close(
        torch.tensor(found["attention"]["weights"]).sum(1), torch.ones(len(found["attention"]["target"]))
    )
    rows = [(one["row"], one["layer"], one["direction"], one["starts"]) for one in found["handoff"]["rows"]]
    assert rows == [(0, 0, "forward", [0]), (1, 0, "backward", [0]), (2, 1, "forward", [1]), (3, 1, "backward", [1])]
    assert found["handoff"]["verified"]
    assert [note.split(" ")[1] for note in found["handoff"]["notes"]] == ["1"]  # the sequence that was added
    assert found["handoff"]["verdict"][0].startswith("Verified")
    assert found["handoff"]["picture"].startswith("data:image/png;base64,iVBOR")


def test_an_answer_says_which_tokens_are_unknown(answer):
    tokens = [{"text": "a", "unknown": False}, {"text": "é", "unknown": True}, {"text": "b", "unknown": False}]

    assert answer("a é b")["tokens"] == tokens


# What the page begins with


def test_made_up_data_describe_themselves_and_give_an_example_of_their_own(module, answer):
    expects, text = introduction(module)

    assert expects == "Reads letters, separated by spaces; writes them reversed."
    assert text == max((pair.source for pair in build_source(module.settings["data"]).pairs("test")), key=len)
    assert answered(answer, text, 20) == {"text": text, "answer": answer(text)}


@pytest.mark.parametrize("task", ["tsv", "of_a_fork"])
def test_data_that_may_be_gone_are_described_by_the_vocabulary(module, task):
    gone = module._replace(settings={**module.settings, "data": {**module.settings["data"], "task": task}})

    expects, text = introduction(gone)

    symbols = " ".join(module.tokenizers.source.vocabulary.symbols[:8])
    assert expects.startswith(f"Reads tokens separated by spaces, such as {symbols}; writes tokens separated by")
    assert text == symbols[:9]


def test_every_column_is_described(module):
    source = build_tokenizer(
        ["characters", {"name": "split", "separator": ";"}], symbols=["a", "\tN", " ", "b", "\tPL"]
    )
    target, features = build_tokenizer("characters", symbols=["x"]), build_tokenizer("spaces", symbols=["de"])

    expects, text = introduction(
        module._replace(tokenizers=Tokenizers(source, target, features), settings={"data": {}})
    )

    columns = [
        "column 1: characters, such as a b",
        "column 2: tokens separated by ;, such as N PL",
        "column 3: tokens separated by spaces, such as de",
    ]
    assert expects == f"Reads {'; '.join(columns)}; writes characters, such as x."
    assert text == "a b\tN;PL\t"


@pytest.mark.parametrize(("text", "limit"), [("a b", 2), ("  ", 20)])
def test_there_is_no_example_if_it_cannot_be_answered(answer, text, limit):
    assert answered(answer, text, limit) is None


def test_a_wrong_handoff_is_shown_as_such(compose, tmp_path):
    train(compose("train", *TINY, "handoff=wrong_first_rows", "model.attention=none"), tmp_path)
    module = load_model(str(tmp_path / "best.ckpt"))

    found = make_answer(module, Predictor([module]))("a b c")

    assert describe(module).endswith("wrong_first_rows (wrong on purpose)")
    assert not found["handoff"]["verified"]
    assert found["handoff"]["verdict"][0].startswith("What is handed over is wrong in")
    assert found["handoff"]["rows"][3]["starts"] == []
    assert found["attention"] is None


def test_a_text_that_is_too_long_to_be_drawn_is_answered_without_a_picture(answer):
    found = answer("a " * 61)

    assert found["handoff"] == {"notes": ["The text has 61 tokens; the handoff is drawn for up to 60."]}
    assert math.isfinite(found["predictions"][0]["probability"])


def test_what_cannot_be_answered_is_refused_with_a_reason(answer):
    app = make_app(answer, **LIMITS)
    typed = {"headers": {"Content-Type": "application/json"}}
    for request, status, reason in (
        ({"json": {"text": "  "}}, 400, "the text is empty"),
        ({"json": {"text": "a" * 21}}, 413, "a text has at most 20 characters"),
        ({"json": {"text": 3}}, 400, 'the request must be {"text": "..."}'),
        ({"json": ["text"]}, 400, 'the request must be {"text": "..."}'),
        ({"content": b"\xff"} | typed, 400, 'the request must be {"text": "..."}'),
        ({"content": b'{"text": "\\ud800"}'} | typed, 400, 'the request must be {"text": "..."}'),
        ({"content": b"[" * 300} | typed, 400, 'the request must be {"text": "..."}'),
        ({"content": b'{"text": "a"}'}, 415, "the request must be of the type application/json"),
    ):
        response = ask(app, **request)
        assert (response.status_code, response.json()) == (status, {"error": reason})
    assert ask(app, json={"text": "😀" * 20}).status_code == 200


HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n"


def test_of_a_megabyte_only_the_beginning_is_read(answer):
    port, stop = serve(make_app(answer, **LIMITS))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"a" * 4096)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")  # with 1,044,480 bytes to come
    stop()


def test_who_sends_slowly_keeps_nobody_waiting(answer, capsys):
    port, stop = serve(make_app(answer, **LIMITS | {"max_waiting": 2, "seconds": 1.0}))
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for connection in slow:
        connection.sendall(HEAD + b"{")
    slow.pop().close()  # and one goes away

    assert httpx.post(f"http://127.0.0.1:{port}/predict", json={"text": "a b"}).status_code == 200
    assert slow[0].recv(100).startswith(b"HTTP/1.1 408")

    for connection in slow:
        connection.close()
    stop()
    assert "Traceback" not in capsys.readouterr().err


def test_connections_that_never_ask_lock_nobody_out_for_long(answer):
    port, stop = serve(make_app(answer, **LIMITS), max_connections=20, seconds=0.5)
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(30)]
        for connection in idle[::2]:
            connection.sendall(b"POST /pre")  # and the others send nothing
        locked_out = httpx.get(f"http://127.0.0.1:{port}/about").status_code
        ends = [connection.recv(100) for connection in idle]
    then = httpx.get(f"http://127.0.0.1:{port}/about")
    stop()

    assert locked_out == 503
    assert ends == [b""] * 30  # closed by the server
    assert then.status_code == 200
    assert then.headers["connection"] == "close"  # so that nobody keeps a connection for a second request


def test_fifty_requests_are_answered_in_turn():
    busy, most = [], []

    def slow(text):
        busy.append(text)
        most.append(len(busy))
        time.sleep(0.01)
        busy.remove(text)
        return {"text": text}

    async def fifty(client):
        return await asyncio.gather(*(client.post("/predict", json={"text": str(number)}) for number in range(50)))

    responses = talk(make_app(slow, **LIMITS), fifty)

    assert [response.json() for response in responses] == [{"text": str(number)} for number in range(50)]
    assert max(most) == 1


def test_more_than_may_wait_are_refused_and_a_slow_answer_is_not_waited_for():
    answered = []

    def slow(text):
        time.sleep(0.3)
        answered.append(text)
        return {}

    async def ten(client):
        responses = await asyncio.gather(*(client.post("/predict", json={"text": str(one)}) for one in range(10)))
        await asyncio.sleep(0.4)  # the one that was begun ends
        return responses, await client.post("/predict", json={"text": "again"})

    responses, again = talk(make_app(slow, **LIMITS | {"seconds": 0.4, "max_waiting": 4}), ten)

    assert sorted(response.status_code for response in responses) == [200, *[503] * 6, *[504] * 3]
    assert "4 texts are waiting already" in next(one.json()["error"] for one in responses if one.status_code == 503)
    assert "no answer within 0.4 s" in next(one.json()["error"] for one in responses if one.status_code == 504)
    assert again.status_code == 200
    assert len(answered) == 3  # what had not been begun in time was never computed


def test_other_sites_cannot_ask(answer):
    app = make_app(answer, **LIMITS | {"hosts": ["localhost"]})

    for host, status in (("localhost:8000", 200), ("example.com", 400)):
        response = talk(app, lambda client, host=host: client.get("/", headers={"Host": host}))
        assert response.status_code == status
        assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "default-src 'none'" in talk(app, lambda client: client.get("/nothing")).headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", ["localhost", "127.0.0.1", "[127.0.0.1]"]),
        ("::1", ["localhost", "::1", "[::1]"]),
        ("0.0.0.0", ["*"]),
        ("example.com", ["*"]),
    ],
)
def test_a_page_of_this_machine_has_its_names_only(compose, tiny_checkpoint, monkeypatch, host, names):
    given = {}
    monkeypatch.setattr("seq2seq.demo.app.make_app", lambda _, **options: given.update(options))
    monkeypatch.setattr("seq2seq.commands.demo.listen", lambda *_: nullcontext())
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)

    demo(compose("demo", f"checkpoint={tiny_checkpoint}", f"host='{host}'"))

    assert given["hosts"] == names
    assert len(given["facts"]["example"]["answer"]["predictions"]) == 5  # the page opens with an answer


@pytest.mark.parametrize(("host", "message"), [("", "host= is empty"), ("ä" * 70, "cannot listen on host=ä")])
def test_a_host_that_is_none_is_refused(host, message):
    with pytest.raises(UserError, match=message):
        listen(host, 8000)


def test_a_port_in_use_is_one_line(compose, tiny_checkpoint):
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        message = f"cannot listen on host=127.0.0.1 port={port}: Address already in use; choose another port or host"
        with pytest.raises(UserError, match=message):
            demo(compose("demo", f"checkpoint={tiny_checkpoint}", f"port={port}"))


def serve(app, max_connections=100, seconds=5.0):
    """Serve an app in a thread: its port, and a function that ends it."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(serving(app, max_connections=max_connections, seconds=seconds))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def stop():
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()

    return listener.getsockname()[1], stop


@pytest.fixture(scope="module", params=[1280, 390])
def page(request, module, answer):
    """The page in a headless browser, and everything that it asked the network for."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    expects, text = introduction(module)
    facts = FACTS | {"expects": expects, "example": answered(answer, text, 20)}
    port, stop = serve(make_app(answer, **LIMITS | {"facts": facts}))
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page(viewport={"width": request.param, "height": 800})
        page.requested, page.errors = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: page.errors.append(dialog.message))
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
        browser.close()
    stop()


def predict_in(page, text):
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Predict").click()
    page.wait_for_selector("#send:enabled")


@pytest.mark.pictures
def test_the_page_opens_with_an_answered_example_of_what_the_model_reads(page, module):
    expects, text = introduction(module)
    page.reload()
    page.wait_for_selector("#predictions li")

    assert page.locator("#expects").inner_text() == expects
    assert page.get_by_label("Text", exact=True).input_value() == text
    assert page.locator("#attention thead th").all_inner_texts() == text.split()
    assert not any("/predict" in url for url in page.requested)  # answered before anyone asked


@pytest.mark.pictures
@pytest.mark.parametrize("text", ["a", "a b c d e f g h i j"])
def test_the_picture_can_be_read_on_a_phone_and_on_a_desk(page, text):
    predict_in(page, text)
    page.wait_for_function("document.getElementById('picture').naturalWidth > 0")

    shown, natural, right = page.evaluate(
        "(p => [p.clientWidth, p.naturalWidth, p.getBoundingClientRect().right])(document.getElementById('picture'))"
    )
    assert COMPACT.font / 72 * PICTURE_DPI * shown / natural >= 10  # height of the text, in pixels of the page
    assert right <= page.viewport_size["width"]


def test_unknown_symbols_are_marked_and_named(page):
    predict_in(page, "a é b é ß")

    assert page.locator("mark").all_inner_texts() == ["é", "é", "ß"]
    assert page.locator("#unknown").inner_text().startswith("Not in the vocabulary, read as <unk>: é, ß")
    headings = page.locator("#attention thead th.unknown")
    assert headings.first.get_attribute("aria-label") == "é, not in the vocabulary"
    assert headings.count() == 3

    predict_in(page, "a b")

    assert page.locator("mark").count() == headings.count() == 0


def test_the_command_on_the_page_works_and_every_field_of_its_answer_is_explained(page):
    predict_in(page, "a ' b")

    command, url, _, kind, _, body = shlex.split(page.locator("#curl").inner_text())
    found = httpx.post(url, headers=[kind.split(": ")], content=body)
    assert (command, found.status_code) == ("curl", 200)
    assert [one["text"] for one in found.json()["tokens"]] == ["a", "'", "b"]
    assert {*found.json(), "error"} == set(page.locator("dt").all_inner_texts())


def test_the_page_shows_predictions_attention_and_the_handoff(page):
    predict_in(page, "a b c")

    assert page.locator("#predictions li").count() == 3
    assert page.locator("#predictions output").first.inner_text().endswith(" %")
    assert page.locator("#attention thead th").all_inner_texts() == ["a", "b", "c"]
    assert page.locator("#rows tbody tr").first.inner_text().split() == ["h_n[0]", "0", "forward", "0"]
    assert page.locator("#verdict strong").inner_text().startswith("Verified")
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]  # nothing sticks out
    assert all(url.startswith(("http://127.0.0.1", "data:")) for url in page.requested)
    assert page.errors == []


def test_the_page_shows_markup_as_text(page):
    markup = "<img src=x onerror=alert(1)>"
    page.evaluate("document.getElementsByName('text')[0].maxLength = 100")

    predict_in(page, markup[:20])
    assert page.locator("#attention thead th").all_inner_texts() == ["<img", "src=x", "onerror=a"]

    predict_in(page, markup)
    assert page.get_by_role("alert").inner_text() == "a text has at most 20 characters"
    assert not page.locator("#result").is_visible()
    assert page.locator("img").count() == 1
    assert page.errors == []
