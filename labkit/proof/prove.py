"""Holds a strategy against `single` in seconds, as the tests do; a run of a strategy of one's own asks for it first.

Some steps of SGD on two small models (`labkit/proof/models.py`), with real ranks on the CPU over gloo. After each step every rank
compares its weights with those of `single`, which it trains on the whole batch. It proves the arithmetic of a step in full precision.
It does not prove mixed precision, another backend, or a GPU.
"""

import ast
import hashlib
import html
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labkit.engine.job import Job
from labkit.processes import launch
from labkit.processes.diagnose import RunFailed
from labkit.processes.digest import code_digest
from labkit.proof.cases import CASES, IMAGES_PER_RANK, STEPS
from labkit.proof.diagnose import Finding, diagnose
from labkit.rows.fields import SpecError, nearest
from labkit.rows.fit import process_group
from labkit.rows.kinds import STRATEGIES, kind_of, own_folder, own_strategies, strategies
from labkit.rows.spec import Spec
from labkit.system.files import read_kept, write_json
from labkit.system.machine import versions
from labkit.system.temporary import own_folder as temporary_folder

PACKAGE = Path(__file__).parents[1]
COLOURS = {True: ("#e6f4ea", "#1e7d32"), False: ("#fdecea", "#b3261e")}  # background, border
DEADLINE_S = 300.0
ALSO = ("channels_last", "optimizer_impl", "seed", "timeout_s")  # fields of any strategy that a proof leaves to the caller


@dataclass(frozen=True, repr=False)
class Proof:
    """What `prove` found. It is true if the strategy ends every step at single's weights.

    fault     a word for what was found ("sum", "start", ...); "" if nothing was, "failed" if the ranks did not end
    message   what differs, by what factor, and what that usually means; `hint`: what to do; `where`: what differs first"""

    strategy: str
    ranks: int
    fault: str
    message: str
    hint: str = ""
    where: str = ""

    def __bool__(self) -> bool:
        return not self.fault

    def __str__(self) -> str:
        return " ".join(part for part in (self.head(), self.message, self.where, self.hint and f"Hint: {self.hint}") if part)

    __repr__ = __str__

    def head(self) -> str:
        """The first words: proved, or not."""
        return f"✓ {self.strategy}: proved." if self else f"✗ {self.strategy}: not proved."

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        back, edge = COLOURS[bool(self)]
        parts = [f'<b style="color:{edge}">{html.escape(self.head())}</b> {html.escape(self.message)}']
        parts += [
            f'<p style="margin:6px 0 0">{html.escape(text)}</p>'
            for text in (self.where, self.hint and f"Hint: {self.hint}")
            if text
        ]
        box = f"background:{back};color:#1a1a1a;border-left:6px solid {edge};padding:8px 12px;overflow-wrap:break-word"
        return {"text/html": f'<div style="{box}">{"".join(parts)}</div>', "text/plain": str(self)}


def spec_of(strategy: str, ranks: int, settings: dict[str, Any]) -> Spec:
    """The Spec of a proof. Raises SpecError."""
    if strategy not in strategies():
        raise SpecError(
            f"strategy {strategy!r}: there is no {strategy}.py in labkit/strategies or in {own_folder()}{nearest(strategy, strategies())}"
        )
    if strategy in STRATEGIES and (taken := own_folder() / f"{strategy}.py").exists():
        raise SpecError(f"{taken}: the lab has a strategy of this name, and uses that one; give your file another name")
    if isinstance(ranks, bool) or not isinstance(ranks, int) or not 1 <= ranks <= 8:
        raise SpecError(f"ranks={ranks!r}: must be a whole number from 1 to 8")
    if strategy == "single":
        raise SpecError("single: is what the others are held against; `make test` compares it with the formula of SGD")
    for key in settings:
        if key not in (known := (*kind_of(strategy).settings, *ALSO)):
            raise SpecError(f"{key}: no setting of a proof of {strategy}{nearest(key, known)}")
    batch = IMAGES_PER_RANK * (ranks if kind_of(strategy).whole_batch else 1)
    spec = Spec(strategy=strategy, world_size=ranks, batch_per_rank=batch, device="cpu", **settings)
    exact = spec.consistency == "sync" or (spec.consistency == "ssp" and spec.staleness_bound == 0)
    if strategy == "parameter_server" and not exact:
        raise SpecError(
            f"parameter_server, consistency={spec.consistency}: applies gradients of older weights, so it is not meant to end at single's "
            'weights, and no proof can hold it against them; prove consistency="sync", which has the same messages'
        )
    return spec


