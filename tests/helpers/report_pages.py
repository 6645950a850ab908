"""Reports for tests: results that make one say all it can, and its pages taken apart."""

import base64
import json
from html.parser import HTMLParser

from labkit.report.write import write_report
from labkit.runs import folders
from tests.helpers.made_up import put, put_all, put_rounds

DDP = "ddp_gloo_resnet18_bs128x2_cacheFalse_ampFalse"
SINGLE, DP = "single_gpu_resnet18_bs{}_cacheFalse_ampFalse", "dp_resnet18_bs256_ngpu2_cacheFalse_ampFalse"
COLLECTIVE = "collective_gloo_resnet18_bs128x2"
SERVER = "ps_mode_resnet18_bs128_workers2"
FILES = ["report.md", "report.html", "report.zh.md", "report.zh.html"]
CHINESE = "[\u4e00-\u9fff]"
VOID = {"meta", "img", "wbr", "br", "hr", "link", "input"}  # elements without an end
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")


def everything():
    """Results that make the report say all it can."""
    put_all(versions={"torch": "2.14.1", "labkit": "<0>"})
    put(DDP, 1234.5, repeat=2, code="0ther", commit="def456+", others_cores=1.5, later_attempt="failed: a | <b>x</b>")
    put(DDP, repeat=3, status="oom", reason="rank 1: a | b <script>alert(1)</script> **x**")
    put(SERVER, 0.0, repeat=2, strategy={"staleness": {"0": 2, "1": 1}}, environment={"TORCH_X": "a|*b*", "OMP_Y": "1"})
    for name in (SINGLE.format(128), SINGLE.format(256), SINGLE.format(512), DP):
        for repeat in (2, 3):
            put(name, 1000.0, 90.0, 100.0, repeat=repeat)
    put_rounds({SINGLE.format(256): 1000.0, DP: 2000.0, DDP: 1500.0}, number=1)
    put_rounds({DDP: 1000.0, COLLECTIVE: 1500.0}, number=2, busy=True)
    put_rounds({SINGLE.format(batch): 1000.0 + batch for batch in (128, 256, 512)}, number=3, control=2.0)
    folder = folders.runs_folder() / "quick" / "notebooks"
    folder.mkdir()
    for name, status, reason in (("01_one_gpu_vs_several", "ok", ""), ("04_data_cache", "timeout", "in cell 5: a | <i>")):
        told = {"notebook": name, "status": status, "reason": reason, "seconds": 12.3, "started_at": 1.7e9, "inputs": "x"}
        (folder / f"{name}.status.json").write_text(json.dumps(told))
        (folder / f"{name}.html").write_text("page")


class Page(HTMLParser):
    """A page's elements, with every attribute that would load or open something, and its text. It must be closed properly."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.loads, self.links, self.ids, self.text = [], [], [], [], [], ""
        self.feed(page)
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [tag] if tag not in VOID else []
        for key, value in attributes:
            assert not key.startswith("on"), f"{tag} {key}={value}"
            self.ids += [value] if key == "id" else []
            self.links += [value] if key == "href" and tag == "a" else []
            self.loads += (
                [value] if key in ("src", "srcset", "data", "action", "poster") or (key == "href" and tag != "a") else []
            )

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text += data


def written(tmp_path, **more) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in write_report(path=tmp_path / "report.md", **more)}
