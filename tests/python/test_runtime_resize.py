"""Images in another size, and sampled between their pixels."""

import itertools

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from torch.nn.functional import affine_grid, grid_sample, interpolate

import mil
from test_runtime_shape import values

MODES = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]
SIZES = [((1, 2, 5, 7), (9, 3)), ((2, 1, 4, 6), (8, 18)), ((1, 3, 6, 4), (1, 1)), ((1, 1, 1, 2), (3, 5)), ((2, 3, 3), (3, 4)),
         ((1, 1, 2, 1), (5, 6))]


def grid_points(mode, positions, count):
    """The points that the peer's documentation gives for an axis of so many positions."""
    at = np.arange(count)
    with np.errstate(all="ignore"):
        if mode == "ALIGN_CORNERS" and count == 1:
            return np.array([(positions - 1) / 2])
        if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
            points = np.nan_to_num(at * (positions - 1) / (count - 1))
        elif mode == "DEFAULT":
            points = at * positions / count  # what (Xin - Xin/Xout) / (Xout - 1) is
        elif mode == "OFFSET_CORNERS":
            delta = max(1, positions - 1) / count
            points = 0.5 * delta + at * delta
        else:
            spacing = positions / count
            points = at * spacing + 0.5 * spacing - 0.5
    return np.clip(points, 0, positions - 1)


def shares(mode, positions, count):
    """What each point has of each position."""
    points = grid_points(mode, positions, count)
    made = np.zeros((count, positions))
    first = np.floor(points).astype(int)
    np.add.at(made, (np.arange(count), first), 1 - (points - first))
    np.add.at(made, (np.arange(count), np.minimum(first + 1, positions - 1)), points - first)
    return torch.tensor(made)


def linear(x, mode, sizes):
    for axis, size in zip(range(-len(sizes), 0), sizes):
        table = shares(mode, x.shape[axis], size).to(x.dtype)
        x = (x.movedim(axis, -1) @ table.T).movedim(-1, axis)
    return x


def images(cases, dtype):
    return [(build, {"x": values(shape, dtype, at)}, function) for at, (build, shape, function) in enumerate(cases)]


def check_images(cases, target="iOS18", differentiable=True):
    mil.check_cases(images(cases, np.float32), target, differentiable=differentiable)
    if target != "iOS15":
        mil.check_cases(images(cases, np.float16), target)