def held(spec: Spec, kept_in: Path) -> Proof:
    """The proof of a Spec, made now, and kept in a folder of that folder for the runs of this strategy. Raises OSError where it cannot
    be kept."""
    folder, about = kept_in / spec.name, conditions_of(spec)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot keep a proof there ({error.strerror}); set LABKIT_RUNS to a folder that can be written"
        ) from error
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as scratch:
        job = Job(
            "labkit.proof.rank:prove_rank",
            spec.processes,
            Path(scratch),
            {"spec": spec.to_dict()},
            process_group(spec),
            timeout_s=spec.timeout_s,
            deadline_s=DEADLINE_S,
        )
        try:
            began = time.monotonic()
            told = launch.launch(job)
            seconds = time.monotonic() - began
            found = diagnose(told, spec.world_size, spec.kind.splits_batch)
        except RunFailed as failed:
            found = Finding("failed", f"{failed.reason}{line_of(failed.detail, spec.strategy)}.")
    if not found.fault:
        found = Finding("", all_of(told, spec, seconds))
    proof = Proof(spec.strategy, spec.world_size, **asdict(found))
    write_json(folder / "proof.json", about | asdict(proof))
    return proof


def all_of(told: list[dict[str, Any]], spec: Spec, seconds: float) -> str:
    """What a proof that found no difference says."""
    differences = [one["difference"] for rank in told for case in rank.values() for step in case.get("steps", [])
                   for one in step["parameters"].values()]  # fmt: skip
    ranks = f"{spec.world_size} {'replicas' if spec.kind.one_process else 'ranks'}"
    text = f"After each of {STEPS} steps on {len(CASES)} cases, {ranks} hold single's weights: the largest difference is {max(differences):.0e} (relative), which is rounding. It took {seconds:.1f} s."
    refused = [case for case, one in told[0].items() if "refused" in one]
    return text + " It refuses a parameter that gets no gradient, as DDP does without static_graph=True." * bool(refused)


def line_of(traceback: str, strategy: str) -> str:
    """The last line of the strategy's own file in a traceback, as an ending of a sentence."""
    file = own_strategies().get(strategy) or PACKAGE / "strategies" / f"{strategy}.py"
    lines = re.findall(rf'File "{re.escape(str(file))}", line (\d+)', traceback)
    return f" ({file.name}, line {lines[-1]})" if lines else ""


def conditions_of(spec: Spec) -> dict[str, Any]:
    """What a kept proof depends on."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((PACKAGE / "proof").glob("*.py"))))
    return {"spec": spec.to_dict(), "code": code_digest(spec.strategy), "versions": versions(), "proof": digest.hexdigest()[:16]}


def proof_for(row: Spec, kept_in: Path, start: bool = True) -> Proof | None:
    """The proof that a row needs before it is trained: None for the lab's strategies, which the tests prove, and for one of one's own
    whose class says `exact = False`. A kept one is used again while its file is the same. `start`: make one if none is kept."""
    own = own_strategies().get(row.strategy)
    if own is None or not claims_equality(own.read_text(encoding="utf-8", errors="replace")):
        return None
    spec = spec_of(row.strategy, min(row.world_size, 8), {})
    kept = read_kept(kept_in / spec.name / "proof.json", conditions_of(spec))
    if kept:
        return Proof(**{key: kept[key] for key in Proof.__dataclass_fields__})
    if start:
        return held(spec, kept_in)
    raise SpecError(
        f"{row.strategy}: is not proved; call `labkit prove {row.strategy} --ranks {spec.world_size}` on the host of rank 0 first"
    )


def marks(row: Spec, proof: Proof | None) -> dict[str, bool]:
    """What the result of a row says of its proof, among what its strategy counted: nothing for the lab's strategies; for one of one's
    own whether it was proved."""
    return {"proved": proof is not None} if row.strategy in own_strategies() else {}


def claims_equality(source: str) -> bool:
    """Does a strategy claim to end at single's weights? Yes, unless its class says `exact = False`. A file that cannot be read does:
    its proof will say what is wrong."""
    try:
        classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError):
        return True
    said = [line for one in classes for line in one.body if isinstance(line, (ast.Assign, ast.AnnAssign))]
    return not any(re.fullmatch(r"exact(: bool)? = False", ast.unparse(line)) for line in said)


def my_strategies() -> Path:
    """The folder of strategies of one's own, for `%%writefile`; made if it is not there. Raises OSError where that cannot be."""
    folder = own_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be made ({error.strerror}); set LABKIT_STRATEGIES to a folder that can be written"
        ) from error
    return folder
