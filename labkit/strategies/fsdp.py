"""Every rank trains its shard of images and keeps a shard of the parameters, gradients and momentum.

`fully_shard` (torch's FSDP2; Zhao et al., 2023, after ZeRO: Rajbhandari et al., 2020) gathers a block's parameters
just before they are used and reduce-scatters its gradients. sharding=full frees them after forward and gathers
again for backward; sharding=grad keeps them, which saves one gather and costs the memory.
"""

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from labkit.strategy import Precision, broadcast_from_rank0, forward_backward, make_optimizer, rank0_buffers, refuse_tied


class FSDP:
    def __init__(self, model, spec, place):
        self.shard = (place.rank, place.processes)
        self.model = model.to(memory_format=torch.contiguous_format)  # all that fully_shard takes; images may still be NHWC
        broadcast_from_rank0([*model.parameters(), *model.buffers()])  # fully_shard does not; DDP does
        how = {"mesh": init_device_mesh(place.device.type, (place.processes,)), "reshard_after_forward": spec.sharding == "full"}
        # torch 2.14 refuses this by itself; 2.11 trains on, to other weights than single's.
        refuse_tied(model, "blocks: fully_shard manages each parameter in one")
        for block in model:
            if any(p.requires_grad for p in block.parameters()):
                fully_shard(block, **how)
        fully_shard(model, **how)
        self.optimizer = make_optimizer(model, spec)
        self.precision = Precision(spec, place, sharded=True)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = forward_backward(self.model, x, y, self.precision)
        self.precision.step(self.optimizer)
        return loss

    def state(self):
        full = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in self.model.state_dict().items()}
        return {**full, **rank0_buffers(self.model)}