def test_points_of_the_documentation():
    points = {
        ("UNALIGN_CORNERS", 5): [0, 0.1, 0.5, 0.9, 1], ("ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
        ("STRICT_ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1], ("DEFAULT", 5): [0, 0.4, 0.8, 1, 1],
        ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9], ("UNALIGN_CORNERS", 6): [0, 0, 1 / 3, 2 / 3, 1, 1],
        ("STRICT_ALIGN_CORNERS", 6): [0, 0.2, 0.4, 0.6, 0.8, 1], ("DEFAULT", 6): [0, 1 / 3, 2 / 3, 1, 1, 1],
        ("OFFSET_CORNERS", 6): [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12],
    }
    x = np.array([[[0, 1]]], np.float32)
    for (mode, size), wanted in points.items():
        mil.check(lambda x, mode=mode, size=size: mb.resize_bilinear(
            x=x, target_size_height=1, target_size_width=size, sampling_mode=mode), {"x": x},
            lambda x, wanted=wanted: np.array([[wanted]]))


@pytest.mark.parametrize("mode", MODES)
def test_resize_bilinear(mode):
    def case(shape, sizes):
        return (lambda x: mb.resize_bilinear(
            x=x, target_size_height=sizes[0], target_size_width=sizes[1], sampling_mode=mode), shape,
            lambda x: linear(x, mode, sizes))
    check_images([case(*given) for given in [*SIZES, ((1, 2, 40, 70), (80, 333)), ((1, 2, 3, 4), (3, 4))]])


def test_upsample_bilinear():
    def case(shape, scales, **given):
        align = given.get("align_corners", True)
        halves = given.get("half_pixel_centers", not align)
        mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if halves else "DEFAULT"
        sizes = [int(np.floor(np.float32(scale) * dim)) for scale, dim in zip(scales, shape[-2:])]

        def expected(x):
            if x.ndim == 4 and mode != "DEFAULT":
                return interpolate(x.double(), size=sizes, mode="bilinear", align_corners=align).to(x.dtype)
            return linear(x, mode, sizes)
        return (lambda x: mb.upsample_bilinear(x=x, scale_factor_height=scales[0], scale_factor_width=scales[1], **given),
                shape, expected)
    scales = [(3, 4), (2.5, 2.0), (0.5, 0.75), (1.7, 2.6), (1, 1)]
    cases = [case((2, 3, 5, 8), scale, align_corners=align) for scale in scales for align in (True, False)]
    check_images(cases, "iOS15")
    check_images([*cases, case((1, 2, 3), (2, 3)), case((1, 2, 3, 4), (2, 3), align_corners=False, half_pixel_centers=False)])


def test_nearest_neighbours():
    def upsampled(shape, scales):
        sizes = [int(np.floor(np.float32(scale) * dim)) for scale, dim in zip(scales, shape[-2:])]
        return (lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=scales[0], scale_factor_width=scales[1]),
                shape, lambda x: interpolate(x, size=sizes, mode="nearest"))

    def resized(shape, sizes):
        return (lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=sizes[0], target_size_width=sizes[1]), shape,
                lambda x: interpolate(x.reshape(1, *x.shape[-3:]), size=sizes, mode="nearest-exact").reshape(
                    *x.shape[:-2], *sizes) if x.ndim == 3 else interpolate(x, size=sizes, mode="nearest-exact"))
    check_images([
        upsampled((2, 3, 4, 5), (2, 3)), upsampled((1, 1, 10, 20), (2.5, 1.5)), upsampled((1, 2, 1, 3), (3.17, 0.67)),
        upsampled((1, 1, 6, 6), (1, 1)), *(resized(*given) for given in SIZES), resized((1, 2, 10, 20), (25, 30)),
        resized((1, 2, 40, 50), (80, 200)),
    ])


@pytest.mark.parametrize("mode", MODES)
def test_resize(mode):
    def case(shape, wanted, dims, found, interpolation):
        def expected(x):
            if interpolation == "LINEAR":
                return linear(x, mode, found)
            for axis, size in zip(range(-len(found), 0), found):
                count = x.shape[axis]
                middles = np.floor((np.arange(size) + 0.5) * count / size)
                at = middles if mode in ("DEFAULT", "UNALIGN_CORNERS") else np.floor(grid_points(mode, count, size) + 0.5)
                x = x.index_select(axis, torch.tensor(np.minimum(at, count - 1)).long())
            return x
        return (lambda x: mb.resize(x=x, shape=wanted, resized_dims=np.uint32(dims), sampling_mode=mode,
                                    interpolation_mode=interpolation), shape, expected)
    cases = [((1, 2, 3, 4), [1, 6, 8], 2, (6, 8)), ((1, 2, 3, 4), [0, 5], 2, (3, 5)), ((2, 3, 4), [3, 6, 2], 3, (3, 6, 2)),
             ((5,), [8], 1, (8,)), ((1, 1, 1, 2, 1), [1, 1, 3, 2], 2, (3, 2))]
    check_images([case(*given, kind) for given in cases for kind in ("LINEAR", "NEAREST_NEIGHBOR")])


