"""A GPU that is not there: its tensors have a device and a shape as on one, and the values that a CPU works out.

FakeTensorMode refuses what a GPU refuses, an operation on tensors of two devices. But it has no values, and a sampler
that looks at a noise level could not go on. So every operation is done twice: on the fake tensors, and with their
values on the CPU.
"""

import contextlib
import functools
import sys

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
MEMORY = 80 * 2**30
MATH = 0  # the attention that is made of other operations; a GPU's kernels have no values on a CPU
aten = torch.ops.aten


def _addmm_activation(bias, x, weight, use_gelu):
    """On a GPU its GELU is tanh's form, on a CPU it is not."""
    assert use_gelu
    return torch.nn.functional.gelu(torch.addmm(bias, x, weight), approximate="tanh")


KERNELS = {aten._addmm_activation.default: _addmm_activation}  # what differs on a GPU


class FakeGPU(TorchDispatchMode):
    """Inside the block tensors may be on "cuda". Real ones that are met there count as tensors of the CPU.

    `waits` notes what a GPU is waited for: (what for, device it goes to). It would first finish all that is queued.
    """

    def __init__(self):
        super().__init__()
        self.fake, self.waits = _mode(), []

    def __enter__(self):
        forget()
        self.fake.__enter__()
        self._swap, torch.utils.swap_tensors = torch.utils.swap_tensors, _swap
        FakeTensor.numpy = _numpy
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        torch.utils.swap_tensors = self._swap
        del FakeTensor.numpy
        forget()
        return self.fake.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is aten._fused_sdp_choice.default:
            return MATH
        args, kwargs = tree_map(self._faked, (args, kwargs or {}))
        real_args, real_kwargs = tree_map(_real, (args, kwargs))
        out, dynamic = None, func is aten._local_scalar_dense.default
        if not dynamic:
            try:
                out = func(*args, **kwargs)
            except DynamicOutputShapeException:
                dynamic = True
        with no_dispatch():
            real = KERNELS.get(func, func)(*real_args, **real_kwargs)
        self._note(func, args, kwargs, out, dynamic)
        if dynamic:
            return tree_map(lambda each: self.place(each, args[0].device), real)
        for one, other in zip(tree_leaves(out), tree_leaves(real)):
            if isinstance(one, FakeTensor):
                one.values = other
        return out

    def place(self, each, device=GPU):
        """A tensor as one on `device`; whatever else as it is."""
        if not isinstance(each, torch.Tensor):
            return each
        with no_dispatch():
            values = _real(each).detach()
        with self.fake:
            fake = torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=device)
        fake.values = values
        return fake

    def _faked(self, each):
        return each if isinstance(each, FakeTensor) else self.place(each, CPU)

    def _note(self, func, args, kwargs, out, dynamic):
        if dynamic:
            if args[0].is_cuda:
                self.waits.append(("a value", CPU))
        elif func in (aten._to_copy.default, aten.copy_.default):
            source = args[0] if func is aten._to_copy.default else args[1]
            if source.device != out.device and not kwargs.get("non_blocking"):
                self.waits.append(("a copy", out.device))


@functools.cache
def _mode():
    """One for all, as fake tensors of two do not mix."""
    return FakeTensorMode()


def forget():
    """Clears the pack's caches, which would hand on real tensors to a FakeGPU, and fake ones to who comes behind it."""
    for name, module in list(sys.modules.items()):
        for function in list(vars(module).values()) if name.startswith("opensora_comfy.") else ():
            if hasattr(function, "cache_clear") and function.__name__ != "hosted":  # which makes classes
                function.cache_clear()


def on_cpu(fake):
    """The values of a fake tensor."""
    return fake.values


def _real(each):
    if isinstance(each, FakeTensor):
        return each.values
    return CPU if isinstance(each, torch.device) else each


def _numpy(fake):
    if fake.device != CPU:
        raise TypeError(f"a tensor on {fake.device} is no array")
    with no_dispatch():
        return fake.values.numpy()


def _swap(parameter, moved):
    """What Module.to does to a parameter that is fake already; PyTorch refuses it where somebody looks at that."""
    assert (parameter.shape, parameter.dtype) == (moved.shape, moved.dtype)
    parameter.fake_device, parameter.values = moved.fake_device, moved.values


def comfyui_on_gpu(monkeypatch, share=1.0, everywhere=False):
    """Lets ComfyUI load onto GPU what is loaded from now on, of each model that share of its bytes.

    `everywhere`: what passes between nodes is on the GPU too, as with --gpu-only.
    """
    import comfy.k_diffusion.sampling as sampling
    import comfy.model_management as management

    noise_of = sampling.default_noise_sampler

    def noise_on_cpu(x, seed=None):
        """There are no random numbers without a GPU."""
        draw = noise_of(torch.empty(x.shape), seed)
        return lambda *levels: draw(*levels).to(x)

    def memory(dev=None, **and_torchs):
        return (MEMORY, MEMORY) if and_torchs else MEMORY

    loading = management.LoadedModel.model_load

    def partly(self, lowvram_model_memory=0, *more, **named):
        size = 0 if share == 1 else max(1, int(self.model.model_size() * share))  # 0: all of it
        return loading(self, size, *more, **named)

    given = {
        "get_torch_device": lambda: GPU,
        "get_free_memory": memory,
        "get_total_memory": memory,
        "soft_empty_cache": lambda force=False: None,
        "should_use_bf16": lambda *arguments, **named: True,
        "should_use_fp16": lambda *arguments, **named: True,
        "vram_state": management.VRAMState.NORMAL_VRAM,
        "current_loaded_models": [],
        "cuda_device_context": lambda device: contextlib.nullcontext(),  # of newer versions
    }
    if everywhere:
        given |= {"intermediate_device": lambda: GPU, "text_encoder_device": lambda: GPU}
    for name, value in given.items():
        monkeypatch.setattr(management, name, value, raising=False)
    monkeypatch.setattr(management.LoadedModel, "model_load", partly)
    monkeypatch.setattr(sampling, "default_noise_sampler", noise_on_cpu)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *device: None)
