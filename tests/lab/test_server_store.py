"""Stored responses: one private file, deletable, and there again after the server was killed."""

import os
import signal
import stat
import threading

import pytest

from oss_lab.cli.main import main
from oss_lab.errors import LabError
from oss_lab.server.store import Record, Store, default_path

openai = pytest.importorskip("openai", reason="the extra `test` is not installed")

ITEM = {"id": "msg_1", "type": "message", "role": "user", "content": "a secret 你好"}


def make_record(id: str, previous: str | None = None) -> Record:
    return Record(id, previous, {"id": id}, [ITEM], [{"id": f"rs_{id}", "type": "reasoning"}])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new" / "responses.sqlite3"


def test_a_response_comes_back_as_it_was_saved(file):
    first, second = make_record("resp_1"), make_record("resp_2", "resp_1")
    store = Store(file)
    store.save(first)
    store.save(second)
    store.close()
    store = Store(file)
    assert store.find_chain("resp_2") == [first, second]
    assert store.find_items(["msg_1", "rs_resp_2", "gone"]) == {
        "msg_1": ITEM, "rs_resp_2": second.output[0],
    }  # fmt: skip
    assert store.find("resp_3") is None
    assert store.find_chain("resp_3") == "resp_3"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file modes")
def test_only_its_owner_can_read_it(file):
    store = Store(file)
    store.save(make_record("resp_1"))
    files = list(file.parent.iterdir())
    assert len(files) > 1  # SQLite's log is open
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    store.close()
    file.chmod(0o644)
    Store(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_deleted_is_gone_from_the_files(file):
    store = Store(file)
    store.save(make_record("resp_1"))
    assert any(b"secret" in each.read_bytes() for each in file.parent.iterdir())
    assert store.delete("resp_1")
    assert not store.delete("resp_1")
    assert store.find_items(["msg_1"]) == {}
    assert not any(b"secret" in each.read_bytes() for each in file.parent.iterdir())


def test_a_chain_with_a_missing_response_names_it(file):
    store = Store(file)
    for id, previous in (("a", None), ("b", "a"), ("c", "b")):
        store.save(make_record(id, previous))
    store.delete("a")
    assert store.find_chain("c") == "a"


def test_several_threads_may_use_it(file):
    store = Store(file)

    def work(name):
        for n in range(20):
            store.save(make_record(f"{name}{n}"))
            assert store.find(f"{name}{n}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert store.delete_all() == 80


def test_a_file_that_is_not_a_database_is_refused(tmp_path):
    wrong = tmp_path / "notes.txt"
    wrong.write_text("hello " * 1000)
    with pytest.raises(LabError, match=r"file is not a database.*--store"):
        Store(wrong)
    with pytest.raises(LabError, match="cannot be created"):
        Store(wrong / "inside")


def test_the_command_forgets(file, capsys):
    store = Store(file)
    store.save(make_record("resp_1"))
    store.close()
    assert main(["serve", "--forget", "--store", str(file)]) == 0
    assert "responses deleted: 1" in capsys.readouterr().err
    store = Store(file)
    assert store.find("resp_1") is None
    assert main(["serve", "--forget", "--store", str(file.with_name("other"))]) == 1
    assert "no responses are kept there" in capsys.readouterr().err
    assert default_path().name == "responses.sqlite3"


def start(start_server, file):
    """The process of a server, and a client of it."""
    process, url, token = start_server(file)
    return process, openai.OpenAI(base_url=url, api_key=token, max_retries=0)


@pytest.mark.slow
def test_a_killed_server_still_knows_its_responses(file, start_server):
    process, client = start(start_server, file)
    options = {"model": "nano", "reasoning": {"effort": "low"}}
    first = client.responses.create(input="What is 3 * 4?", **options)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, client = start(start_server, file)
    try:
        again = client.responses.retrieve(first.id)
        assert again.output_text == first.output_text == "12"
        question = "What is 2 * 4?"
        second = client.responses.create(input=question, previous_response_id=first.id, **options)
        whole = client.responses.create(
            input=[
                {"role": "user", "content": "What is 3 * 4?"},
                *[item.model_dump(exclude_none=True) for item in first.output],
                {"role": "user", "content": question},
            ],
            **options,
        )
        assert second.usage.input_tokens == whole.usage.input_tokens
        assert second.output_text == whole.output_text
    finally:
        process.terminate()
        process.wait(timeout=30)