def test_resize_of_other_kinds():
    x = np.array([[[-6174, 9371]]], np.int32)
    mil.check(lambda x: mb.resize(x=x, shape=[1, 5], resized_dims=np.uint32(2), interpolation_mode="LINEAR"), {"x": x},
              lambda x: np.array([[[-6174, 44, 6262, 9371, 9371]]]))
    # what the devices give for nearest neighbours
    mil.check(lambda x: mb.resize(x=x, shape=[1, 3], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"), {"x": x},
              lambda x: np.array([[[-6174, 9371, 9371]]]))
    inputs = {"x": values((1, 2, 3, 4)), "shape": np.array([6, 0], np.int32)}
    mil.check(lambda x, shape: mb.resize(x=x, shape=shape, resized_dims=np.uint32(2)), inputs,
              lambda x, shape: linear(torch.tensor(x), "DEFAULT", (6, 4)).numpy())


def test_what_has_no_share_may_be_infinite():
    x = np.array([[[1, np.inf, np.nan]]], np.float32)
    found = mil.run(lambda x: mb.resize_bilinear(
        x=x, target_size_height=1, target_size_width=5, sampling_mode="ALIGN_CORNERS"), {"x": x})[0]
    np.testing.assert_array_equal(found, [[[1, np.inf, np.inf, np.nan, np.nan]]])


def test_crop():
    def case(shape, height, width):
        return (lambda x: mb.crop(x=x, crop_height=height, crop_width=width), shape,
                lambda x: x[..., height[0]:shape[-2] - height[1], width[0]:shape[-1] - width[1]])
    check_images([case((1, 2, 4, 5), [0, 1], [1, 1]), case((2, 3, 4), [1, 2], [0, 0])])


def sampled(x, pixels, beyond, nearest, outside):
    """torch's `grid_sample` at points given in pixels."""
    sizes = torch.tensor([x.shape[3], x.shape[2]], dtype=x.dtype)
    align = beyond != "symmetric"
    points = 2 * pixels / (sizes - 1) - 1 if align else (2 * pixels + 1) / sizes - 1
    padding = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}[beyond]
    shift = outside if beyond == "constant" else 0
    return grid_sample(x - shift, points, "nearest" if nearest else "bilinear", padding, align) + shift


def to_pixels(coordinates, sizes, mode, align):
    sizes = torch.tensor(sizes, dtype=coordinates.dtype)
    if mode == "unnormalized":
        return coordinates
    if mode == "normalized_minus_one_to_one":
        coordinates = (coordinates + 1) / 2
    return coordinates * (sizes - 1) if align else coordinates * sizes - 0.5


@pytest.mark.parametrize("beyond", ["constant", "border", "reflection", "symmetric"])
def test_resample(beyond):
    def case(mode, align, nearest, shape=(2, 3, 5, 4), out=(3, 6)):
        spread = {"unnormalized": (-8, 12), "normalized_minus_one_to_one": (-3, 3), "normalized_zero_to_one": (-1.5, 2.5)}[mode]
        coordinates = np.random.default_rng(3).uniform(*spread, (shape[0], *out, 2)).astype(np.float32)

        def expected(x, coordinates):
            return sampled(x, to_pixels(coordinates, (shape[3], shape[2]), mode, align), beyond, nearest, 2.5)
        return (lambda x, coordinates: mb.resample(
            x=x, coordinates=coordinates, sampling_mode="nearest" if nearest else "bilinear", padding_mode=beyond,
            padding_value=np.float32(2.5), coordinates_mode=mode, align_corners=align),
            {"x": values(shape), "coordinates": coordinates}, expected)
    modes = ["unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one"]
    cases = [case(*given) for given in itertools.product(modes, (True, False), (True, False))]
    cases.append(case(modes[1], True, False, (1, 2, 30, 40), (150, 160)))
    mil.check_cases(cases, "iOS15", differentiable=True)


def test_resample_at_whole_and_at_no_numbers():
    x = np.array([[[[11, 22], [33, 44]]]], np.float32)

    def build(x, coordinates):
        return mb.resample(x=x, coordinates=coordinates, sampling_mode="bilinear", padding_mode="constant",
                           padding_value=np.float32(6.5), coordinates_mode="unnormalized", align_corners=True)
    mil.check(build, {"x": x, "coordinates": np.array([[[[0, 1], [1, 1], [2, 0]]]], np.int32)},
              lambda x, coordinates: np.array([[[[33, 44, 6.5]]]]))
    mil.check(build, {"x": x, "coordinates": np.array([[[[np.nan, 1], [np.inf, 1], [3e38, 0]]]], np.float32)},
              lambda x, coordinates: np.full((1, 1, 1, 3), 6.5))


