"""Every rank trains its shard of images and keeps a shard of the parameters, gradients and momentum.

`fully_shard` (torch's FSDP2; Zhao et al., 2023, after ZeRO: Rajbhandari et al., 2020) gathers a block's parameters just
before they are used, and reduce-scatters its gradients. One step of a model with two blocks, time from left to right.
A: all-gather of the block's parameters, F: forward, B: backward, R: reduce-scatter of its gradients, x: the gathered
parameters are freed (resharded). U: update; each rank updates its own shard only.

    sharding=grad   A0 F0      A1 F1          B1 R1 x1      B0 R0 x0   U     one gather a step; all are whole from forward on
    sharding=full   A0 F0 x0   A1 F1 x1   A1  B1 R1 x1  A0  B0 R0 x0   U     a second gather; few blocks are whole at a time

On CUDA torch starts A and R early, so that these messages are sent while another block computes. Gloo has no reduce-scatter: torch
makes R an all-reduce there, and keeps a part. So with P bytes of parameters two ranks send 1.5 P (grad) and 2 P (full) over gloo,
and P and 1.5 P over NCCL.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from labkit.rows.spec import Spec
from labkit.strategy import Place, Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers, refuse_tied


class FSDP:
    """A strategy. `labkit.strategy.Strategy` says what `shard`, `step` and `state` mean."""

    def __init__(self, model: nn.Sequential, spec: Spec, place: Place):
        self.shard = (place.rank, place.processes)
        self.model = model.to(memory_format=torch.contiguous_format)  # fully_shard takes no other; images may still be NHWC
        broadcast_from_rank0([*model.parameters(), *model.buffers()])  # fully_shard does not; DDP does
        mesh = init_device_mesh(place.device.type, (place.processes,))
        # torch 2.14 refuses this by itself; 2.11 trains on, to other weights than single's.
        refuse_tied(model, "blocks: fully_shard manages each parameter in one")
        for block in model:
            if any(p.requires_grad for p in block.parameters()):
                fully_shard(block, mesh=mesh, reshard_after_forward=spec.sharding == "full")
        fully_shard(model, mesh=mesh, reshard_after_forward=spec.sharding == "full")
        self.optimizer = make_optimizer(model, spec)  # after fully_shard: the parameters are shards now, and so is the momentum
        self.precision = Precision(spec, place, sharded=True)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One update from this rank's images x (b, c, h, w) and labels y (b,). Returns their mean loss."""
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self) -> dict[str, Tensor]:
        """The full weights and buffers, under the model's own names: every rank gathers every shard."""
        full = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in self.model.state_dict().items()}
        return {**full, **rank0_buffers(self.model)}
