"""Several hosts: two torchrun agents on this machine train one row, and leave the folder that one host would leave."""

import json
import os
import socket
import subprocess
import sys

import pytest

import labkit

ROW = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
SMALL = {"epochs": 1, "width": 8, "train_samples": 512, "test_samples": 100, "threads_per_rank": 1}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def agents(count, *arguments, env, ranks_each=1, module="labkit.torchrun"):
    endpoint = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(count), "--nproc-per-node", str(ranks_each)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--local-addr", "127.0.0.1"]
    command += ["-m", module, *arguments]
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(count)
    ]
    return [(agent.communicate(timeout=180)[0], agent.returncode) for agent in started]


def test_two_agents_leave_the_same_folder_as_one_host(tmp_path, monkeypatch):
    env = dict(os.environ, LABKIT_RUNS=str(tmp_path / "two"), GLOO_SOCKET_IFNAME="lo", PYTHONPATH=os.getcwd())
    sets = [f"--set={key}={value}" for key, value in SMALL.items()]
    outputs = agents(2, ROW, *sets, env=env)
    assert [code for _, code in outputs] == [0, 0], "\n".join(text for text, _ in outputs)
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "one"))
    frame = labkit.run(ROW, overrides=SMALL)
    (one,) = (tmp_path / "one").glob("*/*/1/result.json")
    (two,) = (tmp_path / "two").glob("*/*/1/result.json")
    assert one.relative_to(tmp_path / "one") == two.relative_to(tmp_path / "two")
    here, there = json.loads(one.read_text()), json.loads(two.read_text())
    assert set(there) - set(here) == {"hosts", "launcher"} and not set(here) - set(there)
    assert there["hosts"] == 2 and there["status"] == frame.status[0] == "ok"
    assert here["spec"] == there["spec"]
    assert here["best_acc_pct"] == there["best_acc_pct"], "the same images, weights and updates: the same accuracy"
    losses = [[epoch["train_loss"] for epoch in result["epochs"]] for result in (here, there)]
    assert losses[0] == losses[1]


def test_wrong_number_of_processes_is_refused_with_the_remedy(tmp_path):
    env = dict(os.environ, LABKIT_RUNS=str(tmp_path), GLOO_SOCKET_IFNAME="lo", PYTHONPATH=os.getcwd())
    ((text, code),) = agents(1, ROW, env=env)
    assert code != 0 and "make --nnodes times --nproc-per-node 2" in text, text
    ((text, code),) = agents(1, ROW[:-1], env=env)
    assert code != 0 and f"not the name of a row; did you mean '{ROW}'?" in text, text
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [("raise", "rank 1 failed: ValueError: picture 17 is broken"), ("kill", "rank 1 ended without an error message")],
)
def test_a_rank_that_dies_is_told(tmp_path, hosts, fault, reason):
    """On one host, whose agent ends the other rank at once, and on two."""
    env = dict(os.environ, LABKIT_RUNS=str(tmp_path), GLOO_SOCKET_IFNAME="lo", PYTHONPATH=os.getcwd(), LABKIT_TEST_FAULT=fault)
    sets = [f"--set={key}={value}" for key, value in SMALL.items()]
    outputs = agents(hosts, ROW, *sets, env=env, ranks_each=2 // hosts, module="tests.helpers.torchrun_fault")
    assert all(code for _, code in outputs)
    (attempt,) = tmp_path.glob("*/*/1/attempt.json")
    told = json.loads(attempt.read_text())
    assert (told["status"], told["rank"]) == ("failed", 1) and told["reason"].startswith(reason), told["reason"]
    assert told["detail"] and told["launcher"] == "torchrun"
    assert not list(tmp_path.rglob("result.json"))