@pytest.mark.parametrize("align", [True, False])
def test_affine(align):
    def case(shape, matrices, out):
        def expected(x, matrix):
            matrix = matrix.reshape(-1, 2, 3).expand(shape[0], 2, 3)
            grid = affine_grid(matrix, [shape[0], shape[1], *out], align)
            return grid_sample(x, grid, "bilinear", "zeros", align)
        return (lambda x, matrix: mb.affine(
            x=x, transform_matrix=matrix, output_height=out[0], output_width=out[1], sampling_mode="bilinear",
            padding_mode="constant", padding_value=np.float32(0), coordinates_mode="normalized_minus_one_to_one",
            align_corners=align), {"x": values(shape), "matrix": matrices}, expected)
    near = np.array([[0.9, 0.2, 0.1, -0.3, 1.1, 0.05]], np.float32)
    two = np.concatenate([near, np.array([[-1.2, 0.4, 0, 0.1, 0.7, -0.2]], np.float32)])
    far = np.array([[-1.0, -2.0, -3.7, -1.0, 3.5, 1.2]], np.float32)
    mil.check_cases([case((2, 3, 4, 5), near, (6, 7)), case((2, 2, 5, 3), two, (4, 4)), case((1, 1, 2, 2), far, (3, 3)),
                     case((1, 1, 4, 4), near, (1, 3))], "iOS15", differentiable=True)


