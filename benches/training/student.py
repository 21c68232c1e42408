"""The measured student in PyTorch, with the weights of `distill/kernels/tests/common/student.rs`.

    student.py speed THREADS SECONDS default|channels_last [BATCH] [other]   losses of 10 steps, then images/s
    student.py fixture > distill/kernels/tests/fixtures/student.txt   losses and gradients of a small student
"""
import json, resource, sys, time
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F


def noise(count, salt):
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761)
        x += np.uint32(salt * 2246822519 % 2**32)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(2246822519)
        x = (x ^ (x >> np.uint32(13))) * np.uint32(3266489917)
        x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


class ConvNorm(nn.Module):
    def __init__(self, i, o, k=1, s=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return self.bn(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.expand = ConvNorm(i, 4 * i)
        self.depthwise = ConvNorm(4 * i, 4 * i, 3, s, 4 * i)
        self.project = ConvNorm(4 * i, o)
        self.shortcut = i == o and s == 1

    def forward(self, x):
        y = self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))
        return x + y if self.shortcut else y


class Attention(nn.Module):
    def __init__(self, c, heads, side, table):
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.qkv = nn.Linear(c, 3 * c)
        if table:
            self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
            y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
            y, x = y.flatten(), x.flatten()
            self.index = (y[:, None] - y).abs() * side + (x[:, None] - x).abs()
        self.proj = nn.Linear(c, c)
        self.heads, self.table = heads, table

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = self.attention_biases[:, self.index] if self.table else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.proj(y.transpose(1, 2).reshape(b, n, c))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(c)
        self.fc1 = nn.Linear(c, 4 * c)
        self.fc2 = nn.Linear(4 * c, c)

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Student(nn.Module):
    def __init__(self, size=64, widths=(32, 64, 128), heads=4, blocks=2, classes=100, table=False):
        super().__init__()
        a, b, c = widths
        self.stem = nn.ModuleList([ConvNorm(3, a, 3, 2), ConvNorm(a, b, 3, 2)])
        self.stage = nn.ModuleList([Bottleneck(b, b, 1), Bottleneck(b, c, 2)])
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"attn": Attention(c, heads, size // 8, table), "mlp": Mlp(c)}) for _ in range(blocks))
        self.norm = nn.LayerNorm(c)
        self.head = nn.Linear(c, classes)
        names = [n for n in self.state_dict() if "num_batches" not in n]
        state = {}
        # The order of the Rust builder is that of execution; here the biases' table comes first.
        for name in names:
            if name.endswith("attention_biases"):
                names.remove(name)
                names.insert(names.index(name.replace("attention_biases", "proj.weight")), name)
        for salt, name in enumerate(names):
            p = self.state_dict()[name]
            x = torch.from_numpy(noise(p.numel(), salt)).view(p.shape)
            if name.endswith("running_mean"):
                x = torch.zeros_like(x)
            elif name.endswith("running_var"):
                x = torch.ones_like(x)
            elif name.endswith("weight") and p.dim() > 1:
                x = x * (3 / p[0].numel()) ** 0.5
            elif name.endswith("weight"):
                x = 1 + 0.1 * x
            else:
                x = 0.1 * x
            state[name] = x
        self.load_state_dict(state, strict=False)

    def forward(self, x):
        for stem in self.stem:
            x = F.gelu(stem(x))
        for stage in self.stage:
            x = stage(x)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block["mlp"](block["attn"](x))
        return self.head(self.norm(x.mean(1)))


def images(batch, size):
    x = torch.from_numpy(noise(batch * size * size * 3, 1000)).view(batch, size, size, 3)
    return x.permute(0, 3, 1, 2)


def training(model, x, classes):
    labels = torch.arange(len(x)) * 7 % classes
    decayed = [p for n, p in model.named_parameters() if p.dim() > 1 and n.endswith("weight")]
    others = [p for n, p in model.named_parameters() if not (p.dim() > 1 and n.endswith("weight"))]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)

    def step():
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def speed(threads, seconds, layout, batch, other):
    torch.set_num_threads(threads)
    # The other student has sizes that suit no vectors, and more attention.
    size, classes = (96, 10) if other else (64, 100)
    model, x = Student(96, (20, 44, 132), 3, 4, 10) if other else Student(), images(batch, size)
    if layout == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    else:
        x = x.contiguous()
    step = training(model, x, classes)
    losses = [round(step(), 6) for _ in range(10)]
    times, start, cpu = [], time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        t = time.perf_counter()
        step()
        times.append(time.perf_counter() - t)
    cpu = 1e3 * (time.process_time() - cpu) / len(times)
    times.sort()
    at = lambda share: round(batch / times[int(share * len(times))], 1)
    print(json.dumps({
        "engine": f"pytorch {layout}", "threads": threads, "batch": batch,
        "parameters": sum(p.numel() for p in model.parameters()), "median": at(0.5), "p10": at(0.1),
        "best": at(0), "steps": len(times), "cpu_ms": round(cpu, 1),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, "losses": losses}))


def fixture():
    """Losses of ten steps of a small student, and per parameter the gradient of the first step: its norm and
    its product with noise."""
    model, x = Student(32, (8, 12, 16), 2, 2, 10, True), images(8, 32)
    step = training(model, x, 10)
    losses = [step()]
    for name, p in model.named_parameters():
        g = p.grad.double().flatten()
        along = g @ torch.from_numpy(noise(len(g), 500)).double()
        print(f"gradient {name} {g.norm().item():.9e} {along.item():.9e}")
    losses += [step() for _ in range(9)]
    for loss in losses:
        print(f"loss {loss:.9e}")
    # With first weights: some gradients are nothing but rounding (of a shift that the next batch norm takes
    # away), from which AdamW makes whole steps that only running statistics can see.
    model = Student(32, (8, 12, 16), 2, 2, 10, True)
    model(x)
    model.eval()
    print(f"eval {F.cross_entropy(model(x), torch.arange(8) * 7 % 10).item():.9e}")


if __name__ == "__main__":
    if sys.argv[1] == "fixture":
        fixture()
    if sys.argv[1] == "speed":
        numbers = [a for a in sys.argv[2:] if a != "other"]
        batch = int(numbers[3]) if len(numbers) > 3 else 64
        speed(int(numbers[0]), float(numbers[1]), numbers[2], batch, "other" in sys.argv)
