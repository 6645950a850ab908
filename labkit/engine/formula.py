"""The bytes that a rank sends for a message, by the algorithm. Without torch, so that tables can use it."""


def sent_by_formula(verb: str, payload_bytes: float, ranks: int, backend: str = "gloo") -> float | None:
    """Bytes that each of `ranks` ranks sends for a payload (see `engine.counted.Counter`); None if it is not the same for each rank.

    An all-reduce is a reduce-scatter and an all-gather, (N-1)/N of the payload each (Patarasuk and Yuan, 2009). Gloo has no
    reduce-scatter of its own: torch makes an all-reduce of it, and keeps a part (torch 2.14, ProcessGroupGloo.cpp)."""
    part = (ranks - 1) / ranks * payload_bytes
    reduce_scatter = 2 * part if backend == "gloo" else part
    known = {"all_reduce": 2 * part, "all_gather": part, "reduce_scatter": reduce_scatter, "all_to_all": part}
    return (known | {"send": payload_bytes, "recv": 0.0, "barrier": 0.0}).get(verb)