def boxed(x, boxes, image, order, scale, mode, size, outside):
    """Boxes cut out of images, each number of them a tensor."""
    made = []
    for box, images in zip(boxes, image):
        box = box[[1, 0, 3, 2]] if order.endswith("WIDTH_FIRST") else box
        box = box * torch.tensor([*scale, *scale], dtype=x.dtype)
        if order.startswith("CENTER"):
            box = torch.cat([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
        sides = []
        for axis in (0, 1):
            begin, end = box[axis], box[axis + 2]
            positions, count = end - begin + 1, size[axis]
            at = torch.arange(count, dtype=x.dtype)
            if mode == "ALIGN_CORNERS" and count == 1:
                points = (begin + end).reshape(1) / 2
            elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
                points = begin + at * (positions - 1) / max(count - 1, 1)
            elif mode == "OFFSET_CORNERS":
                points = begin + (at + 0.5) * torch.clamp(positions - 1, min=1) / count
            else:
                middle = 0.5 * positions / count - 0.5 if mode == "UNALIGN_CORNERS" else 0
                points = begin + at * positions / count + middle
            sides.append(torch.minimum(torch.maximum(points, begin), end) if mode != "ALIGN_CORNERS" else points)
        rows, columns = torch.meshgrid(*sides, indexing="ij")
        of = x[images]
        found = sampled(of, torch.stack([columns, rows], -1).expand(len(of), *size, 2), "border", False, 0)
        inside = (rows >= 0) & (rows <= x.shape[2] - 1) & (columns >= 0) & (columns <= x.shape[3] - 1)
        made.append(torch.where(inside, found, torch.tensor(outside, dtype=x.dtype)) if outside is not None else found)
    return torch.stack(made)


ORDERS = ["CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST"]


def draw_boxes(order, normalized, count=3):
    rng = np.random.default_rng(11)
    begin, length = rng.uniform(-0.1, 0.5, (count, 2)), rng.uniform(0.3, 0.6, (count, 2))
    boxes = np.concatenate([begin + length / 2, length] if order.startswith("CENTER") else [begin, begin + length], 1)
    return (boxes * (1 if normalized else 5)).astype(np.float32)


def cut(target, mode, order, normalized, spatial, size, with_images):
    # of a box with a number of its image, the peer's builder takes the output to have all images
    one_image = with_images and target != "iOS17"
    shape = (1 if one_image else 2, 3, 6, 7)
    boxes = draw_boxes(order, normalized)
    scale = [spatial * (dim - 1 if normalized else 1) for dim in shape[2:]]
    outside = None if target == "iOS15" else 1.5
    given = {"target_height": size[0], "target_width": size[1], "normalized_coordinates": normalized,
             "spatial_scale": np.float32(spatial), "box_coordinate_mode": order, "sampling_mode": mode}
    if outside is not None:
        given["pad_value"] = np.float32(outside)
    numbers = [0, 0, 0] if one_image else [1, 0, 1]
    image = [[number] for number in numbers] if with_images else [[0, 1]] * 3
    if target in ("iOS15", "iOS16"):
        def build(x, boxes):
            roi = mb.reshape(x=boxes, shape=[3, 1, 4, 1, 1])
            if with_images:
                first = np.array(numbers, np.float32).reshape(3, 1, 1, 1, 1)
                roi = mb.concat(values=[first, roi], axis=2)
            return mb.crop_resize(x=x, roi=roi, **given)
        join = lambda found: found  # noqa: E731
    else:
        def build(x, boxes):
            return mb.crop_resize(x=x, boxes=boxes, box_indices=np.array(numbers, np.int32), **given)
        join = lambda found: found[:, 0]  # noqa: E731
    return (build, {"x": values(shape), "boxes": boxes},
            lambda x, boxes: join(boxed(x, boxes, image, order, scale, mode, size, outside)))


@pytest.mark.parametrize("target", ["iOS15", "iOS16", "iOS17"])
def test_crop_resize(target):
    cases = [cut(target, mode, order, normalized, spatial, size, target != "iOS15" or size == (3, 4))
             for mode in MODES for order in ORDERS
             for normalized, spatial, size in [(False, 1.0, (3, 4)), (True, 0.75, (2, 1))]]
    mil.check_cases(cases, target, differentiable=True)


def test_crop_resize_as_the_devices():
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
    boxes = np.array([[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]], np.float32)
    wanted = np.array([3.1, 5.2, 10.0, 10.0, 10.0, 7.9, 10.0, 13.9, 2.2, 3.1, 9.4, 10.3]).reshape(3, 1, 2, 2)
    mil.check(lambda x, boxes: mb.crop_resize(
        x=x, boxes=boxes, box_indices=[0, 0, 0], target_height=2, target_width=2, normalized_coordinates=True,
        sampling_mode="ALIGN_CORNERS", pad_value=np.float32(10)), {"x": x, "boxes": boxes}, lambda x, boxes: wanted)
    roi = np.array([2, 2, 1, 1], np.float32).reshape(1, 1, 4, 1, 1)
    mil.check(lambda x, roi: mb.crop_resize(x=x, roi=roi, target_height=2, target_width=2, sampling_mode="ALIGN_CORNERS"),
              {"x": x, "roi": roi}, lambda x, roi: np.array([11, 10, 7, 6]).reshape(1, 1, 1, 2, 2), "iOS15")


@pytest.mark.parametrize(("build", "message"), [
    (lambda x, n: mb.resize(x=x, shape=n, resized_dims=np.uint32(1)), "expected none below 0"),
    (lambda x, n: mb.resize(x=x, shape=mb.mul(x=n, y=-(2**29)), resized_dims=np.uint32(2)), "memory|bytes"),
    (lambda x, n: mb.crop_resize(x=x, boxes=np.ones((2, 4), np.float32), box_indices=n), "a box is of image"),
    (lambda x, n: mb.resize_bilinear(x=x, target_size_height=2**31 - 1, target_size_width=2**31 - 1), "memory|bytes"),
])
def test_what_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        mil.run(build, {"x": values((1, 1, 2, 2)), "n": np.array([-2, -2], np.int32)})
