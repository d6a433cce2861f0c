"""A package of 6 GB, and what the command makes of it: weights beyond 4 GB, within a bounded memory.

The package is written as a stream: the program comes from the MIL builder with tiny stand-ins of the
tensors, whose dimension is then replaced; the blob file is written record by record.
"""

import json
import shutil
import struct
import sys

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.models.utils import load_spec

import judge
import measure

STAND_IN, SIDE, COUNT = 13, 8192, 46  # 46 fp16 matrices of 8192 x 8192: 6.17 GB
TENSOR = SIDE * SIDE * 2


def _spread(message):
    """Replaces the stand-in's dimension by the real one, wherever a shape is written."""
    for field, content in message.ListFields():
        if field.message_type is None:
            continue
        is_map = field.is_repeated and field.message_type.GetOptions().map_entry
        for each in content.values() if is_map else content if field.is_repeated else [content]:
            if not hasattr(each, "ListFields"):
                continue
            if each.DESCRIPTOR.name == "ConstantDimension" and each.size == STAND_IN:
                each.size = SIDE
            elif each.DESCRIPTOR.name == "ArrayFeatureType":
                each.shape[:] = [SIDE if s == STAND_IN else s for s in each.shape]
            _spread(each)


def _values(index):
    """The values of one matrix: the same ones in another order and scale for each."""
    base = np.random.default_rng(7).standard_normal(SIDE * 256, np.float32).astype(np.float16)
    rows = np.tile(base, SIDE // 256)
    return np.roll(rows, 97 * index) * np.float16(0.02 * (1 + index / COUNT))


def make(path):
    if path.exists():
        return path
    part = path.with_name("part-" + path.name)
    shutil.rmtree(part, ignore_errors=True)

    @mb.program(input_specs=[mb.TensorSpec((1, STAND_IN), dtype=types.fp16)], opset_version=ct.target.iOS18)
    def program(x):
        for i in range(COUNT):
            small = np.random.default_rng(i).standard_normal((STAND_IN, STAND_IN)).astype(np.float16)
            x = mb.matmul(x=x, y=mb.const(val=small, name=f"w{i}"), name=f"matmul{i}")
        return x

    ct.convert(program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18,
               compute_precision=ct.precision.FLOAT32, pass_pipeline=ct.PassPipeline.EMPTY,
               skip_model_load=True).save(str(part))
    spec = load_spec(str(part))
    _spread(spec)
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    constants = {op.outputs[0].name: op for op in block.operations if op.type == "const"}
    with open(part / judge.WEIGHTS / "weight.bin", "wb") as file:
        file.write(struct.pack("<II56x", COUNT, 2))
        for i in range(COUNT):
            offset = file.tell()
            constants[f"w{i}"].attributes["val"].blobFileValue.offset = offset
            file.write(struct.pack("<IIQQQ32x", 0xDEADBEEF, 1, TENSOR, offset + 64, 0))
            _values(i).tofile(file)
    (part / judge.PROGRAM).write_bytes(spec.SerializeToString())
    part.rename(path)
    return path


def _palettized(package, index):
    """One dense matrix, from the table and the indices in the file."""
    spec = load_spec(str(package))
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    (op,) = [op for op in block.operations if op.outputs[0].name == f"w{index}_palettized"]
    read = {}
    for name in ("indices", "lut"):
        value = op.inputs[name].arguments[0].value
        if value.WhichOneof("value") == "blobFileValue":
            reference = value.blobFileValue
            read[name] = judge.blob(package, reference.fileName, reference.offset)[1]
        else:
            read[name] = value.immediateValue.tensor.bytes.values
    packed = np.frombuffer(read["indices"], np.uint8)
    lut = np.frombuffer(read["lut"], np.float16)
    return lut[np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)]


def check(binary, cache):
    limit = 64 + 4 * TENSOR / 1e6
    package = make(cache / "big.mlpackage")
    out, dense, report = cache / "big-out.mlpackage", cache / "big-dense.mlpackage", cache / "big.json"
    print(f"\n## A package of {measure.size(package) / 1e9:.2f} GB, largest tensor {TENSOR / 1e6:.0f} MB, "
          f"4 bits; limit {limit:.0f} MB\n")
    print("| command | CPU s | wall s | peak MB | output MB |")
    print("|---|---|---|---|---|")
    failed = []
    for command, source, target, extra in (
        ("compress", package, out, ["--nbits", 4, "--report", report]), ("decompress", out, dense, []),
    ):
        cost = measure.run([binary, command, source, "-o", target, "--force", *extra])
        print(f"| {command} | {cost.cpu:.1f} | {cost.wall:.1f} | {cost.peak:.0f} | {measure.size(target) / 1e6:.0f} |",
              flush=True)
        if cost.peak > limit:
            failed.append(f"{command}: {cost.peak:.0f} MB at the peak, {limit:.0f} allowed")
    entries = {w["name"]: w for w in json.loads(report.read_text())["weights"]}
    references = judge.blob_references(dense)
    for index in (0, COUNT - 1):
        original, ours = _values(index), _palettized(out, index)
        error = float(np.sum((original.astype(np.float64) - ours.astype(np.float64)) ** 2))
        if not np.isclose(entries[f"w{index}"]["mse"], error / original.size, rtol=1e-9):
            failed.append(f"w{index}: the error in the report is not the real one")
        if error > 0.02 * float(np.sum(original.astype(np.float64) ** 2)):
            failed.append(f"w{index}: it is not the weight that was put in")
        (where,) = [place for (_, name), place in references.items() if name.startswith(f"w{index}")]
        ((file, offset),) = where
        if judge.blob(dense, file, offset)[1] != ours.tobytes():
            failed.append(f"w{index}: decompressed otherwise")
        print(f"\nw{index}: at offset {offset:,} of the decompressed file, SNR {entries[f'w{index}']['snr_db']:.1f} dB")
    for path in (out, dense):
        shutil.rmtree(path)
    if failed:
        sys.exit("\n".join(failed))
    print("\nAll checks passed.")
