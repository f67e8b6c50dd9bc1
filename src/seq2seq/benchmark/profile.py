"""Where the time of a training step goes, as PyTorch's profiler sees it."""

import time
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

GROUPS = {
    "matrix products": {"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"},
    "optimizer": {"_fused_adamw_"},
    "clipping": {"linalg_vector_norm", "_foreach_norm", "_foreach_mul_"},
    "random numbers": {"random_", "bernoulli_"},
}
"""Operations of PyTorch, by what a training step of ours has them for."""

OTHERS = "other operations"
OUTSIDE = "Python and autograd"


def shares(run: Callable[[], object]) -> dict[str, float]:
    """Run something, and return which share of its time each group of operations takes on the thread that calls them.

    The profiler itself adds some microseconds to every operation, so small ones look larger than they are. Whatever is
    in no operation at all is Python, and what PyTorch's autograd does between operations.
    """
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        run()
        total = 1e6 * (time.perf_counter() - start)  # in microseconds, as in the profiler
    result = dict.fromkeys([*GROUPS, OTHERS], 0.0)
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            result[group_of(event.key.removeprefix("aten::"))] += event.self_cpu_time_total / total
    return result | {OUTSIDE: 1 - sum(result.values())}


def group_of(operation: str) -> str:
    """Return the group that an operation is counted in.

    Example:
        >>> group_of("addmm"), group_of("tanh_")
        ('matrix products', 'other operations')
    """
    return next((group for group, operations in GROUPS.items() if operation in operations), OTHERS)
