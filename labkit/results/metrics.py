"""The one table of the figures that a run has: key, digits, headings in both languages, which way is better, the published
column.

Every table, picture, question and comparison takes its figures from here. A `key` is a field of `runs.result.Result`, and its
unit stands in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    key         field of Result
    digits      after the point, in a report
    title       in a word, by language
    heading     of a column, by language
    axis        label of a picture's axis
    best        "most" or "least": which is better; "" for a part of another figure
    published   column of params/published_results.csv, or ""
    heading_as_published  of that column
    compared    how two rows are compared: "ratio", "points" (a difference), or "" (not at all)"""

    key: str
    digits: int
    title: dict[str, str]
    heading: dict[str, str]
    axis: str
    best: str = ""
    published: str = ""
    heading_as_published: str = ""
    compared: str = ""

    def difference(self, one: float, two: float) -> str:
        """The difference of two figures as text: `1.25` (a ratio) or `+2.0` (points). "–" where the ratio would divide by 0."""
        if self.compared == "points":
            return f"{one - two:+z.1f}".replace("-", "−")
        if two == 0:
            return "–"
        return f"{one / two:.2f}"

    def pick_best(self, values: dict[str, float]) -> str | None:
        """The name whose value is best; None if there is none."""
        choose = min if self.best == "least" else max
        return choose(values, key=lambda name: values[name]) if values else None


METRICS = (
    Metric(
        key="images_per_s",
        digits=1,
        title={"en": "Images/s", "zh": "吞吐量"},
        heading={"en": "throughput (images/s)", "zh": "吞吐量 (images/s)"},
        axis="training throughput of all ranks together (images/s)",
        best="most",
        published="avg_throughput_img_s",
        heading_as_published="Avg Throughput",
        compared="ratio",
    ),
    Metric(
        key="best_acc_pct",
        digits=2,
        title={"en": "Accuracy", "zh": "准确率"},
        heading={"en": "best accuracy (%)", "zh": "最高准确率 (%)"},
        axis="best test accuracy (%)",
        best="most",
        published="best_acc_pct",
        heading_as_published="Best Acc (%)",
        compared="points",
    ),
    Metric(
        key="max_mem_mib",
        digits=0,
        title={"en": "Memory", "zh": "内存"},
        heading={"en": "peak memory (MiB)", "zh": "峰值内存 (MiB)"},
        axis="peak memory of one rank (MiB)",
        best="least",
        published="max_gpu_mem_mb",
        heading_as_published="Max GPU Mem (MB)",
        compared="ratio",
    ),
    Metric(
        key="total_time_s",
        digits=1,
        title={"en": "Total time", "zh": "总时间"},
        heading={"en": "total time (s)", "zh": "总时间 (s)"},
        axis="total time from launch to finish (s)",
        best="least",
        published="total_time_s",
        heading_as_published="Total Time (s)",
    ),
    Metric(
        key="startup_s",
        digits=2,
        title={"en": "Start-up", "zh": "启动"},
        heading={"en": "start-up (s)", "zh": "启动 (s)"},
        axis="time from launch to the first step (s)",
    ),
    Metric(
        key="train_s",
        digits=2,
        title={"en": "Training", "zh": "训练"},
        heading={"en": "training (s)", "zh": "训练 (s)"},
        axis="time spent training (s)",
    ),
    Metric(
        key="eval_s",
        digits=2,
        title={"en": "Evaluation", "zh": "评估"},
        heading={"en": "evaluation (s)", "zh": "评估 (s)"},
        axis="time spent evaluating (s)",
    ),
    Metric(
        key="data_wait_s",
        digits=2,
        title={"en": "Waiting for data", "zh": "等待数据"},
        heading={"en": "waiting for data (s)", "zh": "等待数据 (s)"},
        axis="time in which a training rank waited for data (s)",
    ),
)
METRIC = {metric.key: metric for metric in METRICS}
PUBLISHED = tuple(METRIC[key] for key in ("best_acc_pct", "images_per_s", "max_mem_mib", "total_time_s"))  # in the table's order
COMPARED = tuple(metric for metric in METRICS if metric.compared)

MEMORY_IS = {  # what max_mem_mib measures, by device and language
    "cpu": {"en": "CPU: growth of peak resident set", "zh": "CPU：进程常驻内存峰值的增量"},
    "cuda": {"en": "CUDA: allocator's peak", "zh": "CUDA：分配器峰值"},
}


def memory_is(devices: Iterable[str], language: str = "en") -> str:
    """What max_mem_mib measures on these devices ("cpu", "cuda"), as a phrase."""
    return " / ".join(MEMORY_IS[device][language] for device in sorted(set(devices)))
