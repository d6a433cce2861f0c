"""Checkpoints and modules in parts, which a cluster of one machine makes and which are put together."""

import palettizer.coreml as cto
import palettizer.torch.palettization as ctp
from torch_support import trained

from outputs.calls.case import case, net, store


def in_parts(source, out, part_bytes, **options):
    def call(given, folder):
        import palettizer.distributed.ray as ray
        config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(**options), op_name_configs={".*norm.*": None})
        report = ray.compress(given / source, config, folder / out, part_bytes=part_bytes, progress=False)
        (folder / "report.json").write_text(report.to_json())
    return call


def a_module_in_parts(make, **options):
    def call(given, folder):
        import palettizer.distributed.ray as ray
        config = ctp.PostTrainingPalettizerConfig.from_dict({"global_config": options})
        done = ray.compress(net(make), config, folder / "small.safetensors", progress=False)
        store(folder, "state.bin", done.state_dict())
    return call


for part_bytes in (1, 20_000, 1 << 30):
    case("Python, parts", f"file-{part_bytes}", in_parts("model.safetensors", "out.safetensors", part_bytes, nbits=4))
    case("Python, parts", f"shards-{part_bytes}", in_parts("shards", "out", part_bytes, nbits=3, enable_per_channel_scale=True))
for name, make in trained.NETS.items():
    case("Python, parts", name, a_module_in_parts(make, n_bits=4, lut_dtype="int8"))
