"""The viewer without a browser: what is indexed, what is served, and to whom."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from scdpo.cli import main
from scdpo.errors import InputError, StoreError
from scdpo.records import CORRECT
from scdpo.store import RunFolder, json_line
from scdpo.viewer import Index, application, serve, write_page
from scdpo.viewer.details import problem_details
from scdpo.viewer.page import MAX_BYTES, linked
from viewer_runs import (
    ANSI,
    HOSTILE,
    LONG,
    N_TEST,
    N_TRAIN,
    POLICIES,
    branches,
    problem,
    rewards,
    samples,
    solution,
    step,
    write_run,
)

HOSTS = frozenset({"127.0.0.1:8765", "localhost:8765"})
TOKEN = "a-token-of-more-than-16"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("viewer") / "run")


@pytest.fixture(scope="module")
def index(run: Path) -> Index:
    found = Index(run)
    assert found.refresh()
    return found


def test_all_rows_are_indexed_with_what_is_filtered_by(index: Index) -> None:
    tables = index.tables()
    rows, names = tables["rows"], tables["names"]
    assert tables["problems"]["id"][:2] == ["tiny/train/0", "tiny/train/1"]
    assert len(tables["problems"]["id"]) == N_TRAIN + N_TEST
    at = rows["id"].index("tiny/train/0#0@1")
    assert names["verdict"][rows["verdict"][at]] == "wrong"
    assert names["stage"][rows["stage"][at]] == "branches"
    assert rows["id"][rows["parent"][at]] == "tiny/train/0#0"
    # Over the steps after k alone, although the shared ones have tokens as well.
    assert (rows["k"][at], rows["steps"][at], rows["tokens"][at]) == (2, 4, 12)
    assert (rows["temperature"][at], rows["mean_logp"][at]) == (1.1, -0.2875)
    of_problem = [rows["problem"][n] for n in tables["pairs"]["chosen"]]
    assert len(set(of_problem)) == N_TRAIN - 1
    assert len(tables["credit"]["row"]) == 10
    assert (tables["malformed"], tables["complete"], tables["writing"]) == (0, True, False)


def test_a_problem_comes_with_everything_about_it_and_shared_steps_once(index: Index) -> None:
    number = index.content.problem_of["tiny/train/0"]
    found = problem_details(index, number)
    assert found["problem"]["answer"] == "1"
    trunk, _, early, late, _ = found["rows"]
    assert [s["text"] for s in trunk["steps"]] == [s.text for s in samples(0)[0].steps]
    assert (early["shared"], late["shared"]) == (1, 2)
    rebuilt = trunk["steps"][:2] + late["steps"]
    assert [s["text"] for s in rebuilt] == [s.text for s in branches(0)[1].steps]
    assert trunk["steps"][1]["output"] == "2"
    assert "token_ids" not in trunk["steps"][0]
    assert {(c["policy"], c["row"]) for c in found["credit"]} >= {("scdpo", trunk["row"])}
    evaluated = problem_details(index, index.content.problem_of["tiny/test/2"])
    assert [row["text"].split()[0] for row in evaluated["rows"]] == list(POLICIES)
    with pytest.raises(InputError, match="no problem"):
        problem_details(index, N_TRAIN + N_TEST)


def test_what_scdpo_credit_sampled_is_shown_with_its_credit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", train=2)
    one = samples(0)[1].model_copy(update={"id": "tiny/test/1#0", "problem_id": "tiny/test/1"})
    shutil.rmtree(run / "credit")
    with RunFolder(run) as folder:
        folder.stage("credit/solutions").open({}).append([one])
        folder.stage("credit/rewards").open({}).append([rewards(one, "scdpo", 1)])
    index = Index(run)
    index.refresh()
    found = problem_details(index, index.content.problem_of["tiny/test/1"])
    (row,) = [row["row"] for row in found["rows"] if "steps" in row]
    assert [(c["policy"], c["row"]) for c in found["credit"]] == [("scdpo", row)]
    tables = index.tables()
    assert tables["names"]["stage"][tables["rows"]["stage"][row]] == "credit"


def test_an_index_grows_with_the_files_and_starts_anew_when_a_stage_does(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", train=2)
    index = Index(run)
    index.refresh()
    first = index.tables()
    known = index.sizes()
    shard = run / "solutions" / "rows-00000.jsonl"
    line = json_line(solution(1, 7, CORRECT, (step("Late."),)))
    with shard.open("ab") as out:
        out.write(line[:50])
        out.flush()
        index.refresh()
        assert index.sizes() == known  # a torn line is no row yet
        out.write(line[50:])
    index.refresh()
    grown = index.tables(first["generation"], known)
    assert grown["rows"]["id"] == ["tiny/train/1#7"]
    assert grown["problems"]["id"] == []
    assert problem_details(index, 1)["rows"][-1]["steps"][0]["text"] == "Late."
    with RunFolder(run) as folder:
        stage = folder.stage("solutions").open({"name": "solutions"}, redo=True)
        stage.append(samples(0))
        assert Index(run).tables()["writing"]
    index.refresh()
    anew = index.tables(grown["generation"], index.sizes())
    assert anew["generation"] != grown["generation"]
    assert anew["from"]["rows"] == 0
    assert "tiny/train/1#7" not in anew["rows"]["id"]


def test_rows_that_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", train=1)
    with (run / "solutions" / "rows-00000.jsonl").open("ab") as out:
        out.write(b'{"id": 1}\nnot json\n\n')
        out.write(json_line(solution(0, 8, CORRECT, (step("Fine."),))))
    index = Index(run)
    index.refresh()
    tables = index.tables()
    assert tables["malformed"] == 2
    assert tables["complaint"].startswith("solutions, line 3: ")
    assert "tiny/train/0#8" in tables["rows"]["id"]


def test_indexing_can_be_done_in_parts(run: Path) -> None:
    index = Index(run)
    parts = 0
    while not index.refresh(0.0):
        parts += 1
    assert index.sizes()["rows"] == 2 * N_TRAIN - 1 + 3 * (N_TRAIN - 1) + N_TEST * len(POLICIES)
    assert parts >= 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run folder"):
        Index(tmp_path)


def ask(
    index: Index,
    path: str,
    *,
    method: str = "GET",
    host: str = "127.0.0.1:8765",
    token: str | None = None,
    **headers: str,
) -> httpx.Response:
    async def asked() -> httpx.Response:
        app = application(index, HOSTS, token)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as to:
            return await to.request(
                method,
                path,
                headers={"host": host, **{k.replace("_", "-"): v for k, v in headers.items()}},
            )

    return anyio.run(asked)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",
        "127.0.0.1",
        "127.0.0.1:8766",
        "127.0.0.1:8765.evil.example",
        "localhost.:8765",
        "[::1]:8765",
        "",
    ],
)
def test_another_host_name_gets_nothing(index: Index, host: str) -> None:
    answer = ask(index, "/api/tables", host=host)
    assert answer.status_code == 421
    assert "tiny" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
def test_only_get_is_answered(index: Index, method: str) -> None:
    assert ask(index, "/api/tables", method=method).status_code == 405


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_get_nothing_and_no_cors(index: Index, site: str) -> None:
    answer = ask(index, "/api/tables", sec_fetch_site=site, origin="http://evil.example")
    assert answer.status_code == 403
    fine = ask(index, "/api/tables", sec_fetch_site="same-origin", origin="http://evil.example")
    assert fine.status_code == 200
    assert not [name for name in fine.headers if name.startswith("access-control")]


def test_pages_run_no_script_but_their_own_and_stand_in_no_frame(index: Index) -> None:
    for path in ("/", "/assets/main.js", "/api/tables", "/nothing"):
        answer = ask(index, path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = ask(index, "/").text
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.search(r"\son\w+=|style=", page) is None
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    "path", ["/assets/..%2Findex.py", "/assets/../index.py", "/assets/%2e%2e/%2e%2e/store/run.py"]
)
def test_no_other_file_is_served(index: Index, path: str) -> None:
    assert ask(index, path).status_code == 404


def test_numbers_that_are_none_are_refused(index: Index) -> None:
    generation = index.content.generation
    assert ask(index, "/api/tables?rows=x").status_code == 400
    assert ask(index, f"/api/problem?generation={generation}&number=-1").status_code == 404
    assert ask(index, f"/api/problem?generation={generation}&number=x").status_code == 404
    assert ask(index, "/api/problem?generation=old&number=0").status_code == 409
    assert ask(index, f"/api/problem?generation={generation}&number=0").status_code == 200


def test_a_token_is_asked_for_and_turned_into_a_cookie(index: Index) -> None:
    assert ask(index, "/", token=TOKEN).status_code == 401
    assert ask(index, "/?token=wrong", token=TOKEN).status_code == 401
    assert ask(index, "/", token=TOKEN, cookie="scdpo=1; x").status_code == 401
    bearer = ask(index, "/api/tables", token=TOKEN, authorization=f"Bearer {TOKEN}")
    assert bearer.status_code == 200

    async def browse() -> list[int]:
        transport = httpx.ASGITransport(app=application(index, HOSTS, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8765") as to:
            entered = await to.get(f"/?token={TOKEN}")
            assert TOKEN not in entered.headers["set-cookie"]
            assert "HttpOnly; SameSite=Strict" in entered.headers["set-cookie"]
            assert entered.headers["location"] == "/"
            return [entered.status_code, (await to.get("/api/tables")).status_code]

    assert anyio.run(browse) == [303, 200]


def test_another_address_needs_a_token(index: Index) -> None:
    with pytest.raises(InputError, match="needs --token"):
        serve(index, host="0.0.0.0")
    with pytest.raises(InputError, match="at least 16"):
        serve(index, host="0.0.0.0", token="short")
    with pytest.raises(InputError, match="cannot be listened to"):
        serve(index, host="no-such-host.invalid", token=TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="port 0"):
        serve(index, port=taken.getsockname()[1])


def contained(page: str, name: str) -> Any:
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_one_file_holds_the_run_and_allows_its_own_script_alone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    main_ended(["view", str(run), "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    assert out.stat().st_size < MAX_BYTES
    assert len(contained(page, "tables")["problems"]["id"]) == N_TRAIN + N_TEST
    whole = json.loads(re.search(r'id="directory">([^<]*)<', page)[1])  # type: ignore[index]
    texts = [
        problem for n in range(len(whole["firsts"])) for problem in contained(page, f"chunk-{n}")
    ]
    assert whole["whole"] == len(texts) == N_TRAIN + N_TEST
    steps = texts[3]["rows"][0]["steps"]
    assert [steps[0]["text"], steps[1]["output"], steps[2]["text"]] == [HOSTILE, ANSI, LONG]
    # Nothing of a row is in the page as it is.
    assert "owned" not in page and "\x1b" not in page and "\u202e" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]  # type: ignore[index]
    script = re.search(r'(?s)<script type="module">(.*?)</script>', page)[1]  # type: ignore[index]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy


def test_one_file_keeps_to_its_size_and_says_what_is_not_in_it(
    run: Path, tmp_path: Path, index: Index
) -> None:
    whole = write_page(index, tmp_path / "whole.html")
    limit = whole.bytes - 1000
    cut = write_page(index, tmp_path / "cut.html", limit)
    assert cut.bytes <= limit
    assert cut.whole < cut.problems == whole.whole == N_TRAIN + N_TEST
    assert (tmp_path / "cut.html").stat().st_size == cut.bytes
    with pytest.raises(InputError, match="list of 65 problems alone"):
        write_page(index, tmp_path / "none.html", 10_000)


def test_modules_that_import_each_other_are_not_linked() -> None:
    found = {
        "main.js": 'import { a } from "./other.js";\nexport const b = a;\n',
        "other.js": 'import { b } from "./main.js";\nexport const a = b;\n',
    }
    with pytest.raises(AssertionError, match=r"main\.js → other\.js → main\.js"):
        linked(found)


def main_ended(arguments: list[str]) -> None:
    """Run a command that ends well."""
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code


def test_the_rows_of_a_problem_that_no_stage_lists_are_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunFolder(run) as folder:
        stage = folder.stage("imports/other").open({})
        stage.append(samples(5))
        stage.finish()
    index = Index(run)
    index.refresh()
    found = problem_details(index, index.content.problem_of["tiny/train/5"])
    assert found["problem"] == {"question": problem(5).question}
    assert len(found["rows"]) == 2
